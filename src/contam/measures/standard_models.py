"""Tables of models' accuracies: the shipped ImageNet testbed, a leaderboard, or a user's own CSV.

The line of standard models, the baseline of effective robustness, is fitted to such a table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from contam.measures.robustness import Axis, Line, fit_line
from contam.text_files import read_csv

SHIPPED = "testbed_models.csv"
"""The file in this package with the accuracies of ImageNet models."""
TESTBED_COLUMNS = {
    "val": "ImageNet",
    "imagenetv2-matched-frequency-format-val": "ImageNetV2",
    "imagenet-r": "ImageNet-R",
    "imagenet-sketch": "ImageNet-Sketch",
    "objectnet-1.0-beta": "ObjectNet",
    "imagenet-a": "ImageNet-A",
    "val-on-imagenet-a-classes": "ImageNet on the classes of ImageNet-A",
    "val-on-imagenet-r-classes": "ImageNet on the classes of ImageNet-R",
    "val-on-objectnet-classes": "ImageNet on the classes of ObjectNet",
}
"""Names of the test sets, by column of `robustness_top1s.csv` of Taori et al. (2020)."""
NOT_MEASURED = {"", "-", "–", "nan", "n/a"}
_NUMBER = re.compile(r"([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(?:%|(?:±|\+/-|\().*)?", re.IGNORECASE)


@dataclass(frozen=True)
class ModelTable:
    """Accuracies of models on test sets."""

    name: str
    """The file, for messages."""
    rows: tuple[Mapping[str, str], ...]
    """A row for each model, by column."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: test sets, and perhaps `model` and `kind`."""
        return tuple(self.rows[0]) if self.rows else ()

    def accuracies(self, *columns: str, kind: str = "standard") -> Float[Tensor, "columns models"]:
        """Return the accuracies, in [0, 1], of the models that were measured on all columns.

        A table in percent is divided by 100. It is in percent if a value is above 1.

        Args:
            columns: Names of test sets.
            kind: Models to return, in a table with a column `kind`; others have standard models
                only.

        Raises:
            ValueError: If a column is absent, a value is not a number, or some columns are in
                percent and others in [0, 1].

        >>> table = ModelTable("models.csv", ({"id": "75.0 (0.3)", "fog": "40"},
        ...                                   {"id": "68", "fog": ""}))
        >>> table.accuracies("id", "fog").tolist()
        [[0.75], [0.4]]
        """
        if missing := [column for column in columns if column not in self.columns]:
            raise ValueError(f"{self.name} has no column {missing[0]!r}, only {[*self.columns]}")
        values = [
            [self._number(row, column) for column in columns]
            for row in self.rows
            if row.get("kind", kind) == kind
        ]
        table = torch.tensor(values, dtype=torch.float64).reshape(-1, len(columns)).T
        table = table[:, table.isfinite().all(dim=0)]
        percent = (table > 1).any(dim=1)
        if percent.any() and not percent.all():
            one, other = columns[int(percent.int().argmax())], columns[int(percent.int().argmin())]
            raise ValueError(
                f"{self.name} has {one!r} in percent and {other!r} in [0, 1]; divide percent by 100"
            )
        return table / 100 if percent.any() else table

    def line(self, own: str, other: str, *, axis: Axis = "logit") -> Line:
        """Fit the line of the standard models.

        Args:
            own: Column of the ID accuracy.
            other: Column of the OOD accuracy.
            axis: Scale.

        Raises:
            ValueError: As for `accuracies`, or if the models determine no line.
        """
        return fit_line(*self.accuracies(own, other), axis=axis)

    def _number(self, row: Mapping[str, str], column: str) -> float:
        text = (row[column] or "").strip()
        if text.lower() in NOT_MEASURED:
            return float("nan")
        number = _NUMBER.fullmatch(text)
        if number is None:
            raise ValueError(
                f"{self.name} has values that are not numbers under {column!r}, such as {text!r}"
            )
        return float(number[1])


def read_models(path: str | Path) -> ModelTable:
    r"""Read a table of standard models from a CSV file with a header.

    It has a row for each model and a column for each test set, in percent or in [0, 1]. What
    follows a number, such as a standard error in a leaderboard, is ignored, and an empty cell is an
    accuracy that was not measured. A column `kind` may mark models that are not "standard". The
    testbed's own file `robustness_top1s.csv` is read, too: its columns get the names of the test
    sets, and its models the kinds of the shipped table; models that are not in it are left out.

    Args:
        path: The file.

    Raises:
        ValueError: If the file cannot be read.

    Source: ours, for the testbed of Taori et al. (2020), leaderboards and a user's own models.

    >>> _ = Path("models.csv").write_text("model,id,fog\na,0.5,0.4\nb,0.7,0.55\n")
    >>> read_models("models.csv").line("id", "fog").count
    2
    """
    path = Path(path)
    table = _table(path)
    if {"val", "imagenet-r"} - set(table.columns):
        return table
    kinds = {row["model"]: row["kind"] for row in shipped_models().rows}
    return ModelTable(
        path.name,
        tuple(
            {"model": row["model"], "kind": kinds[row["model"]]}
            | {name: row[column] for column, name in TESTBED_COLUMNS.items() if column in row}
            for row in table.rows
            if row["model"] in kinds
        ),
    )


def shipped_models() -> ModelTable:
    """Return the shipped table of ImageNet models; see `contam.measures.testbed`.

    >>> len(shipped_models().rows)
    201
    """
    with resources.as_file(resources.files("contam.measures") / SHIPPED) as path:
        return _table(path)


def _table(path: Path) -> ModelTable:
    header, *rows = [*read_csv(path)] or [[]]
    return ModelTable(path.name, tuple(dict(zip(header, row, strict=False)) for row in rows))
