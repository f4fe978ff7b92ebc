"""The names of `contam` itself are documented; `test_doctests` runs their examples."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import contam

NAMES = sorted(set(contam.__all__) - {"__version__"})


def exported_functions() -> dict[str, Any]:
    """Every function that a package of contam exports, by its name there."""
    packages = (m.name for m in pkgutil.walk_packages(contam.__path__, "contam.") if m.ispkg)
    exported = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in map(importlib.import_module, packages)
        for name in getattr(package, "__all__", ())
    }
    return {
        name: value
        for name, value in exported.items()
        if callable(value) and not isinstance(value, type) and hasattr(value, "__code__")
    }


def test_every_function_that_a_package_exports_has_an_example():
    functions = exported_functions()
    assert len(functions) > 40
    without = {
        name for name, value in functions.items() if ">>> " not in (inspect.getdoc(value) or "")
    }
    assert without == {"contam.cli.main"}  # the shell calls it


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_with_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(contam, name)) or "")


def test_the_reference_lists_exactly_the_public_names():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "index.md").read_text("utf-8")
    table = page.split("| name in `contam`")[1].split("\n\n")[0]
    listed = {word for row in table.splitlines()[2:] for word in row.split("`")[1::2]}
    assert listed == set(NAMES)
