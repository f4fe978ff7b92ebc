"""Annotations of examples besides labels: object masks and background labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from contam.inputs.input_set import InputSet
from contam.inputs.parts import as_labels, as_masks, listed, pick
from contam.inputs.pixel_range import mask_from
from contam.inputs.table_files import table_of
from contam.inputs.tables import RawSet

FAINTEST = 0.02
"""Masks without a larger share were made with other numbers than 255, such as numbers of
classes."""


def with_masks(sample: InputSet, table: RawSet, masks: Any) -> InputSet:
    """Add masks from a tensor, or from a folder tree like that of the images.

    Args:
        sample: the data set.
        table: the same set as it was read.
        masks: (n, 1, height, width) share of each pixel that the object covers, or a folder; None
            takes the masks that came with the examples.

    Returns:
        The data set with its masks; without them, and with a note, if a file is missing.

    Raises:
        ValueError: the masks do not match the examples.

    >>> from contam.inputs import read_set
    >>> from contam.inputs.forms import Options, read_raw
    >>> data = torch.rand(4, 3, 8, 8), torch.arange(4)
    >>> masks = torch.ones(4, 1, 8, 8)
    >>> raw = read_raw("ID", data, "ID", Options())
    >>> with_masks(read_set(data, name="ID"), raw, masks).masks.shape
    torch.Size([4, 1, 8, 8])
    """
    if masks is None:
        masks = table.masks  # Sets of files have none, so every row was read.
    elif isinstance(masks, str | Path):
        masks = _masks_beside(Path(masks), table)
        if isinstance(masks, str):
            return replace(sample, read_notes=(*sample.read_notes, masks))
    else:
        masks = as_masks(masks)
        if len(masks) != table.total:
            raise ValueError(
                f"{len(masks)} masks for the {table.total} examples of {table.name!r}; expected "
                "one for each"
            )
        masks = masks[table.numbers][table.read_positions()]
    if masks is None:
        return sample
    masks = masks[:, None] if masks.ndim == 3 else masks
    shape = (len(sample), 1, *table.shape[-2:])
    if len(table.shape) != 3 or masks.ndim != 4 or (masks[:, :1]).shape != shape:
        raise ValueError(
            f"masks of {table.name!r} have the shape {tuple(masks.shape)}; expected {shape}, the "
            "size of the network's input"
        )
    masks = masks[:, :1].float()
    if 0 < masks.max() < FAINTEST:
        raise ValueError(
            f"masks of {table.name!r} are almost black: the largest share is {masks.max():.2g}; "
            "mark the object with 255 in files and with 1 in tensors"
        )
    if masks.min() < 0 or masks.max() > 1:
        raise ValueError(
            f"masks of {table.name!r} lie in [{masks.min():.3g}, {masks.max():.3g}]; expected "
            "shares of each pixel in [0, 1]"
        )
    return replace(sample, masks=masks)


def _masks_beside(root: Path, table: RawSet) -> Float[Tensor, "n 1 height width"] | str:
    """Return masks from the images' relative paths below another folder, or a note."""
    if not root.is_dir():
        raise ValueError(f"no folder {root}; it should hold masks")
    if table.root is None or table.transform is None:
        raise ValueError(
            f"{table.name!r} does not come from a folder, so its masks can't; give a tensor"
        )
    masks = []
    for file in (table.files[row] for row in table.read_positions().tolist()):
        place = root / file.relative_to(table.root)
        beside = [place] if place.is_file() else sorted(place.parent.glob(f"{place.stem}.*"))
        if not beside:
            return (
                f"No masks for {table.name!r}: {file.name} and maybe others have none in the "
                "folder of masks."
            )
        masks.append(mask_from(beside[0], table.transform))
    return torch.stack(masks)


def _backgrounds_of(source: Any, table: RawSet) -> list[str]:
    """Return the background of each file from a table of paths and backgrounds."""
    if not table.files:
        raise ValueError(
            f"{table.name!r} does not come from files, so a table can't name their backgrounds; "
            "give a label for each example"
        )
    listed_in = table_of(source)
    assert listed_in is not None
    return listed_in.values_of(table.files, table.root, "background")


def with_backgrounds(
    samples: Sequence[InputSet], tables: Sequence[RawSet], labels: Mapping[str, Any]
) -> list[InputSet]:
    """Add background labels; equal labels have equal indices in all sets.

    Args:
        samples: the data sets.
        tables: the same sets as they were read.
        labels: (n,) indices or names by name of the set, or a table with columns for path and
            background; sets without an entry take the labels that came with the examples.

    Returns:
        The data sets with (n,) background indices where there are labels.

    Raises:
        ValueError: the number of labels differs from the number of examples.

    >>> from contam.inputs import read_set
    >>> from contam.inputs.forms import Options, read_raw
    >>> data = torch.rand(3, 2), [0, 1, 0]
    >>> raw = read_raw("ID", data, "ID", Options())
    >>> names = {"ID": ["sea", "land", "sea"]}
    >>> with_backgrounds([read_set(data, name="ID")], [raw], names)[0].background.tolist()
    [1, 0, 1]
    """
    columns = []
    for table in tables:
        column = table.background
        given = labels.get(table.name)
        if table_of(given) is not None:
            column = _backgrounds_of(given, table)
        elif given is not None:
            column = as_labels(given, "background labels")
            if len(column) != table.total:
                raise ValueError(
                    f"{len(column)} background labels for the {table.total} examples of "
                    f"{table.name!r}; expected one for each"
                )
            column = pick(column, table.numbers)
        columns.append(None if column is None else pick(column, table.read_positions()))
    named = [column for column in columns if column is not None]
    if any(isinstance(column, list) for column in named):
        columns = [None if c is None else [str(label) for label in listed(c)] for c in columns]
        names = sorted({name for column in columns if column is not None for name in column})
    else:
        names = sorted({int(label) for column in named for label in column.unique()})
    # Contiguous integers from 0, because they index rows of tables.
    places = {name: place for place, name in enumerate(names)}
    return [
        sample if column is None else replace(
            sample, background=torch.tensor([places[label] for label in listed(column)])
        )
        for sample, column in zip(samples, columns, strict=True)
    ]  # fmt: skip
