"""The ledger of lost points: the accuracy that an OOD set loses, split among causes.

Each cause has a test of its own. Treatments that give accuracy back are applied together in all
combinations, and each gets its Shapley value, after plumbing faults are repaired; losses that can
only be imitated or counted share what is left. What nothing accounts for is called unexplained.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.causes import CAUSES, Cause, CauseTest
from contam.auditing.causes.artifact_shortcut import TagShortcut
from contam.auditing.causes.background import BackgroundShortcut, NewBackgrounds
from contam.auditing.causes.cause import LEAST_SHARE
from contam.auditing.causes.corruption import Corruption
from contam.auditing.causes.geometry import Geometry
from contam.auditing.causes.label_mismatch import LabelMismatch
from contam.auditing.causes.label_noise import LabelNoise, SeenInTraining
from contam.auditing.causes.subtypes import NewSubtypes
from contam.auditing.causes.undertrained import Undertrained
from contam.auditing.comparison import Comparison, Treatment, gain_of, mean_interval
from contam.auditing.records import (
    UNEXPLAINED,
    CauseEvidence,
    Interval,
    Ledger,
    LostPoints,
)

EXPLAINED = 0.8
"""Share of the loss that plumbing faults give back from which no other cause is tested."""
MOST_TREATMENTS = 4
"""Treatments that are applied in all combinations; the largest count."""
PLUMBING = {cause.name for cause in CAUSES if cause.plumbing}
"""Names of the faults of files, labels and preprocessing."""
AGAIN = (LabelMismatch, Geometry, NewBackgrounds, Corruption)
"""Causes that are tested again on images whose shift is undone."""
IMITATED_FIRST = (
    "measurement", "label shift", "metadata shortcut", "information missing", "corruption",
    "new subtypes", "label noise",
)  # fmt: skip
"""The order in which losses that are not given back share what is left."""


@dataclass(frozen=True, eq=False)
class Explained:
    """The ledger of an OOD set with the evidence of each test."""

    ledger: Ledger
    evidence: tuple[CauseEvidence, ...]
    tests: tuple[CauseTest, ...]


def explain(
    comparison: Comparison, causes: Sequence[Cause] = CAUSES
) -> Generator[str, None, Explained]:
    """Test each cause on an OOD set that loses accuracy, and split the loss.

    Args:
        comparison: the ID set and the OOD set.
        causes: the causes in the order in which they are tested.

    Yields:
        The name of the cause that was tested.

    Returns:
        The ledger of the OOD set, with the evidence of each test.

    Source: ours; Shapley (1953) for overlapping treatments.
    """
    base: list[Treatment] = []
    tests: list[CauseTest] = []
    for cause in causes:
        if isinstance(cause, Undertrained):
            continue
        reason = _spared(comparison, cause, base, tests)
        test = (
            cause.not_tested(reason) if reason
            else _attempted(cause, lambda cause=cause: cause.test(comparison, base))
        )  # fmt: skip
        tests.append(test)
        if test.positive and cause.plumbing and test.treatment is not None:
            base.append(test.treatment)
        yield cause.name
    tests = _backgrounds_again(comparison, causes, base, tests)
    tests = yield from _second_round(comparison, causes, base, tests)
    entries = _shares(comparison, tests)
    ledger = Ledger(
        on=comparison.name, loss=comparison.loss, entries=entries,
        steps=tuple(test.step for test in tests), n=len(rows_of(comparison, tests)),
        shown=comparison.shown,
    )  # fmt: skip
    evidence = tuple(test.evidence for test in tests if test.evidence is not None)
    return Explained(ledger, evidence, tuple(tests))


def _spared(
    comparison: Comparison, cause: Cause, base: Sequence[Treatment], tests: Sequence[CauseTest]
) -> str:
    """Why a cause is not tested after these tests; an empty string if it is."""
    causes = {test.step.leads_to for test in tests if test.positive}
    if base and not cause.plumbing:
        rows = comparison.judged
        gained = comparison.correct(base, rows).double() - comparison.correct([], rows).double()
        done = float(gained.mean()) / max(comparison.loss.value, 1e-9)
        if done > EXPLAINED:
            return f"{100 * done:.0f} % of the loss is explained already"
    if SeenInTraining.name in causes and not cause.plumbing:
        return "the network knows the ID images, and there is no shift"
    if isinstance(cause, LabelNoise) and causes:
        return "another cause was found"
    if isinstance(cause, BackgroundShortcut) and TagShortcut.name in causes:
        return "the tag at the border is part of the background"
    if isinstance(cause, NewSubtypes) and Geometry.name in causes:
        return "objects that are turned or resized look new, too"
    return ""


def _attempted(cause: Cause, run: Callable[[], CauseTest]) -> CauseTest:
    """Return the result of a test; if it raises, that it could not be made.

    Args:
        cause: the cause.
        run: makes the test.
    """
    try:
        return run()
    except (ValueError, RuntimeError) as error:
        message = " ".join(str(error).split())[:200]
        return cause.not_tested(message or type(error).__name__)


def _backgrounds_again(
    comparison: Comparison,
    causes: Sequence[Cause],
    base: Sequence[Treatment],
    tests: Sequence[CauseTest],
) -> list[CauseTest]:
    """The tests with new backgrounds tested again on images whose corruption is undone.

    A corruption of whole images also changes what is behind the objects.
    """
    positive = {test.step.leads_to: test for test in tests if test.positive}
    corruption = positive.get(Corruption.name)
    backgrounds = next((cause for cause in causes if isinstance(cause, NewBackgrounds)), None)
    if (
        corruption is None
        or corruption.treatment is None
        or backgrounds is None
        or backgrounds.name not in positive
    ):
        return list(tests)
    treatments = [*base, corruption.treatment]
    again = _attempted(backgrounds, lambda: backgrounds.test(comparison, treatments))
    return [again if test is positive[backgrounds.name] else test for test in tests]


def _second_round(
    comparison: Comparison,
    causes: Sequence[Cause],
    base: Sequence[Treatment],
    tests: Sequence[CauseTest],
) -> Generator[str, None, list[CauseTest]]:
    """Test causes again on images whose shift is undone, if much of the loss is unexplained.

    Where a shift leaves few predictions as they would be, these can't show another cause.
    """
    tests = list(tests)
    undone = [t for test in tests if test.positive and (t := test.treatment) is not None
              and t.images is not None and t not in base]  # fmt: skip
    undone = undone[:MOST_TREATMENTS]
    rest = _shares(comparison, tests)[-1].points.value
    if not undone or rest < LEAST_SHARE * comparison.loss.value:
        return tests
    for cause in causes:
        if not isinstance(cause, AGAIN):
            continue
        place = next(k for k, test in enumerate(tests) if test.step.leads_to == cause.name)
        if tests[place].positive:
            continue
        # Beside another cause, a plumbing fault need not give most of the loss back.
        milder = replace(cause, threshold=LEAST_SHARE)
        again = _attempted(milder, lambda milder=milder: milder.test(comparison, [*base, *undone]))
        if again.positive and again.treatment is not None:
            why = f"Once other causes are treated: {again.step.why[0].lower()}{again.step.why[1:]}"
            step = again.step.model_copy(update={"why": why})
            tests[place] = replace(again, step=step, hidden=True)
            undone.append(again.treatment)
        yield cause.name
    return tests


def _shares(comparison: Comparison, tests: Sequence[CauseTest]) -> tuple[LostPoints, ...]:
    """Split the loss among the causes whose tests are positive; the entries add up to it.

    Args:
        comparison: the ID set and the OOD set.
        tests: the results of the tests.
    """
    loss = comparison.loss
    treated = [test for test in tests if test.positive and test.treatment is not None]
    treated.sort(key=lambda test: -(test.step.observed.value if test.step.observed else 0.0))
    nested = _nested(treated)
    players = [test for test in treated if test is not nested][:MOST_TREATMENTS]
    entries = _given_back(comparison, players)
    if nested is not None:
        entries = _with_nested(entries, nested, treated)
    given = sum(entry.points.value for entry in entries)
    if given > loss.value > 0:
        # Treatments can give more back than was lost; the shares are those of the loss.
        entries = [_scaled(entry, loss.value / given) for entry in entries]
        given = loss.value
    rest = max(0.0, loss.value - given)
    imitated = [test for test in tests if test.positive and test.imitated is not None]
    for test in sorted(imitated, key=lambda test: _rank(test.step.leads_to)):
        assert test.imitated is not None
        value = min(max(0.0, test.imitated.value), rest)
        if value <= 0:
            continue
        low, high = (
            None if end is None else min(max(0.0, end), rest)
            for end in (test.imitated.low, test.imitated.high)
        )
        entries.append(
            LostPoints(
                cause=test.step.leads_to, what=test.what, how="imitated", fix=test.fix,
                points=Interval(value=value, low=low, high=high),
            )
        )  # fmt: skip
        rest -= value
    entries.sort(key=lambda entry: -entry.points.value)
    remaining = loss.value - sum(entry.points.value for entry in entries)
    entries.append(
        LostPoints(
            cause=UNEXPLAINED, what="no test accounts for it", how="rest",
            points=Interval(value=remaining),
        )
    )  # fmt: skip
    return tuple(entries)


def _given_back(comparison: Comparison, tests: Sequence[CauseTest]) -> list[LostPoints]:
    """What each treatment gives back: plumbing faults first, then the others with these repaired.

    Within both groups the treatments have their Shapley values, so that the order of the two groups
    is the only one that counts.
    """
    faults = [test for test in tests if test.step.leads_to in PLUMBING and not test.hidden]
    others = [test for test in tests if test not in faults]
    base = [test.treatment for test in faults if test.treatment is not None]
    return _group(comparison, [], faults) + _group(comparison, base, others)


def rows_of(comparison: Comparison, tests: Sequence[CauseTest]) -> Int[Tensor, " some"]:
    """Return the examples that judge some treatments together.

    If one of them needed a second look, these are all that chose none of them. Plumbing faults may
    be chosen by more examples.

    Args:
        comparison: the ID set and the OOD set.
        tests: the results of the tests.
    """
    treated = [test for test in tests if test.positive and test.treatment is not None]
    again = any(test.again for test in treated)
    chosen = any(test.step.leads_to in PLUMBING for test in treated)
    return comparison.others if again and not chosen else comparison.judged


def _group(
    comparison: Comparison, base: Sequence[Treatment], players: Sequence[CauseTest]
) -> list[LostPoints]:
    """Shapley values of some treatments, from the judged examples under every combination."""
    if not players:
        return []
    rows = rows_of(comparison, players)
    worth: dict[frozenset[int], Tensor] = {}
    for size in range(len(players) + 1):
        for some in combinations(range(len(players)), size):
            treatments = [t for k in some if (t := players[k].treatment) is not None]
            worth[frozenset(some)] = comparison.correct([*base, *treatments], rows).double()
    values = shapley(worth, len(players))
    harmful = [k for k, value in enumerate(values) if float(value.mean()) <= 0]
    if harmful:
        # Beside the others this treatment takes more than it gives.
        worst = min(harmful, key=lambda k: float(values[k].mean()))
        return _group(comparison, base, [p for k, p in enumerate(players) if k != worst])
    entries = []
    for k, test in enumerate(players):
        alone = gain_of(worth[frozenset()].bool(), worth[frozenset({k})].bool())
        # A single treatment has no Shapley value beside its gain.
        share = alone if len(players) == 1 else mean_interval(values[k], comparison.seed)
        entries.append(
            LostPoints(
                cause=test.step.leads_to, what=test.what, how="given back", fix=test.fix,
                points=share, alone=alone,
            )
        )  # fmt: skip
    return entries


def shapley(
    worth: dict[frozenset[int], Float[Tensor, " n"]], players: int
) -> list[Float[Tensor, " n"]]:
    """Return the Shapley value of each player, for each example.

    Args:
        worth: what each coalition achieves on each example.
        players: number of players.

    Returns:
        Values that add up to the worth of all players minus that of none.

    Source: Shapley (1953), A value for n-person games.

    >>> worth = {frozenset(s): torch.tensor([float(len(s) == 2)]) for s in ((), (0,), (1,), (0, 1))}
    >>> [float(value) for value in shapley(worth, 2)]
    [0.5, 0.5]
    """
    values = []
    for k in range(players):
        total = torch.zeros_like(worth[frozenset()])
        others = [j for j in range(players) if j != k]
        for size in range(players):
            weight = 1 / (players * comb(players - 1, size))
            for some in combinations(others, size):
                coalition = frozenset(some)
                total = total + weight * (worth[coalition | {k}] - worth[coalition])
        values.append(total)
    return values


def _nested(treated: Sequence[CauseTest]) -> CauseTest | None:
    """The test of new backgrounds, if that of the own class's backgrounds includes it."""
    names = {test.step.leads_to: test for test in treated}
    if BackgroundShortcut.name in names:
        return names.get(NewBackgrounds.name)
    return None


def _with_nested(
    entries: list[LostPoints], nested: CauseTest, treated: Sequence[CauseTest]
) -> list[LostPoints]:
    """Split the share of backgrounds of the own class: what those of other classes give, too."""
    own = next(test for test in treated if test.step.leads_to == BackgroundShortcut.name)
    others, extra = (
        max(0.0, t.step.observed.value if t.step.observed else 0.0) for t in (nested, own)
    )
    part = others / max(1e-9, others + extra)
    split = []
    for entry in entries:
        if entry.cause != BackgroundShortcut.name:
            split.append(entry)
            continue
        split.append(_scaled(entry, 1 - part))
        split.append(
            _scaled(entry, part).model_copy(
                update={"cause": NewBackgrounds.name, "what": nested.what, "fix": nested.fix}
            )
        )
    return split


def _scaled(entry: LostPoints, factor: float) -> LostPoints:
    ends = {
        name: None if end is None else factor * end
        for name, end in entry.points.model_dump().items()
    }
    return entry.model_copy(update={"points": Interval.model_validate(ends)})


def _rank(cause: str) -> int:
    return IMITATED_FIRST.index(cause) if cause in IMITATED_FIRST else len(IMITATED_FIRST)
