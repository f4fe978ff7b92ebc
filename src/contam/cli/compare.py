"""`contam compare`: methods beside ERM and each other, on the same splits and seeds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from contam.cli.claims import write_page
from contam.cli.parsing import first_error, nearest
from contam.cli.run import RUNS, compute_run

if TYPE_CHECKING:
    from contam.experiments.tab04_baselines.results import Config
    from contam.run import DataFrame

Format = Literal["text", "csv", "latex", "markdown", "json"]
COLUMNS = {
    "method": "method",
    "trials": "trials",
    "id": "ID",
    "ood": "OOD",
    "worst": "worst domain",
    "robustness": "effective robustness",
    "attenuation": "attenuation",
    "dependent": "interaction",
    "interchange": "background effect",
    "difference": "minus ERM",
    "interval": "95 % interval",
    "p_holm": "p (Holm)",
    "cost": "time / ERM",
    "uses": "uses",
}
"""Columns of the table for readers."""
SHARES = ("id", "ood", "worst", "attenuation", "dependent", "interchange", "difference")
"""Columns that are printed with three decimals."""


def compare(
    preset: Annotated[str, tyro.conf.Positional] = "laptop",
    *,
    method: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    data: str | None = None,
    folder: Path | None = None,
    ood: str | None = None,
    network: str | None = None,
    side: int | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    batch_size: int | None = None,
    trials: int | None = None,
    draws: int | None = None,
    selection: Literal["training-domain", "oracle", "leave-one-out"] | None = None,
    text_format: Annotated[Format, tyro.conf.arg(name="format")] = "text",
    out: Path = RUNS,
    page: Path | None = None,
) -> int:
    """Compare methods with ERM: contam compare [PRESET] --method my.module:Mine --method CORAL ...

    All methods learn from the same images in the same order, from the same weights. Trainings that
    the folder has are not done again, so a method that is added later costs its own training only.
    A method of your own is trained again when its file changes.

    Args:
        preset: laptop (shapes and digits, about half an hour for all methods), smoke, paper
            (DomainNet), pacs, camelyon17 or iwildcam.
        method: a name such as CORAL, centering or distillation, or your own as
            package.module:object: a subclass of contam.training.algorithms.Algorithm, or a function
            repair(network, data) that returns a network. ERM is always there. Without this flag,
            all methods of the preset.
        data: data sets instead of the preset's, a list with commas: shapes, digits, domainnet,
            pacs, camelyon17, iwildcam, or folder for your own DOMAIN/CLASS/IMAGE.
        folder: folder of the images.
        ood: test domain of DomainNet, PACS or your own folder.
        network: architecture, trained from random weights, such as resnet8 or timm:resnet18.
        side: pixels of the square inputs of images in files.
        steps: steps of each training.
        step_size: step size of the default settings.
        batch_size: images from every domain in a step.
        trials: repetitions with other splits and weights.
        draws: draws of the settings in each trial.
        selection: how the draw and the checkpoint are selected.
        text_format: csv and json have every number; latex (with booktabs) and markdown are tables
            for readers.
        out: folder that holds the runs.
        page: HTML page to write, with all figures.
    """
    from pydantic import ValidationError

    from contam.experiments.tab04_baselines.experiment import EXPERIMENT
    from contam.experiments.tab04_baselines.methods import find_method
    from contam.measures.attenuation import above_one

    if preset not in EXPERIMENT.presets:
        raise ValueError(f"no preset {preset!r}; {nearest(preset, EXPERIMENT.presets)}")
    base: Any = EXPERIMENT.presets[preset]
    methods = [find_method(name) for name in (method or base.methods)]
    networks = {
        "folder": folder, "ood": ood, "network": network, "steps": steps, "step_size": step_size,
        "batch_size": batch_size, "side": side,
    }  # fmt: skip
    changes: dict[str, Any] = {
        "methods": [one.name for one in methods],
        "codes": sorted({one.code for one in methods} - {""}),
        "data": None if data is None else [name.strip() for name in data.split(",")],
        "trials": trials, "draws": draws, "selection": selection,
        "leave_one_out": True if selection == "leave-one-out" else None,
        "networks": base.networks.model_dump() | _given(networks),
    }  # fmt: skip
    if steps is not None and steps < base.networks.report_every:
        changes["networks"]["report_every"] = steps
    try:
        config: Config = type(base).model_validate(base.model_dump() | _given(changes))
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
    run = compute_run(EXPERIMENT, config, out)
    table = run.table("comparison")
    notes = "".join(f"{line}\n" for line in EXPERIMENT.notes(run))
    if text_format == "text":
        print(_readable(table, config))
        for line in above_one(table.get("attenuation", ())):
            print(f"\nattenuation: {line}")
        if notes:
            print(f"\n{notes}", end="")
        print(f"\nthe run is in {run.folder}; its page: contam report {run.folder}")
    else:
        from contam.report.tables import table_text

        rows = table.drop(columns="part").to_dict("records")
        if text_format in ("latex", "markdown"):
            rows = [_for_readers(row) for row in rows]
        print(table_text(rows, text_format), end="")
        print(notes, end="", file=sys.stderr)
    if page is not None:
        write_page([run], page)
    return 0


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _for_readers(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a row, as text."""
    cells = {"data": str(row["data"])}
    for name, title in COLUMNS.items():
        if name == "interval":
            low, high = (_number(row.get(end), ".3f") for end in ("low", "high"))
            cells[title] = "" if low == "" else f"{low} to {high}"
        elif name in ("method", "trials", "uses"):
            cells[title] = str(row[name])
        elif name in row:
            width = ".3f" if name in SHARES else ".1f" if name == "robustness" else ".2g"
            cells[title] = _number(row[name], "+.3f" if name == "difference" else width)
    if row["method"] == "ERM":
        cells |= {"minus ERM": "", "95 % interval": "", "p (Holm)": ""}
    return cells


def _number(value: float | None, form: str) -> str:
    return "" if value is None or value != value else format(value, form)  # noqa: PLR0124


def _readable(table: "DataFrame", config: "Config") -> str:
    """The table as text: one block for each data set, the best OOD accuracy first."""
    import pandas

    blocks = []
    for data, rows in table.groupby("data", sort=False):
        ordered = rows.sort_values("ood", ascending=False, kind="stable").to_dict("records")
        cells = pandas.DataFrame([_for_readers(row) for row in ordered]).drop(columns="data")
        cells = cells.loc[:, (cells != "").any()]
        sizes = ((config.trials, "trial"), (config.draws, "draw"))
        trials, draws = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in sizes)
        head = f"{data}: {trials}, {draws} of the settings"
        blocks.append(f"{head}\n{cells.to_string(index=False)}")
    return "\n\n".join(blocks)
