"""The distribution of examples: labels, and random weights on the features."""

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from contam.theory.features import FeatureModel, check_choices
from contam.theory.weights import LEVELS, Beta, Pareto, TwoPoint, Uniform, Weights, quantile_table

__all__ = ["Beta", "DataModel", "Pareto", "Sample", "TwoPoint", "Uniform", "Weights", "Where"]

Where = Literal["id", "ood", "worst"]
"""In distribution, out of distribution, or with every background weight at -1."""


class Sample(NamedTuple):
    """Examples in feature coordinates: the input is x = M f.

    >>> Sample(f=torch.tensor([[-0.5, 0.2]]), y=torch.tensor([-1]), target=torch.tensor([[-0.5]])).y
    tensor([-1])
    """

    f: Float[Tensor, "n d0"]
    """Signed weights of the features, the core ones first."""
    y: Int[Tensor, " n"]
    """Labels: -1 and +1, or 0 .. classes - 1 when there are more than two."""
    target: Float[Tensor, "n core"]
    """The core part of f, the target of regression."""


@dataclass(frozen=True)
class DataModel:
    """The distribution of training (ID) and test (OOD) examples, in feature coordinates.

    Labels are uniform. Each feature has a weight z_j, independent of all others: core features
    carry y z_j and background features z_j. Only the distribution of the background weights
    differs out of distribution. Weights are one distribution for all features, or one for each.

    Raises:
        ValueError: a field is out of range, or two fields do not fit together.

    Source: Def. 3.1.

    >>> from contam.rng import bit_generator_for
    >>> data = DataModel(FeatureModel(core=2, background=2, dimension=8), correlation=0.5)
    >>> data.sample(5, bit_generator_for(0, "example")).f.shape
    torch.Size([5, 4])
    """

    features: FeatureModel = field(default=FeatureModel())
    """The features."""
    core_weights: Weights | tuple[Weights, ...] = field(default=Uniform(0.0, 1.0))
    """Weights of the core features; they must not go below 0."""
    background_weights: Weights | tuple[Weights, ...] = field(default=Uniform(0.0, 1.0))
    """Weights of the background features, in distribution."""
    ood_weights: Weights | tuple[Weights, ...] = field(default=Uniform(-1.0, 0.0))
    """Weights of the background features, out of distribution."""
    classes: int = 2
    """With more than two, the core features form one equal group per class; an example of class c
    carries +z_j on the features of group c and -z_j on those of the other groups."""
    correlation: float = 0.0
    """Probability that an ID background weight is drawn from the half of its distribution that
    belongs to the label: the upper half for y = +1, the lower half for y = -1. A negative number is
    the probability of the other label's half. The marginal distribution of the weight stays the
    same. OOD backgrounds are independent of the label."""
    coupling: float = 0.0
    """Probability that an ID background weight takes the quantile that all features of its example
    share. Its marginal distribution stays the same."""
    core_shape: Literal["weights", "spheres"] = "weights"
    """"spheres" draws the core part uniformly from the sphere of radius 1 for y = -1 and of radius
    2 for y = +1, and does not use core_weights."""

    def __post_init__(self) -> None:
        check_choices(self)
        core, background = self.features.core, self.features.background
        for name, count in (
            ("core_weights", core),
            ("background_weights", background),
            ("ood_weights", background),
        ):
            weights = getattr(self, name)
            if isinstance(weights, tuple) and len(weights) != count:
                raise ValueError(
                    f"{name} has {len(weights)} distributions for {count} features; "
                    "give one for each, or a single one for all"
                )
        if min(weights.low for weights in _per_feature(self.core_weights, core)) < 0:
            raise ValueError(
                "core_weights must not go below 0: the sign of a core feature carries the label"
            )
        if self.classes < 2 or (self.classes > 2 and core % self.classes):
            raise ValueError(
                f"classes={self.classes} with core={core}: need at least 2 classes, and with more "
                "than 2 a number of core features that they divide equally"
            )
        for name, low in (("correlation", -1), ("coupling", 0)):
            if not low <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between {low} and 1")
        if self.classes > 2 and (self.correlation != 0 or self.core_shape == "spheres"):
            raise ValueError(
                f"classes={self.classes}: correlation and core_shape='spheres' are defined for "
                "two classes only; set classes=2"
            )

    def core(self) -> tuple[Weights, ...]:
        """The distribution of each core feature's weight.

        Returns:
            One distribution for each core feature.
        """
        return _per_feature(self.core_weights, self.features.core)

    def background(self, where: Where = "id") -> tuple[Weights, ...]:
        """Distribution of each background feature's weight.

        Args:
            where: "id" for the distribution in training; with any other value, the one out of
            distribution.

        Returns:
            One distribution for each background feature.
        """
        weights = self.background_weights if where == "id" else self.ood_weights
        return _per_feature(weights, self.features.background)

    @cached_property
    def means(self) -> Float[Tensor, " d0"]:
        """ID means mu_j of all weights, float64; on spheres, 0 for core features."""
        per_feature = self.core() + self.background()
        means = torch.tensor([weights.mean for weights in per_feature], dtype=torch.float64)
        if self.core_shape == "spheres":
            means[: self.features.core] = 0.0
        return means

    @cached_property
    def class_means(self) -> Float[Tensor, "classes d0"]:
        """E[f | y] in distribution, one row for each class, float64."""
        core = self.features.core
        signs = self.signs.double() * self.means[:core]
        background = self.means[core:].expand(self.classes, -1)
        if self.correlation != 0:
            halves = [quantile_table(weights).view(2, -1).mean(1) for weights in self.background()]
            half = torch.stack(halves, dim=1)
            background = background + self.correlation * (half - background)
        return torch.cat([signs, background], dim=1)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The values of y, in the order of the rows of every per-class tensor."""
        return (-1, 1) if self.classes == 2 else tuple(range(self.classes))

    @cached_property
    def signs(self) -> Float[Tensor, "classes core"]:
        """The sign of each core feature in each class."""
        core = self.features.core
        if self.classes == 2:
            return torch.tensor([[-1.0], [1.0]]).expand(2, core)
        group = torch.arange(core) * self.classes // core
        return 2.0 * (group == torch.arange(self.classes)[:, None]) - 1

    def class_index(self, y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Row of each label in per-class tensors.

        Args:
            y: labels, values of `labels`.

        Returns:
            Rows, 0 .. classes - 1.

        >>> DataModel().class_index(torch.tensor([-1, 1])).tolist()
        [0, 1]
        """
        return (y + 1) // 2 if self.classes == 2 else y

    def sample(
        self,
        n: int,
        bits: np.random.SFC64,
        where: Where = "id",
        dtype: torch.dtype = torch.float32,
    ) -> Sample:
        """Draw examples.

        Args:
            n: number of examples.
            bits: source of random bits; how many are used depends on n and the data model alone.
            where: "id", "ood", or "worst", where every background weight is -1.
            dtype: type of the weights.

        Returns:
            The examples, their labels and their targets.

        Raises:
            ValueError: n is not positive, or there is no such distribution.

        Source: App. F.1.

        >>> from contam.rng import bit_generator_for
        >>> sample = DataModel().sample(5, bit_generator_for(0, "example"), "worst")
        >>> sample.f.shape, sample.f[:, 32:].unique()
        (torch.Size([5, 64]), tensor([-1.]))
        """
        if n < 1:
            raise ValueError(f"n={n} examples; need at least 1")
        if where not in ("id", "ood", "worst"):
            raise ValueError(f"no distribution {where!r}; choose 'id', 'ood' or 'worst'")
        core = self.features.core
        y = self._draw_labels(n, bits)
        words = _words(bits, n, self.features.size)
        if where == "id":
            self._couple(words[:, core:], bits)
            self._correlate(words[:, core:], y, bits)
        f = self._weights_at(words, where, dtype)
        if self.core_shape == "spheres":
            normal = _normal_table().to(dtype)[_position(words[:, :core])]
            radius = (y + 3).to(dtype) / 2
            f[:, :core] = normal * (radius / normal.norm(dim=1))[:, None]
        elif self.classes == 2:
            f[:, :core].mul_(y.to(dtype)[:, None])
        else:
            f[:, :core].mul_(self.signs.to(dtype)[y])
        if where == "worst":
            f[:, core:] = -1.0
        return Sample(f, y, f[:, :core])

    def _draw_labels(self, n: int, bits: np.random.SFC64) -> Int[Tensor, " n"]:
        if self.classes == 2:
            coins = np.unpackbits(bits.random_raw(-(-n // 64)).view(np.uint8), count=n)
            return torch.from_numpy(coins).long().mul_(2).sub_(1)
        halves = bits.random_raw(-(-n // 2)).view(np.uint32)[:n].astype(np.uint64)
        return torch.from_numpy((halves * np.uint64(self.classes) >> np.uint64(32)).astype(int))

    def _couple(self, words: Int16[Tensor, "n background"], bits: np.random.SFC64) -> None:
        """Replace words by the one that the features of their example share."""
        if self.coupling > 0:
            shared = _words(bits, len(words), 1)
            coupled = _position(_words(bits, *words.shape)) < self.coupling * LEVELS
            words.copy_(torch.where(coupled, shared, words))

    def _correlate(
        self, words: Int16[Tensor, "n background"], y: Int[Tensor, " n"], bits: np.random.SFC64
    ) -> None:
        """Move weights to the half of their distribution that belongs to the label."""
        if self.correlation != 0:
            moved = _position(_words(bits, *words.shape)) < abs(self.correlation) * LEVELS
            # Quantiles above one half are the words from 0 on.
            upper = y * self.correlation > 0
            half = (words & 0x7FFF) + torch.where(upper, 0, -0x8000).to(torch.int16)[:, None]
            words.copy_(torch.where(moved, half, words))

    def _weights_at(
        self, words: Int16[Tensor, "n d0"], where: Where, dtype: torch.dtype
    ) -> Float[Tensor, "n d0"]:
        """The weights z at the quantiles that the words encode."""
        line = self._lines["id" if where == "id" else "ood"]
        if line is not None:
            shift, scale = line
            return torch.addcmul(shift.to(dtype), words.to(dtype), scale.to(dtype))
        per_feature = self.core() + self.background(where)
        z = torch.empty(words.shape, dtype=dtype)
        for weights in set(per_feature):
            columns = [j for j, other in enumerate(per_feature) if other == weights]
            z[:, columns] = quantile_table(weights).to(dtype)[_position(words[:, columns])]
        return z

    @cached_property
    def _lines(self) -> dict[str, tuple[Tensor, Tensor] | None]:
        """Shift and scale that turn words into weights, where all weights are uniform."""
        lines = {}
        for where in ("id", "ood"):
            per_feature = self.core() + self.background(where)
            if all(isinstance(weights, Uniform) for weights in per_feature):
                low = torch.tensor([weights.low for weights in per_feature], dtype=torch.float64)
                length = torch.tensor([w.high - w.low for w in per_feature]).double()
                lines[where] = (low + length * (0.5 + 0.5 / LEVELS), length / LEVELS)
            else:
                lines[where] = None
        return lines


def bits_state(bits: np.random.SFC64) -> Int[Tensor, " words"]:
    """The state of a bit generator, as a tensor that can be saved.

    Args:
        bits: the generator.

    Returns:
        Its state, int64.

    Source: ours, so that a resumed run draws the same examples.

    >>> bits = np.random.SFC64(0)
    >>> state, first = bits_state(bits), bits.random_raw()
    >>> restore_bits(bits, state)
    >>> bits.random_raw() == first
    True
    """
    return torch.from_numpy(bits.state["state"]["state"].view(np.int64).copy())


def restore_bits(bits: np.random.SFC64, state: Int[Tensor, " words"]) -> None:
    """Set a bit generator to a state that `bits_state` returned.

    Args:
        bits: the generator, changed in place.
        state: the state to restore.

    Source: ours, the inverse of `bits_state`.

    >>> bits, other = np.random.SFC64(0), np.random.SFC64(1)
    >>> restore_bits(other, bits_state(bits))
    >>> other.random_raw() == bits.random_raw()
    True
    """
    full = bits.state
    full["state"]["state"] = state.numpy().view(np.uint64).copy()
    bits.state = full


def _words(bits: np.random.SFC64, rows: int, columns: int) -> Int16[Tensor, "rows columns"]:
    """Random 16-bit words, signed: -32768 encodes the lowest quantile."""
    count = rows * columns
    raw = bits.random_raw(-(-count // 4)).view(np.int16)[:count]
    return torch.from_numpy(raw).view(rows, columns)


def _position(words: Int16[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The level that each word encodes, from 0."""
    return words.long() + LEVELS // 2


@lru_cache(maxsize=1)
def _normal_table() -> Float[Tensor, " levels"]:
    """Equally likely values that represent the standard normal, to draw directions from."""
    p = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return math.sqrt(2) * torch.erfinv(2 * p - 1)


def _per_feature(weights: Weights | tuple[Weights, ...], features: int) -> tuple[Weights, ...]:
    return weights if isinstance(weights, tuple) else (weights,) * features
