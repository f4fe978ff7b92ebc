"""The numbers that the paper's experiments end at, over several seeds, on held-out examples."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest

from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.summary import summary
from contam.theory.trajectory import Setting, simulate

SEEDS = range(4)


def rows(setting, seeds: Iterable[int] = SEEDS):
    return [summary(state) for seed in seeds for state in simulate(setting, seed)]


def mean(rows, key):
    return sum(row[key] for row in rows) / len(rows)


@pytest.fixture(scope="module")
def relu():
    return rows(Setting())


@pytest.fixture(scope="module")
def identity():
    return rows(Setting(activation="identity"))


def test_theorem_4_1_most_neurons_are_active_for_one_class_only(relu):
    assert mean(relu, "good_share") >= 0.75
    assert mean(relu, "other_class_rate") <= 0.08
    assert mean(relu, "asymmetry_1") > 0.75


def test_theorem_4_2_neurons_learn_the_core_and_the_background(relu):
    assert 1.75 <= mean(relu, "V") <= 1.95
    assert 2.45 <= mean(relu, "U") <= 2.58
    # Over N_y: sgn(a_k) C_k and B_k are both of order one.
    assert mean(relu, "set_share") > 0.75
    assert 1.2 < mean(relu, "set_C") < 1.8
    assert 0.9 < mean(relu, "set_B") < 1.4
    assert all(row["background_pull"] > 0 for row in relu)


def test_theorem_4_3_id_risk_is_low_and_ood_risk_is_high(relu):
    assert all(row["id_hinge"] <= 0.008 and row["id_error"] == 0 for row in relu)
    assert all(0.82 <= row["ood_hinge"] <= 0.88 for row in relu)
    assert all(0.97 <= row["worst_hinge"] <= 1.03 for row in relu)
    # The theorem speaks of the hinge loss: few examples change sides.
    assert mean(relu, "ood_error") < 0.03
    assert 0.3 < mean(relu, "worst_error") < 0.7
    assert all(row["ood_risk"] == row["worst_hinge"] for row in relu)


def test_theorem_4_4_linear_networks_do_not_learn_the_background(identity):
    assert abs(mean(identity, "V")) <= 0.08
    assert all(abs(row["ood_hinge"] - row["id_hinge"]) <= 0.003 for row in identity)
    assert all(row["largest_background"] <= 4.5 for row in identity)
    for seed, row in zip(SEEDS, identity, strict=True):
        (start,) = simulate(Setting(activation="identity"), seed, report_at=(0,))
        decayed = summary(start)["background_norm"] * (1 - 1e-3) ** 200
        assert row["background_norm"] == pytest.approx(decayed, rel=0.02)


def test_relu_learns_more_background_than_identity(relu, identity):
    ratio = mean(relu, "background_norm") / mean(identity, "background_norm")
    assert 1.5 <= ratio <= 1.7


@pytest.mark.slow
def test_after_long_training_only_relu_retains_the_background():
    long = Setting(steps=3000)
    relu, identity = rows(long, (0, 1)), rows(replace(long, activation="identity"), (0, 1))
    assert mean(relu, "background_norm") / mean(identity, "background_norm") >= 15


AUTHORS = Setting(initialization="uniform", bias="hidden")


@pytest.mark.slow
def test_the_authors_initialization_and_biases_under_gradient_flow():
    outcomes = rows(AUTHORS)
    assert mean(outcomes, "ood_hinge") == pytest.approx(0.77, abs=0.02)
    assert mean(outcomes, "core_norm") == pytest.approx(0.475, abs=0.01)
    assert mean(outcomes, "background_norm") == pytest.approx(0.36, abs=0.01)


@pytest.mark.slow
def test_the_authors_schedule():
    setting = replace(
        AUTHORS,
        optimizer="momentum",
        step_size=1e-3,
        steps=20_000,
        examples=1000,
        engine="autograd",
    )
    (row,) = rows(setting, (0,))
    assert row["ood_hinge"] == pytest.approx(0.77, abs=0.02)
    assert row["core_norm"] == pytest.approx(0.475, abs=0.01)
    assert row["background_norm"] == pytest.approx(0.36, abs=0.01)


def test_ood_risk_grows_with_the_number_of_features():
    small = Setting(data=DataModel(FeatureModel(8, 8, 64)), width=64)
    assert mean(rows(small), "ood_hinge") + 0.02 <= mean(rows(Setting()), "ood_hinge")


def test_ood_risk_of_leaky_relu_falls_with_its_slope():
    leaky = Setting(activation="leaky_relu")
    lost = [mean(rows(replace(leaky, slope=s), (0,)), "ood_hinge") for s in (0.1, 0.5, 0.8)]
    assert lost[0] > 0.5 > lost[1] > 0.02 > lost[2]


@pytest.mark.slow
def test_only_relu_regression_fails_out_of_distribution():
    regression = Setting(loss="squared", head="trained", step_size=0.1, steps=1000)
    relu = rows(regression, (0, 1))
    assert mean(relu, "id_squared") == pytest.approx(0.0031, abs=0.001)
    assert mean(relu, "ood_squared") == pytest.approx(0.0862, abs=0.012)
    (identity,) = rows(replace(regression, activation="identity"), (0,))
    assert identity["id_squared"] < 1e-4
    assert identity["ood_squared"] < 1e-4


SPHERES = Setting(
    data=DataModel(core_shape="spheres"),
    bias="all",
    head="trained",
    initialization="uniform",
    loss="logistic",
    optimizer="adamw",
    step_size=3e-3,
    weight_decay=1e-2,
    steps=600,
)


@pytest.mark.slow
def test_a_label_nonlinear_in_the_core():
    (relu,) = rows(SPHERES, (0,))
    assert relu["id_logistic"] < 0.005
    assert relu["ood_logistic"] == pytest.approx(1.12, abs=0.15)
    (gelu,) = rows(replace(SPHERES, activation="gelu"), (0,))
    assert gelu["id_logistic"] < 0.005
    assert gelu["ood_logistic"] > 3


@pytest.mark.slow
def test_a_fixed_data_set_on_spheres_is_partly_memorized():
    (state,) = simulate(replace(SPHERES, examples=1000), 0)
    assert state.loss is not None
    assert state.loss < 0.002
    assert summary(state)["id_logistic"] > 20 * state.loss


def test_three_classes_are_contaminated():
    data = DataModel(FeatureModel(30, 30, 256), classes=3)
    (row,) = rows(Setting(data=data, loss="logistic", step_size=3.0), (0,))
    assert row["id_error"] < 0.02
    assert row["V"] > 0.5
    assert row["ood_logistic"] > row["id_logistic"] + 0.1


def test_a_row_contains_every_layer_of_a_deep_network():
    setting = Setting(depth=3, width=64, head="trained", loss="logistic", step_size=0.5, steps=30)
    (row,) = rows(setting, (0,))
    assert all(0 <= row[f"asymmetry_{layer}"] <= 1 for layer in (1, 2, 3))
    assert "set_share" not in row


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "tanh"},
        {"bias": "all"},
        {"loss": "squared", "head": "trained", "step_size": 0.1},
        {"data": DataModel(FeatureModel(4, 0, 16))},
        {"data": DataModel(FeatureModel(4, 4, 16, "coherent", 0.2), correlation=0.5)},
    ],
)
def test_a_row_has_the_same_columns_at_every_step(fields):
    setting = replace(
        Setting(data=DataModel(FeatureModel(4, 4, 16)), width=8, batch_size=20, steps=5), **fields
    )
    table = [summary(state, examples=200) for state in simulate(setting, 0, report_at=range(6))]
    assert [row["step"] for row in table] == list(range(6))
    assert len({tuple(row) for row in table}) == 1
    missing = {"other_class_rate", "set_C", "set_B", "background_pull"}  # nan over no neuron
    for row in table:
        assert all(math.isfinite(value) for key, value in row.items() if key not in missing)
