"""What networks keep of their accuracy and heat under shift, and the claims about it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from contam.experiment import Claim, NotJudged, Statement, capitalized, judge_all
from contam.experiments.fig06_heatmaps.config import STRENGTHS, Config
from contam.experiments.fig06_heatmaps.heat import PLAIN, PLUS
from contam.experiments.support.per_network import (
    CONTROLS,
    by_network,
    network_table,
    require_learning,
    smallest_control,
)
from contam.run import DataFrame, Run

PHRASES = {"teacher": "the teacher", "student": "the student", "ERM": "the standard network"}
NO_MASKS = "the data has neither masks of its objects nor a controlled shift of the background"


def where(table: DataFrame, **values: Any) -> DataFrame:
    """The rows that have these values."""
    for column, value in values.items():
        table = table[table[column] == value] if column in table else table[:0]
    return table


def _ratio(table: DataFrame, over: DataFrame, column: str) -> DataFrame:
    """A column over that of other rows, seeds by networks; NaN over zero."""
    if column not in table or table[column].isna().all():
        raise NotJudged(NO_MASKS)
    whole = by_network(over, column)
    return (by_network(table, column) / whole).where(whole != 0)


def under_shift(table: DataFrame, column: str, *, shift: str = "shift", **which: Any) -> DataFrame:
    """A quantity under a whole controlled shift, over that without it; seeds by networks.

    Args:
        table: the rows of all networks.
        column: the quantity.
        shift: a name of `SHIFTS`.
        which: values of other columns that choose rows.

    Source: Fig. 6.

    Raises:
        NotJudged: the data has no controlled shift.
    """
    start, end = (where(table, set=shift, strength=STRENGTHS[k], **which) for k in (0, -1))
    return _ratio(end, start, column)


def under_natural_shift(table: DataFrame, column: str, **which: Any) -> DataFrame:
    """A quantity on the OOD tests, their mean, over that on the ID test; seeds by networks.

    Source: Fig. 6.

    Raises:
        NotJudged: the quantity needs masks, and the data has none.
    """
    id_, ood = (where(table, set="natural", role=role, **which) for role in ("id", "ood"))
    return _ratio(ood, id_, column)


class ShiftedQuantity(NamedTuple):
    """What networks may keep under shift."""

    name: str
    """Its name in sentences."""
    source: str
    """Where the papers say that it falls."""
    rows: dict[str, Any]
    """The column, and the values of other columns that choose its rows."""


def _heat(formula: str, column: str = "object", layer: str = "last") -> ShiftedQuantity:
    place = "on the object" if column == "object" else f"of the {column}"
    rows = {"column": column, "what": "heat", "map": layer, "formula": formula}
    return ShiftedQuantity(f"heat {place} ({formula})", "Fig. 6", rows)


ACCURACY = ShiftedQuantity("accuracy", "ours", {"column": "accuracy", "what": "answers"})
SELECTIVITY = ShiftedQuantity(
    "selectivity (Eq. 61)", "Fig. 5", {"column": "selectivity", "what": "answers"}
)
ON_OBJECT = (_heat(PLUS), _heat(PLAIN))


def _learned(
    ratios: Callable[..., DataFrame],
    quantity: ShiftedQuantity,
    pick: Callable[[DataFrame], Any],
    *names: str,
    **options: Any,
) -> Callable[[DataFrame], list[float]]:
    """What `pick` selects of the ratios of a quantity, in networks that have learned.

    Networks have learned if they are accurate on the natural ID test.
    """

    def measure(table: DataFrame) -> list[float]:
        values = ratios(table, **quantity.rows, **options)
        answers = where(table, set="natural", role="id", what="answers")
        require_learning(answers, "accuracy", names)
        return pick(values).tolist()

    return measure


def _compared(
    quantity: ShiftedQuantity, better: str, worse: str, source: str = "Fig. 6"
) -> Statement:
    """A claim that one network keeps more of a quantity than another on the natural tests."""
    return Statement(
        f"On the natural tests {PHRASES[better]} keeps more {quantity.name} than {PHRASES[worse]}",
        source, f"{quantity.name}, OOD over ID: {better} minus {worse}",
        _learned(under_natural_shift, quantity, lambda r: r[better] - r[worse], better, worse),
        low=0.0, every_seed=True,
    )  # fmt: skip


def _falling(quantity: ShiftedQuantity, trained: list[str]) -> list[Statement]:
    """Claims that the controlled shift lowers a quantity in all networks, in the teacher least."""

    def largest(ratios: DataFrame, names: list[str] = trained) -> Any:
        return ratios[names].max(axis=1, skipna=False)

    def advantage(ratios: DataFrame) -> Any:
        return ratios.teacher - largest(ratios, trained[1:])

    of, source, _ = quantity
    return [
        Statement(f"The controlled shift lowers {of} in every trained network", source,
                  f"{of} after the shift over before, the largest",
                  _learned(under_shift, quantity, largest, *trained), high=1.0, every_seed=True),
        Statement(f"The teacher loses the least {of} under the controlled shift", source,
                  f"{of} after the shift over before, teacher minus the best of the others",
                  _learned(under_shift, quantity, advantage, *trained), low=0.0, every_seed=True),
    ]  # fmt: skip


def _style(quantity: ShiftedQuantity) -> Statement:
    """A claim that style transfer takes more of a quantity from the student than the teacher."""
    return Statement(
        f"Under style transfer the teacher keeps more {quantity.name} than {PHRASES['student']}",
        "Fig. 6", f"{quantity.name} after style transfer over before: teacher minus student",
        _learned(under_shift, quantity, lambda r: r.teacher - r.student, "teacher", "student",
                 shift="style"),
        low=0.0, every_seed=True,
    )  # fmt: skip


def _share_falls(layer: str, name: str) -> Statement:
    share = _learned(under_shift, _heat(PLAIN, "share", layer), lambda r: r.student, "student")
    return Statement(
        f"On the {name} maps, the share of the student's heat on the object falls with the shift",
        "ours", f"share of heat ({PLAIN}) after the shift over before, {name} maps",
        share, high=0.9, every_seed=True,
    )  # fmt: skip


CONTROL = Statement(
    "The fall is learned: untrained networks keep their heat", "ours",
    f"heat on the object ({PLUS}) after the shift over before, the smallest of the untrained "
    "networks",
    lambda table: smallest_control(under_shift(table, **_heat(PLUS).rows)).tolist(),
    low=0.95, about_learning=False,
)  # fmt: skip


def statements(config: Config) -> list[Statement]:
    """The table of claims on the networks of a config.

    Source: Fig. 6.
    """
    trained = [spec.name for spec in config.specs if spec not in CONTROLS]
    falling = (ACCURACY, SELECTIVITY, *ON_OBJECT)
    return [
        _compared(ACCURACY, "teacher", "student", "Sec. 2"),
        _compared(_heat(PLUS, "picture"), "teacher", "student"),
        *(_compared(heat, *pair) for heat in ON_OBJECT for pair in pairwise(trained)),
        *(statement for quantity in falling for statement in _falling(quantity, trained)),
        *map(_style, (ACCURACY, _heat(PLAIN, "picture"), _heat(PLAIN))),
        *([CONTROL] if any(spec in CONTROLS for spec in config.specs) else []),
        _share_falls("fine", "finer"),
        _share_falls("last", "last"),
    ]


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether accuracy and heat fall with the shift, and least in the teacher."""
    config = Config.model_validate(run.config)
    return judge_all(statements(config), network_table(run, config.specs))


def summarize(run: Run) -> str:
    """The heat and the accuracy that remain on OOD data, in a sentence."""
    config = Config.model_validate(run.config)
    table = network_table(run, config.specs)
    quantity = _heat(PLAIN, config.region)
    heat, accuracy = (under_natural_shift(table, **of.rows) for of in (quantity, ACCURACY))
    values = ", ".join(
        f"{PHRASES[spec.name]} {fmean(heat[spec.name]):.0%} and {fmean(accuracy[spec.name]):.0%}"
        for spec in config.specs
        if spec not in CONTROLS
    )
    return capitalized(f"{quantity.name} and accuracy on OOD data, relative to ID data: {values}.")
