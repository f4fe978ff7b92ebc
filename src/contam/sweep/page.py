"""The figures of a sweep: each number over the swept fields."""

from collections.abc import Iterator, Sequence
from typing import Any

from contam.experiment import (
    Experiment,
    Stage,
    capitalized,
    no_claims,
    number,
)
from contam.plots import Figure, Panel, bars, lines, matrix, scatter
from contam.run import Run
from contam.sweep.space import Space
from contam.sweep.sweep import NAME

MAX_CURVES = 7
"""Largest number of curves of a panel."""
MAX_MAPS = 12
"""Largest number of heat maps of a figure."""
RATIO = 20
"""Ratio of the largest to the smallest value of a field from which its axis is logarithmic."""


def _draw(run: Run) -> Sequence[Figure]:
    """Draw every number that the runs' claims measure, over the swept fields.

    Args:
        run: the run of a sweep.
    """
    table = run.table("numbers")
    if table.empty:
        return []
    space = Space.model_validate(run.config)
    fields = list(space.names().values())
    for field in fields:
        table[field] = table[field].map(_short)
    figures = []
    for quantity, rows in table.groupby("quantity", sort=False):
        if rows["observed"].isna().all():
            continue
        varied = [field for field in fields if rows[field].nunique() > 1] or fields[:1]
        panels = tuple(_panels(rows, varied, str(quantity), scattered=space.draws is not None))
        columns = [*fields, "observed", "low", "high", "n"]
        figures.append(
            Figure(
                capitalized(str(quantity)),
                _about(rows, panels),
                "ours",
                panels,
                tuple(_plain(rows[columns])),
            )
        )
    return figures


def _panels(rows: Any, fields: list[str], quantity: str, *, scattered: bool) -> Iterator[Panel]:
    """The panels of one number: scatter plots of draws; bars or curves, and maps, of a grid."""
    numeric = [field for field in fields if _is_numeric(rows[field])]
    if scattered:
        for field in fields:
            if field in numeric:
                marks = _plain(rows.assign(kind="run"))
                yield scatter(
                    marks, title=f"Over {field}", x=(field, field), y=("observed", quantity),
                    series=("kind", ""), log="x" if _is_wide(rows[field]) else "",
                )  # fmt: skip
            else:
                yield bars(
                    _plain(rows.groupby(field, as_index=False, sort=False)["observed"].mean()),
                    title=f"Mean over {field}", x=(field, field), y=("observed", quantity),
                )  # fmt: skip
        return
    # The field with the most values runs along the curves and along the maps' columns.
    x = max(numeric or fields, key=lambda field: rows[field].nunique())
    others = [field for field in fields if field != x]
    curves = rows.assign(curve=_labels(rows, others))
    if curves["curve"].nunique() <= MAX_CURVES:
        if x in numeric:
            yield lines(
                _plain(curves.sort_values(x)), title=f"Over {x}", x=(x, x),
                y=("observed", quantity), series=("curve", ""),
                log="x" if _is_wide(rows[x]) else "", points=True, wide=bool(others),
            )  # fmt: skip
        else:
            yield bars(
                _plain(curves), title=f"For each {x}", x=(x, x), y=("observed", quantity),
                series=("curve", "") if others else None, wide=True,
            )  # fmt: skip
    if not others:
        return
    y = max(others, key=lambda field: (field in numeric, rows[field].nunique()))
    maps = rows.assign(map=_labels(rows, [field for field in others if field != y]))
    if maps["map"].nunique() <= MAX_MAPS:
        for name, cells in maps.groupby("map", sort=False):
            order = [field for field in (y, x) if field in numeric]
            placed = cells.sort_values(order) if order else cells
            yield matrix(
                _plain(placed), title=str(name) or f"Over {y} and {x}", x=(x, x), y=(y, y),
                value=("observed", quantity), limits=None,
            )  # fmt: skip


def _about(rows: Any, panels: Sequence[Panel]) -> str:
    """What the figure shows and what it leaves out, as sentences."""
    seeds = int(rows["n"].max())
    text = f"Means over {seeds} seeds, for each config." if seeds > 1 else "One seed per config."
    if rows["low"].notna().any() and any("Line" in panel.description for panel in panels):
        text += " Bands: 95 % t intervals over seeds."
    missing = rows.loc[rows["observed"].isna(), "not_judged"].dropna()
    if len(missing):
        text += f" {len(missing)} of {len(rows)} configs have no number: {missing.iloc[0]}."
    return text if panels else text + " Too many fields to draw; the table has all numbers."


def _labels(rows: Any, fields: Sequence[str]) -> list[str]:
    """One text for each row with the values of these fields."""
    return [
        ", ".join(f"{field} {value}" for field, value in zip(fields, values, strict=True))
        for values in rows[list(fields)].itertuples(index=False, name=None)
    ] if fields else [""] * len(rows)  # fmt: skip


def _plain(rows: Any) -> list[dict[str, Any]]:
    """The rows as mappings; a row without an interval has no fields for it."""
    return [
        {
            key: value
            for key, value in row.items()
            if key not in ("low", "high") or value is not None
        }
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records")
    ]


def _short(value: Any) -> Any:
    """A value as axes and tables show it: distributions and missing values as text."""
    if isinstance(value, dict):
        return " ".join(f"{name} {part}" for name, part in value.items())
    return value if isinstance(value, int | float | str) else str(value).lower()


def _is_numeric(column: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _is_wide(column: Any) -> bool:
    return column.min() > 0 and column.max() >= RATIO * column.min()


def _summarize(run: Run) -> str:
    """How many runs the sweep has, what it varies, and which run has the extreme of each number."""
    space, runs = Space.model_validate(run.config), run.table("runs")
    failed = int((runs["error"] != "").sum())
    varied = " and ".join(
        f"{name} ({count} value{'s' * (count > 1)})"
        for name in space.names().values()
        for count in [runs[name].map(str).nunique()]
    )
    vary = "1 run of {} varies" if len(runs) == 1 else f"{len(runs)} runs of {{}} vary"
    text = f"{vary.format(space.experiment)} {varied}."
    if failed:
        text += f" {failed} of them failed: {runs.loc[runs['error'] != '', 'error'].iloc[0]}."
    ranges = [
        f"{quantity} from {number(rows['observed'].min())} to {number(rows['observed'].max())}"
        for quantity, rows in run.table("numbers").groupby("quantity", sort=False)
        if rows["observed"].notna().any()
    ]
    return text + (f" Means over seeds: {'; '.join(ranges[:3])}." if ranges else "")


def _warn(run: Run) -> str:
    """One sentence if some runs failed."""
    runs = run.table("runs")
    failed = runs[runs["error"] != ""]
    if failed.empty:
        return ""
    return f"{len(failed)} of {len(runs)} runs failed: {failed['error'].iloc[0]}"


def _compute(_: Any, run: Run) -> Iterator[Stage]:
    raise ValueError(f"{run.folder}: a sweep is computed by 'contam sweep'")


SWEEP = Experiment(
    name=NAME,
    title="Sweep",
    about="One experiment under many configs. Each config is an ordinary run; the numbers are "
    "those of its claims.",
    reproduces=(),
    presets={},
    compute=_compute,
    claims=no_claims,
    draw=_draw,
    summary=_summarize,
    alert=_warn,
)
"""The run of a sweep, as pages and commands read it."""
