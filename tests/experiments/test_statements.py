"""A sentence that several statements have has one wanted range, in one experiment or in several."""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import contam.experiments
from contam.experiment import Statement

Range = tuple[float | None, float | None, bool]
"""The lowest and highest value, and whether every seed must be in the range."""


def in_tables(value: object) -> Iterator[tuple[str, Range]]:
    """Sentences and ranges of the statements in a module's tables."""
    match value:
        case Statement():
            yield value.says, (value.low, value.high, value.every_seed)
        case str():
            return
        case Mapping():
            yield from in_tables(tuple(value.values()))
        case Sequence():
            for item in value:
                yield from in_tables(item)


def literals(text: str) -> Iterator[tuple[str, Range]]:
    """Sentences and ranges of the statements and claims in a module's text, where both are literal.

    Those that a function builds are in no table.
    """
    for call in ast.walk(ast.parse(text)):
        match call:
            case ast.Call(func=ast.Name(id="Statement" | "judge"), args=[ast.Constant(says), *_]):
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                try:
                    low, high, every = (
                        ast.literal_eval(given[name]) if name in given else None
                        for name in ("low", "high", "every_seed")
                    )
                except ValueError:
                    continue
                yield str(says), (low, high, bool(every))


def conflicts(ranges_by_sentence: Sequence[tuple[str, Range]]) -> set[str]:
    """Sentences with more than one range."""
    ranges = dict(ranges_by_sentence)
    return {says for says, range_ in ranges_by_sentence if ranges[says] != range_}


def test_equal_sentences_have_equal_ranges():
    sentences = []
    for name, module in list(sys.modules.items()):
        if name.startswith(contam.experiments.__name__) and module.__file__:
            sentences += in_tables([v for v in vars(module).values() if not isinstance(v, str)])
            sentences += literals(Path(module.__file__).read_text(encoding="utf-8"))
    assert len(set(sentences)) > 200
    assert not conflicts(sentences)


def test_two_ranges_of_a_sentence_are_noticed():
    text = 'judge("It falls", [1], high=0.1)\nStatement("It falls", "ours", "q", f, {})'
    same, other = (list(literals(text.format(end))) for end in ("high=0.1", "high=0.02"))
    assert len(same) == len(other) == 2
    assert not conflicts(same) and conflicts(other) == {"It falls"}
    table = {"a": (("net", Statement("It falls", "ours", "q", abs, high=0.02)),)}
    assert conflicts([*in_tables(table), *same]) == {"It falls"}
