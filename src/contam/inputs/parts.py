"""The parts of an example or a batch, in any form: input, label, domain, background, mask."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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


class Parts(NamedTuple):
    """The unconverted parts of an example or a batch."""

    x: Any
    y: Any
    domain: Any = None
    background: Any = None
    mask: Any = None


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
    return isinstance(item.y, str | int | float) or getattr(item.y, "ndim", 1) == 0


def as_input(x: Any, transform: Transform | None) -> Tensor:
    """Convert the input of one example to a tensor; images go through the transform.

    Args:
        x: an image, a byte array (height, width) or (height, width, 1 or 3), a tensor or an array.
        transform: function from an image to a tensor.

    Returns:
        A tensor without a batch axis.

    Raises:
        ValueError: an image has no transform, or the input makes no tensor of real numbers.

    >>> as_input([1.0, 2.0], None)
    tensor([1., 2.])
    """
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (2, 3):
        x = Image.fromarray(x.squeeze()) if x.shape[-1:] in ((1,), (3,)) or x.ndim == 2 else x
    if isinstance(x, Image.Image):
        if transform is None:
            raise ValueError(
                "examples are images, and the preprocessing of the network is not known; give "
                "transform=, a function from an image to a tensor"
            )
        return as_input(transform(x.convert("RGB")), None)
    return as_inputs(x)


def as_inputs(x: Any) -> Tensor:
    """Convert inputs to a tensor of real numbers on the CPU.

    Args:
        x: (n, ...) tensor, array or sequence; unsigned bytes are divided by 255.

    Returns:
        (n, ...) tensor; floating point numbers in single precision.

    Raises:
        ValueError: the inputs make no tensor of real numbers.

    >>> as_inputs(np.array([[255, 0]], dtype=np.uint8)).tolist()
    [[1.0, 0.0]]
    """
    if isinstance(x, Sequence) and len(x) and all(isinstance(value, Tensor) for value in x):
        x = _stacked(x)
    if isinstance(x, np.ndarray | Sequence) and not isinstance(x, str):
        try:
            x = torch.from_numpy(np.array(x))
        except (TypeError, ValueError):
            raise ValueError(
                f"inputs are a {type(x).__name__} that makes no tensor of numbers; expected "
                "tensors of one shape"
            ) from None
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"inputs are {kind}; expected a tensor of real numbers")
    x = x.detach().cpu()
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x.float() if x.is_floating_point() else x


def _stacked(inputs: Sequence[Tensor]) -> Tensor:
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
        y: (n,) indices, whole floats or names, (n, classes) one-hot rows, or (n, 1) indices.
        what: name of the labels, for messages.

    Returns:
        (n,) class indices as int64, or n names.

    Raises:
        ValueError: the form is not accepted.

    >>> as_labels(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    if isinstance(y, Sequence) and not isinstance(y, str) and len(y):
        if all(isinstance(label, str) for label in y):
            return list(y)
        if all(isinstance(label, Tensor) for label in y):
            y = torch.stack([label.detach().cpu() for label in y])
    if isinstance(y, np.ndarray) and y.dtype.kind in "US":
        return [str(label) for label in y.flatten()]
    try:
        labels = y.detach().cpu() if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError):
        raise ValueError(
            f"{what} are a {type(y).__name__}; expected whole numbers or names"
        ) from None
    if labels.ndim == 2 and labels.shape[1] > 1:
        one = (labels == 1).sum(1) == 1
        if not bool(((labels == 0) | (labels == 1)).all() and one.all()):
            raise ValueError(
                f"{what} have the shape {tuple(labels.shape)} and are not one-hot; expected one "
                "class for each example"
            )
        labels = labels.int().argmax(1)
    labels = labels.flatten(1) if labels.ndim > 1 else labels[:, None]
    if labels.shape[1] != 1:
        raise ValueError(f"{what} come in {labels.shape[1]} columns; expected one for each example")
    labels = labels[:, 0]
    if labels.is_complex() or (
        labels.is_floating_point() and not bool((labels == labels.round()).all())
    ):
        raise ValueError(
            f"{what} are numbers such as {labels[0].item():.3g}; expected whole numbers"
        )
    return labels.long()


def as_domains(metadata: Any) -> Tensor | list[str] | None:
    """Return the domains in metadata.

    Args:
        metadata: (n,) indices or names; of several columns (n, columns) of numbers the first is the
            domain, as in the WILDS data sets.

    Returns:
        (n,) indices or n names; None if the metadata contain no domain.

    >>> as_domains(torch.tensor([[3, 7], [4, 7]])), as_domains({"patient": 1})
    (tensor([3, 4]), None)
    """
    if metadata is None:
        return None
    try:
        if isinstance(metadata, list | tuple) and all(isinstance(m, Tensor) for m in metadata):
            metadata = torch.stack([value.detach().cpu() for value in metadata])
        if isinstance(metadata, Tensor | np.ndarray) and metadata.ndim == 2:
            metadata = metadata[:, 0] if metadata.shape[1] > 1 else metadata
        return as_labels(metadata, "domains")
    except (ValueError, RuntimeError):  # The metadata contain no domain.
        return None


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
