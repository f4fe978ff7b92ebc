"""The numbers in the paper's tables, and results that follow from them without training.

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
    """Return a table of the paper as printed, in percent: row, then metric.

    Args:
        table: Number of the table, 1 to 5.

    Raises:
        ValueError: If the paper has no such table.

    Source: Tab. 1, Tab. 2, Tab. 3, Tab. 4, Tab. 5.

    >>> published(1)["CLIP-RN50"]["ImageNet (ID) top-1"]
    70.37
    """
    if table not in _TABLES:
        raise ValueError(f"the paper has tables 1 to 5, got {table}")
    text = (resources.files("contam.measures") / "paper_tables.csv").read_text(encoding="utf-8")
    rows: dict[str, dict[str, float]] = {}
    for line in csv.DictReader(text.splitlines()):
        if int(line["table"]) == table:
            rows.setdefault(line["row"], {})[line["metric"]] = float(line["value"])
    return rows


@dataclass(frozen=True)
class Pair:
    """Effective robustness of a CLIP teacher and of the student distilled from it."""

    network: str
    """Architecture of both, such as 'RN50'."""
    teacher: dict[str, float]
    """Effective robustness of the teacher on each of ImageNet's five shifts, in points."""
    student: dict[str, float]
    """Effective robustness of the student, in points."""

    @property
    def teacher_mean(self) -> float:
        """Mean of the teacher over the five shifts, in points."""
        return fmean(self.teacher.values())

    @property
    def student_mean(self) -> float:
        """Mean of the student over the five shifts, in points."""
        return fmean(self.student.values())

    @property
    def kept(self) -> float:
        """Share of the teacher's effective robustness that the student keeps."""
        return self.student_mean / self.teacher_mean


def imagenet_robustness() -> tuple[Pair, ...]:
    """Return the effective robustness of each CLIP teacher and its student on ImageNet's shifts.

    It follows from the paper's accuracies and `IMAGENET_LINES`; the students keep 34 to 48 %.

    Source: App. E.1, Sec. 2.

    >>> len(imagenet_robustness())
    5
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
