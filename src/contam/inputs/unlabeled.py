"""Data sets without labels, in all forms that labeled ones have; labels that they hold are ignored.

A label of 0 stands in for the missing ones, so that the same code reads both kinds of sets.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from contam.batch import Domain, Shift
from contam.data.folders import images_in
from contam.data.image_tree import unlabeled_tree
from contam.inputs.parts import KEYS, Parts, stacked
from contam.inputs.table_files import ImageTable, table_of


def input_parts(item: Any, keys: Mapping[str, str], *, several: bool | None = None) -> Parts:
    """Return the input of an example or a batch, with labels of 0.

    Args:
        item: the input alone, a tuple or list that starts with it, or a dict.
        keys: names of the parts of dicts.
        several: whether this is a batch. By default, lists, and tensors and arrays of two or four
            axes are batches.

    Raises:
        ValueError: a dict has no input.

    >>> input_parts((torch.zeros(2, 3, 8, 8), None), {}).y
    tensor([0, 0])
    >>> input_parts({"image": torch.zeros(3, 8, 8)}, {}).y
    0
    """
    x = item
    if isinstance(item, Mapping):
        names = [name for name in (keys.get("x"), *KEYS["x"]) if name in item]
        if not names:
            raise ValueError(
                f"no input among {sorted(map(str, item))[:8]}; expected one of {list(KEYS['x'])}"
            )
        x = item[names[0]]
    elif isinstance(item, tuple | list) and len(item) and not isinstance(item[0], int | float):
        x = item[0]
    if several is None:
        several = isinstance(x, list) or getattr(x, "ndim", 0) in (2, 4)
    return Parts(x, torch.zeros(len(x), dtype=torch.int64) if several else 0)


def without_labels(data: Any, keys: Mapping[str, str]) -> Any:
    """Return a set in memory as (inputs, labels of 0); other sets are returned unchanged.

    Args:
        data: a set of any accepted form.
        keys: names of the parts of dicts.

    Raises:
        ValueError: a dict has no input, or the inputs of a list differ in shape.

    >>> x, y = without_labels(torch.ones(2, 3), {})
    >>> x.shape, y.tolist()
    (torch.Size([2, 3]), [0, 0])
    """
    if isinstance(data, Shift):
        return data.id_test
    whole = isinstance(data, Tensor | np.ndarray)
    whole |= isinstance(data, tuple) and len(data) > 0 and isinstance(data[0], Tensor | np.ndarray)
    whole |= isinstance(data, Mapping) and not hasattr(data, "column_names")
    if isinstance(data, list) and data and all(isinstance(part, Tensor) for part in data):
        # Batches have two or four axes, single inputs one or three.
        rows = [x for batch in data for x in batch] if data[0].ndim in (2, 4) else data
        data, whole = stacked(rows), True
    return tuple(input_parts(data, keys, several=True)[:2]) if whole else data


def unlabeled_sets(
    data: Any, keys: Mapping[str, str] | None = None
) -> list[tuple[str | None, Any]]:
    """Return one or several data sets without labels, with their names; None for no name.

    Args:
        data: a data set, a list of folders, tables, loaders or datasets, a dict of data sets by
            name, or None.
        keys: names of the parts of dicts.

    >>> unlabeled_sets({"night": "data/night", "fog": "data/fog"})
    [('night', 'data/night'), ('fog', 'data/fog')]
    """
    if data is None or (isinstance(data, list | tuple) and not len(data)):
        return []
    if isinstance(data, Shift):
        return [(None, domain) for domain in data.ood_tests]
    if isinstance(data, Mapping) and not hasattr(data, "column_names"):
        inputs = {(keys or {}).get("x"), *KEYS["x"]}
        if not any(name in inputs for name in data):
            return [(str(name), value) for name, value in data.items()]
    if isinstance(data, list | tuple) and all(map(_is_set, data)):
        return [(None, part) for part in data]
    return [(None, data)]


def _is_set(data: Any) -> bool:
    """Whether an entry of a list is a data set and not an example or a batch."""
    kinds = (str, Path, ImageTable, Domain, DataLoader, Dataset)
    frame = type(data).__name__ == "DataFrame"
    return isinstance(data, kinds) or frame or hasattr(data, "column_names")


def lacks_labels(data: Any, keys: Mapping[str, str]) -> bool:
    """Return whether a set that can't be read with labels has none.

    Args:
        data: a set of any form.
        keys: names of the parts of dicts.

    >>> lacks_labels(torch.zeros(2, 3), {}), lacks_labels((torch.zeros(2, 3), [0, 1]), {})
    (True, False)
    """
    table = table_of(data)
    if table is not None:
        return not table.has_labels(keys)
    if isinstance(data, str | Path):
        return _is_flat(Path(data))
    if isinstance(data, Tensor | np.ndarray):
        return True
    if isinstance(data, tuple) or (isinstance(data, Mapping) and not hasattr(data, "column_names")):
        return _is_alone(data, keys)
    dataset = data.dataset if isinstance(data, DataLoader) else data
    try:
        streamed = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
        first = next(iter(dataset)) if streamed else dataset[0]
    except Exception:  # The class of the data is the user's.
        return False
    return _is_alone(first, keys)


def _is_flat(root: Path) -> bool:
    """Whether a folder holds images, and none in folders inside."""
    try:
        return len(unlabeled_tree(root).files) == len(images_in(root))
    except ValueError:
        return False


def _is_alone(item: Any, keys: Mapping[str, str]) -> bool:
    """Whether an example, a batch or a set in memory has an input and no label."""
    if isinstance(item, Mapping):
        return not any(item.get(name) is not None for name in (keys.get("y"), *KEYS["y"]))
    if isinstance(item, tuple | list):
        return len(item) < 2 or item[1] is None
    return True
