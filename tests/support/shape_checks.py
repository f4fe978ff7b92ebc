"""Checks the shapes and types of tensors against the signatures, in tests only."""

import inspect
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

check = beartype(conf=BeartypeConf(is_color=False))


def tensors_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check what the signature says of tensors; what it says of other values is pyright's part.

    Calls that are wrong on purpose reach the code, and get the line that users would get.
    """
    annotations = function.__annotations__
    function.__annotations__ = {name: kind for name, kind in annotations.items() if _is_shape(kind)}
    checked = check(function)
    function.__annotations__ = annotations
    return checked


class ShapeChecks(MetaPathFinder):
    """Imports a package whose functions check their tensors.

    The hook of jaxtyping checks every call of every function, which took half as long again for
    the whole suite. Here functions without a tensor in their signature stay as they are, and
    decorators keep what they decorate.
    """

    def __init__(self, package: str) -> None:
        assert package not in sys.modules, f"{package} is imported before its shapes are checked"
        self.package = package

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not f"{name}.".startswith(f"{self.package}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = CheckedLoader(spec.loader.name, spec.loader.path)
        return spec


class CheckedLoader(SourceFileLoader):
    """Loads a module and wraps its functions with a tensor in their signature."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        own = [thing for thing in vars(module).values()
               if inspect.isclass(thing) and thing.__module__ == module.__name__]  # fmt: skip
        for owner in (module, *own):
            for name, member in list(vars(owner).items()):
                function = _function(member)
                if function is not None and function.__module__ == module.__name__:
                    setattr(owner, name, jaxtyped(member, typechecker=tensors_alone))


def _function(member: Any) -> Callable[..., Any] | None:
    """The function of a member with a tensor in its signature."""
    if isinstance(member, property):
        member = member.fget
    member = getattr(member, "__func__", member)
    if not inspect.isfunction(member):
        return None
    kinds = getattr(member, "__annotations__", {}).values()
    return member if any(_is_shape(kind) for kind in kinds) else None


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AbstractArray)
