"""Step sizes as pure functions of the step, so that an interrupted training needs no memory."""

import math


def warmup_cosine(step: int, *, steps: int, warmup: int) -> float:
    """The share of the full step size to take at a step counted from 0, in (0, 1].

    Rises in a line over the first `warmup` steps, reaches 1, and falls along a half cosine that
    would meet 0 one step after the last.

    Source: ours, since the paper names its schedule and gives no formula.

    Raises:
        ValueError: the step lies outside the training, or the warm-up outlasts it.
    """
    if not (0 <= step < steps and 0 <= warmup <= steps):
        raise ValueError(
            f"asked for step {step} of {steps} with {warmup} to warm up; "
            "want 0 <= step < steps and 0 <= warmup <= steps"
        )
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
