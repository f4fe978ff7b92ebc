"""Projections by their definition, and networks that train with each change."""

import pytest
import torch

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.intervention import Intervention, augmented, projection
from contam.theory.population import predict_contamination
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate

CORE, BACKGROUND = 6, 10
DATA = DataModel(FeatureModel(CORE, BACKGROUND, 32))


def small(steps: int = 20, **fields) -> Setting:
    return Setting(
        data=DATA, width=32, batch_size=64, steps=steps, intervention=Intervention(**fields)
    )


@pytest.mark.parametrize(
    ("fields", "removed"),
    [
        ({"project": "core"}, BACKGROUND),
        ({"project": "mean"}, 1),
        ({"project": "pairs", "directions": 3}, 3),
        ({"project": "pairs", "directions": 50}, BACKGROUND),
        ({"project": "environment_means"}, 1),
        ({"project": "environments", "directions": 4}, 4),
        ({"project": "within_class", "directions": 4}, 4),
    ],
)
def test_projections_are_symmetric_and_idempotent(fields, removed):
    P = projection(Intervention(**fields), DATA, seed=0, dtype=torch.float64)
    assert P is not None
    torch.testing.assert_close(P, P.T)
    torch.testing.assert_close(P @ P, P)
    assert float(P.trace()) == pytest.approx(CORE + BACKGROUND - removed)


def test_pairs_leave_the_core_and_a_share_of_the_mean_background():
    """The share of the squared mean direction is 1 - k / background on average over draws."""
    ones = torch.ones(BACKGROUND, dtype=torch.float64)
    shares = []
    for seed in range(200):
        P = projection(Intervention(project="pairs", directions=4), DATA, seed, torch.float64)
        assert P is not None
        torch.testing.assert_close(P[:CORE, :CORE], torch.eye(CORE, dtype=torch.float64))
        shares.append(float(ones @ P[CORE:, CORE:] @ ones) / BACKGROUND)
    assert sum(shares) / len(shares) == pytest.approx(1 - 4 / BACKGROUND, abs=0.04)


@pytest.mark.parametrize("project", ["mean", "environment_means", "environments"])
def test_estimated_spaces_contain_the_mean_background_and_spare_the_core(project):
    change = Intervention(project=project, directions=BACKGROUND, estimated_from=100_000)
    P = projection(change, DATA, seed=0, dtype=torch.float64)
    assert P is not None
    background = torch.zeros(CORE + BACKGROUND, dtype=torch.float64)
    background[CORE:] = BACKGROUND**-0.5
    core = torch.zeros_like(background)
    core[:CORE] = CORE**-0.5
    assert float((P @ background).norm()) < 0.05
    assert float((P @ core).norm()) > 0.95


def test_principal_components_within_classes_remove_core_and_background_alike():
    """All features have the same variance, so nothing tells them apart within a class."""
    removed = []
    for seed in range(100):
        change = Intervention(project="within_class", directions=BACKGROUND, estimated_from=200)
        P = projection(change, DATA, seed, torch.float64)
        assert P is not None
        removed.append(float(BACKGROUND - P[CORE:, CORE:].trace()) / BACKGROUND)
    share = BACKGROUND / (CORE + BACKGROUND)
    assert sum(removed) / len(removed) == pytest.approx(share, abs=0.03)


def test_networks_of_core_inputs_do_not_depend_on_the_background():
    (state,) = simulate(small(inputs="core"), seed=0)
    f = DATA.sample(50, bit_generator_for(1, "test")).f
    changed = f.clone()
    changed[:, CORE:] *= -1
    assert torch.equal(state(f), state(changed))
    assert not torch.equal(state(f), state(f * 2))


def test_gradients_orthogonal_to_the_background_leave_it_at_its_decayed_start():
    setting = small(project="core")
    before, after = simulate(setting, seed=0, report_at=(0, setting.steps))
    kept = (1 - setting.step_size * setting.weight_decay) ** setting.steps
    torch.testing.assert_close(after.W[:, CORE:], kept * before.W[:, CORE:], rtol=1e-5, atol=1e-7)
    assert float((after.W[:, :CORE] - kept * before.W[:, :CORE]).norm()) > 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"project": "mean"},
        {"inputs": "centered"},
        {"inputs": "batch_norm"},
        {"hidden": "batch_norm", "gain": 4.0},
        {"augment": "swap"},
    ],
)
def test_interrupted_training_resumes_bit_for_bit(fields):
    setting = small(**fields)
    half, whole = simulate(setting, 0, report_at=(10, 20))
    (resumed,) = simulate(setting, 0, resume=half.checkpoint())
    f = DATA.sample(50, bit_generator_for(1, "test"), "ood").f
    assert torch.equal(resumed(f), whole(f))
    assert not torch.equal(half(f), whole(f))


def test_centered_networks_see_inputs_minus_the_mean():
    (state,) = simulate(small(inputs="centered", estimated_from=100_000), seed=0)
    mean = torch.cat([torch.zeros(CORE), torch.full((BACKGROUND,), 0.5)])
    f = DATA.sample(50, bit_generator_for(1, "test")).f
    by_hand = ((f - mean) @ state.W.T).relu() @ state.a
    torch.testing.assert_close(state(f), by_hand, rtol=0, atol=0.02)


def test_batch_norm_evaluates_with_running_statistics():
    (state,) = simulate(small(hidden="batch_norm"), seed=0)
    f = DATA.sample(50, bit_generator_for(1, "test")).f
    torch.testing.assert_close(state(f)[:1], state(f[:1]))


@pytest.mark.parametrize(("augment", "factor"), [("flip", -1.0), ("erase", 0.0)])
def test_augmentation_changes_a_share_of_the_backgrounds(augment, factor):
    change = Intervention(augment=augment, augmented=0.25)
    plain, changed = (DATA.sample(4000, bit_generator_for(0, "test")) for _ in range(2))
    augmented(change, changed, CORE, bit_generator_for(0, "coins"))
    assert torch.equal(plain.f[:, :CORE], changed.f[:, :CORE])
    altered = (plain.f != changed.f).any(dim=1)
    assert float(altered.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(changed.f[altered, CORE:], factor * plain.f[altered, CORE:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Intervention(directions=0), "at least 1 direction"),
        (lambda: Intervention(gain=0.0), "gain=0.0 must be positive"),
        (lambda: Intervention(augmented=2.0), "between 0 and 1"),
        (lambda: Intervention(project="all"), "no project 'all'"),  # pyright: ignore[reportArgumentType]
        (lambda: Setting(ambient=True, intervention=Intervention(project="mean")), "orthonormal"),
        (lambda: Setting(head="trained", intervention=Intervention(gain=2.0)), "head='fixed'"),
        (lambda: predict_contamination(small(project="mean")), "project=mean is not modeled"),
    ],
)
def test_invalid_and_uncovered_interventions_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
