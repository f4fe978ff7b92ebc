"""Randomness is an argument: a seed and a purpose name a generator; no global seed is ever changed.

A new purpose never changes the numbers that an old one draws.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

NUMPY_SEEDS = 2**32 - 1
"""NumPy's global generator takes seeds below this number."""


def _digest(seed: int, purpose: str) -> int:
    """56 bits that depend on nothing but the seed and the purpose."""
    # A purpose can hold the name of a file, which need not be UTF-8.
    text = f"{seed}/{purpose}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """The torch generator of one purpose, on the CPU.

    >>> a, b = generator_for(0, "weights"), generator_for(0, "weights")
    >>> bool(torch.rand(3, generator=a).equal(torch.rand(3, generator=b)))
    True
    """
    return torch.Generator().manual_seed(_digest(seed, purpose))


def bit_generator_for(seed: int, purpose: str) -> np.random.SFC64:
    """NumPy's fastest bit generator, seeded for one purpose; simulations draw from it.

    >>> numbers = [np.random.Generator(bit_generator_for(0, "x")).random() for _ in range(2)]
    >>> numbers[0] == numbers[1]
    True
    """
    return np.random.SFC64(_digest(seed, purpose))


@contextmanager
def preserve_rng(*loaders: Any) -> Iterator[None]:
    """Restore the random state of Python, NumPy and torch (every CUDA device) on exit.

    Args:
        loaders: DataLoaders whose own generators are restored as well; anything else is ignored.

    >>> before = torch.get_rng_state()
    >>> with preserve_rng():
    ...     _ = torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    generators = {
        id(generator): (generator, generator.get_state())
        for loader in loaders
        if isinstance(loader, DataLoader)
        for generator in (loader.generator, getattr(loader.sampler, "generator", None))
        if generator is not None
    }
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            for generator, state in generators.values():
                generator.set_state(state)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch for one purpose; restore them on exit.

    PyTorch's layers draw weights and dropout masks from the global generator only, and data sets
    written by users draw their augmentations from any of the three.

    >>> def drawn():
    ...     with seeded(0, "weights"):
    ...         return torch.rand(1)
    >>> torch.equal(drawn(), drawn())
    True
    """
    with preserve_rng():
        generator = generator_for(seed, purpose)
        torch.set_rng_state(generator.get_state())
        number = int(torch.randint(NUMPY_SEEDS, (), generator=generator, device="cpu"))
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        yield
