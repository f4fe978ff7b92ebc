"""The page as text: complete, safe, and consistent with the runs."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from contam import report
from contam.atomic_files import WriteError
from contam.experiment import Experiment
from contam.run import Run, RunError

VOID = {"meta", "link", "img", "br", "hr", "input", "col"}


class Parsed(HTMLParser):
    """The page's elements, with what stands in them; complains about what is not well nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(page)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> says an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data
        else:
            self.text.append(data)

    def values(self, *names: str) -> Iterator[str]:
        for _, attributes in self.elements:
            yield from (value for name in names if (value := attributes.get(name)) is not None)


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


@pytest.fixture(scope="module")
def text(parsed: Parsed) -> str:
    return re.sub(r"\s+", " ", " ".join(parsed.text).replace("\N{NO-BREAK SPACE}", " "))


def test_the_test_parser_detects_bad_nesting() -> None:
    with pytest.raises(AssertionError, match="closes"):
        Parsed("<p><b>text</p></b>")


def test_elements_nest_and_ids_are_unique(parsed: Parsed) -> None:
    ids = list(parsed.values("id"))
    assert len(ids) == len(set(ids)) > 20


def test_every_internal_link_has_a_target(parsed: Parsed) -> None:
    targets = [f"#{name}" for name in parsed.values("id")]
    assert set(parsed.values("href")) <= set(targets)
    named = {name for value in parsed.values("aria-labelledby") for name in value.split()}
    assert named <= set(parsed.values("id"))


def test_headings_do_not_skip_a_level(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_loads_nothing(parsed: Parsed) -> None:
    for value in parsed.values("src", "srcset", "action", "data", "poster", "xlink:href"):
        assert value.startswith("data:image/webp;base64,")
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in parsed.elements)
    styles = "".join(parsed.inside["style"])
    assert "@import" not in styles
    assert "url(" not in styles


def test_urls_in_scripts_are_identifiers_only(parsed: Parsed) -> None:
    addresses = set(re.findall(r"https?://[\w./-]+", "".join(parsed.inside["script"])))
    names = {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/2000/xmlns/",
        "https://vega.github.io/editor/",  # the target of an action that the page switches off
        "https://github.com/vega/vega-lite/issues/2415",  # in a message
    }
    schemas = {address for address in addresses if "vega.github.io/schema/" in address}
    assert addresses - schemas <= names


def test_the_policy_allows_exactly_the_scripts_and_styles_of_the_page(parsed: Parsed) -> None:
    policy = next(
        str(attributes["content"])
        for tag, attributes in parsed.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    assert "unsafe" not in policy

    def digests(texts: list[str]) -> list[str]:
        sums = (hashlib.sha256(part.encode()).digest() for part in texts)
        return [f"'sha256-{base64.b64encode(part).decode()}'" for part in sums]

    boot, _, *rest = parsed.inside["script"]  # the second is data, and never runs
    assert rules["script-src"] == digests([boot, *rest])
    assert rules["style-src"] == digests(parsed.inside["style"])
    for tag, attributes in parsed.elements:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag


def test_hostile_text_is_escaped(page: str, parsed: Parsed, text: str) -> None:
    scripts = [attributes for tag, attributes in parsed.elements if tag == "script"]
    assert len(scripts) == 4
    assert "<script>alert" not in page
    for place in ("Title", "About", "Summary", "Caption", "Every kind", "because"):
        assert f"{place} </script><script>alert('x')</script><!-- & \"quoted\"" in text


def test_the_data_contain_no_markup_and_only_finite_numbers(parsed: Parsed) -> None:
    data = parsed.inside["script"][1]
    assert "<" not in data
    assert "\u2028" not in data

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    read = json.loads(data, parse_constant=refuse)
    assert set(read) == {"charts", "numbers", "themes"}
    assert len(read["charts"]) == 20  # ten charts in each of two finished runs
    first = read["numbers"]["figure-1"]
    assert first["columns"] == ["step", "net", "value", "low", "high"]
    assert len(first["rows"]) == 910


def test_every_claim_appears_with_its_verdict(
    runs: list[Run], experiments: dict[str, Experiment], parsed: Parsed, text: str
) -> None:
    for claim in experiments["hostile"].claims(runs[0]):
        for said in (claim.says, claim.source if claim.source != "ours" else "not in the paper",
                     claim.quantity, claim.published or "", claim.not_judged or ""):  # fmt: skip
            assert re.sub(r"\s+", " ", said) in text
    verdicts = [v for tag, a in parsed.elements if tag == "tr" and (v := a.get("data-verdict"))]
    assert verdicts == 2 * ["holds", "fails", "holds", "unjudged", "fails", "unjudged"]
    assert "4 of 12 claims hold, 4 do not hold here, 4 were not judged." in text
    assert "0.4 ± 0.1 3 seeds" in text
    assert "not a number" in text


def test_an_unfinished_run_is_marked(text: str) -> None:
    assert "One run is unfinished; its claims are not judged yet." in text
    assert "Unfinished. 1 parts are computed." in text


def test_a_run_without_claims_is_shown(text: str) -> None:
    assert "This experiment has no claims." in text
    assert "Nothing was found." in text


def test_figures_without_numbers_are_marked(text: str) -> None:
    assert text.count("There are no numbers to draw.") == 2 * 4


def test_long_tables_are_truncated_with_a_note(parsed: Parsed, text: str) -> None:
    assert "the first 200 of 910 rows" in text
    rows = sum(tag == "tr" for tag, _ in parsed.elements)
    assert 400 < rows < 520


def test_pictures_and_charts_have_a_description(parsed: Parsed) -> None:
    pictures = [attributes for tag, attributes in parsed.elements if tag == "img"]
    charts = [
        a for _, a in parsed.elements if a.get("role") == "img" and "chart" in str(a["class"])
    ]
    assert len(pictures) == 2
    assert len(charts) == 20
    kinds = ("Line chart, ", "Bar chart, ", "Histogram, ", "Scatter plot, ", "Table of ", "Heat ")
    assert all((one.get("alt") or "").startswith("Pictures, ") for one in pictures)
    assert all((one["aria-label"] or "").startswith(kinds) for one in charts)


def test_a_page_without_runs_is_valid(experiments: dict[str, Experiment]) -> None:
    assert "No claim was judged." in " ".join(Parsed(report.page([], experiments)).text)


def test_the_same_runs_give_the_same_page(
    runs: list[Run], experiments: dict[str, Experiment], page: str
) -> None:
    assert report.page(runs, experiments) == page
    assert len(page.encode()) < 2.5e6


def test_write_replaces_the_page(
    runs: list[Run], experiments: dict[str, Experiment], tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "page.html"
    report.write(runs[2:], path, experiments)
    assert path.read_text() == report.page(runs[2:], experiments)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_an_unwritable_path_is_reported(
    runs: list[Run], experiments: dict[str, Experiment], tmp_path: Path
) -> None:
    with pytest.raises(WriteError, match=re.escape(str(tmp_path))):
        report.write(runs[2:], tmp_path, experiments)


def test_a_damaged_run_is_reported(
    experiments: dict[str, Experiment], runs: list[Run], tmp_path: Path
) -> None:
    with Run.start(tmp_path, "hostile", experiments["hostile"].presets["paper"]) as run:
        run.write("measured", [{"seed": 0, "value": 1.0}])
        run.finish()
    table = run.folder / "tables" / "measured.jsonl"
    table.write_bytes(table.read_bytes().replace(b"1.0", b"9.0"))
    with pytest.raises(RunError, match=re.escape(str(table))):
        report.page([Run.load(run.folder)], experiments)


def test_an_unknown_experiment_is_reported(runs: list[Run]) -> None:
    with pytest.raises(RunError, match=r"run\.json.*'hostile'"):
        report.page(runs, {})
