"""Where the numbers of a look go, besides the run: a sink takes a step and named numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

Sink = Callable[[int, Mapping[str, float]], None]

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN = {"information": "bits", "selectivity": "selectivity", "asymmetry": "asymmetry"}
"""What the terminal draws from layer to layer, and what it calls it."""


def tensorboard(folder: Path | str) -> Sink:
    """Writes every number as a scalar, under `contam/`.

    Source: ours.

    Raises:
        ValueError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "TensorBoard is not installed: pip install 'contam[sinks]', or pip install tensorboard"
        ) from None
    writer = SummaryWriter(str(folder))

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(f"contam/{name}", value, step)
        writer.flush()

    return write


def weights_and_biases(run: Any) -> Sink:
    """Logs to a W&B run, which `wandb.init` gives, with `contam/step` as the horizontal axis.

    W&B's own step stays with whatever else is logged.

    Source: ours.
    """
    run.define_metric("contam/step")
    run.define_metric("contam/*", step_metric="contam/step")

    def log(step: int, numbers: Mapping[str, float]) -> None:
        run.log({"contam/step": step} | {f"contam/{name}": v for name, v in numbers.items()})

    return log


def terminal(console: Console | None = None) -> Sink:
    """Prints a line for each look with small bars from layer to layer, if it is a terminal.

    Each bar is drawn on the scale of what was seen before, so that they can be compared from line
    to line.

    Source: ours.
    """
    shown = console or Console(stderr=True, highlight=False)
    most: dict[str, float] = {}
    told = False

    def draw(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal told
        if not shown.is_terminal:
            return
        cells = [f"{step:>8,}"]
        heads = [f"{'step':>8}"]
        for name in ("accuracy", "decided_early", "class_profile_attenuation"):
            width = max(len(name), 8)
            heads.append(f"{name.replace('_', ' '):>{width}}")
            cells.append(f"{numbers[name]:>{width}.3f}" if name in numbers else f"{'–':>{width}}")
        for key, name in SHOWN.items():
            values = [v for n, v in numbers.items() if n.startswith(f"{key}/")]
            most[key] = max([most.get(key, 0.0), *values])
            bars = "".join(_bar(value, most[key]) for value in values)
            width = max(len(name), len(bars))
            heads.append(f"{name:<{width}}")
            cells.append(f"{bars:<{width}}")
        if not told:
            shown.print("[dim]" + "  ".join(heads) + "[/]", soft_wrap=True)
            told = True
        shown.print("  ".join(cells), soft_wrap=True)

    return draw


def _bar(value: float, most: float) -> str:
    if not most > 0:
        return BLOCKS[0]
    return BLOCKS[min(max(round(value / most * (len(BLOCKS) - 1)), 0), len(BLOCKS) - 1)]
