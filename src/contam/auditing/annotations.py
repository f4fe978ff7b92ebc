"""What is declared about examples beside their labels: masks of the object, kinds of background."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from contam.auditing.audit_inputs import Sample
from contam.inputs.parts import as_inputs, as_labels, listed, pick
from contam.inputs.pixel_range import mask_from
from contam.inputs.reading import Table


def with_masks(sample: Sample, table: Table, masks: Any) -> Sample:
    """The sample with masks from a tensor, or from a tree of pictures beside that of the images.

    Raises:
        ValueError: they don't belong to these examples.
    """
    if masks is None:
        masks = table.masks
    elif isinstance(masks, str | Path):
        found = _masks_beside(Path(masks), table)
        if found is None:
            return sample
        masks = found
    else:
        masks = as_inputs(masks)
        if len(masks) != table.total:
            raise ValueError(
                f"{len(masks)} masks for the {table.total} examples of {table.name!r}; want one "
                "for each"
            )
        masks = masks[table.numbers]
    if masks is None:
        return sample
    masks = masks[:, None] if masks.ndim == 3 else masks
    shape = (len(table), 1, *table.shape[-2:])
    if len(table.shape) != 3 or masks.ndim != 4 or (masks[:, :1]).shape != shape:
        raise ValueError(
            f"masks of {table.name!r} have the shape {tuple(masks.shape)}; want {shape}, the size "
            "of the network's input"
        )
    masks = masks[:, :1].float()
    if masks.min() < 0 or masks.max() > 1:
        raise ValueError(
            f"masks of {table.name!r} lie in [{masks.min():.3g}, {masks.max():.3g}]; want shares "
            "of each pixel in [0, 1]"
        )
    return replace(sample, masks=masks)


def _masks_beside(root: Path, table: Table) -> Float[Tensor, "n 1 height width"] | None:
    """Masks under the images' own paths below another folder, with whatever suffix."""
    if not root.is_dir():
        raise ValueError(f"no folder {root}; it should hold masks")
    if table.root is None or table.transform is None:
        raise ValueError(
            f"{table.name!r} does not come from a folder, so its masks can't; give a tensor"
        )
    found = []
    for file in table.files:
        place = root / file.relative_to(table.root)
        beside = [place] if place.is_file() else sorted(place.parent.glob(f"{place.stem}.*"))
        if not beside:
            table.notes.append(
                f"No masks for {table.name!r}: {file.name} and maybe others have none in the "
                "folder of masks."
            )
            return None
        found.append(mask_from(beside[0], table.transform))
    return torch.stack(found)


def with_backgrounds(
    samples: Sequence[Sample], tables: Sequence[Table], labels: Mapping[str, Any]
) -> list[Sample]:
    """The samples with declared labels of their backgrounds, numbered alike in all sets.

    Raises:
        ValueError: they are not one for each example.
    """
    columns = []
    for table in tables:
        column = table.background
        if table.name in labels:
            column = as_labels(labels[table.name], "background labels")
            if len(column) != table.total:
                raise ValueError(
                    f"{len(column)} background labels for the {table.total} examples of "
                    f"{table.name!r}; want one for each"
                )
            column = pick(column, table.numbers)
        columns.append(column)
    named = [column for column in columns if column is not None]
    if any(isinstance(column, list) for column in named):
        columns = [None if c is None else [str(each) for each in listed(c)] for c in columns]
        names = sorted({name for column in columns if column is not None for name in column})
    else:
        names = sorted({int(each) for column in named for each in column.unique()})
    # Kinds are numbered from 0 without gaps, since tables are made of them.
    places = {name: place for place, name in enumerate(names)}
    return [
        sample if column is None else replace(
            sample, background=torch.tensor([places[each] for each in listed(column)])
        )
        for sample, column in zip(samples, columns, strict=True)
    ]  # fmt: skip
