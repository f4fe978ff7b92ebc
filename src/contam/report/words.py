"""Format numbers, durations and verdicts for a page."""

import json
import math
import re
from typing import Any

from markupsafe import Markup, escape

from contam.experiment import number

VERDICTS = {True: "holds", False: "does not hold here", None: "not judged"}
KINDS = {True: "holds", False: "fails", None: "unjudged"}
"""The verdicts as one word each, for class names and filters."""


def headline(held: int, failed: int, unjudged: int, unfinished: int) -> str:
    """Return the result in one line.

    Args:
        held: number of claims that hold.
        failed: number of claims that do not hold.
        unjudged: number of claims that were not judged.
        unfinished: number of runs that are not finished.

    >>> headline(18, 1, 1, 0)
    '18 of 20 claims hold, 1 does not hold here, 1 was not judged.'
    """
    total = held + failed + unjudged
    if total == 0:
        line = "No claim was judged."
    elif held == total:
        line = f"All {total} claims hold." if total > 1 else "The one claim holds."
    else:
        parts = [f"{held} of {total} claims hold"]
        if failed:
            parts.append(f"{failed} {'does' if failed == 1 else 'do'} not hold here")
        if unjudged:
            parts.append(f"{unjudged} {'was' if unjudged == 1 else 'were'} not judged")
        line = ", ".join(parts) + "."
    if unfinished:
        line += " " + (
            "One run is unfinished; its claims are not judged yet."
            if unfinished == 1
            else f"{unfinished} runs are unfinished; their claims are not judged yet."
        )
    return line


def tally(held: int, failed: int, unjudged: int) -> str:
    """Return the verdicts of one experiment in a few words.

    Args:
        held: number of claims that hold.
        failed: number of claims that do not hold.
        unjudged: number of claims that were not judged.

    >>> tally(5, 1, 0)
    '5 hold, 1 does not'
    """
    parts = [f"{held} {'holds' if held == 1 else 'hold'}"] if held else []
    if failed:
        parts.append(f"{failed} {'does' if failed == 1 else 'do'} not")
    if unjudged:
        parts.append(f"{unjudged} not judged")
    return ", ".join(parts) or "no claims"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "seed"), counted(3, "seed"), counted(21, "remedy")
    ('1 seed', '3 seeds', '21 remedies')
    """
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("y") else f"{n} {noun}s"


def duration(seconds: float) -> str:
    """Return a wall or CPU time as text with at most two units.

    Args:
        seconds: the time in seconds.

    >>> duration(192.0)
    '3 min 12 s'
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def cell(value: Any) -> str:
    """Return a table's value as short text.

    Args:
        value: a number, text, list or None; None becomes a dash.

    >>> cell(0.12345), cell(20_000), cell(None)
    ('0.123', '20,000', '–')
    """
    match value:
        case None:
            text = "–"
        case bool():
            text = "yes" if value else "no"
        case float() if not math.isfinite(value):
            text = {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
        case float() if not value.is_integer() or abs(value) >= 1e6:
            text = typeset(number(value))
        case int() | float():
            text = typeset(f"{value:,.0f}")
        case list() | tuple():
            text = ", ".join(map(cell, value)) or "none"
        case _:
            text = str(value)
    return text


def rough(spread: float) -> str:
    """Return a standard deviation with two significant digits.

    Args:
        spread: the standard deviation.

    >>> rough(0.01234)
    '0.012'
    """
    return cell(float(f"{spread:.2g}"))


def typeset(text: str) -> str:
    r"""Return text with minus signs, powers of ten and no line break before '%'.

    Args:
        text: plain text.

    >>> typeset("from -1 to 2e-05")
    'from −1 to 2\xa0×\xa010⁻⁵'
    """
    text = re.sub(r"(?<=\d)e([+-]?)0*(\d+)\b", _power, text)
    text = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "−", text)


def prose(text: str) -> Markup:
    """Return a sentence as HTML; text between backticks becomes code.

    Args:
        text: plain text.

    >>> str(prose("Use `watch` & wait."))
    'Use <code>watch</code> &amp; wait.'
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(typeset(text))
    pieces = (
        Markup("<code>{}</code>").format(part) if index % 2 else escape(typeset(part))
        for index, part in enumerate(parts)
    )
    return Markup("").join(pieces)


def _power(match: re.Match[str]) -> str:
    sign = "⁻" if match[1] == "-" else ""
    return (
        "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10"
        + sign
        + match[2].translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def json_in_html(value: Any) -> Markup:
    r"""Return JSON that is safe inside a script element; non-finite numbers become null.

    Args:
        value: plain values, arrays, tensors or anything with a text.

    >>> str(json_in_html({"loss": math.nan, "text": "</script>"}))
    '{"loss":null,"text":"\\u003c/script>"}'
    """
    plain = json.loads(json.dumps(value, default=_as_json), parse_constant=lambda _: None)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _as_json(value: Any) -> Any:
    """Convert arrays and tensors to lists or numbers, and anything else to text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
