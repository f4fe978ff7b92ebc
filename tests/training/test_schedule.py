"""The schedule as a function of the step, against PyTorch's schedulers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from contam.training.schedule import warmup_cosine


def optimizer(step_size: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], step_size)


def sizes(scheduler, steps: int) -> list[float]:
    taken = []
    for _ in range(steps):
        taken.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return taken


@pytest.mark.parametrize(("steps", "warmup"), [(50, 5), (7, 0), (10, 10), (740, 74)])
def test_cosine_schedule_equals_lambda_lr(steps, warmup):
    def factor(step: int) -> float:
        # The scheduler asks for one more step than is taken.
        return warmup_cosine(min(step, steps - 1), steps=steps, warmup=warmup)

    expected = sizes(LambdaLR(optimizer(), factor), steps)
    sizes_by_step = [3e-3 * warmup_cosine(s, steps=steps, warmup=warmup) for s in range(steps)]
    assert sizes_by_step == expected


@pytest.mark.parametrize("steps", [7, 50])
def test_without_warm_up_the_schedule_is_the_cosine_of_torch(steps):
    expected = sizes(CosineAnnealingLR(optimizer(1.0), T_max=steps), steps)
    sizes_by_step = [warmup_cosine(s, steps=steps, warmup=0) for s in range(steps)]
    assert sizes_by_step == pytest.approx(expected)


def test_cosine_schedule_by_hand():
    sizes_by_step = [warmup_cosine(s, steps=8, warmup=4) for s in range(8)]
    half = 0.5**0.5
    assert sizes_by_step == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, (1 + half) / 2, 0.5, (1 - half) / 2]
    )


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_the_schedule_rises_to_one_then_falls_and_stays_positive(steps, data):
    warmup = data.draw(st.integers(0, steps))
    values = [warmup_cosine(s, steps=steps, warmup=warmup) for s in range(steps)]
    assert all(0 < v <= 1 for v in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    assert max(values) == 1


@pytest.mark.parametrize("invalid", [(10, 10, 2), (-1, 10, 2), (0, 10, 11), (0, 10, -1), (0, 0, 0)])
def test_steps_outside_the_training_are_rejected(invalid):
    step, steps, warmup = invalid
    with pytest.raises(ValueError, match=f"got step={step}, steps={steps}"):
        warmup_cosine(step, steps=steps, warmup=warmup)
