"""The training monitor: it takes snapshots at an interval and publishes their numbers.

Monitoring does not change the weights of a training, bit for bit.
"""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, PositiveInt
from torch import nn

from contam.models.find_network import find_network
from contam.models.hooks import forward_once
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import FoundLayers, find_layers
from contam.models.preserve import preserve_model
from contam.monitor.examples import Examples, draw_examples, read_sources
from contam.monitor.sinks import Sink, terminal
from contam.monitor.snapshot import (
    EARLY,
    Snapshot,
    grid_or_tokens,
    layers_to_monitor,
    take_snapshot,
)
from contam.run import Run
from contam.training.distributed import rank

EXPERIMENT = "watch"
"""The experiment's name in the runs of monitors."""
PARTS = "snapshots/"
"""Prefix of the parts of a run with snapshots, by session and step."""
LOG = logging.getLogger("contam.monitor")


class Reached(Protocol):
    """A stage of a training."""

    @property
    def step(self) -> int:
        """Number of completed steps."""
        ...


StageT = TypeVar("StageT", bound=Reached)


class MonitorConfig(BaseModel, frozen=True, extra="forbid"):
    """Everything that a snapshot depends on besides the weights."""

    name: str
    """Name of the monitor; a resumed training with the same name continues its record."""
    model: str
    """Class of the network."""
    every: PositiveInt
    """Number of steps between snapshots."""
    layers: tuple[str, ...]
    """Names of the layers, in the order in which they run."""
    support: str
    """Name of the set in which neighbors are searched."""
    queries: str
    """Name of the set whose predictions are measured."""
    others: tuple[str, ...]
    """Names of the other data sets."""
    classes: tuple[int, ...]
    """The monitored classes."""
    per_class: PositiveInt
    """Number of support examples and of queries of every class."""
    k: PositiveInt
    """Number of neighbors that vote."""
    reading: str
    """Name of the reading of features, on which prediction depth depends."""
    early: int
    """Index of the last probe that counts as early; the input is probe 0."""
    seed: int
    """Random seed of the draw of examples."""


class TrainingMonitor:
    """Takes a snapshot of a network in training at once, and then at an interval of steps.

    Use `watch` to make one. As a context manager it takes a last snapshot at the end, unless an
    exception ends the training.

    Args:
        model: the network, restricted to the monitored classes.
        examples: the examples of every snapshot.
        config: the settings of every snapshot.
        start: the current step of the training.
        run: run in which snapshots are written, or None.
        sinks: functions that receive the numbers.
        on_error: `note` logs a failed measure, `raise` ends the training.
    """

    def __init__(
        self,
        model: LogitsAdapter,
        examples: Examples,
        config: MonitorConfig,
        *,
        start: int,
        run: Run | None,
        sinks: Sequence[Sink],
        on_error: Literal["note", "raise"],
    ) -> None:
        self.config = config
        self.examples = examples
        self.folder = None if run is None else run.folder
        """The folder of the run."""
        self.run = run
        self.steps = start
        """The current step of the training."""
        self.snapshots: dict[int, Snapshot] = {}
        """The snapshots by step."""
        self.seconds = 0.0
        """Wall time of all snapshots."""
        self._model = model
        self._sinks = sinks
        self._on_error = on_error
        self._logged: set[str] = set()
        parts = [] if run is None else run.parts(PARTS)
        self._session = 1 + max((session_of(part) for part in parts), default=0)
        self.snapshot()

    def step(self) -> None:
        """Count one more step; take a snapshot if it is time."""
        self.at(self.steps + 1)

    def at(self, step: int) -> None:
        """Set the current step of the training; take a snapshot if it is time."""
        self.steps = step
        if step // self.config.every > max(self.snapshots) // self.config.every:
            self.snapshot()

    def snapshot(self) -> Snapshot:
        """Take a snapshot now.

        Raises:
            ValueError: a measure or the writing fails, and `on_error` is 'raise'.
        """
        begin = time.perf_counter()
        # Autocast would cache weights cast without gradients, and the training would use them.
        with preserve_model(self._model), torch.autocast(_device(self._model).type, enabled=False):
            snapshot = take_snapshot(
                self._model, self.examples, list(self.config.layers), k=self.config.k
            )
        self.snapshots[self.steps] = snapshot
        missing = snapshot.left_out[len(self.examples.left_out) :]
        missing += self._publish(snapshot)
        self.seconds += time.perf_counter() - begin
        if missing and self._on_error == "raise":
            raise ValueError(f"step {self.steps}: {missing[0]}")
        for reason in missing:
            if (what := reason.partition(":")[0]) not in self._logged:
                self._logged.add(what)
                LOG.warning("watch, step %d: left out %s", self.steps, reason)
        return snapshot

    def around(self, stages: Iterable[StageT]) -> Iterator[StageT]:
        """Yield the stages of a training, take snapshots between them, and close at the end.

        Snapshots are taken only between two stages, so the training must report often enough.

        Args:
            stages: the stages that a training yields.
        """
        with self:
            for stage in stages:
                self.at(stage.step)
                yield stage

    def close(self, *, snapshot: bool = True) -> None:
        """Take a last snapshot if there were steps since the previous one, and release the run."""
        try:
            if snapshot and self.steps not in self.snapshots:
                self.snapshot()
        finally:
            if self.run is not None:
                self.run.__exit__()
                self.run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(snapshot=kind is None)

    def _publish(self, snapshot: Snapshot) -> list[str]:
        """Write a snapshot and send its numbers; return one line for each failure."""
        failed = []
        if self.run is not None:
            try:
                part = f"{PARTS}{self._session:04}/{self.steps:09}"
                self.run.write(part, snapshot.records(self.steps))
                # The run is complete between two snapshots.
                self.run.finish()
            except Exception as error:
                failed.append(f"writing the run: {error}")
        for sink in self._sinks if rank() == 0 else ():
            try:
                sink(self.steps, snapshot.scalars())
            except Exception as error:
                failed.append(f"sink {getattr(sink, '__qualname__', sink)}: {error}")
        return failed


def watch(
    model: nn.Module,
    data: Any,
    *,
    queries: Any = None,
    others: Any = None,
    every: int = 200,
    layers: Collection[str] | Literal["auto"] = "auto",
    domain: str | int | None = None,
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
    """Monitor a network in training: take a snapshot now, as the control, and then at an interval.

    Every snapshot uses the same few examples of every class. The early alarm on the page of the
    record compares later snapshots with the first, so start the monitor before the training.

    Args:
        model: the network; a snapshot changes neither its state nor any random state.
        data: data of any form of `contam.inputs` for the support of neighbors; of a `Shift`, its
            training domains.
        queries: the data whose predictions are measured; by default the ID validation or test set
            of a `Shift`, or half of `data`.
        others: other data sets with the same classes, such as OOD data: one set, a list, or a dict
            by name. Without any, the domains of the queries are compared with each other.
        every: number of steps between snapshots.
        layers: names of layers; `auto` selects the last activations of the residual blocks, or at
            most eight activations.
        domain: name or number of the metadata column that is the domain; by default the first that
            groups the examples.
        per_class: number of support examples and of queries of every class; by default, about 200
            over all classes.
        k: number of neighbors that vote.
        seed: random seed of the draw of examples.
        out: folder of runs in which the snapshots are written.
        name: name of the record; a monitor with the same name and settings continues it.
        sinks: functions of a step and a dict of numbers.
        show: whether to print a line for each snapshot, if standard error is a terminal.
        on_error: `note` records and logs a failed measure; `raise` ends the training.
        start: the current step of the training.

    Returns:
        The monitor, after its first snapshot.

    Raises:
        ValueError: a label has no logit, there are too few examples, a layer does not exist, an
            argument is out of range, or the run can't be written.

    Source: ours, the measures of both papers during a training; Murali et al. (2023).

    >>> y = torch.arange(40) % 2
    >>> x = y[:, None] + torch.linspace(0, 0.5, 40)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with watch(model, (x, y), every=10, show=False) as monitor:
    ...     for _ in range(20):
    ...         monitor.step()
    >>> list(monitor.snapshots)
    [0, 10, 20]
    """
    limits = {"every": (every, 1), "k": (k, 1), "start": (start, 0), "seed": (seed, 0)}
    limits |= {} if per_class is None else {"per_class": (per_class, 2)}
    for argument, (value, least) in limits.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(
                f"{argument} is a whole number of at least {least}; got {str(value)[:40]!r}"
            )
    if on_error not in ("note", "raise"):
        raise ValueError(f"on_error is 'note' or 'raise', not {on_error!r}")
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model is a {type(model).__name__}; expected the torch.nn.Module that is trained"
        )
    network = find_network(model).model
    sources = read_sources(data, queries, others, seed=seed, domain=domain)
    labels = max((1 + int(pool.y.max()) for pool in sources.pools if len(pool)), default=None)
    whole = LogitsAdapter(network, allow_nan=True, labels=labels)
    with preserve_model(whole):
        x = sources.first_input.to(_device(network))
        outputs = forward_once(whole, x, (), "moments")[0].shape[1]
        examples = draw_examples(sources, outputs=outputs, per_class=per_class, seed=seed)
        adapter = LogitsAdapter(network, classes=examples.classes, allow_nan=True, labels=labels)
        names, left_out = _layers(adapter, examples.queries.data.x[:1].to(x.device), layers)
        if not names:  # A property of the network and not a failure.
            why = "every activation is left out" if left_out else "the network has no activation"
            left_out = (*left_out, f"class profiles: {why}")
        examples = replace(examples, left_out=(*examples.left_out, *whole.notes, *left_out))
    config = MonitorConfig(
        name=name or f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
        model=type(network).__name__,
        every=every,
        layers=names,
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
    run = None if out is None else Run.start(Path(out), EXPERIMENT, config)
    printed = [terminal()] if show else []
    return TrainingMonitor(
        adapter, examples, config,
        start=start, run=run, sinks=[*printed, *sinks], on_error=on_error,
    )  # fmt: skip


def monitored(
    stages: Iterable[StageT], model: nn.Module, data: Any, **settings: Any
) -> Iterator[StageT]:
    """Yield the stages of a training, with snapshots of its network between them.

    Args:
        stages: the stages that a training yields.
        model: the network in training.
        data: as for `watch`.
        settings: the other arguments of `watch`.

    Yields:
        The stages, unchanged.

    >>> from types import SimpleNamespace
    >>> y = torch.arange(40) % 2
    >>> stages = (SimpleNamespace(step=step) for step in (100, 200, 300))
    >>> data, model = (torch.eye(2)[y], y), nn.Sequential(nn.ReLU())
    >>> [stage.step for stage in monitored(stages, model, data, show=False)]
    [100, 200, 300]
    """
    yield from watch(model, data, **settings).around(stages)


def session_of(part: str) -> int:
    """Return the number of the session that wrote a part of a run, from 1.

    Args:
        part: name of the part.

    >>> session_of("snapshots/0002/000000200")
    2
    """
    return int(part.split("/")[1])


def _layers(
    model: LogitsAdapter, x: torch.Tensor, layers: Collection[str] | Literal["auto"]
) -> FoundLayers:
    """Return the layers to monitor, in the order in which they run, and notes on the others."""
    if not isinstance(layers, Collection) or not layers:
        raise ValueError(
            f"layers is a list of at least one name, or 'auto'; got {str(layers)[:40]!r}"
        )
    if not isinstance(layers, str):
        return find_layers(model, x, list(layers))
    if layers != "auto":
        raise ValueError(f"layers is a list of names, or 'auto'; for one give [{layers!r}]")
    automatic = find_layers(model, x)
    return FoundLayers(tuple(layers_to_monitor(model, x)), automatic.left_out)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
