"""Heat maps as in the paper, and their numbers over many images."""

from collections.abc import Sequence
from typing import Any

from contam.experiments.fig06_heatmaps.claims import where
from contam.experiments.fig06_heatmaps.config import SHIFTS, STRENGTHS, Config
from contam.experiments.fig06_heatmaps.heat import PLAIN, PLUS
from contam.experiments.fig06_heatmaps.images import SHOWN
from contam.experiments.support.per_network import network_table
from contam.plots import (
    Figure,
    Panel,
    Tile,
    bars,
    channels_last,
    heat_maps,
    lines,
    over_seeds,
    share_axes,
    tile_row,
)
from contam.run import DataFrame, Run


def draw(run: Run) -> Sequence[Figure]:
    """Heat maps as in the paper, then their numbers over many images."""
    config = Config.model_validate(run.config)
    table = network_table(run, config.specs)
    figures = [_sheet(config, run, table)]
    figures += [_object(config, run, table, shift) for shift in config.shifts]
    figures += [_curves(config, table, shift) for shift in config.shifts]
    if config.networks.masked:
        figures.append(_shares(table))
    return [*figures, _natural_tests(config, table)]


def _sheet(config: Config, run: Run, table: DataFrame) -> Figure:
    """Figure 6a, with ID images on the left and OOD images on the right."""
    pictures = channels_last(run.arrays("net/teacher/seed0")["pictures"].float() / 255)
    shown = where(table, what="shown", seed=0)
    tiles: list[Tile] = []
    for name, rows in shown.groupby("network", sort=False):
        heads = [
            f"{'ID' if role == 'id' else 'OOD'} {i % SHOWN + 1}: {thing}"
            for i, (role, thing) in enumerate(zip(rows.role, rows["class"], strict=True))
        ]
        notes = [_note(p, right=p == y) for p, y in zip(rows.predicted, rows["class"], strict=True)]
        heat = run.arrays(f"net/{name}/seed0")["heat"].numpy()
        tiles = tiles or tile_row("picture", heads, pictures)
        tiles += tile_row(str(name), heads, pictures, heat, notes)
    title = "Heat for the true class, ID on the left and OOD on the right"
    same = " The same objects are on both sides." if config.networks.masked else ""
    return Figure(
        "Heat on natural images",
        f"{PLUS} at the last maps of the first seed's networks, not normalized: within a row, "
        f"brighter is more. Below each tile is the network's prediction.{same} The images are the "
        "first of the tests, not selected.",
        "Fig. 6",
        (heat_maps(tiles, title=title, x="image", y="network"),),
    )


def _object(config: Config, run: Run, table: DataFrame, shift: str) -> Figure:
    """Figure 6b: one object under a growing shift."""
    _, axis, title, about = SHIFTS[shift]
    predicted = run.arrays("net/student/seed0")[f"{shift}_predicted"]
    shown = run.arrays("net/teacher/seed0")
    names = where(table, set=shift, what="names").names.iloc[0]
    y = shown[f"{shift}_y"]
    lost = (predicted[0] == y) & (predicted[-1] != y)
    chosen = int(lost.nonzero()[0]) if lost.any() else 0
    heads = [f"{strength:.0%}" for strength in STRENGTHS]
    pictures = channels_last(shown[f"{shift}_pictures"][:, chosen].float() / 255)
    tiles = tile_row("picture", heads, pictures)
    for spec in config.specs:
        arrays = run.arrays(f"net/{spec.name}/seed0")
        answers = arrays[f"{shift}_predicted"][:, chosen].tolist()
        notes = [_note(names[answer], right=answer == int(y[chosen])) for answer in answers]
        heat = arrays[f"{shift}_heat"][:, chosen].numpy()
        tiles += tile_row(spec.name, heads, pictures, heat, notes)
    sheet = heat_maps(tiles, title=f"{names[int(y[chosen])]} {title}", x=axis, y="network")
    return Figure(
        f"One object {title}",
        f"{about} {PLUS} for the true class at the last maps, not normalized. It is "
        "the first object that the first seed's student recognizes before the shift and not after "
        "it, if there is one.",
        "Fig. 6",
        (sheet,),
    )


def _note(predicted: str, *, right: bool) -> str:
    return f"{'✓' if right else '✗'} {predicted}"


def _curves(config: Config, table: DataFrame, shift: str) -> Figure:
    """The numbers of a controlled shift."""
    answers, heat = where(table, what="answers"), where(table, what="heat", map="last")
    masked, region = config.networks.masked, config.region
    count = config.objects if masked else config.images
    mean = f"mean heat of {'its' if masked else 'all'} pixels"
    curves = [
        _along(answers, "accuracy", "Accuracy", "accuracy", shift),
        _along(answers, "selectivity", "Selectivity", "mean selectivity of the features (Eq. 61)",
               shift),
        _along(where(heat, formula=PLUS), region, f"Heat on the {region}, {PLUS}", mean, shift),
        _along(where(heat, formula=PLAIN), region, f"Heat on the {region}, {PLAIN}",
               f"{mean}, in units of the logit", shift),
    ]  # fmt: skip
    return Figure(
        f"{count} objects {SHIFTS[shift].title}, in numbers",
        f"{SHIFTS[shift].about} The objects are the same at every strength. Mean over seeds; "
        "bands: all seeds. Heat is of the true class, at the last "
        f"maps, and not normalized. {PLUS} sums only the evidence for the class, so its size can't "
        f"be compared between networks; {PLAIN} subtracts the evidence against it.",
        "Fig. 6",
        tuple(panel for panel, _ in curves),
        tuple(row for _, rows in curves for row in rows),
    )


def _shares(table: DataFrame) -> Figure:
    """The share of the heat on the object, and why the last maps don't show the shift."""
    heat = where(table, what="heat", set="shift")
    heat = heat.sort_values(["formula", "side"], ascending=[True, False], kind="stable")
    panels, rows = [], []
    for (formula, side), some in heat.groupby(["formula", "side"], sort=False):
        title = f"{formula}, maps of {side} x {side}"
        panel, curves = _along(some, "share", title, "share of the heat on the object")
        panels.append(panel)
        rows += curves
    return Figure(
        "Share of the heat on the object",
        "On the last maps the share hardly changes: a position covers much of the image, and its "
        "heat is spread over all of it, so the share stays near that of even heat (the object's "
        "share of the area) even where the heat itself falls. The finer maps of an earlier block "
        "show more. Images without any heat are left out.",
        "ours",
        share_axes(panels, "y"),
        tuple(rows),
    )


def _along(
    table: DataFrame, column: str, title: str, axis: str, shift: str = "shift"
) -> tuple[Panel, list[dict[str, Any]]]:
    """A curve for each network along a controlled shift, and its rows."""
    table = where(table, set=shift)
    rows = over_seeds(table, ["network", "strength"], column)
    if column == "share":
        even = over_seeds(where(table, network="teacher"), ["strength"], "area")
        rows += [row | {"network": "even heat", "share": row["area"]} for row in even]
    rows.sort(key=lambda row: [*table.network.unique(), "even heat"].index(row["network"]))
    rows = [row | {"quantity": title} for row in rows]
    panel = lines(
        rows,
        title=title,
        x=("strength", SHIFTS[shift].axis),
        y=(column, axis),
        series=("network", ""),
        points=True,
    )
    return panel, rows


def _natural_tests(config: Config, table: DataFrame) -> Figure:
    """Accuracy and heat on each natural test."""
    region, heat = config.region, where(table, what="heat", map="last")
    quantities = [("accuracy", "Accuracy", where(table, what="answers"))]
    quantities += [(region, f"Heat on the {region}, {formula}", where(heat, formula=formula))
                   for formula in (PLUS, PLAIN)]  # fmt: skip
    panels, rows = [], []
    for column, title, some in quantities:
        own = where(some, set="natural", role="id")[["network", "seed", column]]
        ood = where(some, set="natural", role="ood").merge(
            own, on=["network", "seed"], suffixes=("", "_id")
        )
        ratio = (ood[column] / ood[f"{column}_id"]).where(ood[f"{column}_id"] != 0)
        means = over_seeds(ood.assign(**{"OOD over ID": ratio}), ["test", "network"], "OOD over ID")
        tests = [*ood.test.unique()]
        means.sort(key=lambda row: tests.index(row["test"]))
        panels.append(
            bars(means, title=title, x=("test", "OOD test"),
                 y=("OOD over ID", "on the OOD test, over that on the ID test"),
                 series=("network", ""), wide=True)
        )  # fmt: skip
        rows += [row | {"quantity": title} for row in means]
    return Figure(
        "Accuracy and heat on natural tests",
        "Accuracy and heat of the true class on each OOD test, relative to the ID test. Mean over "
        "seeds; whiskers: all seeds.",
        "Fig. 6",
        tuple(panels),
        tuple(rows),
    )
