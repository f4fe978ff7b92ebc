"""The names of `contam` itself are documented; `test_doctests` runs their examples."""

import inspect
from pathlib import Path

import pytest

import contam

NAMES = sorted(set(contam.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_with_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(contam, name)) or "")


def test_the_reference_lists_exactly_the_public_names():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "index.md").read_text("utf-8")
    table = page.split("| name in `contam`")[1].split("\n\n")[0]
    listed = {word for row in table.splitlines()[2:] for word in row.split("`")[1::2]}
    assert listed == set(NAMES)
