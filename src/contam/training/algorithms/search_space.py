"""Distributions of a random hyperparameter search."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Generator


class SearchDistribution(ABC):
    """What a random search draws a setting from."""

    @abstractmethod
    def sample(self, generator: Generator) -> float:
        """Draw one value."""


@final
@dataclass(frozen=True)
class UniformRange(SearchDistribution):
    """A number between two others.

    >>> 0 <= UniformRange(0, 0.5).sample(torch.Generator().manual_seed(0)) < 0.5
    True
    """

    low: float
    high: float
    whole: bool = False
    """Whether the value is rounded down to an integer."""

    def sample(self, generator: Generator) -> float:
        """Draw one value."""
        share = torch.rand((), generator=generator, dtype=torch.float64).item()
        value = self.low + (self.high - self.low) * share
        return int(value) if self.whole else value


@final
@dataclass(frozen=True)
class LogUniform(SearchDistribution):
    """`base ** U(low, high)`.

    >>> 1e-5 < LogUniform(-5, -3.5).sample(torch.Generator().manual_seed(0)) < 10**-3.5
    True
    """

    low: float
    """Smallest exponent."""
    high: float
    """Largest exponent."""
    base: float = 10.0
    whole: bool = False
    """Whether the value is rounded down to an integer."""

    def sample(self, generator: Generator) -> float:
        """Draw one value."""
        value = self.base ** UniformRange(self.low, self.high).sample(generator)
        return int(value) if self.whole else value


@final
@dataclass(frozen=True)
class OneOf(SearchDistribution):
    """One of several values, each with the same probability.

    >>> OneOf((1, 2)).sample(torch.Generator().manual_seed(0)) in (1, 2)
    True
    """

    values: tuple[float, ...]

    def sample(self, generator: Generator) -> float:
        """Draw one value."""
        return self.values[int(torch.randint(len(self.values), (), generator=generator))]
