"""Names in the code are those of the thing, in the field's words."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "examples")
EMPTY = {"each", "found", "mend", "room", "seen", "told", "who", "whom"}
"""Words that say nothing of what a variable, a parameter, an attribute or a function is."""


def modules(folder: str, words: set[str]) -> Iterator[tuple[str, ast.Module]]:
    """The modules and notebooks in a folder in which one of the words occurs, with their paths."""
    word = re.compile(rf"\b({'|'.join(sorted(words))})\b")
    for path in sorted((ROOT / folder).rglob("*.py")):
        if word.search(text := path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), ast.parse(text)
    for path in sorted((ROOT / folder).rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        lines = [line for text in code for line in text.splitlines() if line[:1] not in ("%", "!")]
        if word.search("\n".join(lines)):
            yield str(path.relative_to(ROOT)), ast.parse("\n".join(lines))


def names(node: ast.AST) -> list[str | None]:
    """The names that a node binds or reads as an attribute."""
    if isinstance(node, ast.alias):
        return [node.asname or node.name]
    fields = ("id", "arg", "attr", "name")
    several = node.names if isinstance(node, ast.Global | ast.Nonlocal) else []
    return [*several, *(getattr(node, field, None) for field in fields)]


def empty_names(tree: ast.AST) -> list[tuple[int, str]]:
    """Lines and names of the words in `EMPTY`."""
    return [
        (getattr(node, "lineno", 0), name)
        for node in ast.walk(tree)
        for name in names(node)
        if name in EMPTY
    ]


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "def f(*, each): ...",
        "[seen for seen in ()]",
        "f(told=1)",
        "x.found",
        "def who(): ...",
        "for a, room in (): ...",
        "import x as seen",
        "match x:\n    case [*found]: ...",
        "if (found := x): ...",
        "with x as told: ...",
    ],
)
def test_every_kind_of_name_is_recognized(code):
    assert len({name for _, name in empty_names(ast.parse(code))}) == 1


def test_words_inside_names_texts_and_comments_are_allowed():
    assert not empty_names(ast.parse('found_layers = "found"  # found\nFOUND = FoundNetwork()'))


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_say_what_the_thing_is(folder):
    wrong = [
        f"{path}:{line} {name}"
        for path, tree in modules(folder, EMPTY)
        for line, name in empty_names(tree)
    ]
    assert not wrong


def test_a_class_name_stands_for_one_thing():
    places: dict[str, list[str]] = {}
    for path, tree in modules("src", {"class"}):
        for node in ast.walk(tree):
            # The config of each experiment is its `Config`.
            if isinstance(node, ast.ClassDef) and node.name != "Config":
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    assert len(places) > 100
    assert not {name: several for name, several in places.items() if len(several) > 1}
