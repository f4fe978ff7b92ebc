"""How every benchmark ends: the machine, what is wrong, and a last line with its ratio."""

import platform
from collections.abc import Iterable

import torch


def machine() -> str:
    """The processor, the versions and the threads that a ratio was measured with."""
    return (
        f"machine {platform.processor() or platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s)"
    )


def conclude(
    ratio: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    wrong: Iterable[str] = (),
) -> int:
    """Print the last line, `ratio R (wanted ...)`, and return the exit code.

    Args:
        ratio: the benchmark's main ratio, against a reference of the same run.
        at_least: the smallest ratio that passes; None for no lower limit.
        at_most: the largest ratio that passes; None for no upper limit.
        wrong: one line for each outcome that is not as it must be.

    Returns:
        0, or 1 where an outcome is wrong or the ratio is outside of its limits.
    """
    lines = list(wrong)
    for line in lines:
        print(f"WRONG {line}")
    limits = [
        f"{words} {limit:g}"
        for words, limit in (("at least", at_least), ("at most", at_most))
        if limit is not None
    ]
    print(f"ratio {ratio:.4g} (wanted {' and '.join(limits) or 'nothing on this machine'})")
    low = -float("inf") if at_least is None else at_least
    high = float("inf") if at_most is None else at_most
    return int(bool(lines) or not low <= ratio <= high)
