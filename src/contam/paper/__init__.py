"""The paper's numbered items, and where each of them lives in the code.

The paper is Zhang, Zhao, Chen, Jiang and Chen, "Feature Contamination: Neural Networks Learn
Uncorrelated Features and Fail to Generalize" (ICML 2024). An item's address is the docstring whose
`Source:` line names it; an item without one has its reason in `NOT_IN_CODE`. The scanner parses the
package without importing it, so asking costs no torch.
"""

import ast
import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contam.paper.items import CONTENTS, IN_PART, ITEMS, NOT_IN_CODE, PART_OF, RESTATED

__all__ = [
    "CONTENTS",
    "IN_PART",
    "ITEMS",
    "NOT_IN_CODE",
    "PART_OF",
    "RESTATED",
    "Place",
    "cited",
    "markdown",
    "places",
    "spelled",
    "where",
]

PACKAGE = Path(__file__).parents[1]

_ONE_HOME = ("Eq.", "Def.", "Lemma", "Thm.")
_SECTIONS = {
    "Sec. 2", "Sec. 3", "Sec. 3.1", "Sec. 3.2", "Sec. 4", "Sec. 5", "Sec. 6", "Sec. 6.1",
    "App. A", "App. A.1", "App. A.2", "App. A.3", "App. B", "App. B.1", "App. B.2", "App. B.3",
    "App. C", "App. D", "App. E", "App. F", "App. G", "App. G.3",
}  # fmt: skip
_KINDS = {
    "equation": "Eq.", "eqn": "Eq.", "eq": "Eq.", "formula": "Eq.",
    "definition": "Def.", "def": "Def.", "theorem": "Thm.", "thm": "Thm.",
    "lemma": "Lemma", "corollary": "Lemma", "cor": "Lemma",
    "figure": "Fig.", "fig": "Fig.", "table": "Tab.", "tab": "Tab.",
    "appendix": "App.", "app": "App.", "section": "App.", "sec": "App.",
}  # fmt: skip

_SOURCE = re.compile(r"(?<!`)\bSource:\s*(.*?)\s*(?=\n\s*\n|\Z)", re.DOTALL)
_OTHER_WORK = re.compile(r"\b(19|20)\d\d\b")
_LABEL = r"(?:[A-G]\.\d+|[A-G]\b|\d+(?:\.\d+)?)(?:\([a-d](?:-[a-d])?\)|[a-d](?:-[a-d])?\b)?"
_CITATION = re.compile(
    rf"\b(?:(Eq|Def|Thm|Fig|Tab|App|Sec)s?\.|(Lemma)s?)\s+({_LABEL}(?:(?:,\s+|\s+and\s+|-){_LABEL})*)"
)
_MISSPELLED = re.compile(
    r"\b(?:Equation|Eqn?|Definition|Def|Theorem|Thm|Lemma|Corollary|Figure|Fig|Table|Tab|Appendix"
    r"|App|Section|Sec)s?\b\.?[^,;]*"
)
_ASKED = re.compile(
    r"\s*(?:([a-z]+?)s?\.?\s*)??\(?([A-G]\.\d+|\d+(?:\.\d+)?)\)?\s*(?:\(?[a-d](?:-[a-d])?\)?)?\s*",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """An address in the code."""

    path: str
    """The file, from the folder that holds the package: 'contam/theory/network.py'."""
    name: str
    """The class, function or attribute within it; empty for the file's own docstring."""
    line: int
    """Where the definition starts."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.name}".rstrip()


@functools.cache
def places(package: Path = PACKAGE) -> dict[str, tuple[Place, ...]]:
    """Every item that has an address, in the paper's order, with its places.

    Raises:
        ValueError: a `Source:` line is malformed, names an unknown item, or gives a formula,
            definition, lemma or theorem a second address.
    """
    found: dict[str, list[Place]] = {}
    faults: list[str] = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "Source:" not in text:
            continue
        file = path.relative_to(package.parent).as_posix()
        for name, line, docstring, begins in _docstrings(ast.parse(text), "", 1):
            for source in _SOURCE.finditer(docstring):
                try:
                    for item in dict.fromkeys(cited(source[1])):
                        found.setdefault(item, []).append(Place(file, name, line))
                except ValueError as error:
                    start = begins + docstring.count("\n", 0, source.start())
                    faults.append(f"{file}:{start}: {error}")
    for item, homes in found.items():
        if item.startswith(_ONE_HOME) and len(homes) > 1:
            faults.append(
                f"{item} has {len(homes)} addresses, wants one: {', '.join(map(str, homes))}"
            )
    if faults:
        raise ValueError("\n".join(faults))
    for part, whole in PART_OF.items():
        if whole in found:
            found.setdefault(part, found[whole])
    return {item: tuple(found[item]) for item in ITEMS if item in found}


def where(text: str) -> list[str]:
    """The lines that answer 'where in the code is this item': its title, then places or a reason.

    Raises:
        ValueError: the paper has no such item.
    """
    item = spelled(text)
    lines = [f"{item}: {ITEMS[item]}"]
    lines += [f"  {home}" for home in places().get(item, ())]
    if item in IN_PART:
        lines.append(f"  {IN_PART[item]}")
    if item in NOT_IN_CODE:
        lines.append(f"  not in code: {NOT_IN_CODE[item]}")
    return lines


def spelled(text: str) -> str:
    """The item that a free spelling means: 'equation (61)', 'fig 8a', 'Theorem B.1', '61'.

    Raises:
        ValueError: the paper has no such item; names the nearest.
    """
    asked = _ASKED.fullmatch(text)
    if asked is None:
        raise ValueError(_unknown(text, text))
    kind, label = asked[1], asked[2].upper()
    if kind is None:
        same = [item for item in ITEMS if item.split()[1] == label]
        item = same[0] if len(same) == 1 else f"Eq. {label}"
    else:
        item = f"{_KINDS.get(kind.lower(), kind)} {label}"
    item = RESTATED.get(item, item)
    if item not in ITEMS:
        raise ValueError(_unknown(text, item))
    return item


def cited(source: str) -> list[str]:
    """The items that the text of a `Source:` line names; none if it names sections or other works.

    Raises:
        ValueError: it is malformed, or names an unknown item.
    """
    found: list[str] = []
    if source.startswith("ours"):
        return found
    for segment in source.split(";"):
        if _OTHER_WORK.search(segment):
            continue
        citations = list(_CITATION.finditer(segment))
        wrong = _MISSPELLED.search(_CITATION.sub("", segment))
        if wrong or not citations:
            raise ValueError(
                f"'Source: {segment.strip()}' names no item of the paper at "
                f"{(wrong[0] if wrong else segment).strip()!r}; write 'Eq. 61, App. F.3.', another "
                "work with its year, or 'ours' and why"
            )
        for citation in citations:
            kind = f"{citation[1]}." if citation[1] else "Lemma"
            for label in _labels(citation[3]):
                item = RESTATED.get(f"{kind} {label}", f"{kind} {label}")
                if item in ITEMS:
                    found.append(item)
                elif item not in _SECTIONS:
                    raise ValueError(_unknown(item, item))
    return found


def markdown() -> str:
    """The whole map as a page: one table for each part of the paper."""
    homes = places()
    lines = [
        "# Paper map",
        "",
        "Every numbered item of the paper, with its address in the code or the reason why it has",
        "none. A formula, definition, lemma or theorem has one address; a figure, table or section",
        'may have several. On the command line, `contam where "Eq. 61"` answers for one item.',
    ]
    for part, items in CONTENTS.items():
        lines += ["", f"## {part}", "", "| item | what it is | where |", "|---|---|---|"]
        for item, title in items.items():
            said = [_link(home) for home in homes.get(item, ())]
            said += [notes[item] for notes in (IN_PART, NOT_IN_CODE) if item in notes]
            lines.append(f"| {item} | {title} | {'<br>'.join(said)} |")
    return "\n".join(lines) + "\n"


def _link(home: Place) -> str:
    """A place that leads to its entry in the reference; plain text where that is not built."""
    module = home.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    target = f"{module}.{home.name}".rstrip(".")
    return f'<autoref identifier="{target}">`{home.path}` {home.name}'.rstrip() + "</autoref>"


def _docstrings(node: ast.AST, name: str, line: int) -> Iterator[tuple[str, int, str, int]]:
    """Name and line of what has a docstring, attributes included; its text and where it begins."""
    owner = (name, line)
    for child in getattr(node, "body", ()):
        match child:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield *owner, text, child.lineno
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from _docstrings(child, f"{name}.{child.name}".lstrip("."), child.lineno)
            case (
                ast.Assign(targets=[ast.Name(id=target)])
                | ast.AnnAssign(target=ast.Name(id=target))
            ):
                owner = (f"{name}.{target}".lstrip("."), child.lineno)
            case _:
                owner = (name, line)


def _labels(listed: str) -> Iterator[str]:
    """The labels of '3, 8', '54-55', '3a-c' or 'A.6-A.9', without letters of sub-figures."""
    for group in re.split(r",\s+|\s+and\s+", listed):
        ends = [end for end in group.split("-") if not re.fullmatch(r"[a-d]\)?", end)]
        first, *rest = (re.sub(r"\(?[a-d]\)?$", "", end) for end in ends)
        if not rest:
            yield first
            continue
        stem, _, start = first.rpartition(".")
        last = rest[0].rpartition(".")[2]
        for number in range(int(start), int(last) + 1):
            yield f"{stem}.{number}".lstrip(".")


def _unknown(text: str, item: str) -> str:
    near = difflib.get_close_matches(item, ITEMS, n=3, cutoff=0.4)
    hint = f"the nearest are {', '.join(near)}" if near else "write it as 'Eq. 61' or 'Lemma A.1'"
    return f"the paper has no item {text!r}; {hint}"
