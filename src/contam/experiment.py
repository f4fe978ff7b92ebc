"""An experiment is a value with three acts; a claim is a sentence beside the measured number."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel

from contam.plots import Figure
from contam.run import Run

VERDICTS = {True: "holds", False: "does not hold", None: "not judged"}
"""The outcome of a claim in words."""
SETTINGS_DIFFER = "settings differ from those of the claim"
"""Why a claim is not judged by a run of other sizes, steps or data."""
ResultsT = TypeVar("ResultsT")
Measure = Callable[[ResultsT], list[float]]
"""From the results of a run to a number for each seed."""
NULL_STEP_SIZE = 1e-9
"""Step size of a null run: nothing is learned, and everything else is computed as ever."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper (or of the specification built on it), and what a run measured.

    The number is the mean over seeds. The claim holds when it lies in [low, high]; an end that is
    None is open. A claim that the run can't judge says why, with the number or without one.

    >>> claim = Claim("The shift costs accuracy", "Thm. 4.3", "OOD risk", observed=0.85, low=0.8)
    >>> claim.holds, claim.expected_range, claim.verdict
    (True, '0.8 or more (ours)', 'holds')
    """

    says: str
    source: str
    """Where the statement stands: 'Thm. 4.3', 'App. F.1', or 'ours' when it is not the paper's."""
    quantity: str
    """What the number is, with its unit when it has one."""
    observed: float | None = None
    """The measured number."""
    spread: float | None = None
    """Standard deviation over seeds; None for fewer than two."""
    n: int = 0
    """How many seeds the number is over, or how many of what `of` says."""
    of: str = "seed"
    """What `n` counts, in the singular."""
    low: float | None = None
    high: float | None = None
    published: str | None = None
    """The number that the paper gives, where there is one."""
    in_every_seed: bool | None = None
    """For claims about every seed: whether each seed's number lies in [low, high]."""
    not_judged: str | None = None
    """Why the claim was not judged."""
    about_learning: bool = True
    """Whether the claim is about what training does, so that it must not hold in a null run."""

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds in this run; None when it was not judged."""
        return None if self.not_judged is not None else self.in_range

    @property
    def in_range(self) -> bool | None:
        """Whether the number lies in the expected range, judged or not; None without a number."""
        if self.observed is None:
            return None
        if self.in_every_seed is not None:
            return self.in_every_seed
        return _within(self.observed, self.low, self.high)

    @property
    def verdict(self) -> str:
        """The outcome in words, as `VERDICTS` has it."""
        return VERDICTS[self.holds]

    @property
    def expected_range(self) -> str:
        """The range in words, and whether it is ours: '0.75 or more (ours)', '0.82 to 0.88'.

        For a statement that is ours, the range is, too.
        """
        if self.low is not None and self.high is not None:
            text = f"{number(self.low)} to {number(self.high)}"
        elif self.low is not None:
            text = f"{number(self.low)} or more"
        else:
            text = "any" if self.high is None else f"{number(self.high)} or less"
        text = text if self.in_every_seed is None else f"{text}, in every seed"
        return f"{text} (ours)" if self.range_source == "ours" != self.source else text

    @property
    def range_source(self) -> str:
        """Where the range stands: 'ours', or the source of a statement about a direction alone.

        The papers state what grows, falls or stays, and hardly ever a range. A single bound of 0,
        or of 1 for a ratio, is their statement itself; any other bound is ours.
        """
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        return self.source if bounds in ([0], [1]) else "ours"

    def record(self, experiment: str) -> dict[str, Any]:
        """The claim as JSON values: what `contam claims --format json` prints."""
        return {
            "experiment": experiment,
            "says": self.says,
            "source": self.source,
            "quantity": self.quantity,
            "published": self.published,
            "expected_range": self.expected_range,
            "range_source": self.range_source,
            "observed": _finite(self.observed),
            "spread": _finite(self.spread),
            "n": self.n,
            "of": self.of,
            "holds": self.holds,
            "not_judged": self.not_judged,
            "about_learning": self.about_learning,
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
    about_learning: bool = True,
) -> Claim:
    """Judge the claim that the mean of `values` lies in [low, high].

    Args:
        says: the statement, as a sentence.
        values: one number for each seed; one that is missing or not a number fails.
        source: where the statement stands; see `Claim`.
        quantity: what the number is.
        low: the lowest mean for which the claim holds; None is open.
        high: the highest mean for which the claim holds; None is open.
        published: the number that the paper gives.
        every_seed: whether each value has to lie in the range.
        about_learning: whether the claim must not hold in a null run.

    >>> judge("ReLU fails", [0.8, 0.9], source="ours", quantity="risk", low=0.5).holds
    True
    """
    numbers = [math.nan if value is None else float(value) for value in values]
    if not numbers:
        return Claim(says, source, quantity, low=low, high=high, published=published,
                     not_judged="no seed was run", about_learning=about_learning)  # fmt: skip
    return Claim(
        says,
        source,
        quantity,
        observed=statistics.fmean(numbers),
        spread=float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        n=len(numbers),
        low=low,
        high=high,
        published=published,
        in_every_seed=all(_within(value, low, high) for value in numbers) if every_seed else None,
        about_learning=about_learning,
    )


def ratio(over: Measure[ResultsT], under: Measure[ResultsT]) -> Measure[ResultsT]:
    """Return the quotient of two measures, seed by seed; nan where the divisor is 0.

    >>> ratio(lambda rows: [2.0, 3.0], lambda rows: [4.0, 0.0])(None)
    [0.5, nan]
    """
    return lambda r: [a / b if b else math.nan for a, b in zip(over(r), under(r), strict=True)]


def difference(of: Measure[ResultsT], minus: Measure[ResultsT]) -> Measure[ResultsT]:
    """Return the difference of two measures, seed by seed.

    >>> difference(lambda rows: [0.75], lambda rows: [0.5])(None)
    [0.25]
    """
    return lambda r: [a - b for a, b in zip(of(r), minus(r), strict=True)]


def no_claims(_run: Run) -> Sequence[Claim]:
    """Return no claims, for an experiment that states none, such as a sweep.

    Args:
        _run: the run, which is not read.

    >>> from pathlib import Path
    >>> class Config(BaseModel):
    ...     seeds: int = 1
    >>> with Run.start(Path("runs"), "toy", Config()) as run:
    ...     no_claims(run)
    []
    """
    return []


class NotJudged(Exception):  # noqa: N818
    """Raised by a statement's `measure` where a run lacks what it is about; its text says why."""


class Pooled(NamedTuple):
    """One number over everything measured, in the place of one number for each seed."""

    value: float
    n: int
    """How many seeds, or how many of what `of` says, it is over."""
    of: str = "seed"


@dataclass(frozen=True)
class Statement:
    """A row of an experiment's table of claims: a sentence, a quantity, and its expected range.

    `says` and `quantity` may have fields in braces, which `judge` fills in.

    >>> statement = Statement("{net} fails", "ours", "risk", lambda risks: risks, low=0.5)
    >>> claim = statement.judge([0.8, 0.9], net="ReLU")
    >>> claim.says, claim.holds
    ('ReLU fails', True)
    """

    says: str
    source: str
    quantity: str
    measure: Callable[[Any], Sequence[float | None] | Pooled]
    """From a run's results to a number for each seed, or to one number; raises `NotJudged`."""
    low: float | None = None
    high: float | None = None
    published: str | None = None
    every_seed: bool = False
    given: Callable[[Any], object] | None = None
    """A condition, which raises `NotJudged` where a run is no evidence. What a network does not do
    ("no background is learned") is a claim about networks that learned their task."""
    about_learning: bool = True
    """Whether the claim is about what training does, so that it must not hold in a null run."""

    def judge(self, results: Any, **words: object) -> Claim:
        """The claim with the number that the results give.

        Args:
            results: what `measure` reads: tables, configs, whatever the experiment puts in it.
            words: values for the fields of `says` and `quantity`.
        """
        says, quantity = self.says.format(**words), self.quantity.format(**words)
        ends: dict[str, Any] = {
            "low": self.low, "high": self.high, "published": self.published,
            "about_learning": self.about_learning,
        }  # fmt: skip
        try:
            if self.given is not None:
                self.given(results)
            values = self.measure(results)
        except NotJudged as reason:
            return Claim(says, self.source, quantity, not_judged=str(reason), **ends)
        if isinstance(values, Pooled):
            value, n, of = values
            return Claim(says, self.source, quantity, observed=float(value), n=n, of=of, **ends)
        return judge(
            says, values, source=self.source, quantity=quantity, every_seed=self.every_seed, **ends
        )


def judge_all(statements: Iterable[Statement], results: Any, **words: object) -> list[Claim]:
    """The claims of a table of statements, in its order; see `Statement.judge`.

    >>> rows = [Statement("{net} fails", "ours", "risk", lambda risks: risks, low=0.5)]
    >>> [claim.holds for claim in judge_all(rows, [0.8, 0.9], net="ReLU")]
    [True]
    """
    return [statement.judge(results, **words) for statement in statements]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _within(value: float, low: float | None, high: float | None) -> bool:
    if math.isnan(value):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def capitalized(text: str) -> str:
    """The text with its first letter in upper case.

    >>> capitalized("accuracy on ID data")
    'Accuracy on ID data'
    """
    return text[:1].upper() + text[1:]


def number(value: float | None) -> str:
    """A number as tables print it, in three significant digits.

    >>> [number(value) for value in (0.84671, 20_000.0, 1e-5, None)]
    ['0.847', '20000', '1.0e-05', '–']
    """
    if value is None or math.isnan(value):
        return "–"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Stage(NamedTuple):
    """The progress of an experiment."""

    done: float
    """Share of the work, from 0 to 1."""
    doing: str
    """What it works on, in a few words."""


def _without_null_run(config: Any) -> Any:
    raise ValueError("this experiment has no null run")


@dataclass(frozen=True)
class Experiment:
    """A figure, table or theorem of a paper, as a value with three acts.

    `compute(config, run)` does the work, writes only to the run, and yields its progress.
    `claims(run)` judges the paper's claims, `draw(run)` draws, and `summary(run)` says the result
    in two sentences. These three only read the run, so they work on any machine that has its
    folder.

    >>> from contam.experiments import find
    >>> find("Fig. 8").name
    'fig03_two_layer'
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
    """The result in plain words, with the numbers."""
    alert: Callable[[Run], str] = lambda run: ""
    """One sentence that warns of a bad result, for the top of the page; empty if all is well."""
    notes: Callable[[Run], Sequence[str]] = lambda run: ()
    """Lines that `contam run` prints below the claims, such as which methods were left out."""
    null: Callable[[Any], Any] = _without_null_run
    """From a config to one whose step sizes are `NULL_STEP_SIZE`: no claim about learning may hold
    in its run. Raises `ValueError` where there is no such config."""
