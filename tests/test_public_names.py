"""The names of `contam` itself: each is documented, and its example runs."""

import doctest
import inspect
from pathlib import Path

import pytest

import contam

NAMES = sorted(set(contam.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_with_an_example_that_runs(name):
    value = getattr(contam, name)
    examples = doctest.DocTestFinder(recurse=False).find(
        value, name, module=inspect.getmodule(value)
    )
    assert inspect.getdoc(value)
    assert sum(len(example.examples) for example in examples), f"{name} has no `>>>` example"
    for example in examples:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


def test_the_reference_lists_exactly_the_public_names():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "index.md").read_text("utf-8")
    table = page.split("| name in `contam`")[1].split("\n\n")[0]
    listed = {word for row in table.splitlines()[2:] for word in row.split("`")[1::2]}
    assert listed == set(NAMES)
