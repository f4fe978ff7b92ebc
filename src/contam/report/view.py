"""What the page says about each run, as plain values: the templates only lay it out."""

import ast
import base64
import inspect
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import yaml
from pydantic import BaseModel

from contam.experiment import Claim, Experiment
from contam.plots import Figure, Panel, in_agreement
from contam.report.strip import Strip, strip
from contam.run import Run, RunError, Session

ROWS_SHOWN = 200
"""Rows of a figure's table that the page lays out; the download has all of them."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its place on the page."""

    anchor: str
    claim: Claim
    strip: Strip | None


@dataclass(frozen=True)
class PanelView:
    """A panel with its place on the page: a chart, a picture, or nothing to draw."""

    anchor: str
    panel: Panel
    chart: Mapping[str, Any] | None
    picture: str | None
    """As a data URI."""


@dataclass(frozen=True)
class FigureView:
    """A figure with its number and its table."""

    anchor: str
    number: int
    figure: Figure
    panels: tuple[PanelView, ...]
    columns: list[str]
    numbers: list[list[Any]]
    numeric: list[bool]
    """Of each column, whether it holds numbers only."""

    @property
    def origin(self) -> str:
        """Where the figure comes from, in words."""
        own = self.figure.source.strip().lower() in ("", "ours")
        return "not in the paper" if own else f"after {self.figure.source}"


@dataclass(frozen=True)
class Field:
    """One setting of a run."""

    name: str
    value: Any
    paper: Any
    """The value in the preset 'paper', or the same value when there is no such preset."""
    meaning: str

    @property
    def differs(self) -> bool:
        """Whether the run departs from the paper here."""
        return self.value != self.paper


@dataclass(frozen=True)
class Section:
    """Everything about one run."""

    anchor: str
    title: str
    """The experiment's, with the settings behind it where two runs are of one experiment."""
    run: Run
    experiment: Experiment
    preset: str
    """The preset it was run with, or the nearest one and what was changed."""
    command: str
    """What repeats it; empty for what no command of ours computes."""
    config: str
    """Its config as YAML."""
    fields: tuple[Field, ...]
    summary: str
    claims: list[JudgedClaim]
    figures: list[FigureView]

    @property
    def finished(self) -> bool:
        """Whether every part was computed."""
        return self.run.finished

    @property
    def counts(self) -> tuple[int, int, int]:
        """Claims that hold, that don't, and that were not judged."""
        found = Counter(each.claim.holds for each in self.claims)
        return found[True], found[False], found[None]

    @property
    def seconds(self) -> float:
        """Wall time of all sessions."""
        return sum(session.seconds for session in self.run.sessions)

    @property
    def sessions(self) -> list[Session]:
        """The stretches of computing that made the run."""
        return self.run.sessions


def sections(runs: Sequence[Run], experiments: Mapping[str, Experiment]) -> list[Section]:
    """One section a run; claims and figures are numbered through.

    Only a finished run is judged and drawn: the acts of an experiment may need all of its parts.
    """
    claim_numbers, figure_numbers = count(1), count(1)
    often = Counter(run.experiment for run in runs)
    shown = []
    for index, run in enumerate(runs, 1):
        experiment = experiments.get(run.experiment)
        if experiment is None:
            raise RunError(
                f"{run.folder}/run.json: its experiment {run.experiment!r} is not one of "
                f"{', '.join(experiments) or 'ours'}; use the version of contam that made it"
            )
        preset, changed = _preset(experiment, run.config)
        said = _said(preset, changed)
        model = next(iter(experiment.presets.values()), None)
        section = Section(
            anchor=f"run-{index}",
            title=experiment.title + (f" ({said})" if often[run.experiment] > 1 else ""),
            run=run,
            experiment=experiment,
            preset=said,
            command=_command(experiment, preset, exact=not changed),
            config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
            fields=tuple(_fields(run.config, experiment.presets.get("paper"), model)),
            summary=experiment.summary(run) if run.finished else "",
            claims=[],
            figures=[],
        )
        if run.finished:
            for claim in experiment.claims(run):
                anchor = f"claim-{next(claim_numbers)}"
                section.claims.append(JudgedClaim(anchor, claim, strip(claim)))
            for figure in experiment.draw(run):
                section.figures.append(figure_view(figure, next(figure_numbers)))
        shown.append(section)
    return shown


def figure_view(figure: Figure, number: int) -> FigureView:
    """A figure with its place on the page, its panels in agreement."""
    anchor = f"figure-{number}"
    panels = []
    charts = in_agreement(figure.panels)
    for index, (panel, chart) in enumerate(zip(figure.panels, charts, strict=True), 1):
        picture = None
        if panel.picture is not None:
            picture = f"data:image/webp;base64,{base64.b64encode(panel.picture).decode()}"
        shown = None if panel.empty else chart
        panels.append(PanelView(f"{anchor}-{index}", panel, shown, picture))
    columns = list(dict.fromkeys(name for row in figure.rows for name in row))
    numbers = [[row.get(name) for name in columns] for row in figure.rows]
    numeric = [
        all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*numbers, strict=True)
    ]
    return FigureView(anchor, number, figure, tuple(panels), columns, numbers, numeric)


def _preset(experiment: Experiment, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The preset with the fewest fields changed, and those fields as 'field = value'."""
    nearest: tuple[str, list[str]] | None = None
    here = dict(_flat(config))
    for name, preset in experiment.presets.items():
        there = dict(_flat(preset.model_dump(mode="json")))
        changed = [f"{key} = {here[key]}" for key in here if here[key] != there.get(key, here)]
        changed += [f"no {key}" for key in there if key not in here]
        if nearest is None or len(changed) < len(nearest[1]):
            nearest = name, changed
    return nearest or ("own config", [])


def _said(preset: str, changed: Sequence[str]) -> str:
    if len(changed) > 3:
        return f"{preset}, with {len(changed)} fields changed"
    return f"{preset}, with {', '.join(changed)}" if changed else preset


def _command(experiment: Experiment, preset: str, *, exact: bool) -> str:
    if not experiment.presets:
        return ""
    name = shlex.quote(experiment.name)
    if exact and preset in experiment.presets:
        return f"contam run {name} {shlex.quote(preset)}"
    return f"contam run {name} --config {shlex.quote(experiment.name + '.yaml')}"


def _fields(
    config: Mapping[str, Any], paper: BaseModel | None, model: BaseModel | None
) -> Iterator[Field]:
    published = dict(_flat(paper.model_dump(mode="json"))) if paper is not None else {}
    meanings = dict(_meanings(model)) if model is not None else {}
    for name, value in _flat(config):
        yield Field(name, value, published.get(name, value), meanings.get(name, ""))


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _meanings(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """What each field means: its description, or else the docstring below it."""
    written = {}
    for owner in reversed(type(config).__mro__[:-1]):
        if owner is not BaseModel and issubclass(owner, BaseModel):
            written |= dict(_docstrings(owner))
    for name, field in type(config).model_fields.items():
        yield prefix + name, field.description or written.get(name, "")
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _meanings(value, f"{prefix}{name}.")


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    except (OSError, TypeError, SyntaxError):
        # A class made at run time has no source; its fields then go without a meaning.
        return
    assert isinstance(tree.body[0], ast.ClassDef), "the source of a class is a class"
    for field, below in pairwise(tree.body[0].body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
