import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.trajectory import Setting, simulate, training_set

FEATURES = FeatureModel(6, 6, 30)
COHERENT = DataModel(FeatureModel(6, 6, 30, "coherent", 0.2))
SMALL = Setting(data=DataModel(FEATURES), width=24, batch_size=50, steps=60, precision="float64")

CLOSED_FORM = [
    {},
    {"activation": "identity"},
    {"optimizer": "momentum", "step_size": 0.1},
    {"activation": "identity", "optimizer": "momentum", "step_size": 0.1},
    {"examples": 50},
    {"examples": 200},
    {"initialization": "uniform"},
    {"data": COHERENT},
    {"data": COHERENT, "activation": "identity", "optimizer": "momentum", "step_size": 0.05},
    {"data": DataModel(FEATURES, correlation=0.5, core_shape="spheres")},
]
BEYOND = [
    {"depth": 3},
    {"bias": "all", "head": "trained", "activation": "gelu", "loss": "logistic"},
    {"activation": "leaky_relu", "slope": 0.3, "optimizer": "adam", "step_size": 0.01},
    {"activation": "tanh", "optimizer": "adamw", "step_size": 0.01, "bias": "hidden"},
    {"loss": "squared", "head": "trained", "step_size": 0.1, "optimizer": "momentum"},
    {"data": DataModel(FEATURES, classes=3), "activation": "sigmoid", "examples": 100},
    {"data": DataModel(FEATURES, classes=3), "loss": "logistic", "ambient": True},
]


def last(setting, seed=0, resume=None):
    (state,) = simulate(setting, seed, resume=resume)
    return state


def name(fields):
    return "-".join(map(str, fields.values()))[:60] or "standard"


@pytest.mark.parametrize("fields", CLOSED_FORM, ids=name)
def test_both_engines_take_the_same_steps(fields):
    setting = replace(SMALL, **fields)
    closed_form = last(replace(setting, engine="closed_form"))
    autograd = last(replace(setting, engine="autograd"))
    start = initial_network(setting, 0)
    assert (closed_form.W - start.projections).norm() > 0.3 * start.projections.norm()
    torch.testing.assert_close(closed_form.W, autograd.W, rtol=1e-9, atol=1e-12)
    assert closed_form.loss == pytest.approx(autograd.loss, rel=1e-9)


def test_auto_selects_the_closed_form_if_there_is_one():
    setting = replace(SMALL, precision="float32")
    closed_form, auto = last(replace(setting, engine="closed_form")), last(setting)
    autograd = last(replace(setting, engine="autograd"))
    assert torch.equal(auto.W, closed_form.W)
    assert not torch.equal(auto.W, autograd.W)  # they differ by rounding
    torch.testing.assert_close(auto.W, autograd.W, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        *({"data": DataModel(replace(FEATURES, dictionary=d))} for d in ("axes", "rotated")),
        {"data": COHERENT},
        {"data": COHERENT, "initialization": "uniform", "optimizer": "momentum", "step_size": 0.05},
        {"bias": "all", "head": "trained", "activation": "gelu", "depth": 2, "loss": "logistic"},
        {"optimizer": "adam", "step_size": 0.01},
    ],
    ids=name,
)
def test_training_in_r_d_equals_training_in_feature_coordinates(fields):
    setting = replace(SMALL, **fields)
    inside, ambient = last(setting), last(replace(setting, ambient=True))
    assert ambient.network.first.weight.shape == (24, 30)
    torch.testing.assert_close(ambient.W, inside.W, rtol=1e-8, atol=1e-10)


def test_eq_6_the_residual_only_decays():
    setting = replace(SMALL, data=DataModel(replace(FEATURES, dictionary="rotated")), ambient=True)
    first, final = simulate(setting, 0, report_at=(0, 60))
    M = setting.data.features.matrix(0, torch.float64)
    before, after = (
        state.network.first.weight.detach() - state.W @ M.T for state in (first, final)
    )
    assert before.norm() > 1
    torch.testing.assert_close(after, (1 - 1.0 * 1e-3) ** 60 * before)


@pytest.mark.parametrize("fields", [*CLOSED_FORM, *BEYOND], ids=name)
def test_a_resumed_run_is_the_same_run_bit_for_bit(fields, tmp_path):
    setting = replace(SMALL, precision="float32", steps=20, **fields)
    whole = last(setting)
    half = last(replace(setting, steps=9))
    save_file(half.checkpoint(), tmp_path / "half.safetensors")
    resumed = last(setting, resume=load_file(tmp_path / "half.safetensors"))
    assert whole.step == resumed.step == 20
    assert resumed.loss == whole.loss
    expected, restored = whole.checkpoint(), resumed.checkpoint()
    assert expected.keys() == restored.keys()
    for key, value in expected.items():
        assert torch.equal(restored[key], value), key


def test_reports_are_ordered_and_immutable():
    states = list(simulate(SMALL, 0, report_at=(60, 0, 7)))
    assert [state.step for state in states] == [0, 7, 60]
    assert states[0].loss is None
    assert torch.equal(states[0].W, initial_network(SMALL, 0).projections)
    assert torch.equal(states[1].W, last(replace(SMALL, steps=7)).W)
    assert not torch.equal(states[1].W, states[2].W)


@pytest.mark.parametrize("engine", ["closed_form", "autograd"])
def test_a_checkpoint_holds_the_reported_state(engine):
    setting = replace(SMALL, engine=engine, optimizer="momentum", step_size=0.1)
    states = simulate(setting, 0, report_at=(10, 60))
    early = next(states)
    final = next(states)  # training has gone on before the checkpoint is asked for
    assert torch.equal(last(setting, resume=early.checkpoint()).W, final.W)


def test_resuming_reports_the_later_steps():
    early = next(simulate(SMALL, 0, report_at=(10,)))
    left = simulate(SMALL, 0, report_at=(5, 10, 20, 60), resume=early.checkpoint())
    assert [state.step for state in left] == [20, 60]


def test_a_run_resumed_from_the_initial_state_does_not_yield_it_again():
    initial, final = simulate(SMALL, 0, report_at=(0, 5))
    (resumed,) = simulate(SMALL, 0, report_at=(0, 5), resume=initial.checkpoint())
    assert resumed.step == 5 and torch.equal(resumed.W, final.W)


def test_a_state_gives_the_outputs_of_its_network():
    setting = replace(SMALL, bias="all", head="trained", depth=2)
    state = last(setting)
    f = setting.data.sample(5, bit_generator_for(0, "test"), dtype=torch.float64).f
    assert torch.equal(state(f), state.network(f).detach())
    assert [len(bias) for bias in state.biases] == [24, 24, 1]
    assert state.a.shape == (24,)
    assert last(SMALL).biases == ()


def test_minibatches_are_drawn_from_the_fixed_data_set():
    setting = replace(SMALL, examples=3, batch_size=3)
    fixed = training_set(setting, 0)
    assert len(fixed.y) == 3
    # With identity and no decay every step adds a multiple of one combination of these examples.
    setting = replace(setting, activation="identity", weight_decay=0.0, batch_size=2, steps=40)
    first, final = simulate(setting, 0, report_at=(0, 40))
    moved = final.W - first.W
    assert torch.linalg.matrix_rank(torch.cat([fixed.f, moved])) == 3
    with pytest.raises(ValueError, match="set examples"):
        training_set(SMALL, 0)


def test_trainings_depend_only_on_the_seed():
    assert torch.equal(last(SMALL, 3).W, last(SMALL, 3).W)
    assert not torch.allclose(last(SMALL, 3).W, last(SMALL, 4).W)


def test_the_global_random_state_is_preserved():
    before = torch.random.get_rng_state()
    last(replace(SMALL, depth=2, steps=3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_large_step_sizes_raise_a_warning():
    setting = replace(SMALL, step_size=5.2)  # 5.2 * 12 / 24 = 2.6
    with pytest.warns(UserWarning, match=r"step_size=5.2 is large .* stay at 5 or below"):
        simulate(setting, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(replace(SMALL, step_size=4.9), 0)


@pytest.mark.parametrize("engine", ["closed_form", "autograd"])
def test_a_non_finite_loss_is_reported_with_the_step_and_a_remedy(engine):
    setting = replace(SMALL, engine=engine, weight_decay=1e30, precision="float32", step_size=4.0)
    with pytest.raises(ValueError, match=r"not finite at step \d+; lower step_size below 2"):
        last(setting)


def test_a_non_finite_regression_loss_is_reported():
    setting = replace(SMALL, loss="squared", head="trained", step_size=100.0, steps=200)
    with pytest.raises(ValueError, match=r"not finite at step \d+; lower step_size below 50"):
        last(setting)


def test_steps_beyond_the_training_are_rejected():
    with pytest.raises(ValueError, match=r"steps 0 to 61, but training has the steps 0 to 60"):
        simulate(SMALL, 0, report_at=(0, 61))
    with pytest.raises(ValueError, match="steps -1 to -1"):
        simulate(SMALL, 0, report_at=(-1,))


def test_a_checkpoint_of_another_run_is_rejected():
    checkpoint = last(SMALL).checkpoint()
    for setting, seed in ((SMALL, 1), (replace(SMALL, step_size=0.5), 0)):
        with pytest.raises(ValueError, match="another setting or seed"):
            simulate(setting, seed, resume=checkpoint)
