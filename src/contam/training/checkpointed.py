"""The training loop that keeps checkpoints and resumes from them."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from torch import Tensor

CHECKPOINT_EVERY = 5.0
"""Seconds between two checkpoints, at least."""
CHECKPOINT_SHARE = 0.05
"""The largest share of the time that writing checkpoints may take."""

TableRow = Mapping[str, Any]


class CheckpointStore(Protocol):
    """Where checkpoints are kept; `contam.run.Run` is one."""

    def checkpoint(self, part: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]] | None:
        """The last checkpoint of an unfinished part: its tensors and its records so far."""
        ...

    def save_checkpoint(
        self, part: str, state: Mapping[str, Tensor], records: Iterable[TableRow] = ()
    ) -> None:
        """Replace the checkpoint of an unfinished part."""
        ...


class TrainingStage(Protocol):
    """A training at one of its reports."""

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def steps(self) -> int:
        """Steps in all."""
        ...

    def checkpoint(self) -> dict[str, Tensor]:
        """Everything that the training needs to resume from here."""
        ...


StageT = TypeVar("StageT", bound=TrainingStage)
ReportedT_co = TypeVar("ReportedT_co", bound=TrainingStage, covariant=True)


class Training(Protocol[ReportedT_co]):
    """A training that reports on its way, from the beginning or from a checkpoint's tensors."""

    def __call__(self, *, resume: Mapping[str, Tensor] | None) -> Iterator[ReportedT_co]: ...


def checkpointed(
    store: CheckpointStore,
    part: str,
    training: Training[StageT],
    *,
    measure: Callable[[StageT], Iterable[TableRow]] | None = None,
    before: Callable[[], Iterable[TableRow]] | None = None,
) -> Generator[float, None, tuple[StageT, list[dict[str, Any]]]]:
    """Train to the end, keep checkpoints on the way, and yield the share that is done.

    A part with a checkpoint resumes from it and ends with the same state and the same records as
    one that was never interrupted. Writing the part at the end is left to the caller.

    Args:
        store: where checkpoints are kept.
        part: the name of the checkpoint.
        training: starts the training, such as `partial(fit, model, shift, ...)`; it yields at
            each report.
        measure: the records of one report.
        before: the records that precede the training; called only when it starts from the
            beginning.

    Yields:
        The share of the steps done, in (0, 1], after each report.

    Returns:
        The last stage, and all records in order.

    Raises:
        ValueError: the training ended without a report.

    Source: ours, so that a stopped training loses seconds and ends with the same bits.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> def count(resume):
    ...     start = int(resume["step"]) if resume else 0
    ...     for step in range(start + 1, 4):
    ...         yield SimpleNamespace(
    ...             step=step, steps=3, checkpoint=lambda: {"step": torch.tensor(step)}
    ...         )
    >>> class Nowhere:
    ...     def checkpoint(self, part): return None
    ...     def save_checkpoint(self, part, state, records=()): ...
    >>> training = checkpointed(Nowhere(), "part", count, measure=lambda s: [{"step": s.step}])
    >>> [round(share, 2) for share in training]
    [0.33, 0.67, 1.0]
    """
    kept = store.checkpoint(part)
    state, records = kept if kept is not None else (None, [dict(r) for r in (before or list)()])
    last, pause = time.monotonic(), CHECKPOINT_EVERY
    stage = None
    for stage in training(resume=state):
        if measure is not None:
            records += [dict(record) for record in measure(stage)]
        start = time.monotonic()
        if stage.step < stage.steps and start - last > pause:
            store.save_checkpoint(part, stage.checkpoint(), records)
            last = time.monotonic()
            pause = max(CHECKPOINT_EVERY, (last - start) / CHECKPOINT_SHARE)
        yield stage.step / stage.steps
    if stage is None:
        raise ValueError(f"the training of {part!r} ended without a report")
    return stage, records
