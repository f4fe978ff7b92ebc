"""The tables of a run, and one number for each seed from them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import t

from contam.experiment import Claim, NotJudged, capitalized
from contam.experiments.phase_diagrams.config import Config, Name
from contam.run import Run

HARDLY = 0.05
"""Share of errors on ID data up to which a network learned, whatever its risk is."""
LEARNED = 0.5
"""ID risk, as a share of the risk of an output of 0, below which a network has learned."""

Table = Any
"""A pandas.DataFrame, whose methods type checkers know too little of."""


class PhaseResults:
    """The rows of a run by diagram."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, Config.model_validate(run.config)

    def rows(self, name: Name, kind: str = "trained") -> Table:
        """The rows of a diagram.

        Args:
            name: the diagram.
            kind: "trained" or "predicted" in two-layer networks; in the diagram of depth, the kind
                of network.

        Raises:
            NotJudged: the run does not have this diagram.
        """
        table: Table = self.run.table(f"{name}/")
        if table.empty:
            raise NotJudged(f"the run does not have the diagram {name!r}; see --only")
        return table[table["kind"] == kind]

    def has(self, name: Name) -> bool:
        """Whether the run has a diagram."""
        return bool(self.run.parts(f"{name}/"))

    def curves(
        self,
        name: Name,
        column: str,
        series: object = None,
        *,
        learned: bool = True,
        time: float | None = None,
    ) -> Table:
        """A column of a diagram's trained networks when training ends, or at another time.

        Args:
            name: the diagram.
            column: the column.
            series: the curve; None for the first one.
            learned: whether every network must have learned.
            time: the training time; None for the last one of each network.

        Returns:
            A table with a row for each seed and a column for each value of the axis, in the order
            of the config.

        Raises:
            NotJudged: the run does not have the diagram, or a network did not learn.
        """
        rows = self.rows(name)
        rows = rows[rows["series"] == (rows["series"].iloc[0] if series is None else series)]
        last = rows.groupby(["x", "seed"])["time"].transform("max")
        rows = rows[rows["time"] == (last if time is None else time)]
        if learned:
            require_learned(rows)
        return rows.pivot(index="seed", columns="x", values=column)


def require_learned(rows: Table) -> None:
    """Raise `NotJudged` unless all networks of a table learned.

    A network also learned if it makes hardly any errors; the margins of one with bounded outputs
    stay small.

    Args:
        rows: rows of networks.
    """
    if "id_error" in rows:
        rows = rows[~(rows["id_error"] <= HARDLY)]
    remaining = rows.groupby("x")["remaining"].mean() if "x" in rows else rows["remaining"]
    if not len(remaining):
        return
    if not remaining.max() <= LEARNED:
        raise NotJudged(
            f"a network did not learn: its ID risk is {remaining.max():.2f} of that of an output "
            "of 0"
        )


Measure = Callable[[PhaseResults], list[float]]
"""One value for each seed."""


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Where a curve first falls to a level, interpolated; NaN if it never does.

    Args:
        x: increasing values of the axis.
        y: values of the curve.
        level: the level.

    >>> crossing([0.0, 0.5, 1.0], [1.0, 0.8, 0.0], level=0.4)
    0.75
    """
    for k in range(1, len(x)):
        if y[k - 1] > level >= y[k]:
            return x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - level) / (y[k - 1] - y[k])
    return math.nan


def in_words(claim: Claim) -> str:
    """The number of a claim with its 95 % interval, in one sentence.

    Args:
        claim: a claim over seeds.

    >>> in_words(Claim("It fails", "ours", "OOD risk", observed=0.8, spread=0.1, n=4))
    'OOD risk: 0.8 (95 % interval 0.641 to 0.959, 4 seeds).'
    """
    quantity = capitalized(claim.quantity)
    if claim.observed is None:
        return f"{quantity}: not judged, since {claim.not_judged}."
    text = f"{quantity}: {claim.observed:.3g}"
    if claim.spread is None:
        return f"{text} (one seed)."
    half = t.ppf(0.975, claim.n - 1) * claim.spread / math.sqrt(claim.n)
    low, high = claim.observed - half, claim.observed + half
    return f"{text} (95 % interval {low:.3g} to {high:.3g}, {claim.n} seeds)."
