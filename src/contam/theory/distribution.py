"""How examples come about: labels, and random weights on the features."""

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from contam.theory.features import FeatureModel
from contam.theory.weights import LEVELS, Beta, TwoPoint, Uniform, Weights, quantile_table

__all__ = ["Beta", "DataModel", "Sample", "TwoPoint", "Uniform", "Weights", "Where"]

Where = Literal["id", "ood", "worst"]


class Sample(NamedTuple):
    """Examples in feature coordinates: the input is x = M f."""

    f: Float[Tensor, "n d0"]
    """Signed weights of the features, the core ones first."""
    y: Int[Tensor, " n"]
    """Labels: -1 and +1, or 0 .. classes - 1 when there are more than two."""
    target: Float[Tensor, "n core"]
    """The core part of f, which a network may be asked to represent."""


@dataclass(frozen=True)
class DataModel:
    """What training (ID) and test (OOD) examples look like, in feature coordinates.

    Labels are uniform. Each feature has a weight z_j, independent of all others: core features
    carry y z_j, background features z_j, and only the background's distribution is another one
    out of distribution. `core_weights` and the others name one distribution for all features of
    their kind, or one for each.

    `classes`: above two, the core features form one equal group for each class, and an example
    of class c carries +z_j on the features of group c and -z_j on the other groups.
    `correlation`: with this probability an ID background weight is drawn from the upper half of
    its distribution for y = +1 and from the lower half for y = -1, else from the whole; each
    weight's own distribution stays what it is. OOD backgrounds never know the label.
    `coupling`: with this probability a background weight takes the quantile that its example
    holds in common for all features; again each weight's own distribution stays.
    `core_shape`: "spheres" puts the core part uniformly on the sphere of radius 1 for y = -1 and
    of radius 2 for y = +1, whatever `core_weights` says.

    Raises:
        ValueError: parts that do not fit each other.

    Source: Def. 3.1.
    """

    features: FeatureModel = field(default=FeatureModel())
    core_weights: Weights | tuple[Weights, ...] = field(default=Uniform(0.0, 1.0))
    background_weights: Weights | tuple[Weights, ...] = field(default=Uniform(0.0, 1.0))
    ood_weights: Weights | tuple[Weights, ...] = field(default=Uniform(-1.0, 0.0))
    """Of the background features, out of distribution."""
    classes: int = 2
    correlation: float = 0.0
    coupling: float = 0.0
    core_shape: Literal["weights", "spheres"] = "weights"

    def __post_init__(self) -> None:
        core, background = self.features.core, self.features.background
        for name, wanted in (
            ("core_weights", core),
            ("background_weights", background),
            ("ood_weights", background),
        ):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != wanted:
                raise ValueError(
                    f"{name} has {len(given)} distributions for {wanted} features; "
                    "give one for each, or a single one for all"
                )
        if min(weights.low for weights in self._each(self.core_weights, core)) < 0:
            raise ValueError(
                "core_weights must not go below 0: the sign of a core feature carries the label"
            )
        if self.classes < 2 or (self.classes > 2 and core % self.classes):
            raise ValueError(
                f"classes={self.classes} with core={core}: wanted at least 2 classes, and above "
                "2 a number of core features that the classes divide equally"
            )
        for name in ("correlation", "coupling"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        if self.core_shape not in ("weights", "spheres"):
            raise ValueError(f"no core_shape {self.core_shape!r}; choose 'weights' or 'spheres'")
        if self.classes > 2 and (self.correlation > 0 or self.core_shape == "spheres"):
            raise ValueError(
                f"classes={self.classes}: correlation and core_shape='spheres' are defined for "
                "two classes only; set classes=2"
            )

    def core(self) -> tuple[Weights, ...]:
        """The distribution of each core feature's weight."""
        return self._each(self.core_weights, self.features.core)

    def background(self, where: Where = "id") -> tuple[Weights, ...]:
        """The distribution of each background feature's weight, in or out of distribution."""
        chosen = self.background_weights if where == "id" else self.ood_weights
        return self._each(chosen, self.features.background)

    @cached_property
    def means(self) -> Float[Tensor, " d0"]:
        """ID means mu_j of all weights, float64; on spheres, 0 for core features."""
        each = self.core() + self.background()
        means = torch.tensor([weights.mean for weights in each], dtype=torch.float64)
        if self.core_shape == "spheres":
            means[: self.features.core] = 0.0
        return means

    @cached_property
    def class_means(self) -> Float[Tensor, "classes d0"]:
        """E[f | y] in distribution, one row for each class, float64."""
        core = self.features.core
        signs = self.signs.double() * self.means[:core]
        background = self.means[core:].expand(self.classes, -1)
        if self.correlation > 0:
            halves = [quantile_table(weights).view(2, -1).mean(1) for weights in self.background()]
            half = torch.stack(halves, dim=1)
            background = background + self.correlation * (half - background)
        return torch.cat([signs, background], dim=1)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The values that y takes, in the order of the rows of everything per class."""
        return (-1, 1) if self.classes == 2 else tuple(range(self.classes))

    @cached_property
    def signs(self) -> Float[Tensor, "classes core"]:
        """The sign that each class gives to each core feature."""
        core = self.features.core
        if self.classes == 2:
            return torch.tensor([[-1.0], [1.0]]).expand(2, core)
        group = torch.arange(core) * self.classes // core
        return 2.0 * (group == torch.arange(self.classes)[:, None]) - 1

    def class_index(self, y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Labels as rows of everything per class: 0 .. classes - 1."""
        return (y + 1) // 2 if self.classes == 2 else y

    def sample(
        self,
        n: int,
        bits: np.random.SFC64,
        where: Where = "id",
        dtype: torch.dtype = torch.float32,
    ) -> Sample:
        """Draw `n` examples: "id", "ood", or "worst", where every background weight is -1.

        The bits that are used up depend on n and on the data model alone.

        Raises:
            ValueError: n is not positive, or `where` is none of the three.

        Source: App. F.1.
        """
        if n < 1:
            raise ValueError(f"asked for {n} examples; wanted at least 1")
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
        """Give weights the quantile that their example holds in common."""
        if self.coupling > 0:
            common = _words(bits, len(words), 1)
            joins = _position(_words(bits, *words.shape)) < self.coupling * LEVELS
            words.copy_(torch.where(joins, common, words))

    def _correlate(
        self, words: Int16[Tensor, "n background"], y: Int[Tensor, " n"], bits: np.random.SFC64
    ) -> None:
        """Move weights to the half of their distribution that belongs to the label."""
        if self.correlation > 0:
            moved = _position(_words(bits, *words.shape)) < self.correlation * LEVELS
            # Quantiles above one half are the words from 0 on.
            half = (words & 0x7FFF) + torch.where(y > 0, 0, -0x8000).to(torch.int16)[:, None]
            words.copy_(torch.where(moved, half, words))

    def _weights_at(
        self, words: Int16[Tensor, "n d0"], where: Where, dtype: torch.dtype
    ) -> Float[Tensor, "n d0"]:
        """The weights z whose quantiles the words name."""
        line = self._lines["id" if where == "id" else "ood"]
        if line is not None:
            shift, scale = line
            return torch.addcmul(shift.to(dtype), words.to(dtype), scale.to(dtype))
        each = self.core() + self.background(where)
        z = torch.empty(words.shape, dtype=dtype)
        for weights in set(each):
            columns = [j for j, other in enumerate(each) if other == weights]
            z[:, columns] = quantile_table(weights).to(dtype)[_position(words[:, columns])]
        return z

    @cached_property
    def _lines(self) -> dict[str, tuple[Tensor, Tensor] | None]:
        """Shift and scale that turn words into weights at once, where all weights are uniform."""
        lines = {}
        for where in ("id", "ood"):
            each = self.core() + self.background(where)
            if all(isinstance(weights, Uniform) for weights in each):
                low = torch.tensor([weights.low for weights in each], dtype=torch.float64)
                length = torch.tensor([weights.high - weights.low for weights in each]).double()
                lines[where] = (low + length * (0.5 + 0.5 / LEVELS), length / LEVELS)
            else:
                lines[where] = None
        return lines

    @staticmethod
    def _each(weights: Weights | tuple[Weights, ...], features: int) -> tuple[Weights, ...]:
        return weights if isinstance(weights, tuple) else (weights,) * features


def bits_state(bits: np.random.SFC64) -> Int[Tensor, " words"]:
    """Where a bit generator stands, as a tensor that can be saved."""
    return torch.from_numpy(bits.state["state"]["state"].view(np.int64).copy())


def restore_bits(bits: np.random.SFC64, state: Int[Tensor, " words"]) -> None:
    """Put a bit generator back where `bits_state` found it."""
    full = bits.state
    full["state"]["state"] = state.numpy().view(np.uint64).copy()
    bits.state = full


def _words(bits: np.random.SFC64, rows: int, columns: int) -> Int16[Tensor, "rows columns"]:
    """Random 16-bit words; read as signed, -32768 is the lowest quantile."""
    count = rows * columns
    raw = bits.random_raw(-(-count // 4)).view(np.int16)[:count]
    return torch.from_numpy(raw).view(rows, columns)


def _position(words: Int16[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Which of the levels each word names, from 0."""
    return words.long() + LEVELS // 2


@lru_cache(maxsize=1)
def _normal_table() -> Float[Tensor, " levels"]:
    """Equally likely values that stand for the standard normal, to draw directions from."""
    p = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return math.sqrt(2) * torch.erfinv(2 * p - 1)
