"""The examples in docstrings run and print what they say."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


WITH_EXAMPLES = [
    name_of(path) for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text("utf-8")
]


def docstrings(source: str) -> Iterator[tuple[str, str, int]]:
    """Name, docstring and line of a module's classes and functions.

    They are read from the source, since `doctest` overlooks functions that shape checks wrap.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            name = getattr(node, "name", "module")
            yield name, ast.get_docstring(node) or "", getattr(node, "lineno", 1)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    path = Path(str(module.__file__))
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=OPTIONS)
    for function, text, line in docstrings(path.read_text("utf-8")):
        runner.run(parser.get_doctest(text, dict(vars(module)), function, str(path), line))
    assert runner.tries and not runner.failures
