"""The contents of a page about runs, as plain values for the template."""

import ast
import base64
import inspect
import shlex
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import yaml
from pydantic import BaseModel

from contam.experiment import Claim, Experiment
from contam.plots import Figure, Panel, match_series
from contam.report.strip import Strip, strip
from contam.run import Run, RunError
from contam.session import Session

ROWS_SHOWN = 200
"""Number of rows of a figure's table that the page shows; the CSV download has all rows."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its anchor on the page."""

    anchor: str
    claim: Claim
    strip: Strip | None


@dataclass(frozen=True)
class PanelView:
    """A panel with its anchor on the page: a chart, a picture, or nothing to draw."""

    anchor: str
    panel: Panel
    chart: Mapping[str, Any] | None
    picture: str | None
    """A data URI."""


@dataclass(frozen=True)
class FigureView:
    """A figure with its number on the page and its table."""

    anchor: str
    number: int
    figure: Figure
    panels: tuple[PanelView, ...]
    columns: list[str]
    numbers: list[list[Any]]
    numeric: list[bool]
    """For each column, whether it contains only numbers."""
    notes: tuple[str, ...] = ()
    """The figure's notes that no earlier figure of the page has."""

    @property
    def origin(self) -> str:
        """The figure's source as text."""
        own = self.figure.source.strip().lower() in ("", "ours")
        return "not in the paper" if own else f"after {self.figure.source}"


@dataclass(frozen=True)
class Field:
    """One setting of a run."""

    name: str
    value: Any
    paper: Any
    """The value in the preset 'paper'; equal to `value` if there is no such preset."""
    meaning: str

    @property
    def differs(self) -> bool:
        """Whether the run's value differs from the paper's."""
        return self.value != self.paper


@dataclass(frozen=True)
class Section:
    """Everything that the page shows about one run."""

    anchor: str
    title: str
    """The experiment's title, with the settings if several runs have the same experiment."""
    run: Run
    experiment: Experiment
    preset: str
    """The run's preset, or the nearest preset and the fields that differ from it."""
    command: str
    """The command that repeats the run; empty if no command can compute it."""
    config: str
    """The config as YAML."""
    fields: tuple[Field, ...]
    summary: str
    alert: str
    """A warning about the run's result; empty if there is none."""
    claims: list[JudgedClaim]
    figures: list[FigureView]

    @property
    def finished(self) -> bool:
        """Whether every part is computed."""
        return self.run.finished

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of claims that hold, that do not hold, and that were not judged."""
        verdicts = Counter(judged.claim.holds for judged in self.claims)
        return verdicts[True], verdicts[False], verdicts[None]

    @property
    def seconds(self) -> float:
        """Wall time of all sessions, in seconds."""
        return sum(session.seconds for session in self.run.sessions)

    @property
    def processor_seconds(self) -> float:
        """CPU time of all sessions, in seconds; 0 where an earlier version computed the run."""
        return sum(session.processor_seconds for session in self.run.sessions)

    @property
    def sessions(self) -> list[Session]:
        """The periods of computing that made the run."""
        return self.run.sessions


def sections(
    runs: Sequence[Run],
    experiments: Mapping[str, Experiment],
    progress: Callable[[float, str], None] | None = None,
) -> list[Section]:
    """Return one section for each run; claims and figures are numbered across the page.

    Only finished runs have claims and figures, because these may need all parts of a run.

    Args:
        runs: the runs, in the order of the page.
        experiments: the experiment of each run, by name.
        progress: gets the share of the work done and what it works on.

    Raises:
        RunError: a run is damaged, or its experiment is not in `experiments`.

    >>> sections([], {})
    []
    """
    claim_numbers, figure_numbers = count(1), count(1)
    explained: set[str] = set()
    repeats = Counter(run.experiment for run in runs)
    result = []
    tell = progress or (lambda done, doing: None)
    for index, run in enumerate(runs, 1):
        experiment = experiments.get(run.experiment)
        if experiment is None:
            raise RunError(
                f"{run.folder}/run.json: unknown experiment {run.experiment!r}; known are "
                f"{', '.join(experiments) or 'none'}. Use the version of contam that made the run."
            )
        with run.reading():
            preset, changed = _preset(experiment, run.config)
            settings = _described(preset, changed)
            model = next(iter(experiment.presets.values()), None)
            section = Section(
                anchor=f"run-{index}",
                title=experiment.title + (f" ({settings})" if repeats[run.experiment] > 1 else ""),
                run=run,
                experiment=experiment,
                preset=settings,
                command=_command(experiment, preset, exact=not changed),
                config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
                fields=tuple(_fields(run.config, experiment.presets.get("paper"), model)),
                summary=experiment.summary(run) if run.finished else "",
                alert=experiment.alert(run) if run.finished else "",
                claims=[],
                figures=[],
            )
            if run.finished:
                tell((index - 1) / len(runs), f"claims of {run.experiment}")
                for claim in experiment.claims(run):
                    anchor = f"claim-{next(claim_numbers)}"
                    section.claims.append(JudgedClaim(anchor, claim, strip(claim)))
                tell((index - 0.5) / len(runs), f"figures of {run.experiment}")
                for figure in experiment.draw(run):
                    section.figures.append(figure_view(figure, next(figure_numbers), explained))
        result.append(section)
    return result


def figure_view(figure: Figure, number: int, explained: set[str] | None = None) -> FigureView:
    """Return a figure with its anchors; its panels share axes and colors where they agree.

    Args:
        figure: the figure.
        number: its number on the page.
        explained: notes that the page already shows; those of the figure are added.

    >>> figure = Figure("Risk", "", "ours", (), ({"step": 0, "risk": 0.5},))
    >>> view = figure_view(figure, 3)
    >>> view.anchor, view.columns, view.numbers
    ('figure-3', ['step', 'risk'], [[0, 0.5]])
    """
    anchor = f"figure-{number}"
    panels = []
    charts = match_series(figure.panels)
    for index, (panel, chart) in enumerate(zip(figure.panels, charts, strict=True), 1):
        picture = None
        if panel.picture is not None:
            picture = f"data:image/webp;base64,{base64.b64encode(panel.picture).decode()}"
        drawn = None if panel.empty else chart
        panels.append(PanelView(f"{anchor}-{index}", panel, drawn, picture))
    columns = list(dict.fromkeys(name for row in figure.rows for name in row))
    numbers = [[row.get(name) for name in columns] for row in figure.rows]
    numeric = [
        all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*numbers, strict=True)
    ]
    shown = set() if explained is None else explained
    notes = tuple(note for note in figure.notes if note not in shown)
    shown.update(notes)
    return FigureView(anchor, number, figure, tuple(panels), columns, numbers, numeric, notes)


def _preset(experiment: Experiment, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the preset that differs in the fewest fields, and those fields as 'field = value'."""
    nearest: tuple[str, list[str]] | None = None
    own = dict(_flat(config))
    for name, preset in experiment.presets.items():
        values = dict(_flat(preset.model_dump(mode="json")))
        changed = [f"{key} = {own[key]}" for key in own if own[key] != values.get(key, own)]
        changed += [f"no {key}" for key in values if key not in own]
        if nearest is None or len(changed) < len(nearest[1]):
            nearest = name, changed
    return nearest or ("own config", [])


def _described(preset: str, changed: Sequence[str]) -> str:
    if len(changed) > 3:
        return f"{preset}, with {len(changed)} changed fields"
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
    """Yield each field's name and meaning: its description, or the docstring below it."""
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
        # A class that was made at run time has no source, so its fields have no meaning.
        return
    assert isinstance(tree.body[0], ast.ClassDef), "the source of a class is a class"
    for field, below in pairwise(tree.body[0].body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
