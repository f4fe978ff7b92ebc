"""Sets with several labels for each example, read into memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from contam.batch import Batch
from contam.inputs.forms import Options
from contam.inputs.lazy_files import MAX_BYTES
from contam.inputs.parts import Parts, as_input, as_inputs, parts
from contam.inputs.streams import raw_batches

BATCH = 64
"""Number of examples of a dataset that are read at a time."""


class MultilabelSet(NamedTuple):
    """A set in memory with several labels for each example."""

    x: Tensor
    y: Tensor
    """(n, labels) of 0 and 1."""
    domain: Any = None
    """(n,) or (n, columns) metadata; None if an example has none."""


def read_multilabel(name: str, data: Any, options: Options) -> MultilabelSet:
    """Read a set with several labels for each example into memory.

    Args:
        name: name of the set, for messages.
        data: a pair (x, y), a dict of them, a loader, a dataset, batches or single examples; y has
            rows of 0 and 1.
        options: options for reading; budgets are ignored.

    Returns:
        The set.

    Raises:
        ValueError: an example can't be read, labels are not rows of 0 and 1, inputs or rows differ
            in shape, there is no example, or the set does not fit in memory.

    Source: ours, because medical images and attributes have several labels for each image.

    >>> read_multilabel("ID", (torch.zeros(2, 3), [[0, 1], [1, 1]]), Options()).y.tolist()
    [[0, 1], [1, 1]]
    """
    x, y, domain, size = [], [], [], 0
    for part in _batches(data, options):
        x.append(as_inputs(part.x))
        y.append(_rows(part.y, name))
        domain.append(_metadata(part.domain))
        size += x[-1].numel() * x[-1].element_size()
        if len(x[-1]) != len(y[-1]):
            raise ValueError(f"{name!r} has {len(x[-1])} inputs and {len(y[-1])} rows of labels")
        if size > 4 * MAX_BYTES:
            raise ValueError(
                f"{name!r} does not fit in memory; give fewer examples, or an ImageTable of files"
            )
    if not any(map(len, x)):
        raise ValueError(f"{name!r} has no examples: it is empty")
    for what, batches in (("inputs", x), ("rows of labels", y)):
        shapes = sorted({tuple(batch.shape[1:]) for batch in batches})
        if len(shapes) > 1:
            raise ValueError(
                f"{name!r} has {what} of the shapes {shapes[0]} and {shapes[1]}; expected one shape"
            )
    known = [values for values in domain if values is not None]
    alike = len(known) == len(domain) and len({values.shape[1:] for values in known}) == 1
    return MultilabelSet(torch.cat(x), torch.cat(y), np.concatenate(known) if alike else None)


def _batches(data: Any, options: Options) -> Iterator[Batch | Parts]:
    """Yield the batches of a set; single examples of an iterable are batches of one."""
    if isinstance(data, tuple) or (isinstance(data, Mapping) and not hasattr(data, "column_names")):
        yield parts(data, options.keys)
        return
    if isinstance(data, str | Path):
        raise ValueError(
            f"{data}: folders have one label for each image; give a table with a column for each "
            "label"
        )
    for item in raw_batches(data, BATCH, options):
        if getattr(item.y, "ndim", 2) == 1:  # The labels of one example.
            domain = None if item.domain is None else [item.domain]
            yield Parts(as_input(item.x, options.transform)[None], [item.y], domain)
        else:
            yield item


def _metadata(values: Any) -> np.ndarray | None:
    """(n,) or (n, columns) numbers or names."""
    if values is None or isinstance(values, Mapping):
        return None
    if isinstance(values, Sequence):
        values = [v.tolist() if isinstance(v, Tensor) else v for v in values]
    try:
        column = np.asarray(values)
    except ValueError:  # Their lengths differ.
        return None
    return column if column.ndim and column.dtype.kind in "biufU" else None


def _rows(y: Any, name: str) -> Tensor:
    """(n, labels) of 0 and 1."""
    try:
        if isinstance(y, list) and all(isinstance(row, Tensor) for row in y):
            rows = torch.stack(y).detach().cpu()
        else:
            rows = torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError, RuntimeError):
        rows = torch.empty(0)
    if rows.ndim != 2:
        raise ValueError(
            f"labels of {name!r} have the shape {tuple(rows.shape)}; expected rows of 0 and 1, "
            "(n, labels); for one class for each example use contam.audit"
        )
    others = rows[(rows != 0) & (rows != 1)]
    if len(others):
        raise ValueError(
            f"labels of {name!r} have the value {others[0].item()}; expected rows of 0 and 1"
        )
    return rows.long()
