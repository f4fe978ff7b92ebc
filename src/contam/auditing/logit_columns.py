"""Audits of some of a network's logits, such as the 200 classes of ImageNet-R of 1000."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contam.inputs.labels import class_names, labeled
from contam.inputs.tables import RawSet

Columns = Literal["labeled"] | Sequence[int | str]
"""The logits to compare: those of the classes that all sets have, or their indices or names."""


class Labels(NamedTuple):
    """The classes of an audit, and the labels of its sets."""

    names: list[str]
    y: list[Tensor]
    """(n,) class indices of each set; -1 marks examples of other classes."""
    columns: list[int] | None = None
    """The logit of each class; None if all logits are compared."""
    notes: tuple[str, ...] = ()


def find_labels(
    tables: Sequence[RawSet],
    classes: Sequence[str] | None,
    width: int,
    columns: Columns | None = None,
) -> Labels:
    """Match the labels of all sets with the network's logits.

    Args:
        tables: the sets, ID first.
        classes: names of all logits in their order, or of the chosen ones; by default those of the
            ID set.
        width: number of logits.
        columns: the logits to compare; None compares all. `labeled` takes the classes that have
            examples in every set. Otherwise class k is the k-th of these logits.

    Returns:
        Names, labels, and logits.

    Raises:
        ValueError: classes and logits do not match, a logit does not exist, or sets share fewer
            than two classes.

    >>> from contam.inputs.forms import Options, read_raw
    >>> raw = read_raw("ID", (torch.zeros(3, 2), [7, 2, 7]), "ID", Options())
    >>> names, y, columns, _ = find_labels([raw], None, 10, "labeled")
    >>> names, y[0].tolist(), columns
    (['2', '7'], [1, 0, 1], [2, 7])
    """
    renamed = classes is not None
    if columns is None:
        names = class_names(tables, classes, width)
        return Labels(names, [labeled(table, names, renamed=renamed) for table in tables])
    if columns == "labeled":
        names = class_names(tables, classes, width)
        y = [labeled(table, names, renamed=renamed) for table in tables]
        chosen = sorted(set.intersection(*(set(labels.tolist()) for labels in y)))
        which = "that have examples in every set"
    else:
        chosen, which = _indices(columns, classes, width), "that columns= chose"
        if classes is None or len(classes) == len(chosen) < width:
            names = class_names(tables, classes, len(chosen))
            y = [labeled(table, names, renamed=renamed) for table in tables]
            return Labels(names, y, chosen, (_note(chosen, width, which),))
        names = class_names(tables, classes, width)
        y = [labeled(table, names, renamed=renamed) for table in tables]
    if len(chosen) < 2:
        raise ValueError(f"there are {len(chosen)} classes {which}; an audit compares at least two")
    place = torch.full((width,), -1)
    place[chosen] = torch.arange(len(chosen))
    y = [place[labels] for labels in y]
    notes = [_note(chosen, width, which)]
    for table, labels in zip(tables, y, strict=True):
        others = int((labels < 0).sum())
        if others == len(labels):
            raise ValueError(f"{table.name!r} has no example of the {len(chosen)} classes {which}")
        if others:
            notes.append(
                f"{others} of {len(labels)} examples of {table.name!r} are left out, because they "
                "belong to other classes."
            )
    return Labels([names[k] for k in chosen], y, chosen, tuple(notes))


def _note(chosen: Sequence[int], width: int, which: str) -> str:
    return (
        f"Only the {len(chosen)} of {width} logits {which} are compared, so accuracies are higher "
        "than among all."
    )


def _indices(columns: Sequence[int | str], classes: Sequence[str] | None, width: int) -> list[int]:
    """Return the logits that indices or names mean."""
    if isinstance(columns, str) or not isinstance(columns, Sequence) or len(columns) < 2:
        raise ValueError(
            f"columns= is 'labeled', or at least two indices or names of logits; got {columns!r}"
        )
    known = list(classes) if classes is not None and len(classes) == width else []
    chosen = []
    for column in columns:
        if isinstance(column, str):
            if column not in known:
                raise ValueError(
                    f"columns= has {column!r}, which is none of the classes; give classes= with "
                    f"a name for each of the {width} logits, or indices"
                )
            chosen.append(known.index(column))
        elif isinstance(column, bool) or not 0 <= int(column) < width:
            raise ValueError(f"columns= has {column}, and the logits are 0 to {width - 1}")
        else:
            chosen.append(int(column))
    if len(set(chosen)) < len(chosen):
        twice = next(column for column in chosen if chosen.count(column) > 1)
        raise ValueError(f"columns= has {twice} twice; give each logit once")
    return chosen
