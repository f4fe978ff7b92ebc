"""Tables as text: what is written reads back, and no character of LaTeX is left bare."""

import csv
import io
import json
import re

import pytest

from contam.experiment import Claim
from contam.report.tables import claims_rows, latex_text, table_text

HOSTILE = r"50 % of $x_1^2$ & {#} \cmd ~ <a|b> ± 3 – “q” Θ(m) ≥ 1e-3 → ∞ −2"
ROWS = [
    {"network": HOSTILE, "risk": 0.123456789, "n": 3, "held": True},
    {"network": "b, \"c\"\nd", "risk": None, "n": 12, "held": None},
]  # fmt: skip


def test_csv_and_json_have_all_digits_and_read_back():
    rows = list(csv.DictReader(io.StringIO(table_text(ROWS, "csv"))))
    assert [row["network"] for row in rows] == [row["network"] for row in ROWS]
    assert float(rows[0]["risk"]) == 0.123456789 and rows[1]["risk"] == ""
    assert [row["n"] for row in rows] == ["3", "12"]
    assert json.loads(table_text(ROWS, "json")) == ROWS


def latex_cells(text: str) -> list[list[str]]:
    """The cells of a table, after checks of what LaTeX would stop at."""
    lines = text.splitlines()
    assert re.fullmatch(r"\\begin\{tabular\}\{(?:[lr]|p\{0\.\d\d\\linewidth\})+\}", lines[0])
    assert lines[-1] == r"\end{tabular}"
    assert [lines[1], lines[3], lines[-2]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    cells = []
    for line in (lines[2], *lines[4:-2]):
        assert line.endswith(r" \\") and line.isascii()
        body = line.removesuffix(r" \\")
        bare = re.sub(r"\\(?:[A-Za-z]+|[{}&%$#_])", "", body)
        assert not re.search(r"[\\%#_~]", re.sub(r"\$[^$]*\$", "", bare).replace("~", ""))
        assert len(re.findall(r"(?<!\\)\$", body)) % 2 == 0
        depth = 0
        for brace in re.findall(r"(?<!\\)[{}]", body):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0
        cells.append(re.split(r"(?<!\\)&", body))
    return cells


def test_latex_has_no_bare_special_character_and_a_cell_for_each_column():
    cells = latex_cells(table_text(ROWS, "latex"))
    assert len(cells) == 3 and {len(line) for line in cells} == {4}
    assert cells[1][1].strip() == "0.123" and cells[2][1].strip() == "--"
    assert [line[3].strip() for line in cells] == ["held", "yes", "--"]


def test_every_special_character_of_latex_is_escaped():
    for character in r"\{}&%$#_~^":
        assert latex_text(character) != character and latex_text(f"a{character}b")[0] == "a"
    assert latex_text("from -1 to x-y") == "from $-$1 to x-y"


def test_markdown_has_a_cell_for_each_column_in_every_line():
    lines = table_text(ROWS, "markdown").splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


@pytest.mark.parametrize("table_format", ["csv", "latex", "markdown", "json"])
def test_a_table_without_rows_is_written(table_format):
    assert table_text([], table_format)


def test_rows_of_claims_have_what_a_reader_needs():
    claims = [
        Claim("It holds", "Thm. 4.3", "risk", observed=-0.5, spread=0.1, n=3, high=0.0),
        Claim("It is not judged", "ours", "risk", not_judged="too few", published="about half"),
    ]
    first, second = claims_rows(claims)
    assert first["measured"] == "-0.5 ± 0.1" and first["verdict"] == "holds"
    assert second["measured"] == "–" and second["published"] == "about half"
    assert latex_cells(table_text([first, second], "latex"))[1][3].strip() == r"$-$0.5 $\pm$ 0.1"
