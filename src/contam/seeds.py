"""Randomness is an argument: a seed and a purpose give a stream, and nothing touches a global seed.

A new purpose never moves the numbers of an old one.
"""

import hashlib

import numpy as np
import torch


def _digest(seed: int, purpose: str) -> int:
    """56 bits that depend on nothing but the seed and the purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


def stream(seed: int, purpose: str) -> torch.Generator:
    """The torch generator of one purpose, on the CPU."""
    return torch.Generator().manual_seed(_digest(seed, purpose))


def bits(seed: int, purpose: str) -> np.random.SFC64:
    """The raw bit generator of one purpose: the fastest that NumPy has, for simulations."""
    return np.random.SFC64(_digest(seed, purpose))
