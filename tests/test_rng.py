"""Named streams: a name gives its own numbers again, and nothing is global."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.rng import bit_generator_for, generator_for


@given(seed=st.integers(0, 2**40), purpose=st.text(max_size=20))
def test_equal_seed_and_purpose_give_equal_numbers(seed, purpose):
    first, again = (torch.rand(4, generator=generator_for(seed, purpose)) for _ in range(2))
    assert torch.equal(first, again)
    assert np.array_equal(
        bit_generator_for(seed, purpose).random_raw(4),
        bit_generator_for(seed, purpose).random_raw(4),
    )


def test_different_seeds_or_purposes_give_different_numbers():
    names = [(seed, purpose) for seed in range(20) for purpose in ("a", "b", "a/b", "1/a", "")]
    drawn = {tuple(torch.rand(2, generator=generator_for(*name)).tolist()) for name in names}
    assert len(drawn) == len(names)
    raw = {int(bit_generator_for(*name).random_raw()) for name in names}
    assert len(raw) == len(names)


def test_the_global_state_is_unchanged():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=generator_for(1, "x"))
    bit_generator_for(1, "x").random_raw(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_uniform():
    drawn = torch.rand(20_000, generator=generator_for(3, "uniform"), dtype=torch.float64)
    assert abs(float(drawn.mean()) - 0.5) < 4 * (1 / 12 / 20_000) ** 0.5
