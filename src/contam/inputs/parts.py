"""What an example or a batch says, in whatever form it comes: input, label, domain, background."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contam.inputs.pixel_range import Transform

NAMES: dict[str, tuple[str, ...]] = {
    "x": ("x", "pixel_values", "image", "images", "img", "input", "inputs", "data", "features"),
    "y": ("y", "label", "labels", "target", "targets", "class", "fine_label"),
    "domain": ("domain", "domains", "group", "env", "environment", "meta", "metadata"),
    "background": ("background", "backgrounds", "bg", "place"),
    "mask": ("mask", "masks", "segmentation"),
}
"""Under which keys a dict has each part of an example."""

LISTED = 5
"""So many names are listed at most."""


class Parts(NamedTuple):
    """An example or a batch, its parts as they came."""

    x: Any
    y: Any
    domain: Any = None
    background: Any = None
    mask: Any = None


def parts(item: Any, keys: Mapping[str, str]) -> Parts:
    """The parts of an example or a batch: (x, y), (x, y, meta) or a dict.

    `keys` names parts of dicts that go by another name than those in `NAMES`.

    Raises:
        ValueError: it is something else, or has no input or no label.
    """
    if isinstance(item, Mapping):
        found = {
            part: next((item[n] for n in (keys.get(part), *names) if n in item), None)
            for part, names in NAMES.items()
        }
        for part, what in (("x", "input"), ("y", "label")):
            if found[part] is None:
                raise ValueError(
                    f"no {what} among {sorted(map(str, item))[:8]}; want one of {list(NAMES[part])}"
                )
        return Parts(**found)
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) in (2, 3):
        x, y, meta = (*item, None)[:3]
        if isinstance(meta, Mapping):
            beside = {
                part: next((meta[n] for n in (keys.get(part), *NAMES[part]) if n in meta), None)
                for part in ("domain", "background", "mask")
            }
            return Parts(x, y, **beside)
        return Parts(x, y, meta)
    told = f"a {type(item).__name__}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        told += f" of {len(item)}"
    raise ValueError(f"an example or a batch is {told}; want (x, y), (x, y, meta) or a dict")


def as_input(x: Any, transform: Transform | None) -> Tensor:
    """One example's input as a tensor; images go through the transform.

    Raises:
        ValueError: an image without a transform, or nothing that is a tensor.
    """
    if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (2, 3):
        x = Image.fromarray(x.squeeze()) if x.shape[-1:] in ((1,), (3,)) or x.ndim == 2 else x
    if isinstance(x, Image.Image):
        if transform is None:
            raise ValueError(
                "examples are images, and how the network wants them is not known; give "
                "transform=, a function from an image to a tensor"
            )
        return as_input(transform(x.convert("RGB")), None)
    return as_inputs(x)


def as_inputs(x: Any) -> Tensor:
    """Inputs as a tensor of numbers; bytes become shares in [0, 1].

    Raises:
        ValueError: it is no tensor of numbers.
    """
    if isinstance(x, Sequence) and len(x) and all(isinstance(each, Tensor) for each in x):
        x = _stacked(x)
    if isinstance(x, np.ndarray | Sequence) and not isinstance(x, str):
        try:
            x = torch.from_numpy(np.array(x))
        except (TypeError, ValueError):
            raise ValueError(
                f"inputs are a {type(x).__name__} that makes no tensor of numbers; want tensors "
                "of one shape"
            ) from None
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
        told = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"inputs are {told}; want a tensor of real numbers")
    x = x.detach().cpu()
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x.float() if x.is_floating_point() else x


def _stacked(inputs: Sequence[Tensor]) -> Tensor:
    for index, each in enumerate(inputs):
        if each.shape != inputs[0].shape:
            raise ValueError(
                f"example {index} of a batch has the shape {tuple(each.shape)}, the first "
                f"{tuple(inputs[0].shape)}; want one shape, so give transform= with a fixed size"
            )
    return torch.stack(list(inputs))


def as_labels(y: Any, what: str = "labels") -> Tensor | list[str]:
    """Class indices (n,) as int64, or names; one-hot rows and whole floats are understood.

    Raises:
        ValueError: they are something else.
    """
    if isinstance(y, Sequence) and not isinstance(y, str) and len(y):
        if all(isinstance(each, str) for each in y):
            return list(y)
        if all(isinstance(each, Tensor) for each in y):
            y = torch.stack([each.detach().cpu() for each in y])
    if isinstance(y, np.ndarray) and y.dtype.kind in "US":
        return [str(each) for each in y.flatten()]
    try:
        found = y.detach().cpu() if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError):
        raise ValueError(f"{what} are a {type(y).__name__}; want whole numbers or names") from None
    if found.ndim == 2 and found.shape[1] > 1:
        one = (found == 1).sum(1) == 1
        if not bool(((found == 0) | (found == 1)).all() and one.all()):
            raise ValueError(
                f"{what} have the shape {tuple(found.shape)} and are not one-hot; want one class "
                "for each example"
            )
        found = found.int().argmax(1)
    found = found.flatten(1) if found.ndim > 1 else found[:, None]
    if found.shape[1] != 1:
        raise ValueError(f"{what} come in {found.shape[1]} columns; want one for each example")
    found = found[:, 0]
    if found.is_complex() or (
        found.is_floating_point() and not bool((found == found.round()).all())
    ):
        raise ValueError(f"{what} are numbers such as {found[0].item():.3g}; want whole ones")
    return found.long()


def as_domains(meta: Any) -> Tensor | list[str] | None:
    """Indices or names of domains in what a third part of an example says, if it says so.

    Of several columns of numbers the first one is the domain, as the WILDS data sets have it.
    """
    if meta is None:
        return None
    try:
        if isinstance(meta, list | tuple) and all(isinstance(each, Tensor) for each in meta):
            meta = torch.stack([each.detach().cpu() for each in meta])
        if isinstance(meta, Tensor | np.ndarray) and meta.ndim == 2 and meta.shape[1] > 1:
            meta = meta[:, 0]
        return as_labels(meta, "domains")
    except (ValueError, RuntimeError):  # it says something else than a domain
        return None


def numbered(
    found: Tensor | list[str], names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Names as indices, and the names by index; numbers stay, with the names that are given.

    Raises:
        ValueError: a name that is not among those given.
    """
    if isinstance(found, Tensor):
        return found, tuple(names or ())
    known = tuple(names or sorted(set(found)))
    strange = sorted(set(found) - set(known))
    if strange:
        raise ValueError(f"{strange[0]!r} is none of the {len(known)} names {list(known)[:8]}")
    places = {name: index for index, name in enumerate(known)}
    return torch.tensor([places[name] for name in found], dtype=torch.int64), known


def some_of(names: Sequence[str]) -> str:
    """The first few names, quoted."""
    told = ", ".join(map(repr, names[:LISTED]))
    return told if len(names) <= LISTED else f"{told} and {len(names) - LISTED} more"


def pick(column: Any, which: Tensor) -> Any:
    """Some entries of a column of numbers or names, or None of none."""
    if column is None or isinstance(column, Tensor):
        return None if column is None else column[which]
    return [column[i] for i in which.tolist()]


def listed(column: Tensor | list[str]) -> list[Any]:
    """A column as plain numbers or names."""
    return column.tolist() if isinstance(column, Tensor) else column
