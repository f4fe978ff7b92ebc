"""The numbers in the paper's tables, and results that follow from them without training.

`paper_tables.csv` holds the five tables as table, row, metric, value; accuracies, macro F1 and
errors are in percent, as printed.
"""

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from statistics import fmean
from typing import Literal, NamedTuple

import torch

from contam.measures.robustness import IMAGENET_LINES, effective_robustness
from contam.measures.testbed import imagenet_line, same_classes

_TABLES = range(1, 6)
_TEACHER, _STUDENT = "CLIP-", "Distilled "


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


class PublishedNetwork(NamedTuple):
    """ID and OOD score of a network in Tables 1 to 4, as shares."""

    data: str
    """Name of the benchmark, as in `contam.data.benchmarks`."""
    name: str
    """The row of the table."""
    kind: Literal["teacher", "student"]
    pair: str | None
    """Architecture of teacher and student; None for a teacher that was not distilled."""
    id: float
    ood: float


def figure_1() -> tuple[PublishedNetwork, ...]:
    """Return every network of Tables 1 to 4 with its ID and mean OOD score.

    Scores are accuracies, and macro F1 on iWildCam.

    Source: Fig. 1.

    >>> [network.name for network in figure_1() if network.pair is None]
    ['CLIP-RN101', 'CLIP-ViT-B/32']
    """
    benchmarks = {1: "imagenet", 2: "iwildcam", 3: "camelyon17", 4: "domainnet"}
    networks = []
    for table, data in benchmarks.items():
        rows = published(table)
        students = {row.partition(" ")[2] for row in rows if row.startswith(_STUDENT)}
        for row, scores in rows.items():
            student = row.startswith(_STUDENT)
            pair = row.removeprefix(_STUDENT).removeprefix(_TEACHER).removeprefix("ImageNet ")
            (own,) = (score for metric, score in scores.items() if re.search(r"\bID\b", metric))
            (other,) = (score for metric, score in scores.items() if "OOD" in metric)
            networks.append(
                PublishedNetwork(
                    data,
                    row,
                    "student" if student else "teacher",
                    pair if pair in students else None,
                    own / 100,
                    other / 100,
                )
            )
    return tuple(networks)


def imagenet_robustness(convention: Literal["all", "same_classes"] = "all") -> tuple[Pair, ...]:
    """Return the effective robustness of each CLIP teacher and its student on ImageNet's shifts.

    It follows from the paper's accuracies and lines of standard models. By either convention,
    the students keep 33 to 48 % of it.

    Args:
        convention: The ID accuracy of a model on ImageNet-R, ImageNet-A and ObjectNet. "all" is the
            accuracy on all of ImageNet's validation set, with `IMAGENET_LINES`. "same_classes" is
            the accuracy on the shift's classes, as in the plots of the testbed of Taori et al.
            (2020), with `contam.measures.testbed.imagenet_line`. The paper does not print it: it
            follows from the accuracy on all classes by the relation of standard models, which is
            nearly exact (R squared of 0.991 or more).

    Raises:
        ValueError: If the convention is unknown.

    Source: App. E.1, Sec. 2.

    >>> for convention in ("all", "same_classes"):
    ...     pairs = imagenet_robustness(convention)
    ...     print(f"{len(pairs)} {fmean(pair.kept for pair in pairs):.2f}")
    5 0.40
    5 0.40
    """
    if convention not in ("all", "same_classes"):
        raise ValueError(f"the convention is 'all' or 'same_classes', not {convention!r}")
    rows = published(1)
    networks = [row.removeprefix(_TEACHER) for row in rows if row.startswith(_TEACHER)]
    return tuple(
        Pair(
            network,
            _points(rows[_TEACHER + network], convention),
            _points(rows[_STUDENT + network], convention),
        )
        for network in networks
    )


def _points(row: Mapping[str, float], convention: str) -> dict[str, float]:
    def share(metric: str) -> torch.Tensor:
        return torch.tensor([row[f"{metric} top-1"]], dtype=torch.float64) / 100

    points = {}
    for shift in IMAGENET_LINES:
        own, line = share("ImageNet (ID)"), IMAGENET_LINES[shift]
        if convention == "same_classes":
            relation = same_classes(shift)
            line = imagenet_line(shift, same_classes=relation is not None)
            own = own if relation is None else relation.expected(own)
        points[shift] = effective_robustness(own, share(shift), line).item()
    return points
