"""The prediction against SGD that knows nothing of it, the paper's trends, and what is refused."""

import json
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from contam.rng import generator_for
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.population import Neurons, Prediction, predict_contamination
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import simulate
from contam.theory.weights import Beta, TwoPoint, Uniform, Weights

LINEAR, RELU = "identity", "relu"
ZERO_TO_ONE = Uniform()


def predict(
    *,
    core: int = 32,
    background: int = 32,
    dimension: int = 256,
    weights: Weights = ZERO_TO_ONE,
    seed: int = 0,
    neurons: int = 4096,
    report_at=None,
    start: Neurons | None = None,
    **fields,
) -> Prediction:
    """The prediction of a setting whose core and background weights have one distribution."""
    data = DataModel(FeatureModel(core, background, dimension), weights, weights)
    return predict_contamination(
        Setting(data=data, **fields), seed=seed, neurons=neurons, report_at=report_at, start=start
    )


def start(features, dimension, width, seed):
    draws = generator_for(seed, f"start {features} {width}")
    u = torch.randn(width, features, generator=draws) / math.sqrt(dimension)
    return u, (torch.randint(2, (width,), generator=draws) * 2.0 - 1) / width


def examples(draws, count, features, low=0.0):
    y = torch.randint(2, (count,), generator=draws) * 2.0 - 1
    f = torch.rand(count, features, generator=draws)
    f[:, : features // 2] *= y[:, None]
    f[:, features // 2 :] += low
    return f, y


def sgd(u, a, *, steps, step_size, batch, activation, seed, report_at):
    """U, V, ID and OOD hinge risk and 0-1 error of SGD on fresh batches, at the steps asked for."""
    draws, features, rows = generator_for(seed, "sgd"), u.shape[1], {}
    for step in range(steps + 1):
        if step in report_at:
            core, background = u[:, : features // 2].sum(1), u[:, features // 2 :].sum(1)
            rows[step] = [float((a.sign() * core).mean()), float(background.mean())]
            for low in (0.0, -1.0):
                f, y = examples(generator_for(seed, f"test {low}"), 8192, features, low)
                h = f @ u.T
                h = y * ((h.relu() if activation == RELU else h) @ a)
                rows[step] += [float((1 - h).relu().mean()), float((h <= 0).float().mean())]
        f, y = examples(draws, batch, features)
        preactivations = f @ u.T
        active = (preactivations >= 0).float() if activation == RELU else torch.ones(batch, len(u))
        inside = y * (y * ((preactivations * active) @ a) <= 1) / batch
        gradient = -a[:, None] * ((active * inside[:, None]).T @ f)
        u = (1 - step_size * 1e-3) * u - step_size * gradient
    return torch.tensor([rows[step] for step in report_at])


@cache
def both(features, width, step_size=1.0, *, steps=200, batch=500, activation=RELU, report_at=(200,),
         seeds=4):  # fmt: skip
    """Prediction and SGD from the same weights: means over seeds, (reported steps, six numbers)."""
    predicted, simulated = [], []
    for seed in range(seeds):
        u, a = start(features, 4 * features, width, seed)
        prediction = predict(
            core=features // 2,
            background=features // 2,
            dimension=4 * features,
            width=width,
            step_size=step_size,
            steps=steps,
            activation=activation,
            report_at=report_at,
            start=Neurons.read(u, a, core=features // 2),
        )
        predicted.append([[p.U, p.V, p.id_hinge, p.id_error, p.ood_hinge, p.ood_error]
                     for p in prediction.curve])  # fmt: skip
        simulated.append(
            sgd(u, a, steps=steps, step_size=step_size, batch=batch, activation=activation,
                seed=seed, report_at=report_at)
        )  # fmt: skip
    return torch.tensor(predicted).mean(0), torch.stack(simulated).mean(0)


def agree(predicted, simulated):
    """Acceptance A7, with hinge risk in distribution beside it."""
    assert predicted[0] == pytest.approx(simulated[0], rel=0.01), "U"
    assert predicted[1] == pytest.approx(simulated[1], rel=0.01), "V"
    assert predicted[2] == pytest.approx(simulated[2], abs=0.002), "ID hinge"
    assert predicted[4] == pytest.approx(simulated[4], abs=0.012), "OOD hinge"


@pytest.mark.parametrize(
    ("features", "width", "step_size", "steps", "batch"),
    [
        pytest.param(64, 256, 1.0, 200, 500, marks=pytest.mark.slow),
        pytest.param(512, 512, 0.25, 200, 128, marks=pytest.mark.slow),
        pytest.param(2048, 1024, 0.5, 50, 64, marks=pytest.mark.slow),
    ],
)
def test_prediction_matches_sgd(features, width, step_size, steps, batch):
    """All three have step_size * steps * features / width = 50, which is how far training gets."""
    predicted, simulated = both(
        features, width, step_size, steps=steps, report_at=(steps,), batch=batch
    )
    agree(predicted[-1].tolist(), simulated[-1].tolist())


@pytest.mark.slow
def test_prediction_matches_sgd_during_training():
    predicted, simulated = both(64, 256, report_at=(0, 5, 20, 50, 100, 200))
    for column, allowed in enumerate((0.02, 0.02, 0.004, 0.02, 0.004, 0.01)):
        assert float((predicted - simulated)[:, column].abs().max()) < allowed
    assert float(simulated[:, 5].max() - simulated[:, 5].min()) > 0.3


@pytest.mark.slow
def test_the_comparison_fails_for_another_setting():
    """A prediction for slightly other data, or for half of the steps, is no longer SGD's."""
    _, simulated = both(64, 256, report_at=(0, 5, 20, 50, 100, 200))
    for other in (
        {"weights": Uniform(0.04, 1.0)},
        {"weights": Beta(0.75, 0.75)},
        {"steps": 100},
        {"dimension": 160},
    ):
        final = predict(**{"steps": 200, **other}, report_at=[]).final
        predicted = [
            final.U,
            final.V,
            final.id_hinge,
            final.id_error,
            final.ood_hinge,
            final.ood_error,
        ]
        with pytest.raises(AssertionError):
            agree(predicted, simulated[-1].tolist())


@pytest.mark.slow
def test_linear_networks_do_not_learn_the_background():
    predicted, simulated = both(64, 256, activation=LINEAR)
    assert float((predicted - simulated).abs().max()) < 0.006
    assert abs(float(predicted[-1, 1])) < 0.08
    whole = predict(activation=LINEAR)
    norms = [point.background_norm for point in whole.curve]
    assert norms[-1] == pytest.approx(norms[0] * (1 - 1e-3) ** 200, rel=0.02)
    assert abs(whole.final.ood_hinge - whole.final.id_hinge) < 0.003
    assert whole.final.worst_hinge == pytest.approx(whole.final.id_hinge, abs=0.003)


@pytest.mark.slow
def test_ood_risk_grows_with_the_number_of_features():
    predicted, simulated = (torch.cat(column)[:, 4].tolist() for column in zip(
        both(16, 64), both(64, 256), both(256, 512, 0.5, batch=100), strict=True
    ))  # fmt: skip
    for risks in (predicted, simulated):
        assert risks[0] + 0.02 < risks[1] < risks[2] - 0.02


@pytest.mark.parametrize(
    ("features", "dimension", "expected"),
    [
        (64, 256, 0.056),
        pytest.param(4096, 131_072, 0.010, marks=pytest.mark.slow),
        pytest.param(4096, 16_384, 0.021, marks=pytest.mark.slow),
        pytest.param(65_536, 2**23, 0.004, marks=pytest.mark.slow),
        pytest.param(2**20, 2**29, 0.002, marks=pytest.mark.slow),
        pytest.param(2**20, 2**22, 0.021, marks=pytest.mark.slow),
    ],
)
def test_the_other_class_rate_vanishes_for_d_much_larger_than_d0(features, dimension, expected):
    prediction = predict(
        core=features // 2,
        background=features // 2,
        dimension=dimension,
        width=4 * features,
        neurons=1024,
        report_at=[],
    )
    assert prediction.final.other_class_rate == pytest.approx(expected, abs=0.001 + 0.05 * expected)
    assert prediction.final.own_class_rate > 0.99


def test_theorem_4_2_good_neurons_learn_core_and_background():
    final = predict().final
    assert final.good_share > 0.75
    assert 1 < final.good_core < 1.6
    assert 0.7 < final.good_background < 1.3


@pytest.mark.slow
def test_sampled_neurons_predict_the_same_as_the_whole_network():
    sampled, whole = (
        predict(
            width=2048, step_size=8.0, weight_decay=1e-3 / 8, neurons=neurons, report_at=[]
        ).final
        for neurons in (256, 2048)
    )
    for name, allowed in (("U", 0.01), ("V", 0.02), ("ood_hinge", 0.005), ("good_share", 0.03)):
        assert getattr(sampled, name) == pytest.approx(getattr(whole, name), abs=allowed)


def test_predictions_depend_on_the_seed_only_slightly():
    first, again, other = (predict(seed=seed, steps=100) for seed in (3, 3, 4))
    assert first == again
    assert 0 < abs(first.final.ood_hinge - other.final.ood_hinge) < 0.03


def test_curve_steps_by_hand():
    assert [point.step for point in predict(steps=20).curve] == list(range(0, 21, 2))
    assert [point.step for point in predict(steps=3).curve] == [0, 1, 2, 3]
    assert [point.step for point in predict(steps=9, report_at=(4, 0)).curve] == [
        0,
        4,
        9,
    ]


def test_contamination_approximates_the_ood_risk():
    prediction = predict()
    ratio = prediction.contamination
    assert ratio == prediction.final.V / prediction.final.U
    assert prediction.final.ood_hinge == pytest.approx(2 * ratio / (1 + ratio), abs=0.02)


def test_summary_contains_the_numbers():
    prediction = predict(steps=60)
    words = prediction.summary()
    final = prediction.final
    assert words.startswith("After 60 steps")
    for number in (f"{final.U:.2f}", f"{final.V:.2f}", f"{final.ood_hinge:.3f}"):
        assert number in words
    assert f"a contamination of {prediction.contamination:.2f}" in words


def test_the_summary_of_an_untrained_network_omits_contamination():
    words = predict(steps=1, core=4, background=60, width=64).summary()
    assert words.startswith("After 1 step the average neuron")
    assert "hardly anything: train longer" in words
    assert "contamination" not in words
    assert "no neuron fires for one class only" in words


def test_the_sampling_error_is_the_difference_of_two_samples():
    setting = Setting(width=1000, steps=30)
    prediction = predict_contamination(setting, neurons=64, repeat=True)
    again, error = prediction.repeated, prediction.sampling_error
    assert again is not None and error is not None
    assert error["ood_hinge"] == abs(prediction.final.ood_hinge - again.ood_hinge)
    assert f"OOD hinge risk differs by {error['ood_hinge']:.1g}" in prediction.summary()
    assert predict_contamination(setting, neurons=1000, repeat=True).sampling_error is None


def test_records_are_json_serializable():
    prediction = predict(core=4, background=60, width=64, steps=30)
    rows = json.loads(json.dumps(prediction.records(), allow_nan=False))
    assert [row["step"] for row in rows] == [point.step for point in prediction.curve]
    assert rows[-1]["V"] == prediction.final.V
    undefined = [point.good_share == 0 for point in prediction.curve]
    assert [row["other_class_rate"] is None for row in rows] == undefined
    assert True in undefined


FEATURES = FeatureModel()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "gelu"}, "activation must be one of .* train the network instead"),
        ({"loss": "logistic"}, "loss must be 'hinge', not 'logistic'"),
        ({"optimizer": "adam"}, r"optimizer must be 'sgd', not 'adam': .*step_size / \(1 - b\)"),
        ({"bias": "all"}, "bias must be 'none', not 'all'"),
        ({"depth": 2}, "depth must be 1, not 2"),
        ({"head": "trained"}, "head must be 'fixed'"),
        ({"initialization": "uniform"}, "initialization must be 'gaussian'"),
        ({"examples": 1000}, "examples must be None, not 1000"),
        ({"data": DataModel(classes=4)}, "classes must be 2, not 4"),
        ({"data": DataModel(coupling=0.5)}, "coupling must be 0, not 0.5"),
        ({"data": DataModel(core_shape="spheres")}, "core_shape must be 'weights'"),
        (
            {"data": DataModel(FeatureModel(dictionary="coherent", coherence=0.2))},
            r"step_size \* curvature / width must be at most 2.5, not 3.4",
        ),
        ({"data": DataModel(FeatureModel(core=3))}, "core must be at least 4, not 3"),
        ({"data": DataModel(FeatureModel(background=0))}, "background must be at least 4, not 0"),
        (
            {"data": DataModel(FEATURES, Uniform(0, 4), Uniform(0, 4))},
            r"step_size \* curvature / width must be at most 2.5, not 4",
        ),
        (
            {"data": DataModel(ood_weights=(Uniform(-1, 0),) * 31 + (Uniform(-0.5, 0),))},
            "ood_weights must be one distribution",
        ),
        ({"step_size": 11.0}, "at most 2.5, not 2.75: .* try step_size 10 and more steps"),
        ({"weight_decay": 1.0}, r"weight_decay must be in \[0, 1 / step_size\)"),
    ],
)
def test_settings_that_are_not_covered_are_rejected_with_a_suggestion(fields, message):
    with pytest.raises(ValueError, match=message):
        predict_contamination(Setting(**fields))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neurons": 1}, "neurons must be at least 2"),
        ({"report_at": [0, 500]}, r"from 0 to 200, not \[500\]"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        predict_contamination(Setting(), **arguments)


def test_irrelevant_fields_change_nothing():
    standard, same = (
        predict_contamination(setting).curve
        for setting in (
            Setting(steps=3),
            Setting(steps=3, batch_size=7, engine="autograd", precision="float64", ambient=True),
        )
    )
    assert standard == same


def test_progress_increases_to_one():
    shares: list[float] = []
    predict_contamination(Setting(steps=4), progress=shares.append)
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_an_initialization_of_another_width_is_rejected():
    u, a = start(64, 256, 100, 0)
    with pytest.raises(ValueError, match="start has 100 neurons, but width is 256"):
        predict(start=Neurons.read(u, a, core=32))


def test_skewed_two_point_weights_are_covered():
    final = predict(weights=TwoPoint(0.25), steps=2).final
    assert 0 < final.id_hinge < final.ood_hinge < final.worst_hinge


def test_worst_case_is_the_limit_of_backgrounds_near_minus_one():
    usual, extreme = (
        predict_contamination(Setting(data=DataModel(ood_weights=weights), steps=30)).final
        for weights in (Uniform(-1, 0), Uniform(-1, -1 + 1e-9))
    )
    assert usual.worst_hinge == extreme.worst_hinge != usual.ood_hinge
    assert extreme.ood_hinge == pytest.approx(extreme.worst_hinge, abs=1e-6)


CORRELATED = DataModel(correlation=0.5)
BEYOND = {
    "correlated": Setting(data=CORRELATED, batch_size=500),
    "opposite correlation": Setting(data=replace(CORRELATED, correlation=-0.5), batch_size=500),
    "shortcut": Setting(data=replace(CORRELATED, correlation=1.0), batch_size=500),
    "large background": Setting(
        data=DataModel(background_weights=Uniform(0, 2), ood_weights=Uniform(-2, 0)), batch_size=500
    ),
    "small shortcut": Setting(
        data=DataModel(background_weights=Uniform(0, 0.25), ood_weights=Uniform(-0.25, 0),
                       correlation=1.0), batch_size=500),
    "coherent": Setting(
        data=DataModel(FeatureModel(dictionary="coherent", coherence=0.3)), batch_size=500,
        step_size=0.4, steps=500),
}  # fmt: skip
"""Settings beyond the paper's data that the model covers."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=() if name == "correlated" else pytest.mark.slow) for name in BEYOND],
)
def test_prediction_matches_sgd_beyond_the_papers_data(case):
    """From the same weights; two seeds, and fresh examples."""
    setting, columns = BEYOND[case], ("U", "V", "spurious", "id_hinge", "ood_hinge")
    differences = []
    for seed in range(2):
        network = initial_network(setting, seed)
        a = network.head.weight.detach()[0]
        neurons = Neurons.read(network.projections, a, core=32)
        final = predict_contamination(setting, start=neurons, report_at=[]).final
        (state,) = simulate(setting, seed)
        background = state.W[:, 32:].sum(dim=1)
        row = summary(state) | {"spurious": float((state.a.sign() * background).mean())}
        differences.append([getattr(final, name) - row[name] for name in columns])
    for name, error, allowed in zip(
        columns, torch.tensor(differences).mean(0).tolist(), (0.015, 0.01, 0.01, 0.002, 0.006),
        strict=True,
    ):  # fmt: skip
        assert error == pytest.approx(0, abs=allowed), name


def test_initial_neurons_of_a_coherent_dictionary_have_the_gram_matrix():
    """Means and rests of N(0, G / d) weights, from the drawn network and by formula."""
    features = FeatureModel(8, 24, 64, dictionary="coherent", coherence=0.2)
    setting = Setting(data=DataModel(features), width=20_000)
    network = initial_network(setting, 0)
    built = Neurons.read(network.projections, network.head.weight.detach()[0], core=8)
    drawn = Neurons.draw(setting, 1, 20_000)
    covariance = {
        (8, 8): (1 + 7 * 0.2) / 8 / 64, (24, 24): (1 + 23 * 0.2) / 24 / 64, (8, 24): 0.2 / 64
    }  # fmt: skip
    for neurons in (built, drawn):
        means = {8: neurons.core_mean, 24: neurons.background_mean}
        for (one, other), expected in covariance.items():
            product = float((means[one] * means[other]).mean())
            assert product == pytest.approx(expected, rel=0.05)
        assert float(neurons.core_rest.square().mean()) == pytest.approx(7 * 0.8 / 64, rel=0.05)
        assert float(neurons.background_rest.square().mean()) == pytest.approx(
            23 * 0.8 / 64, rel=0.05
        )


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.1, 0.5])
def test_leaky_relu_prediction_matches_sgd_on_fresh_examples(slope):
    """SGD by autograd, from the same weights; its risks are those of held-out examples."""
    columns = ("U", "V", "id_hinge", "ood_hinge")
    setting = Setting(activation="leaky_relu", slope=slope, batch_size=500)
    predicted, trained = [], []
    for seed in range(2):
        network = initial_network(setting, seed)
        neurons = Neurons.read(network.projections, network.head.weight.detach()[0], core=32)
        final = predict_contamination(setting, start=neurons, report_at=[]).final
        (state,) = simulate(setting, seed)
        row = summary(state)
        predicted.append([getattr(final, name) for name in columns])
        trained.append([row[name] for name in columns])
    (u, v, id_risk, ood_risk), (U, V, id_hinge, ood_hinge) = (
        torch.tensor(rows).mean(0).tolist() for rows in (predicted, trained)
    )
    assert u == pytest.approx(U, rel=0.01)
    assert v == pytest.approx(V, rel=0.02)
    assert id_risk == pytest.approx(id_hinge, abs=0.002)
    assert ood_risk == pytest.approx(ood_hinge, abs=0.012)
    # The prediction for a ReLU network fails all of these bounds: the slope makes a difference.
    relu = predict_contamination(Setting(), report_at=[]).final
    assert abs(relu.V / V - 1) > 0.05
    assert abs(relu.ood_hinge - ood_hinge) > 0.03


def test_leaky_relu_lies_between_relu_and_linear():
    """At the slopes 0 and 1 it equals them; between them, learned background falls."""
    predictions = [predict(activation="leaky_relu", slope=s, steps=50, report_at=[]).final
                   for s in (0.0, 0.25, 0.5, 0.75, 1.0)]  # fmt: skip
    assert predictions[0] == predict(steps=50, report_at=[]).final
    linear = predict(steps=50, activation=LINEAR, report_at=[]).final
    for name in ("U", "V", "core_norm", "background_norm", "id_hinge", "ood_hinge"):
        assert getattr(predictions[-1], name) == pytest.approx(getattr(linear, name), rel=1e-9)
    background = [final.V for final in predictions]
    assert background == sorted(background, reverse=True)
