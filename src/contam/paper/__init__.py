"""Items of both papers, and where each of them is in the code.

The first paper is Zhang, Zhao, Chen, Jiang and Chen, "Feature Contamination: Neural Networks Learn
Uncorrelated Features and Fail to Generalize" (ICML 2024). The second one is Murali, Puli, Yu,
Ranganath and Batmanghelich, "Beyond Distribution Shift: Spurious Features Through the Lens of
Training Dynamics" (TMLR 2023); its items begin with "Murali". Open questions about the first paper
are items, too.

An item's address is the docstring whose `Source:` line names it. A figure, table or section also
has `PARTS`, each with its address or the reason for its absence. An item without an address has its
reason in `NOT_IN_CODE`. The scanner parses the package without importing it, so it needs no torch.
"""

import ast
import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contam.paper import dynamics, items, parts, questions
from contam.paper.items import NAMED, NOT_IN_CODE, PART_OF, RESTATED
from contam.paper.parts import Part

__all__ = [
    "CONTENTS",
    "ITEMS",
    "NOT_IN_CODE",
    "PARTS",
    "PART_OF",
    "RESTATED",
    "Part",
    "Place",
    "cited",
    "markdown",
    "places",
    "spelled",
    "where",
]

PACKAGE = Path(__file__).parents[1]

CONTENTS = items.CONTENTS | dynamics.CONTENTS | questions.CONTENTS
"""Items and their titles by chapter: the first paper, the second paper, open questions."""
ITEMS = {item: title for chapter in CONTENTS.values() for item, title in chapter.items()}
"""Items and their titles."""
PARTS = parts.PARTS | dynamics.PARTS | questions.PARTS
"""Parts of figures, tables, sections, and of all items of the second paper."""

_ONE_HOME = ("Eq.", "Def.", "Lemma", "Thm.")
_SECTIONS = {
    "Sec. 2", "Sec. 3", "Sec. 3.1", "Sec. 3.2", "Sec. 4", "Sec. 5",
    "App. A", "App. A.1", "App. A.2", "App. A.3", "App. B", "App. B.1", "App. B.2", "App. B.3",
    "App. C", "App. D", "App. E", "App. F", "App. G",
}  # fmt: skip
_KINDS = {
    "equation": "Eq.", "eqn": "Eq.", "eq": "Eq.", "formula": "Eq.",
    "definition": "Def.", "def": "Def.", "theorem": "Thm.", "thm": "Thm.",
    "lemma": "Lemma", "corollary": "Lemma", "cor": "Lemma",
    "figure": "Fig.", "fig": "Fig.", "table": "Tab.", "tab": "Tab.",
    "appendix": "App.", "app": "App.", "section": "Sec.", "sec": "Sec.",
    "claim": "Claim", "step": "Step", "question": "Question", "check": "Check",
    "takeaway": "Takeaway",
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
_SECOND = re.compile(r"\s*(?:murali|second paper)(?:\s+et\s+al\.?)?(?:\s*\(?2023\)?)?,?\s*", re.I)
_SECOND_CITATION = re.compile(
    rf"\b(?:(Fig|Tab)s?\.|(Claim|Step)s?)\s+({_LABEL}(?:(?:,\s+|\s+and\s+|-){_LABEL})*)"
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

    >>> [place.name for place in places()["Eq. 61"]]
    ['selectivity']
    """
    addresses: dict[str, list[Place]] = {}
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
                        addresses.setdefault(item, []).append(Place(file, name, line))
                except ValueError as error:
                    start = begins + docstring.count("\n", 0, source.start())
                    faults.append(f"{file}:{start}: {error}")
    for item, homes in addresses.items():
        if item.startswith(_ONE_HOME) and len(homes) > 1:
            faults.append(
                f"{item} has {len(homes)} addresses, expected one: {', '.join(map(str, homes))}"
            )
    if faults:
        raise ValueError("\n".join(faults))
    for part, whole in PART_OF.items():
        if whole in addresses:
            addresses.setdefault(part, addresses[whole])
    return {item: tuple(addresses[item]) for item in ITEMS if item in addresses}


def where(text: str) -> list[str]:
    """Answer where an item is in the code: its title, then its places, parts or a reason.

    Raises:
        ValueError: The papers have no such item.

    >>> where("Fig. 15")[0]
    "Fig. 15: histogram of the neurons' mean activation"
    >>> where("Murali theorem")[1]
    '  statement: absent, the abstract and the published code do not state it'
    """
    item = spelled(text)
    lines = [f"{item}: {ITEMS[item]}"]
    lines += [f"  {home}" for home in places().get(item, ())]
    lines += [f"  {part.answer}" for part in PARTS.get(item, ())]
    if item in NOT_IN_CODE:
        lines.append(f"  not in code: {NOT_IN_CODE[item]}")
    return lines


def spelled(text: str) -> str:
    """Return the item that a free spelling means.

    Raises:
        ValueError: The papers have no such item; the message names the nearest.

    >>> spelled("equation (61)"), spelled("fig 8a"), spelled("61"), spelled("Theorem B.1")
    ('Eq. 61', 'Fig. 8', 'Eq. 61', 'Thm. 4.1')
    >>> spelled("Murali et al. (2023), figure 6"), spelled("murali prediction depth")
    ('Murali Fig. 6', 'Murali prediction depth')
    """
    named = {item.lower(): item for item in ITEMS} | {n.lower(): i for n, i in NAMED.items()}
    text = re.sub(r"^\s*(open|next)\s+(?=question|check)", "", text, flags=re.IGNORECASE)
    second = _SECOND.match(text)
    prefix, rest = ("Murali ", text[second.end() :]) if second else ("", text)
    plain = f"{prefix}{rest.strip().rstrip('.')}".lower()
    if plain in named:
        return named[plain]
    asked = _ASKED.fullmatch(rest)
    if asked is None:
        raise ValueError(_unknown(text, text))
    kind, label = asked[1], asked[2].upper()
    if kind is None:
        same = [item for item in ITEMS if item.split()[1] == label and not second]
        candidates = same if len(same) == 1 else [f"{prefix}Eq. {label}"]
    else:
        kind = _KINDS.get(kind.lower(), kind)
        candidates = [f"{prefix}{kind} {label}"]
        if kind == "Sec.":  # people call sections of the appendix so
            candidates.append(f"{prefix}App. {label}")
    meant = (NAMED.get(item, RESTATED.get(item, item)) for item in candidates)
    known = next((item for item in meant if item in ITEMS), None)
    if known is None:
        raise ValueError(_unknown(text, candidates[0]))
    return known


def cited(source: str) -> list[str]:
    """Return the items that the text of a `Source:` line names.

    Segments end with a semicolon. One that begins with "ours" or cites another work with its year
    names no item. One that cites the second paper may name items of it.

    Raises:
        ValueError: The text is malformed, or names an unknown item.

    >>> cited("Eqs. 54-55, App. F.3; Morcos et al. (2018), Eq. 1.")
    ['Eq. 54', 'Eq. 55', 'App. F.3']
    >>> cited("ours; Murali et al. (2023), Fig. 6, prediction depth.")
    ['Murali Fig. 6', 'Murali prediction depth']
    """
    items: list[str] = []
    ours = source.startswith("ours")
    for segment in source.split(";"):
        if dynamics.AUTHORS in segment:
            items += _cited_second(segment)
            continue
        if ours or _OTHER_WORK.search(segment):
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
                    items.append(item)
                elif item not in _SECTIONS:
                    raise ValueError(_unknown(item, item))
    return items


def _cited_second(segment: str) -> list[str]:
    """Return the items of the second paper that a segment names, by number or by name."""
    numbered = [
        f"Murali {citation[1] + '.' if citation[1] else citation[2]} {label}"
        for citation in _SECOND_CITATION.finditer(segment)
        for label in _labels(citation[3])
    ]
    for item in numbered:
        if item not in ITEMS:
            raise ValueError(_unknown(item, item))
    words = [item.removeprefix("Murali ") for item in ITEMS if item.startswith("Murali ")]
    names = [word for word in words if not re.search(r"\d", word)]
    return numbered + [f"Murali {name}" for name in names if name in segment]


def markdown() -> str:
    """Return the whole map as a page: one table for each chapter of the papers.

    >>> markdown().splitlines()[0]
    '# Paper map'
    """
    homes = places()
    lines = [
        "# Paper map",
        "",
        "Every numbered item of the first paper, the items of the second paper that its abstract",
        "and its published code name, and open questions: each with its address in the code, or",
        "the reason why it has none. A formula, definition, lemma or theorem has one address. A",
        "figure, table or section has parts. On the command line, `contam where` answers:",
        '`contam where "Eq. 61"`, `contam where "Murali Fig. 6"`, `contam where "Question 1"`.',
        "[Text, code and tables](explanation/errata.md) are compared on a page of their own.",
    ]
    for chapter, contents in CONTENTS.items():
        lines += ["", f"## {chapter}", "", "| item | what it is | where |", "|---|---|---|"]
        for item, title in contents.items():
            parted = PARTS.get(item, ())
            addresses = {part.address for part in parted}
            said = [_link(home) for home in homes.get(item, ()) if _dotted(home) not in addresses]
            said += [_linked(part) for part in parted if part.address]
            said += _absent(parted)
            said += [NOT_IN_CODE[item]] if item in NOT_IN_CODE else []
            lines.append(f"| {item} | {title} | {'<br>'.join(said)} |")
    return "\n".join(lines) + "\n"


def _dotted(home: Place) -> str:
    module = home.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{module}.{home.name}".rstrip(".")


def _link(home: Place) -> str:
    """A place that leads to its entry in the reference; plain text where that is not built."""
    text = f"`{home.path}` {home.name}".rstrip()
    return f'<autoref identifier="{_dotted(home)}">{text}</autoref>'


def _linked(part: Part) -> str:
    """A part with a link to its address."""
    if part.address.startswith("docs/"):
        path = part.address.removeprefix("docs/")
        return f"{part.what}: [{path}]({path})"
    if " " in part.address:
        return f"{part.what}: `{part.address}`"
    return f'{part.what}: <autoref identifier="{part.address}">`{part.address}`</autoref>'


def _absent(parted: tuple[Part, ...]) -> list[str]:
    """Absent parts, those with the same reason together."""
    reasons = dict.fromkeys(part.absent for part in parted if part.absent)
    return [
        f"absent: {', '.join(part.what for part in parted if part.absent == reason)} ({reason})"
        for reason in reasons
    ]


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
    return f"the papers have no item {text!r}; {hint}"
