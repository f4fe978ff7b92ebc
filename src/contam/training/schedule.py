"""Step sizes as pure functions of the step, so that a resumed training needs no extra state."""

import math


def warmup_cosine(step: int, *, steps: int, warmup: int) -> float:
    """Return the factor of the step size at a step, in (0, 1].

    It rises linearly over the warm-up to 1 and then follows a half cosine that would reach 0 one
    step after the last.

    Args:
        step: Step, counted from 0.
        steps: Number of steps of the training.
        warmup: Number of warm-up steps.

    Raises:
        ValueError: If the step is outside the training or the warm-up is longer than it.

    Source: ours, since the paper names its schedule and gives no formula.

    >>> [round(warmup_cosine(step, steps=6, warmup=2), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if not (0 <= step < steps and 0 <= warmup <= steps):
        raise ValueError(
            f"expected 0 <= step < steps and 0 <= warmup <= steps, got step={step}, "
            f"steps={steps}, warmup={warmup}"
        )
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
