"""The watch itself: when it looks, where the numbers go, and that the training does not notice."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, PositiveInt
from torch import nn

from contam.models.hooks import forward_once
from contam.monitor.examples import Answers, Data, Examples, bare, choose, first
from contam.monitor.sinks import Sink, terminal
from contam.monitor.snapshot import EARLY, Snapshot, grid_or_tokens, layers_to_watch, look_at
from contam.rng import preserve_rng
from contam.run import Run
from contam.training.distributed import rank

EXPERIMENT = "watch"
"""What runs of watches are called."""
LOG = logging.getLogger("contam.monitor")


class Reached(Protocol):
    """A stage of a training."""

    @property
    def step(self) -> int: ...


Stages = TypeVar("Stages", bound=Reached)


class Settings(BaseModel, frozen=True, extra="forbid"):
    """What is watched, and how: all that a number depends on besides the weights."""

    name: str
    """Tells watches apart; a training that goes on under its name goes on with its record."""
    model: str
    """The class of the network."""
    every: PositiveInt
    """Steps between two looks."""
    layers: tuple[str, ...]
    """In the order in which they run."""
    support: str
    """Where neighbors are looked up."""
    queries: str
    """What is asked about."""
    others: tuple[str, ...]
    """Where else the response to the classes is measured."""
    classes: tuple[int, ...]
    """The watched classes."""
    per_class: PositiveInt
    """Examples of each class on each side."""
    k: PositiveInt
    """Neighbors that vote."""
    reading: str
    """How features are read, which is a part of what depth means."""
    early: int
    """The probe by which a decision is early; the input is probe 0."""
    seed: int
    """Of the draw of the examples."""


class TrainingMonitor:
    """Looks at a network in training every so many steps.

    Used as a context manager, it looks once more at the end, unless an error ends the training.
    """

    def __init__(
        self,
        model: Answers,
        examples: Examples,
        settings: Settings,
        *,
        start: int,
        run: Run | None,
        sinks: Sequence[Sink],
        on_error: Literal["note", "raise"],
    ) -> None:
        self.settings = settings
        self.folder = None if run is None else run.folder
        """Where the record is."""
        self.run = run
        self.steps = start
        """The step that the training is at."""
        self.looks: dict[int, Snapshot] = {}
        """What was found, by step."""
        self.seconds = 0.0
        """What all looks took, in wall time."""
        self._model = model
        self._examples = examples
        self._sinks = sinks
        self._on_error = on_error
        self._said: set[str] = set()
        self._session = 1 + max((session_of(part) for part in _parts(run)), default=0)
        self.look()

    def step(self) -> None:
        """Say that one more step was taken; look if it is time."""
        self.at(self.steps + 1)

    def at(self, step: int) -> None:
        """Say which step was reached; look if it is time."""
        self.steps = step
        if step // self.settings.every > max(self.looks) // self.settings.every:
            self.look()

    def look(self) -> Snapshot:
        """Look now.

        Raises:
            ValueError: something could not be measured or written, and `on_error` is 'raise'.
        """
        begin = time.perf_counter()
        with _as_found(self._model):
            found = look_at(
                self._model,
                self._examples,
                [f"model.{layer}" for layer in self.settings.layers],
                k=self.settings.k,
            )
        self.looks[self.steps] = found
        missing = found.left_out[len(self._examples.left_out) :]
        missing += self._told(found)
        self.seconds += time.perf_counter() - begin
        if missing and self._on_error == "raise":
            raise ValueError(f"step {self.steps}: {missing[0]}")
        for reason in missing:
            if (what := reason.partition(":")[0]) not in self._said:
                self._said.add(what)
                LOG.warning("watch, step %d: left out %s", self.steps, reason)
        return found

    def around(self, stages: Iterable[Stages]) -> Iterator[Stages]:
        """The same stages, with looks between them; closes the watch at the end.

        Nothing can be seen between two stages, so let the training report as often as looks are
        wanted.
        """
        with self:
            for stage in stages:
                self.at(stage.step)
                yield stage

    def close(self, *, look: bool = True) -> None:
        """Look once more if anything was learned since, and let go of the run."""
        try:
            if look and self.steps not in self.looks:
                self.look()
        finally:
            if self.run is not None:
                self.run.__exit__()
                self.run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(look=kind is None)

    def _told(self, found: Snapshot) -> list[str]:
        """Write and send what was found; what went wrong comes back, a line each."""
        wrong = []
        if self.run is not None:
            try:
                part = f"looks/{self._session:04}/{self.steps:09}"
                self.run.write(part, found.records(self.steps))
                # Nothing is begun and left undone between two looks.
                self.run.finish()
            except Exception as error:
                wrong.append(f"writing the run: {error}")
        for sink in self._sinks if rank() == 0 else ():
            try:
                sink(self.steps, found.scalars())
            except Exception as error:
                wrong.append(f"sink {getattr(sink, '__qualname__', sink)}: {error}")
        return wrong


def watch(
    model: nn.Module,
    data: Data,
    *,
    queries: Data | None = None,
    others: Mapping[str, Data] | None = None,
    every: int = 200,
    layers: Collection[str] | Literal["auto"] = "auto",
    per_class: int | None = None,
    k: int = 10,
    seed: int = 0,
    out: Path | str | None = None,
    name: str | None = None,
    sinks: Sequence[Sink] = (),
    show: bool = True,
    on_error: Literal["note", "raise"] = "note",
    start: int = 0,
) -> TrainingMonitor:
    """A watch over a network in training, which looks at once and then `every` so many steps.

    Of each class, the same few examples of `data` and `queries` are looked at each time: 200 on
    each side, unless `per_class` says otherwise. Without queries, half of the data is asked about.
    `others` are named sets of the same classes elsewhere, OOD or other domains; without any, ID
    domains are compared where the queries tell them apart. `out` is a folder of runs, in which a
    watch of the same `name` and settings goes on with its record. The first look is the control.

    What can't be measured later on is noted in the record, and logged once, while the training goes
    on; with `on_error='raise'` it ends it.

    Source: ours, both papers' profile over a training; Murali et al. (2023).

    Raises:
        ValueError: what can be known before training: labels the network has no output for, too
            few examples, no such layer, an interval below 1, or a run that can't be written.
    """
    if every < 1 or k < 1 or (per_class is not None and per_class < 2):
        raise ValueError(
            f"want every and k of at least 1 and per_class of at least 2, not {every}, {k} and "
            f"{per_class}"
        )
    if on_error not in ("note", "raise"):
        raise ValueError(f"on_error is 'note' or 'raise', not {on_error!r}")
    network = bare(model)
    others = others or {}
    with preserve_rng(data, queries, *others.values()):
        whole = Answers(network)
        with _as_found(whole), torch.no_grad():
            one = first(data).to(_device(network))
            outputs = _eval(whole, one)
        examples = choose(data, queries, others, outputs=outputs, per_class=per_class, seed=seed)
        answers = Answers(network, examples.classes)
        with _as_found(answers):
            some = _layers(answers, examples, layers)
    settings = Settings(
        name=name or f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
        model=type(network).__name__,
        every=every,
        layers=tuple(some),
        support=examples.support.name,
        queries=examples.queries.name,
        others=tuple(other.name for other in examples.others),
        classes=examples.classes,
        per_class=examples.per_class,
        k=min(k, len(examples.support)),
        reading=grid_or_tokens.__name__,
        early=EARLY,
        seed=seed,
    )
    run = None if out is None else Run.start(Path(out), EXPERIMENT, settings)
    shown = [terminal()] if show else []
    return TrainingMonitor(
        answers, examples, settings,
        start=start, run=run, sinks=[*shown, *sinks], on_error=on_error,
    )  # fmt: skip


def watching(
    stages: Iterable[Stages], model: nn.Module, data: Data, **settings: Any
) -> Iterator[Stages]:
    """Stages of a training of this model, with looks between them.

    `settings` are those of `watch`, and `Watch.around` does the work.

    Source: ours.
    """
    yield from watch(model, data, **settings).around(stages)


def session_of(part: str) -> int:
    """Which stretch of watching a part of a run belongs to, from 1."""
    return int(part.split("/")[1])


def _parts(run: Run | None) -> list[str]:
    return [] if run is None else run.parts("looks/")


def _layers(
    model: Answers, examples: Examples, layers: Collection[str] | Literal["auto"]
) -> list[str]:
    """The layers to watch in the order in which they run, by the names that the network has."""
    x = examples.queries.data.x[:1].to(_device(model))
    if isinstance(layers, str):
        if layers != "auto":
            raise ValueError(f"layers is a list of names, or 'auto'; for one give [{layers!r}]")
        return [layer.removeprefix("model.") for layer in layers_to_watch(model, x)]
    try:
        _, recorder = forward_once(model, x, [f"model.{layer}" for layer in layers], "moments")
    except ValueError as error:
        raise ValueError(str(error).replace("model.", "")) from None
    return [layer.removeprefix("model.") for layer in recorder.outputs]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _eval(model: nn.Module, x: torch.Tensor) -> int:
    """How many classes the network answers with."""
    return forward_once(model, x, (), "moments")[0].shape[1]


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Random states and buffers are what they were afterwards, and no autocast is on inside.

    Autocast would keep weights that were cast without gradients, and train on them.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    kind = _device(model).type
    try:
        with preserve_rng(), torch.autocast(kind, enabled=False):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
