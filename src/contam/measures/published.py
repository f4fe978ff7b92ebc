"""The numbers that the paper prints in its tables, and what follows from them without training.

`paper_tables.csv` holds the five tables as table, row, metric, value; accuracies, macro F1 and
errors are in percent, as printed.
"""

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from statistics import fmean

import torch

from contam.measures.robustness import IMAGENET_LINES, effective_robustness

_TABLES = range(1, 6)


@functools.cache
def published(table: int) -> Mapping[str, Mapping[str, float]]:
    """A table of the paper as printed, in percent: row, then metric.

    Source: Tab. 1, Tab. 2, Tab. 3, Tab. 4, Tab. 5.

    Raises:
        ValueError: the paper has no such table.
    """
    if table not in _TABLES:
        raise ValueError(f"the paper has tables 1 to 5, not {table}")
    text = (resources.files("contam.measures") / "paper_tables.csv").read_text(encoding="utf-8")
    rows: dict[str, dict[str, float]] = {}
    for line in csv.DictReader(text.splitlines()):
        if int(line["table"]) == table:
            rows.setdefault(line["row"], {})[line["metric"]] = float(line["value"])
    return rows


@dataclass(frozen=True)
class Pair:
    """The effective robustness of a CLIP teacher and of the student that was distilled from it."""

    network: str
    """The architecture, the same for both: 'RN50'."""
    teacher: dict[str, float]
    """Points on each of ImageNet's five shifts."""
    student: dict[str, float]
    """The same of the distilled network."""

    @property
    def teacher_mean(self) -> float:
        """The teacher's mean over the five shifts, in points."""
        return fmean(self.teacher.values())

    @property
    def student_mean(self) -> float:
        """The student's mean over the five shifts, in points."""
        return fmean(self.student.values())

    @property
    def kept(self) -> float:
        """The share of the teacher's effective robustness that the student keeps."""
        return self.student_mean / self.teacher_mean


def imagenet_robustness() -> tuple[Pair, ...]:
    """What distillation kept of each CLIP teacher's effective robustness on ImageNet's shifts.

    Follows from the paper's accuracies and `IMAGENET_LINES`; the students keep 34 to 48 %.

    Source: App. E.1, Sec. 2.
    """
    rows = published(1)
    prefix = "CLIP-"
    networks = [row.removeprefix(prefix) for row in rows if row.startswith(prefix)]
    return tuple(
        Pair(network, _points(rows[prefix + network]), _points(rows[f"Distilled {network}"]))
        for network in networks
    )


def _points(row: Mapping[str, float]) -> dict[str, float]:
    def share(metric: str) -> torch.Tensor:
        return torch.tensor([row[f"{metric} top-1"]], dtype=torch.float64) / 100

    return {
        shift: effective_robustness(share("ImageNet (ID)"), share(shift), line).item()
        for shift, line in IMAGENET_LINES.items()
    }
