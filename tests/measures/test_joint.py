"""The joint question: both answers by hand, apart from each other, and undecided when they are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from contam.measures.coupling import attenuation
from contam.measures.joint import coupling, harm, joint_question


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def right(n: int, share: float) -> Tensor:
    return torch.arange(n) < share * n


def hidden(gated: bool, n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Neurons that see class and background: before and after the background turns around."""
    y = torch.arange(n) % 2
    core = 2 * (2 * y[:, None] - 1) + 0.1 * noise(n, 4)
    activation = torch.relu if gated else lambda z: z
    return activation(core + 1), activation(core - 1), y


def ask(share: float, gated: bool, n: int = 400, **given_):
    values, altered, y = hidden(gated)
    return joint_question(
        right(n, 0.9), right(n, share), values, altered, y,
        least_harm=0.03, least_coupling=0.2, **given_,
    )  # fmt: skip


def test_harm_by_hand():
    found = harm(torch.tensor([True, True, True, False]), torch.tensor([True, False, False, True]))
    assert found.value == 0.25 and found.low < 0.25 < found.high


def test_harm_s_interval_is_the_paired_normal_one_for_many_examples():
    n = 4000
    before, after = right(n, 0.9), right(n, 0.9).roll(200)
    lost = before.double() - after.double()
    half = float(norm.ppf(0.975)) * lost.std().item() / math.sqrt(n)
    found = harm(before, after)
    assert found.value == 0
    assert (found.low, found.high) == pytest.approx((-half, half), abs=0.1 * half)
    same = harm(before, before)
    assert same.low == same.high == 0


@given(st.integers(0, 1000), st.floats(-1, 2))
def test_a_changed_gain_is_found_with_certainty(seed, gain):
    values, y = noise(60, 3, seed=seed), torch.arange(60) % 3
    found = coupling(values, gain * values + 5, y, resamples=20)
    for end in (found.value, found.low, found.high):
        assert end == pytest.approx(1 - gain, abs=1e-5)


@given(st.integers(0, 1000))
def test_coupling_is_the_attenuation_of_class_means(seed):
    values, altered = noise(40, 3, seed=seed), noise(40, 3, seed=seed + 1)
    y = 7 - 2 * (torch.arange(40) % 4)
    tables = [
        torch.stack([x[y == c].double().mean(0) for c in y.unique()]) for x in (values, altered)
    ]
    expected = attenuation(*tables).item()
    assert coupling(values, altered, y, resamples=1).value == pytest.approx(expected)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_neither_answer_follows_from_the_other(gated, share):
    found = ask(share, gated)
    assert found.uses == ("no" if share == 0.9 else "yes")
    assert found.coupled == ("yes" if gated else "no")
    assert found.harm.value == pytest.approx(0.9 - share)
    # (3, 0) becomes (1, 0) behind a ReLU; a linear neuron adds.
    assert found.coupling.value == pytest.approx(2 / 3 if gated else 0, abs=0.01)
    assert found.untrained is None


def test_few_examples_leave_it_undecided():
    assert ask(0.8, gated=False, n=20).uses == "undecided"
    values, y = noise(12, 2), torch.arange(12) % 2
    found = coupling(values, noise(12, 2, seed=1), y)
    assert found.low < 0.2 < found.high


def test_the_untrained_network_stands_beside():
    before, after, _ = hidden(gated=False)
    found = ask(0.9, gated=True, untrained=(before, after))
    assert found.untrained is not None
    assert found.untrained.high < 0.01 < found.coupling.low


def test_what_can_not_be_asked_is_refused():
    values = noise(6, 2)
    with pytest.raises(ValueError, match="at least two classes"):
        coupling(values, values, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ValueError, match="nothing to lose"):
        coupling(torch.ones(6, 2), values, torch.arange(6) % 2)
    with pytest.raises(ValueError, match="something in every sample"):
        harm(right(0, 1.0), right(0, 1.0))
