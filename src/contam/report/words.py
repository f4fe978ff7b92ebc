"""Numbers, durations and verdicts as a reader meets them."""

import json
import math
import re
from typing import Any

from markupsafe import Markup, escape

from contam.experiment import number

VERDICTS = {True: "holds", False: "does not hold here", None: "not run"}
KINDS = {True: "holds", False: "fails", None: "unjudged"}
"""The verdicts as one word, for the page's own use."""


def headline(held: int, failed: int, unjudged: int, unfinished: int) -> str:
    """What was found, in one line: '18 of 20 claims hold, 1 does not hold here, 1 was not run.'"""
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
            parts.append(f"{unjudged} {'was' if unjudged == 1 else 'were'} not run")
        line = ", ".join(parts) + "."
    if unfinished:
        line += " " + (
            "One run is unfinished: its claims are not judged yet."
            if unfinished == 1
            else f"{unfinished} runs are unfinished: their claims are not judged yet."
        )
    return line


def tally(held: int, failed: int, unjudged: int) -> str:
    """The verdicts of one experiment in few words: '5 hold, 1 does not'."""
    parts = [f"{held} {'holds' if held == 1 else 'hold'}"] if held else []
    if failed:
        parts.append(f"{failed} {'does' if failed == 1 else 'do'} not")
    if unjudged:
        parts.append(f"{unjudged} not run")
    return ", ".join(parts) or "no claims"


def duration(seconds: float) -> str:
    """Wall time in two units at most: '3 min 12 s'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def cell(value: Any) -> str:
    """A value of a table: numbers short, nothing as a dash."""
    match value:
        case None:
            said = "–"
        case bool():
            said = "yes" if value else "no"
        case float() if not math.isfinite(value):
            said = {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
        case float() if not value.is_integer() or abs(value) >= 1e6:
            said = typeset(number(value))
        case int() | float():
            said = typeset(f"{value:,.0f}")
        case list() | tuple():
            said = ", ".join(map(cell, value)) or "none"
        case _:
            said = str(value)
    return said


def rough(spread: float) -> str:
    """A spread: of its digits, two say something."""
    return cell(float(f"{spread:.2g}"))


def typeset(text: str) -> str:
    """Numbers within a text: a true minus, powers of ten written out, and no break before '%'."""
    text = re.sub(r"(?<=\d)e([+-]?)0*(\d+)\b", _power, text)
    text = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "−", text)


def prose(text: str) -> Markup:
    """A sentence that may name code between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(typeset(text))
    set_ = (
        Markup("<code>{}</code>").format(part) if index % 2 else escape(typeset(part))
        for index, part in enumerate(parts)
    )
    return Markup("").join(set_)


def _power(match: re.Match[str]) -> str:
    sign = "⁻" if match[1] == "-" else ""
    return (
        "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10"
        + sign
        + match[2].translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def json_in_html(value: Any) -> Markup:
    """JSON that can stand inside a script element: no '<' ends it, no number is not finite."""
    plain = json.loads(json.dumps(value, default=_listed), parse_constant=lambda _: None)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _listed(value: Any) -> Any:
    """Arrays, tensors and their single numbers, as JSON has them; a path or a date as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
