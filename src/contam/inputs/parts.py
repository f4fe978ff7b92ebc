"""The parts of an example or a batch, in any form: input, label, domain, background, mask."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contam.data.images import pixels
from contam.inputs.image_conversion import (
    channels_first,
    has_channels_last,
    picture_of,
    unit_bytes,
)
from contam.inputs.pixel_range import Transform

KEYS: dict[str, tuple[str, ...]] = {
    "x": ("x", "pixel_values", "image", "images", "img", "input", "inputs", "data", "features"),
    "y": ("y", "label", "labels", "target", "targets", "class", "fine_label"),
    "domain": ("domain", "domains", "group", "env", "environment", "meta", "metadata"),
    "background": ("background", "backgrounds", "bg", "place"),
    "mask": ("mask", "masks", "segmentation"),
}
"""The keys of dicts for the parts of an example, in order of preference."""

MAX_NAMES = 5
"""Maximum number of names in a message."""
LARGEST_INDEX = 2**53
"""Larger floating-point numbers are not exact."""


class Parts(NamedTuple):
    """The unconverted parts of an example or a batch."""

    x: Any
    y: Any
    domain: Any = None
    background: Any = None
    mask: Any = None
    change: Any = None
    """What the conversion of the input changed, in words."""


def parts(item: Any, keys: Mapping[str, str]) -> Parts:
    """Split an example or a batch into its parts.

    Args:
        item: (x, y), (x, y, metadata) or a dict; entries after the metadata are ignored.
        keys: names of parts of dicts that `KEYS` does not list, such as `{"x": "scan"}`.

    Returns:
        The unconverted parts.

    Raises:
        ValueError: the form is not accepted, or there is no input or no label.

    >>> parts({"pixel_values": [0.5], "labels": 1}, {}).y
    1
    """
    if isinstance(item, Mapping):
        values = {part: _part(item, part, keys) for part in KEYS}
        for part, what in (("x", "input"), ("y", "label")):
            if values[part] is None:
                raise ValueError(
                    f"no {what} among {sorted(map(str, item))[:8]}; "
                    f"expected one of {list(KEYS[part])}"
                )
        return Parts(**values)
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) >= 2:
        x, y, metadata = (*item, None)[:3]
        if isinstance(metadata, Mapping):
            others = {
                part: _part(metadata, part, keys) for part in ("domain", "background", "mask")
            }
            return Parts(x, y, **others)
        return Parts(x, y, metadata)
    kind = f"a {type(item).__name__}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        kind += f" of {len(item)}"
    raise ValueError(f"an example or a batch is {kind}; expected (x, y), (x, y, meta) or a dict")


def _part(item: Mapping[Any, Any], part: str, keys: Mapping[str, str]) -> Any:
    return next((item[name] for name in (keys.get(part), *KEYS[part]) if name in item), None)


def is_single(item: Parts) -> bool:
    """Return whether these are the parts of one example and not of a batch.

    Args:
        item: the parts.

    >>> is_single(Parts([0.5, 0.1], 1)), is_single(Parts([[0.5, 0.1]], [1]))
    (True, False)
    """
    return isinstance(item.y, str | bytes | int | float) or getattr(item.y, "ndim", 1) == 0


def as_input(x: Any, transform: Transform | None) -> Tensor:
    """Convert the input of one example to a tensor; images go through the transform.

    Args:
        x: an image, an array of bytes or 16-bit values (height, width) or (height, width,
            channels), a tensor or another array.
        transform: function from an image to a tensor; by default pixels in [0, 1], as for files.

    Returns:
        A tensor without a batch axis.

    Raises:
        ValueError: the input makes no tensor of real numbers.

    >>> as_input([1.0, 2.0], None)
    tensor([1., 2.])
    """
    return converted_input(x, transform)[0]


def converted_input(x: Any, transform: Transform | None) -> tuple[Tensor, str]:
    """Convert the input of one example as `as_input` does, and say what was changed.

    Args:
        x: as for `as_input`.
        transform: function from an image to a tensor.

    Returns:
        A tensor without a batch axis, and the change in words; empty if there is none.

    Raises:
        ValueError: as for `as_input`.

    >>> converted_input(np.zeros((8, 8, 3)), None)[1]
    'channels of arrays were moved from last to first'
    """
    if isinstance(x, Tensor) and _is_image_of_bytes(x, 3):
        x = x.numpy()
    picture = picture_of(x)
    if picture is None:
        x, change = channels_first(x, 3) if isinstance(x, np.ndarray) else (x, "")
        return as_inputs(x), change
    return transformed(picture.image, transform or pixels), picture.change


def transformed(image: Image.Image, transform: Transform) -> Tensor:
    """Return the network's input for an image.

    Args:
        image: the image.
        transform: the user's function.

    Raises:
        ValueError: the function does not return a tensor.

    >>> transformed(Image.new("L", (2, 2)), lambda image: torch.zeros(1, 2, 2)).shape
    torch.Size([1, 2, 2])
    """
    x = transform(image)
    if isinstance(x, np.ndarray):
        x = channels_first(x, 3)[0]
    elif not isinstance(x, Tensor):
        raise ValueError(
            f"transform= returned a {type(x).__name__}; expected a tensor, so end it with ToTensor "
            "or the like"
        )
    return as_inputs(x)


def _is_image_of_bytes(x: Tensor, axes: int) -> bool:
    """Whether this is an image of bytes (or several) with its channels last."""
    return x.dtype in (torch.uint8, torch.uint16) and has_channels_last(x.shape, axes)


def as_inputs(x: Any) -> Tensor:
    """Convert inputs to a tensor of real numbers on the CPU.

    Args:
        x: (n, ...) tensor, array or sequence; unsigned values of 8 and 16 bits are divided by
            their maximum. Images in arrays (n, height, width, channels) get their channels first.

    Returns:
        (n, ...) tensor; floating point numbers in single precision.

    Raises:
        ValueError: the inputs make no tensor of real numbers.

    >>> as_inputs(np.array([[255, 0]], dtype=np.uint8)).tolist()
    [[1.0, 0.0]]
    """
    return converted_inputs(x)[0]


def converted_inputs(x: Any) -> tuple[Tensor, str]:
    """Convert inputs as `as_inputs` does, and say what was changed.

    Args:
        x: as for `as_inputs`.

    Returns:
        (n, ...) tensor, and the change in words; empty if there is none.

    Raises:
        ValueError: as for `as_inputs`.

    >>> x, change = converted_inputs(np.zeros((2, 8, 8, 3)))
    >>> x.shape, change
    (torch.Size([2, 3, 8, 8]), 'channels of arrays were moved from last to first')
    """
    change = ""
    if hasattr(x, "to_numpy"):  # a table of pandas or polars
        x = x.to_numpy()
    if isinstance(x, Sequence) and len(x) and all(isinstance(value, Tensor) for value in x):
        x = stacked(x)
    if isinstance(x, Tensor) and _is_image_of_bytes(x, 4):
        x = x.detach().cpu().numpy()
    if isinstance(x, np.ndarray | Sequence) and not isinstance(x, str):
        try:
            x = np.array(x)
            x = np.array(x.tolist()) if x.dtype.kind == "O" else x
            x, change = channels_first(x, 4)
            x = torch.from_numpy(np.ascontiguousarray(x))
        except (TypeError, ValueError):
            raise ValueError(
                f"inputs are a {type(x).__name__} that makes no tensor of numbers; expected "
                "tensors of one shape"
            ) from None
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"inputs are {kind}; expected a tensor of real numbers")
    return unit_bytes(x.detach().cpu()), change


def as_masks(masks: Any) -> Tensor:
    """Convert object masks to shares of each pixel.

    Args:
        masks: (n, height, width) or (n, 1, height, width) truth values, numbers 0 and 1, bytes up
            to 255, or shares.

    Returns:
        Tensor of the same shape in single precision.

    Raises:
        ValueError: a value is not finite, or the masks make no tensor of numbers.

    >>> as_masks(torch.tensor([[[True, False]]])).tolist()
    [[[1.0, 0.0]]]
    """
    if isinstance(masks, str) or not isinstance(masks, Tensor | np.ndarray | Sequence):
        raise ValueError(
            f"masks are a {type(masks).__name__}; expected (n, height, width) values in [0, 1], a "
            "folder, or a dict of them by set"
        )
    if not isinstance(masks, Tensor):
        masks = torch.as_tensor(np.array([np.asarray(mask) for mask in masks]))
    if isinstance(masks, Tensor) and masks.dtype in (torch.bool, torch.uint8):
        binary = masks.dtype == torch.bool or not masks.numel() or int(masks.max()) <= 1
        masks = masks.float() if binary else masks.float() / 255
    masks = as_inputs(masks).float()
    if not masks.isfinite().all():
        raise ValueError("masks hold values that are not finite; expected shares in [0, 1]")
    return masks


def stacked(inputs: Sequence[Tensor]) -> Tensor:
    """Stack the inputs of several examples.

    Args:
        inputs: tensors of one shape.

    Raises:
        ValueError: their shapes differ.

    >>> stacked([torch.zeros(3), torch.ones(3)]).shape
    torch.Size([2, 3])
    """
    for index, x in enumerate(inputs):
        if x.shape != inputs[0].shape:
            raise ValueError(
                f"example {index} of a batch has the shape {tuple(x.shape)}, the first "
                f"{tuple(inputs[0].shape)}; expected one shape, so give transform= with "
                "a fixed size"
            )
    return torch.stack(list(inputs))


def as_labels(y: Any, what: str = "labels") -> Tensor | list[str]:
    """Convert labels to class indices or names.

    Args:
        y: (n,) indices, whole floats or names (text or bytes), (n, classes) one-hot rows, or (n, 1)
            indices; a tensor, array, sequence, or column of a table.
        what: name of the labels, for messages.

    Returns:
        (n,) class indices as int64, or n names.

    Raises:
        ValueError: the form is not accepted, or a label is missing.

    >>> as_labels(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist(), as_labels([b"cat", b"dog"])
    ([1, 0], ['cat', 'dog'])
    """
    if not isinstance(y, Tensor):
        y = _plain_column(y, what)
        if isinstance(y, list):
            return y
    labels = y.detach().cpu()
    if labels.ndim == 2 and labels.shape[1] > 1:
        one = (labels == 1).sum(1) == 1
        if not bool(((labels == 0) | (labels == 1)).all() and one.all()):
            raise ValueError(
                f"{what} have the shape {tuple(labels.shape)} and are not one-hot; expected one "
                "class for each example (contam.audit_multilabel takes several)"
            )
        labels = labels.int().argmax(1)
    labels = labels.flatten(1) if labels.ndim > 1 else labels[:, None]
    if labels.shape[1] != 1:
        raise ValueError(f"{what} come in {labels.shape[1]} columns; expected one for each example")
    labels = labels[:, 0]
    if labels.is_floating_point() and labels.isnan().any():
        raise _missing(what, int(labels.isnan().nonzero()[0]))
    if labels.is_complex() or (
        labels.is_floating_point()
        and not bool(((labels == labels.round()) & (labels.abs() < LARGEST_INDEX)).all())
    ):
        raise ValueError(
            f"{what} are numbers such as {labels[0].item():.3g}; expected whole numbers, because a "
            "regression has no classes"
        )
    return labels.long()


def _missing(what: str, place: int) -> ValueError:
    return ValueError(f"{what} lack a value at position {place}; expected one everywhere")


def _plain_column(y: Any, what: str) -> Tensor | list[str]:
    """Convert labels other than a tensor to a tensor of numbers, or to names."""
    if hasattr(y, "to_numpy"):  # a column of pandas or polars
        y = y.to_numpy()
    if isinstance(y, Sequence) and len(y) and all(isinstance(label, Tensor) for label in y):
        return torch.stack([label.detach().cpu() for label in y])
    expected = ValueError(f"{what} are a {type(y).__name__}; expected whole numbers or names")
    try:
        values = np.asarray(y) if not isinstance(y, Sequence) else None
    except (TypeError, ValueError):
        raise expected from None
    if values is not None and values.dtype.kind in "biufc" and values.ndim:
        return torch.as_tensor(values.copy())
    if values is not None and not values.ndim:
        raise expected
    items: list[Any] = [
        label.item() if isinstance(label, np.generic | Tensor) and not np.ndim(label) else label
        for label in (values.flatten().tolist() if values is not None else y)
    ]
    for place, label in enumerate(items):
        missing = isinstance(label, float) and math.isnan(label)
        if missing or label is None or type(label).__name__ in ("NAType", "NaTType"):
            raise _missing(what, place)
    if all(isinstance(label, str | bytes) for label in items) and items:
        return [label.decode(errors="replace") if isinstance(label, bytes) else label
                for label in items]  # fmt: skip
    kinds = sorted({type(label).__name__ for label in items if not isinstance(label, int | float)})
    if kinds and any(isinstance(label, str | int | float) for label in items):
        raise ValueError(f"{what} mix numbers and {kinds[0]}; expected whole numbers or names")
    if any(isinstance(label, int) and abs(label) >= 2**63 for label in items):
        raise ValueError(f"{what} hold whole numbers of more than 64 bits; expected class indices")
    try:
        return torch.as_tensor(np.asarray(items))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise expected from None


def groupings(metadata: Any, names: Sequence[str] = ()) -> dict[str, Tensor | list[str]]:
    """Return the groupings of a batch that its metadata hold.

    Args:
        metadata: (n,) indices or names, or (n, columns) of them, as in the WILDS data sets.
        names: names of the columns; by default their numbers.

    Returns:
        (n,) indices or n names by column; columns of other kinds are left out. The name of a single
        column is empty.

    >>> groupings(torch.tensor([[3, 7], [4, 7]]))
    {'0': tensor([3, 4]), '1': tensor([7, 7])}
    >>> groupings({"patient": 1})
    {}
    """
    if metadata is None or isinstance(metadata, Mapping):
        return {}
    if hasattr(metadata, "to_numpy"):
        metadata = metadata.to_numpy()
    if isinstance(metadata, list | tuple) and all(isinstance(m, Tensor) for m in metadata):
        shapes = {m.shape for m in metadata}
        metadata = torch.stack([m.detach().cpu() for m in metadata]) if len(shapes) == 1 else None
    elif isinstance(metadata, list | tuple) and all(np.ndim(m) == 1 for m in metadata):
        with suppress(ValueError):  # Their lengths differ.
            metadata = np.array(metadata)
    columns = {"": metadata}
    if isinstance(metadata, Tensor | np.ndarray) and metadata.ndim == 2 and metadata.shape[1] > 1:
        known = names if len(names) == metadata.shape[1] else range(metadata.shape[1])
        columns = {str(name): metadata[:, place] for place, name in enumerate(known)}
    groups = {}
    for name, column in columns.items():
        with suppress(ValueError, RuntimeError):  # Another column can still be a grouping.
            groups[name] = as_labels(column, "domains")
    return groups


def as_domains(metadata: Any) -> Tensor | list[str] | None:
    """Return the first grouping in metadata as the domain, or None.

    Args:
        metadata: as for `groupings`.

    >>> as_domains(torch.tensor([[3, 7], [4, 7]])), as_domains({"patient": 1})
    (tensor([3, 4]), None)
    """
    return next(iter(groupings(metadata).values()), None)


def numbered(
    labels: Tensor | list[str], names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Convert names to indices; indices are returned unchanged.

    Args:
        labels: (n,) indices or names.
        names: the names by index; sorted names if absent.

    Returns:
        (n,) indices, and the names by index.

    Raises:
        ValueError: a name is not among `names`.

    >>> numbered(["b", "a", "b"])
    (tensor([1, 0, 1]), ('a', 'b'))
    """
    if isinstance(labels, Tensor):
        return labels, tuple(names or ())
    known = tuple(names or sorted(set(labels)))
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the {len(known)} names {list(known)[:8]}")
    index = {name: place for place, name in enumerate(known)}
    return torch.tensor([index[name] for name in labels], dtype=torch.int64), known


def some_of(names: Sequence[Any]) -> str:
    """Return the first few names in quotes.

    Args:
        names: names or other values.

    >>> some_of("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    listed = ", ".join(map(repr, names[:MAX_NAMES]))
    return listed if len(names) <= MAX_NAMES else f"{listed} and {len(names) - MAX_NAMES} more"


def pick(column: Any, which: Tensor) -> Any:
    """Return entries of a column.

    Args:
        column: (n, ...) tensor, n names, or None.
        which: (m,) indices.

    Returns:
        The m entries; None if there is no column.

    >>> pick(["a", "b", "c"], torch.tensor([2, 0]))
    ['c', 'a']
    """
    if column is None or isinstance(column, Tensor):
        return None if column is None else column[which]
    return [column[i] for i in which.tolist()]


def listed(column: Tensor | list[str]) -> list[Any]:
    """Return a column as a list.

    Args:
        column: (n,) indices or n names.

    >>> listed(torch.tensor([3, 1]))
    [3, 1]
    """
    return column.tolist() if isinstance(column, Tensor) else column
