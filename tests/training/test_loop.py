"""The generator loop: each step once, reports where asked for, and data that ends is named."""

import itertools

import pytest
import torch

from contam.batch import Batch
from contam.training.loop import train


def numbered():
    for i in itertools.count(1):
        one = torch.tensor([i])
        yield (Batch(one.float()[:, None], one * 0, one * 0),)


def run(**options):
    taken = []

    def step(batches):
        taken.append(int(batches[0].x[0, 0]))
        return {"loss": float(taken[-1])}

    return taken, list(train(step, numbered(), **options))


@pytest.mark.parametrize(
    ("steps", "every", "reported"), [(6, 2, [2, 4, 6]), (5, 2, [2, 4, 5]), (1, 9, [1])]
)
def test_reports_come_at_the_interval_and_at_the_end(steps, every, reported):
    taken, progress = run(steps=steps, report_every=every)
    assert taken == list(range(1, steps + 1))
    assert [stage.step for stage in progress] == reported
    assert all(stage.losses == {"loss": float(stage.step)} for stage in progress)


def test_training_continues_after_the_completed_steps():
    taken, progress = run(steps=5, report_every=1, done=3)
    assert taken == [1, 2]  # the caller gives minibatches that start behind the done steps
    assert [stage.step for stage in progress] == [4, 5]


def test_the_loop_is_lazy():
    taken = []
    loop = train(lambda b: taken.append(b) or {}, numbered(), steps=3, report_every=1)
    assert not taken
    next(loop)
    assert len(taken) == 1


def test_data_that_ends_early_is_reported():
    few = itertools.islice(numbered(), 2)
    with pytest.raises(ValueError, match="training takes 3 steps, but the data ended after 2"):
        list(train(lambda b: {}, few, steps=3, report_every=1))


def test_no_minibatch_is_drawn_after_the_last_step():
    source = numbered()
    list(train(lambda b: {}, source, steps=3, report_every=1))
    assert int(next(source)[0].x[0, 0]) == 4
