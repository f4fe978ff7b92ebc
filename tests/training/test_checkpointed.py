"""The loop that keeps checkpoints: an interrupted training ends like one that never stopped."""

from dataclasses import dataclass, field

import pytest
import torch

from contam.training import checkpointed as loop
from contam.training.checkpointed import checkpointed

STEPS = 6


@dataclass(frozen=True)
class Sum:
    """A training whose state is the sum of the step numbers."""

    step: int
    total: int
    steps: int = STEPS

    def checkpoint(self):
        return {"step": torch.tensor(self.step), "total": torch.tensor(self.total)}


def adding(*, resume):
    start, total = (0, 0) if resume is None else (int(resume["step"]), int(resume["total"]))
    for step in range(start + 1, STEPS + 1):
        total += step
        yield Sum(step, total)


@dataclass
class Memory:
    """A store in memory that notes at which steps it was written."""

    kept: tuple | None = None
    steps: list[int] = field(default_factory=list)

    def checkpoint(self, part):
        return self.kept and (self.kept[0], [dict(record) for record in self.kept[1]])

    def save_checkpoint(self, part, state, records=()):
        self.kept = (dict(state), list(records))
        self.steps.append(int(state["step"]))


def train(store):
    return checkpointed(
        store,
        "part",
        adding,
        measure=lambda stage: [{"step": stage.step, "total": stage.total}],
        before=lambda: [{"step": 0, "total": 0}],
    )


def finished(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@pytest.fixture
def eager(monkeypatch):
    """A checkpoint at every report."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e9)


def test_all_records_and_the_final_state_are_returned():
    stage, records = finished(train(Memory()))
    assert stage == Sum(STEPS, 21)
    assert [row["total"] for row in records] == [0, 1, 3, 6, 10, 15, 21]


def test_progress_is_yielded_at_every_report():
    assert list(train(Memory())) == [step / STEPS for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("patience", range(1, STEPS))
def test_a_resumed_training_equals_an_uninterrupted_one(eager, patience):
    store = Memory()
    interrupted = train(store)
    for _ in range(patience):
        next(interrupted)
    interrupted.close()
    assert store.steps
    assert finished(train(store)) == finished(train(Memory()))


def test_the_last_step_writes_no_checkpoint(eager):
    store = Memory()
    finished(train(store))
    assert store.steps == list(range(1, STEPS))


def test_expensive_checkpoints_are_written_less_often(monkeypatch):
    """A checkpoint that takes as long as a step is written at every 20th step, not at each."""
    clock = [0.0]
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    class Slow(Memory):
        def save_checkpoint(self, part, state, records=()):
            super().save_checkpoint(part, state, records)
            clock[0] += 1.0

    def seconds(*, resume):
        for step in range(1, 101):
            clock[0] += 1.0
            yield Sum(step, 0, steps=100)

    store = Slow()
    finished(checkpointed(store, "part", seconds))
    assert len(store.steps) == 5
    assert len(store.steps) <= loop.CHECKPOINT_SHARE * clock[0]


def test_a_training_without_a_report_is_an_error():
    with pytest.raises(ValueError, match="without a report"):
        finished(checkpointed(Memory(), "part", lambda *, resume: iter(())))
