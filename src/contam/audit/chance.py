"""Other people's code draws from global streams; an audit lets it, and puts them back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from contam.seeds import stream

LARGEST = 2**32 - 1
"""What NumPy's global stream takes as a seed."""


@contextmanager
def unmoved() -> Iterator[None]:
    """Afterwards Python's, NumPy's and torch's global random states are as before."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002, to be put back
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)  # noqa: NPY002, as it was


@contextmanager
def always_alike(seed: int, purpose: str) -> Iterator[None]:
    """Inside, what draws from a global stream draws the same each time; outside, nothing moves.

    So an example that is augmented at random is the same example in every pass.
    """
    with unmoved():
        drawn = stream(seed, purpose)
        torch.set_rng_state(drawn.get_state())
        number = int(torch.randint(LARGEST, (), generator=drawn))
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002, the stream is put back
        yield
