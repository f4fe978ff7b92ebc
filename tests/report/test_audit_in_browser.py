"""The audit's page in Chromium: sorting, searching, choosing layers, printing, downloading."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.audit_records import HOSTILE, audit, hostile, narrow
from support.browser import Opened, assert_readable, opened, until

from contam import report
from contam.auditing.records import AuditRecord, NeuronTable
from contam.report import theme
from contam.report.audit_page import NEURONS_SHOWN

pytestmark = pytest.mark.browser

RECORDS = {
    "whole": audit(count=4000),
    "many": audit(layers=50, count=100_000, examples=0),
    "hostile": hostile(HOSTILE),
    "narrow": narrow(),
}
WINDOW = {"viewport": {"width": 1280, "height": 800}}
DRAWN = "[...document.querySelectorAll('.chart')].every(node => node.dataset.theme === 'light')"
ROWS = ".neurons tbody tr"
STATUS = "document.querySelector('#neurons .count').textContent"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("audits")
    for name, record in RECORDS.items():
        (folder / f"{name}.html").write_text(report.audit_page(record))
    return {name: (folder / f"{name}.html").as_uri() for name in RECORDS}


@pytest.fixture
def tab(browser: Any, addresses: dict[str, str]) -> Iterator[Any]:
    it = opened(browser, addresses["whole"], **WINDOW)
    yield it.page
    assert it.said == []
    it.page.context.close()


@pytest.fixture
def many(browser: Any, addresses: dict[str, str]) -> Iterator[Any]:
    it = opened(browser, addresses["many"], **WINDOW)
    yield it.page
    assert it.said == []
    it.page.context.close()


def table_of(name: str) -> NeuronTable:
    table = RECORDS[name].neurons
    assert table is not None
    return table


def cells(tab: Any, column: int) -> list[str]:
    return tab.eval_on_selector_all(ROWS, f"all => all.map(row => row.cells[{column}].textContent)")


def sort(tab: Any, column: str) -> str:
    tab.locator(f".neurons th[data-column={column}] button").focus()
    tab.keyboard.press("Enter")
    return tab.get_attribute(f".neurons th[data-column={column}]", "aria-sort")


def number(cell: str) -> float:
    return math.nan if cell == "–" else float(cell.replace("−", "-"))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param(name, width, marks=() if (name, width) == ("whole", 360) else pytest.mark.slow)
        for name in RECORDS
        for width in (360, 1280)
    ],
)
def test_the_page_logs_nothing_makes_no_request_and_fits(
    browser: Any, addresses: dict[str, str], name: str, width: int
) -> None:
    it = opened(browser, addresses[name], viewport={"width": width, "height": 740})
    it.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(it.page, DRAWN)
    it.page.evaluate("dispatchEvent(new Event('afterprint'))")
    it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    wide = it.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert it.said == []
    assert [url for url in it.asked if not url.startswith("data:")] == [addresses[name]]
    assert it.page.locator(".chart.failed").count() == 0
    it.page.context.close()


@pytest.mark.slow
def test_the_first_neurons_of_many_are_on_the_page(many: Any) -> None:
    table = table_of("many")
    assert many.evaluate(STATUS) == f"{NEURONS_SHOWN:,} of {NEURONS_SHOWN:,}"
    rows = list(zip(cells(many, 0), map(int, cells(many, 1)), cells(many, 2), strict=True))
    first = slice(NEURONS_SHOWN)
    assert rows == list(
        zip(table.layer[first], table.index[first], table.favorite[first], strict=True)
    )


@pytest.mark.slow
def test_columns_sort_by_keyboard_with_dashes_last(many: Any) -> None:
    values = table_of("many").attenuation[:NEURONS_SHOWN]
    known = sorted((v for v in values if v is not None), reverse=True)
    first = cells(many, 1)
    assert sort(many, "attenuation") == "descending"
    column = cells(many, 3)
    assert set(column[len(known) :]) == {"–"}
    assert [number(cell) for cell in column[: len(known)]] == pytest.approx(known, abs=0.0006)
    assert sort(many, "attenuation") == "ascending"
    column = cells(many, 3)
    assert [number(cell) for cell in column[: len(known)]] == pytest.approx(known[::-1], abs=0.0006)
    assert sort(many, "attenuation") == "none"
    assert cells(many, 1) == first
    assert sort(many, "favorite") == "descending"
    assert cells(many, 2)[0] == max(RECORDS["many"].classes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ("heart", lambda layer, index, favorite: favorite == "heart"),
        ("stage1", lambda layer, index, favorite: "stage1" in layer),
        ("STAGE0.block3 ring", lambda layer, index, favorite: (layer, favorite)
         == ("stage0.block3.relu", "ring")),
        ("#12", lambda layer, index, favorite: index == 12),
        ("nowhere", lambda layer, index, favorite: False),
    ],
)  # fmt: skip
def test_neurons_can_be_searched_by_text(tab: Any, words: str, fits: Callable[..., bool]) -> None:
    table = table_of("whole")
    first = (column[:NEURONS_SHOWN] for column in (table.layer, table.index, table.favorite))
    wanted = sum(map(fits, *first))
    tab.fill("#neurons .text", words)
    until(tab, f"{STATUS} === '{wanted:,} of 2,000'")
    for layer, index, favorite in zip(cells(tab, 0), cells(tab, 1), cells(tab, 2), strict=True):
        assert fits(layer, int(index), favorite)
    assert tab.locator(ROWS).count() == wanted


@pytest.mark.slow
def test_layer_class_and_text_filters_combine(tab: Any) -> None:
    table, layers = table_of("whole"), [layer.name for layer in RECORDS["whole"].layers]
    tab.select_option("#neurons .layer", label=f"4. {layers[3]}")
    tab.select_option("#neurons .favorite", label="disc")
    first = (column[:NEURONS_SHOWN] for column in (table.layer, table.favorite))
    wanted = sum(map(lambda *row: row == (layers[3], "disc"), *first))
    assert tab.evaluate(STATUS) == f"{wanted:,} of 2,000"
    assert set(cells(tab, 0)) == {layers[3]}
    assert set(cells(tab, 2)) == {"disc"}
    assert tab.input_value("#layers .layer") == "3"
    with tab.expect_download() as download:
        tab.click("#neurons .tools button")
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("layer,index,favorite,attenuation,selectivity_id")
    assert len([line for line in lines if line]) == wanted + 1


@pytest.mark.slow
def test_selecting_a_layer_in_a_chart_selects_it_everywhere(tab: Any) -> None:
    table = table_of("whole")
    place = tab.locator(".depth .chart").first
    place.scroll_into_view_if_needed()
    until(tab, "document.querySelector('.depth .chart.drawn') !== null")
    plot = tab.evaluate(
        "(() => { const box = document.querySelector('.depth .chart svg .role-frame.root > g > "
        "path.background').getBoundingClientRect();"
        " return [box.left + 0.75 * box.width, box.top + box.height / 2]; })()"
    )
    tab.mouse.click(*plot)
    layer = RECORDS["whole"].layers[8 - 1]  # three quarters of the way from 1 to 10 is 7.75
    wanted = table.layer[:NEURONS_SHOWN].count(layer.name)
    assert tab.evaluate(STATUS) == f"{wanted:,} of 2,000"
    assert set(cells(tab, 0)) == {layer.name}
    assert tab.inner_text(".layers tr.chosen th") == layer.name
    assert tab.inner_text(".about-layer") == "8 of 10, 64 neurons"
    assert tab.inner_text(".of-layer") == layer.name
    assert tab.locator(".depth .chart.drawn .chosen-layer").count() >= 1
    # The same button shows all layers again.
    tab.locator(".layers tr.chosen button").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate(STATUS) == "2,000 of 2,000"
    assert tab.locator(".chosen-layer").count() == 0


@pytest.mark.slow
def test_histograms_and_rates_follow_the_selected_layer(tab: Any) -> None:
    record, table = RECORDS["whole"], table_of("whole")
    anchor = tab.evaluate("Object.keys(contam.data.histograms)[1]")
    values = f"contam.data.charts['{anchor}'].data.values"
    as_text = tab.evaluate(f"JSON.stringify({values})")
    tab.select_option("#layers .layer", "2")
    until(tab, f"JSON.stringify({values}) !== '{as_text}'")
    chosen = [v for name, v in zip(table.layer[:NEURONS_SHOWN],
                                   table.selectivity_id[:NEURONS_SHOWN], strict=True)
              if name == record.layers[2].name]  # fmt: skip
    counts, _ = np.histogram(chosen, np.linspace(0, 1, 41))
    shares = [bin_["y"] for bin_ in tab.evaluate(values) if bin_["series"] == "ID"]
    np.testing.assert_allclose(shares[:-1], counts / len(chosen), atol=2.5 / len(chosen))
    assert sum(shares[:-1]) == pytest.approx(1)
    bars = tab.evaluate("contam.data.charts[contam.data.rates.anchor].data.values")
    for series, rates in record.layers[2].class_rates.items():
        assert [bar["y"] for bar in bars if bar["series"] == series] == pytest.approx(list(rates))
    tab.select_option("#layers .layer", "")
    until(tab, f"JSON.stringify({values}) === '{as_text}'")


@pytest.mark.slow
def test_the_download_contains_the_numbers_of_the_curves(tab: Any) -> None:
    figure = tab.locator("figure.depth").nth(1)
    figure.locator("summary").click()
    with tab.expect_download() as download:
        figure.locator(".tools button").click()
    lines = [line for line in Path(download.value.path()).read_text().splitlines() if line]
    assert lines[0] == "layer,measure,data,value,low,high"
    assert lines[1].startswith("stage0.block0.relu,Linear probe,id,0.25,0.22,0.28")
    assert len(lines) == 1 + 10 * (4 + 3 + 3 + 3)


@pytest.mark.slow
def test_verdict_and_tables_are_shown_without_scripts(
    browser: Any, addresses: dict[str, str]
) -> None:
    tab = opened(browser, addresses["whole"], java_script_enabled=False, color_scheme="dark").page
    assert tab.is_visible(".answer")
    assert tab.locator(".bar-of-losses:visible").count() == 2
    assert tab.locator(".tests li:visible").count() == len(RECORDS["whole"].verdict.steps)
    assert tab.locator(ROWS).count() == 100
    assert tab.locator(".choose:visible, #theme:visible").count() == 0
    assert tab.is_visible(".chart .instead >> nth=0")
    assert tab.is_visible(".layers tbody tr >> nth=9")
    assert "JavaScript" in tab.inner_text("noscript")
    tab.context.close()


@pytest.mark.slow
def test_a_printed_page_shows_a_hundred_neurons(many: Any) -> None:
    many.emulate_media(media="print")
    shown = "[...document.querySelectorAll('.neurons tbody tr')].filter(r => r.offsetHeight).length"
    assert many.evaluate(shown) == 100
    many.emulate_media(media="screen")
    assert many.evaluate(shown) == NEURONS_SHOWN


@pytest.mark.slow
def test_images_are_shown_beside_their_heat_maps(tab: Any) -> None:
    until(tab, "[...document.images].every(node => node.complete)")
    sizes = tab.eval_on_selector_all(
        ".examples img", "all => all.map(node => [node.naturalWidth, node.clientWidth])"
    )
    assert len(sizes) == 24
    assert all(natural == 48 and shown > 48 for natural, shown in sizes)


@pytest.mark.slow
def test_hostile_text_creates_no_element(browser: Any, addresses: dict[str, str]) -> None:
    it: Opened = opened(browser, addresses["hostile"], **WINDOW)
    assert it.page.evaluate("document.querySelectorAll('script').length") == 4
    it.page.locator("#layers .later").click()
    assert "<script>alert('x')</script>" in it.page.inner_text(".of-layer")
    assert "<script>alert('x')</script>" in cells(it.page, 0)[0]
    assert it.said == []
    it.page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", theme.COLORS)
def test_all_text_has_sufficient_contrast(
    browser: Any, addresses: dict[str, str], name: str
) -> None:
    it = opened(browser, addresses["whole"], color_scheme=name, **WINDOW)
    it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    assert_readable(it.page)
    it.page.context.close()


@pytest.mark.slow
def test_the_test_records_have_many_neurons_and_missing_values() -> None:
    assert isinstance(RECORDS["whole"], AuditRecord)
    assert None in table_of("many").attenuation[:NEURONS_SHOWN]
    assert len(table_of("many").index) == 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "hostile"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_texts_of_the_ledger_do_not_overlap(
    browser: Any, addresses: dict[str, str], name: str, width: int
) -> None:
    it = opened(browser, addresses[name], viewport={"width": width, "height": 740})
    it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    boxes = it.page.evaluate(
        "[...document.querySelectorAll('.ledger')].map(figure => [...figure.querySelectorAll("
        "'h2, .bar-of-losses > text:not(.number), .entries p, .entries pre')].map(node => {"
        "const r = node.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; }))"
    )
    assert boxes
    for texts in boxes:
        for place, (left, top, right, bottom) in enumerate(texts):
            assert left >= -0.5
            assert right <= width + 0.5
            for other in texts[:place]:
                apart = (left >= other[2] - 0.5 or other[0] >= right - 0.5
                         or top >= other[3] - 0.5 or other[1] >= bottom - 0.5)  # fmt: skip
                assert apart
    it.page.context.close()


@pytest.mark.slow
def test_the_bars_are_printed_in_color(tab: Any) -> None:
    tab.emulate_media(media="print", color_scheme="dark")
    fill = "getComputedStyle(document.querySelector('.ledger .cause-0')).fill"
    light = tab.evaluate(fill)
    tab.emulate_media(media="screen", color_scheme="dark")
    assert light == "rgb(0, 114, 178)"
    assert tab.evaluate(fill) != light
