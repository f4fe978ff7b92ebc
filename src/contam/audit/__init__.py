"""An audit of any network: what fails, why, where, and what to try.

The package is called like the function that it is named after: `contam.audit(model, id=..., ...)`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contam.audit.door import audit, auditing
    from contam.audit.result import Audit

_HOMES = {"audit": "door", "auditing": "door", "Audit": "result"}

__all__ = ["Audit", "audit", "auditing"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'contam.audit' has no attribute {name!r}")
    return getattr(import_module(f"contam.audit.{_HOMES[name]}"), name)


class _Callable(ModuleType):
    """A package that runs the audit when it is called.

    Importing any part of it puts it where `contam.audit` is looked for, so it has to be both.
    """

    def __call__(self, *given: Any, **named: Any) -> "Audit":
        return self.audit(*given, **named)


sys.modules[__name__].__class__ = _Callable
