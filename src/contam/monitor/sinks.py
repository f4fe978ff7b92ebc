"""Sinks: functions that receive the numbers of each snapshot, besides the run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from contam.measures.attenuation import above_one

Sink = Callable[[int, Mapping[str, float]], None]
"""A function of a step and named numbers."""

BLOCKS = "▁▂▃▄▅▆▇█"
BARS = {"information": "bits", "selectivity": "selectivity", "asymmetry": "asymmetry"}
"""The layer numbers that the terminal draws as bars, and their column names."""


def tensorboard(folder: Path | str) -> Sink:
    """Return a sink that writes every number as a TensorBoard scalar under `contam/`.

    Args:
        folder: the log folder.

    Raises:
        ValueError: tensorboard is not installed.

    >>> log = tensorboard("logs")
    >>> log(100, {"accuracy": 0.5})
    >>> [path.name.split(".")[0] for path in Path("logs").iterdir()]
    ['events']
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "TensorBoard is not installed: run pip install tensorboard, or run "
            "pip install -e '.[sinks]' in a clone of contam"
        ) from None
    writer = SummaryWriter(str(folder))

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(f"contam/{name}", value, step)
        writer.flush()

    return write


def weights_and_biases(run: Any) -> Sink:
    """Return a sink that logs to a W&B run, with `contam/step` as the horizontal axis.

    W&B's own step is not used, so other logging is unaffected.

    Args:
        run: the result of `wandb.init`.

    >>> class Run:
    ...     def define_metric(self, name, step_metric=None): ...
    ...     def log(self, numbers): print(numbers)
    >>> weights_and_biases(Run())(10, {"accuracy": 0.5})
    {'contam/step': 10, 'contam/accuracy': 0.5}
    """
    run.define_metric("contam/step")
    run.define_metric("contam/*", step_metric="contam/step")

    def log(step: int, numbers: Mapping[str, float]) -> None:
        run.log({"contam/step": step} | {f"contam/{name}": v for name, v in numbers.items()})

    return log


def terminal(console: Console | None = None) -> Sink:
    """Return a sink that prints a line for each snapshot, if the console is a terminal.

    Small bars show the numbers of the layers, relative to the largest value so far, so that lines
    can be compared.

    Args:
        console: the console; by default standard error.

    >>> import io
    >>> out = io.StringIO()
    >>> terminal(Console(file=out, force_terminal=True))(10, {"accuracy": 0.5})
    >>> "0.500" in out.getvalue()
    True
    """
    target = console or Console(stderr=True, highlight=False)
    largest: dict[str, float] = {}
    titled = False
    explained: set[str] = set()

    def draw(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal titled
        if not target.is_terminal:
            return
        cells = [f"{step:>8,}"]
        titles = [f"{'step':>8}"]
        for name in ("accuracy", "decided_early", "class_profile_attenuation"):
            width = max(len(name), 8)
            titles.append(f"{name.replace('_', ' '):>{width}}")
            cells.append(f"{numbers[name]:>{width}.3f}" if name in numbers else f"{'–':>{width}}")
        for key, name in BARS.items():
            values = [v for n, v in numbers.items() if n.startswith(f"{key}/")]
            largest[key] = max([largest.get(key, 0.0), *values])
            bars = "".join(_bar(value, largest[key]) for value in values)
            width = max(len(name), len(bars))
            titles.append(f"{name:<{width}}")
            cells.append(f"{bars:<{width}}")
        if not titled:
            target.print("[dim]" + "  ".join(titles) + "[/]", soft_wrap=True)
            titled = True
        target.print("  ".join(cells), soft_wrap=True)
        for note in above_one([numbers.get("class_profile_attenuation")]):
            if note not in explained:
                explained.add(note)
                target.print(f"[dim]{note}[/]", soft_wrap=True)

    return draw


def _bar(value: float, largest: float) -> str:
    if not largest > 0:
        return BLOCKS[0]
    return BLOCKS[min(max(round(value / largest * (len(BLOCKS) - 1)), 0), len(BLOCKS) - 1)]
