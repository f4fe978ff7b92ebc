"""One pass over data of any form, batch by batch, without keeping it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from contam.batch import Batch, Domain, Shift
from contam.data.images import pixels
from contam.inputs.forms import (
    ACCEPTED,
    Options,
    classes_of,
    is_indexed,
    is_pair,
    is_whole_dict,
    read_raw,
)
from contam.inputs.image_conversion import unit_bytes
from contam.inputs.indexed import IndexedReader, one_worker
from contam.inputs.labels import origins
from contam.inputs.parts import Parts, as_domains, as_inputs, as_labels, numbered, parts
from contam.inputs.table_files import table_of
from contam.inputs.tables import as_batch


def stream(data: Any, size: int, options: Options) -> Iterator[Batch]:
    """Make one pass over data of any accepted form, without keeping it.

    A loader keeps its own order and batches. An example that can't be read raises.

    Args:
        data: the data set, or an iterable of batches.
        size: batch size of data without batches.
        options: options for reading; budgets are ignored.

    Yields:
        The batches.

    Raises:
        ValueError: the form is not accepted, or an example can't be read.

    >>> [len(batch.y) for batch in stream((torch.zeros(5, 3), [0, 1, 0, 1, 0]), 2, Options())]
    [2, 2, 1]
    """
    if isinstance(data, Shift):
        data = data.id_test
    if isinstance(data, Domain):
        yield from map(_in_units, data.batches(size))
        return
    whole = is_whole_dict(data) or is_pair(data) or table_of(data) is not None
    if whole or isinstance(data, str | Path):
        raw = read_raw(None, data, "data", options)
        y, _ = numbered(raw.y, options.classes or raw.classes)
        raw.refuse_left_out()
        yield from raw.make_domain(y, origins([raw])[0][0], None).batches(size)
        return
    inner = data.dataset if isinstance(data, DataLoader) else data
    classes = options.classes or classes_of(inner, options.keys)
    domains: dict[str, int] = {}
    for item in raw_batches(data, size, options):
        if isinstance(item, Batch):
            yield _in_units(item)
            continue
        y = as_labels(item.y)
        if not isinstance(y, Tensor) and classes is None:
            raise ValueError(
                f"labels are names such as {y[0]!r}; give classes= in the order of the logits"
            )
        y, _ = numbered(y, classes)
        x, origin = as_inputs(item.x), as_domains(item.domain)
        if len(x) != len(y):
            raise ValueError(
                f"a batch has inputs of shape {tuple(x.shape)} and {len(y)} labels; expected one "
                "label for each input"
            )
        if origin is None:
            origin = torch.zeros_like(y)
        elif not isinstance(origin, Tensor):
            origin = torch.tensor([domains.setdefault(o, len(domains)) for o in origin])
        yield Batch(x, y, origin)


def _in_units(batch: Batch) -> Batch:
    """A batch without bytes; what is in double precision is for a network in double precision."""
    return batch if batch.x.is_floating_point() else batch._replace(x=unit_bytes(batch.x))


def raw_batches(data: Any, size: int, options: Options) -> Iterator[Batch | Parts]:
    """Yield the batches of a dataset or an iterable; single examples are collected to batches.

    Args:
        data: a dataset, a loader, or an iterable of batches or single examples.
        size: batch size of single examples.
        options: options for reading; budgets are ignored.

    Yields:
        A `Batch` as it is; other batches with unconverted labels.

    Raises:
        ValueError: the form is not accepted, or an example can't be read.

    >>> examples = torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.arange(3))
    >>> [len(batch.x) for batch in raw_batches(examples, 2, Options())]
    [2, 1]
    """
    if is_indexed(data) and not isinstance(data, DataLoader):
        reader = IndexedReader(data, options.keys, options.transform or pixels)
        for _, batch, unreadable in reader.read(range(len(data)), size):
            if unreadable:
                raise ValueError(f"example {unreadable[0].index} {unreadable[0].reason}")
            if batch is not None:
                yield batch
        return
    if not isinstance(data, Iterable):
        raise ValueError(f"data are a {type(data).__name__}; expected {ACCEPTED}")
    data = one_worker(data) if isinstance(data, DataLoader) else data
    singles: list[Parts] = []
    for item in data:
        if isinstance(item, Batch):
            yield item
            continue
        if item is None:
            continue
        batch = as_batch(given := parts(item, options.keys), options.transform)
        if batch is given:
            yield batch
            continue
        singles.append(batch)
        if len(singles) == size:
            yield _joined(singles)
            singles = []
    if singles:
        yield _joined(singles)


def _joined(singles: Sequence[Parts]) -> Parts:
    """Make a batch of single examples."""
    x = as_inputs([single.x[0] for single in singles])
    y = [single.y[0] for single in singles]
    origin = [None if single.domain is None else single.domain[0] for single in singles]
    return Parts(x, y, None if None in origin else origin)
