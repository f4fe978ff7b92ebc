"""An experiment is a value with three acts; a claim is a sentence beside the number found."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from contam.plots import Figure
from contam.run import Run


@dataclass(frozen=True)
class Claim:
    """A statement of the paper (or of the specification built on it), and what a run found.

    The number found is the mean over seeds. The claim holds when it lies in [low, high]; an end
    that is None is open. A claim that the run could not judge says why, with the number or
    without one.
    """

    says: str
    source: str
    """Where the statement stands: 'Thm. 4.3', 'App. F.1', or 'ours' when it is not the paper's."""
    quantity: str
    """What the number is, with its unit when it has one."""
    found: float | None = None
    spread: float | None = None
    """Standard deviation over seeds; None for fewer than two."""
    n: int = 0
    """Seeds behind the number, or what else `of` says."""
    of: str = "seed"
    """What `n` counts, in the singular."""
    low: float | None = None
    high: float | None = None
    published: str | None = None
    """The number in print, where there is one."""
    in_every_seed: bool | None = None
    """For claims about every seed: whether each seed's number lies in [low, high]."""
    not_run: str | None = None
    """Why the claim was not judged."""

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds here; None when it was not judged."""
        if self.found is None or self.not_run is not None:
            return None
        if self.in_every_seed is not None:
            return self.in_every_seed
        return _within(self.found, self.low, self.high)

    @property
    def wanted(self) -> str:
        """The range in words: '0.75 or more', '0.82 to 0.88'."""
        if self.low is not None and self.high is not None:
            text = f"{number(self.low)} to {number(self.high)}"
        elif self.low is not None:
            text = f"{number(self.low)} or more"
        else:
            text = "any" if self.high is None else f"{number(self.high)} or less"
        return text if self.in_every_seed is None else f"{text}, in every seed"

    def record(self, experiment: str) -> dict[str, Any]:
        """The claim as JSON values: what `contam claims --json` prints."""
        return {
            "experiment": experiment,
            "says": self.says,
            "source": self.source,
            "quantity": self.quantity,
            "published": self.published,
            "wanted": self.wanted,
            "found": _finite(self.found),
            "spread": _finite(self.spread),
            "n": self.n,
            "of": self.of,
            "holds": self.holds,
            "not_run": self.not_run,
        }


def judge(
    says: str,
    values: Sequence[float | None],
    *,
    source: str,
    quantity: str,
    low: float | None = None,
    high: float | None = None,
    published: str | None = None,
    every_seed: bool = False,
) -> Claim:
    """The claim that the mean of `values` (one a seed) lies in [low, high].

    With `every_seed`, each of them has to. A value that is missing or not a number fails.
    """
    numbers = [math.nan if value is None else value for value in values]
    if not numbers:
        return Claim(says, source, quantity, low=low, high=high, published=published,
                     not_run="no seed was run")  # fmt: skip
    return Claim(
        says,
        source,
        quantity,
        found=statistics.fmean(numbers),
        spread=float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        n=len(numbers),
        low=low,
        high=high,
        published=published,
        in_every_seed=all(_within(value, low, high) for value in numbers) if every_seed else None,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _within(value: float, low: float | None, high: float | None) -> bool:
    if math.isnan(value):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def number(value: float | None) -> str:
    """A number as the tables print it: three significant digits, no leading zeros lost."""
    if value is None or math.isnan(value):
        return "–"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Stage(NamedTuple):
    """How far an experiment has come."""

    done: float
    """Share of the work, from 0 to 1."""
    doing: str
    """What it works on, in a few words."""


@dataclass(frozen=True)
class Experiment:
    """A figure, table or theorem of a paper, as a value with three acts.

    `compute(config, run)` does the work, writes nothing but the run, and yields how far it came.
    `claims(run)` judges and `draw(run)` shows (`summary(run)` is the picture in two sentences);
    they only read the run, so they work wherever its folder is.
    """

    name: str
    title: str
    about: str
    """Two or three sentences for a reader who has not seen the paper."""
    reproduces: tuple[str, ...]
    """Numbered items of the papers: 'Fig. 8', 'Thm. 4.1'."""
    presets: Mapping[str, BaseModel]
    """'paper' (as published), 'laptop' (minutes), 'smoke' (seconds)."""
    compute: Callable[[Any, Run], Iterator[Stage]]
    claims: Callable[[Run], Sequence[Claim]]
    draw: Callable[[Run], Sequence[Figure]]
    summary: Callable[[Run], str]
    """What was found, in plain words with the numbers."""
    alert: Callable[[Run], str] = lambda run: ""
    """One sentence that warns of a bad result, for the top of the page; empty if all is well."""
