"""Checks the shapes and types of tensors against the signatures, in tests only."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

check = beartype(conf=BeartypeConf(is_color=False))


def tensors_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check what the signature says of tensors; what it says of other values is pyright's part.

    Calls that are wrong on purpose reach the code, and get the line that users would get.
    """
    annotations = getattr(function, "__annotations__", {})
    shapes = {name: kind for name, kind in annotations.items() if _is_shape(kind)}
    function.__annotations__ = shapes
    checked = check(function)
    function.__annotations__ = annotations
    return checked


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AbstractArray)
