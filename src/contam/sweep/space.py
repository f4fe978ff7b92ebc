"""The points of a sweep: fields of a config, the values of each, and how they are combined."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from difflib import get_close_matches
from typing import Any

import torch
from pydantic import BaseModel

from contam.rng import generator_for

MAX_POINTS = 1_000_000
"""Largest number of points of one sweep."""
DIGITS = 6
"""Significant digits of the values of a range."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly spaced on a linear or on a logarithmic scale.

    >>> Range.parse("log:1e-4:1e-1:4").values()
    [0.0001, 0.001, 0.01, 0.1]
    """

    scale: str
    """"linear" or "log"."""
    low: float
    high: float
    number: int | None = None
    """How many values a grid takes; random draws need none."""

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Read `log:LOW:HIGH[:NUMBER]` or `linear:LOW:HIGH[:NUMBER]`.

        Args:
            text: the range.

        Raises:
            ValueError: the text is no such range.

        >>> Range.parse("linear:0:1").number is None
        True
        """
        try:
            scale, low, high, *rest = text.split(":")
            (number,) = rest or (None,)
            read = cls(scale, float(low), float(high), None if number is None else int(number))
            valid = scale in ("linear", "log") and -math.inf < read.low < read.high < math.inf
            if not valid or (scale == "log" and read.low <= 0) or (number and int(number) < 2):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"range {text!r}: write log:LOW:HIGH:NUMBER or linear:LOW:HIGH:NUMBER with LOW "
                "below HIGH (and above 0 for log) and NUMBER at least 2"
            ) from None
        return read

    def __str__(self) -> str:
        ends = f"{self.scale}:{self.low:g}:{self.high:g}"
        return ends if self.number is None else f"{ends}:{self.number}"

    def at(self, share: float) -> float:
        """The number at a share of the way from `low` to `high`.

        Args:
            share: from 0 to 1.
        """
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return float(f"{value:.{DIGITS}g}")

    def values(self) -> list[float]:
        """The values that a grid takes.

        Raises:
            ValueError: the range has no number of values.
        """
        if self.number is None:
            raise ValueError(f"range '{self}': a grid needs a number of values: '{self}:5'")
        return [self.at(index / (self.number - 1)) for index in range(self.number)]


Values = Sequence[Any] | str | Range
"""Values of a field: a sequence, or a range."""


class Space(BaseModel, frozen=True, extra="forbid"):
    """The config of a sweep: an experiment, its base config, and the values of the swept fields.

    A grid has every combination of values, the first field changing slowest. With `draws`, each
    point draws each field independently: one of the values, or a number in the range. A draw
    depends on its index and on `draw_seed` alone, so more draws keep the earlier ones.
    """

    experiment: str
    base: dict[str, Any]
    """The base config, as JSON values."""
    grid: dict[str, list[Any] | str]
    """For each swept field, by its full name, a list of values or a range."""
    draws: int | None = None
    """Number of random points; None takes the whole grid."""
    draw_seed: int = 0
    """Seed of the random points."""

    def names(self) -> dict[str, str]:
        """The short name of each swept field: its last word, if no other field ends with it."""
        words = [path.rpartition(".")[2] for path in self.grid]
        return {
            path: word if words.count(word) == 1 else path
            for path, word in zip(self.grid, words, strict=True)
        }

    def points(self) -> list[dict[str, Any]]:
        """The swept values of every point, by the fields' full names; no point comes twice."""
        axes = {path: _axis(values) for path, values in self.grid.items()}
        if self.draws is None:
            lists = [axis.values() if isinstance(axis, Range) else axis for axis in axes.values()]
            rows: Iterator[Sequence[Any]] = itertools.product(*lists)
        else:
            rows = (
                [self._draw(index, path, axis) for path, axis in axes.items()]
                for index in range(self.draws)
            )
        defaults = dict(_leaves(self.base))
        unique: dict[str, dict[str, Any]] = {}
        for row in rows:
            point = {
                path: _as_field(value, defaults[path]) if isinstance(axis, Range) else value
                for (path, axis), value in zip(axes.items(), row, strict=True)
            }
            unique.setdefault(repr(point), point)
            if len(unique) > MAX_POINTS:
                raise ValueError(
                    f"the sweep has more than {MAX_POINTS:,} points; take fewer values"
                )
        return list(unique.values())

    def configs(self, config: type[BaseModel]) -> list[tuple[dict[str, Any], BaseModel]]:
        """Every point with its config.

        Args:
            config: the type of the experiment's configs.

        Raises:
            ValueError: a config is not valid. (A `pydantic.ValidationError` is a `ValueError`.)
        """
        return [(point, config.model_validate(self._at(point))) for point in self.points()]

    def _at(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the config at a point."""
        fields = self.base
        for path, value in point.items():
            fields = _replaced(fields, path.split("."), value)
        return fields

    def _draw(self, index: int, path: str, axis: "list[Any] | Range") -> Any:
        generator = generator_for(self.draw_seed, f"sweep/{path} of draw {index}")
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return axis.at(share) if isinstance(axis, Range) else axis[int(share * len(axis))]


def space(
    experiment: str,
    base: BaseModel,
    grid: Mapping[str, Values],
    *,
    draws: int | None = None,
    draw_seed: int = 0,
) -> Space:
    """Check the fields of a sweep.

    Args:
        experiment: name of the experiment.
        base: the config whose fields are varied.
        grid: values of each field. A field is named in full, as in "setting.width", or by its last
            words, where only one field of the config ends with them.
        draws: number of random points; None takes the whole grid.
        draw_seed: seed of the random points.

    Raises:
        ValueError: there is no such field, a field has no values, or a range is not valid.

    >>> from pydantic import BaseModel
    >>> class Config(BaseModel):
    ...     width: int = 64
    ...     step_size: float = 0.1
    >>> space("toy", Config(), {"width": [8, 16], "step_size": "log:0.1:1:2"}).points()[:2]
    [{'width': 8, 'step_size': 0.1}, {'width': 8, 'step_size': 1.0}]
    """
    fields = base.model_dump(mode="json")
    known = [path for path, _ in _leaves(fields)]
    full: dict[str, list[Any] | str] = {}
    for name, values in grid.items():
        path = _found(name, known)
        if path in full:
            raise ValueError(f"field {name!r} is given twice")
        full[path] = _plain(name, values)
    if not full:
        raise ValueError("a sweep needs at least one field with values, such as width=64,128")
    if draws is not None and draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    return Space(
        experiment=experiment, base=fields, grid=full, draws=draws, draw_seed=draw_seed
    )  # fmt: skip


def _plain(name: str, values: Values) -> list[Any] | str:
    """Values as JSON values; a range as text."""
    if isinstance(values, str | Range):
        return str(Range.parse(values) if isinstance(values, str) else values)
    listed = [
        asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for value in values
    ]
    if not listed:
        raise ValueError(f"field {name!r} has no values")
    return listed


def _axis(values: list[Any] | str) -> "list[Any] | Range":
    return Range.parse(values) if isinstance(values, str) else values


def _found(name: str, known: Sequence[str]) -> str:
    """The full name of a field."""
    wanted = name.replace("-", "_")
    matching = [path for path in known if path == wanted or path.endswith(f".{wanted}")]
    exact = [path for path in matching if path == wanted]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    if matching:
        raise ValueError(f"field {name!r} stands for {' and '.join(matching)}; write one of these")
    words = dict.fromkeys(path.rpartition(".")[2] for path in known)
    close = get_close_matches(wanted, [*words, *known], n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"no field {name!r}; {hint or 'choose from ' + ', '.join(words)}")


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field by its full name; a distribution of weights is one field."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and not name.endswith("_weights"):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _replaced(fields: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    name, *inner = path
    return {**fields, name: _replaced(fields[name], inner, value) if inner else value}


def _as_field(value: float, default: Any) -> float:
    """A number of a range as the field with this default has it: whole where the default is."""
    if isinstance(default, int) and not isinstance(default, bool):
        return round(value)
    # The default None does not tell, and a field of whole numbers takes 128.0 for 128.
    return int(value) if default is None and value.is_integer() else value
