"""Tables as CSV, LaTeX, Markdown or JSON text."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from contam.auditing.markdown import escaped
from contam.experiment import Claim, number

TableFormat: TypeAlias = Literal["csv", "latex", "markdown", "json"]
Records: TypeAlias = Sequence[Mapping[str, Any]]

LONG = 28
"""Characters of a cell from which its column in LaTeX has lines of a fixed width."""
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$",
    "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$", "→": r"$\to$", "°": r"$^\circ$",
    "Θ": r"$\Theta$", "η": r"$\eta$", "λ": r"$\lambda$", "ρ": r"$\rho$", "ε": r"$\varepsilon$",
    "…": r"\ldots{}", "“": "``", "”": "''", "‘": "`", "’": "'", "\N{NO-BREAK SPACE}": "~",
    "²": "$^2$", "³": "$^3$",
}  # fmt: skip


def table_text(rows: Records, table_format: TableFormat) -> str:
    r"""Return rows as text.

    Args:
        rows: rows with the same keys, of numbers and texts. CSV and JSON have all digits; LaTeX and
            Markdown have three significant digits, and a dash for a missing value.
        table_format: LaTeX needs the package booktabs.

    >>> print(table_text([{"network": "ERM_50", "risk": 0.84671}], "markdown"), end="")
    | network | risk |
    | --- | ---: |
    | ERM\_50 | 0.847 |
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if table_format == "json":
        return json.dumps([dict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"
    if table_format == "csv":
        import pandas

        text = io.StringIO()
        # Objects, so that whole numbers stay whole beside missing ones.
        pandas.DataFrame(rows, columns=columns, dtype=object).to_csv(text, index=False)
        return text.getvalue()
    cells = [[_shown(row.get(column)) for column in columns] for row in rows]
    numeric = [
        all(row.get(column) is None or _is_number(row[column]) for row in rows)
        for column in columns
    ]
    if table_format == "markdown":
        rules = ["---:" if right else "---" for right in numeric]
        body = [[escaped(cell) for cell in line] for line in (columns, *cells)]
        return "".join(f"| {' | '.join(line)} |\n" for line in (body[0], rules, *body[1:]))
    return _latex(columns, cells, numeric)


def claims_rows(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims as rows for readers; `Claim.record` has all fields.

    Args:
        claims: the claims.

    >>> claims_rows([Claim("The shift costs accuracy", "Thm. 4.3", "OOD risk", observed=0.85, n=2)])
    [{'claim': 'The shift costs accuracy', 'source': 'Thm. 4.3', 'quantity': 'OOD risk', \
'measured': '0.85', 'n': 2, 'expected': 'any (ours)', 'verdict': 'holds'}]
    """
    published = any(claim.published for claim in claims)
    return [
        {"claim": claim.says, "source": claim.source, "quantity": claim.quantity}
        | {"measured": measured(claim), "n": claim.n}
        | ({"published": claim.published} if published else {})
        | {"expected": claim.expected_range, "verdict": claim.verdict}
        for claim in claims
    ]


def measured(claim: Claim) -> str:
    """Return the number of a claim with its standard deviation over seeds.

    Args:
        claim: the claim.

    >>> measured(Claim("", "ours", "risk", observed=0.84671, spread=0.012))
    '0.847 ± 0.012'
    """
    spread = f" ± {number(claim.spread)}" if claim.spread is not None else ""
    return number(claim.observed) + spread


def latex_text(text: str) -> str:
    r"""Return text with the special characters of LaTeX escaped.

    Args:
        text: plain text.

    >>> print(latex_text("ERM_50: -3 % ± 2"))
    ERM\_50: $-$3 \% $\pm$ 2
    """
    signed = re.sub(r"(?<![\w.)])-(?=\.?\d)", "−", text)
    return "".join(LATEX.get(character, character) for character in signed)


def _latex(
    columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> str:  # fmt: skip
    longest = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    # Columns of sentences share most of the width of the page, by their length.
    weights = [min(longest[k], 3 * LONG) if longest[k] > LONG else 0 for k in range(len(columns))]
    share = 0.7 / sum(weights) if any(weights) else 0.0
    kinds = [
        f"p{{{weight * share:.2f}\\linewidth}}" if weight else ("r" if right else "l")
        for weight, right in zip(weights, numeric, strict=True)
    ]
    lines = [" & ".join(map(latex_text, line)) + r" \\" for line in (columns, *cells)]
    return "\n".join(
        [rf"\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", lines[0], r"\midrule",
         *lines[1:], r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return re.sub(r"e([+-])0?(\d+)$", r"e\1\2", number(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return " ".join(str(value).split())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
