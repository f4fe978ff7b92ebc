"""The page in Chromium, opened from a file: what a reader sees, clicks and tabs through."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Opened, assert_readable, opened, until

from contam.report import theme

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(page: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page)
    return path.as_uri()


def draw_everything(tab: Any) -> None:
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(
        tab,
        "[...document.querySelectorAll('.chart')].every(node => node.dataset.theme === 'light')",
    )
    tab.evaluate("dispatchEvent(new Event('afterprint'))")


@pytest.fixture(scope="module")
def desktop(browser: Any, address: str) -> Iterator[Opened]:
    it = opened(browser, address, viewport={"width": 1280, "height": 800})
    draw_everything(it.page)
    yield it
    it.page.context.close()


@pytest.fixture(scope="module")
def phone(browser: Any, address: str) -> Iterator[Opened]:
    it = opened(browser, address, viewport={"width": 360, "height": 740}, has_touch=True)
    draw_everything(it.page)
    yield it
    it.page.context.close()


def test_every_chart_is_drawn_with_marks(desktop: Opened) -> None:
    marks = desktop.page.eval_on_selector_all(
        ".chart",
        "all => all.map(node => node.querySelectorAll('svg [class*=role-mark] path, "
        "svg [class*=role-mark] rect, svg [class*=role-mark] image').length)",
    )
    assert len(marks) == 20
    assert min(marks) >= 1


@pytest.mark.slow
def test_all_charts_are_drawn_without_scrolling(browser: Any, address: str) -> None:
    tab = opened(browser, address, viewport={"width": 1280, "height": 300}).page
    until(tab, "document.querySelectorAll('.chart:not(.drawn)').length === 0")
    assert tab.evaluate("scrollY") == 0
    tab.context.close()


@pytest.mark.slow
def test_a_print_right_after_loading_has_every_chart_in_light_colors(
    browser: Any, address: str
) -> None:
    tab = opened(browser, address, color_scheme="dark").page
    tab.evaluate(
        """addEventListener("beforeprint", () => {
          window.printed = [...document.querySelectorAll(".chart")].map((chart) =>
            [chart.dataset.theme, chart.querySelector("svg image") !== null]);
        })"""
    )
    tab.pdf()
    printed = tab.evaluate("printed")
    assert len(printed) == 20
    assert {theme for theme, has_pictures in printed if not has_pictures} == {"light"}
    assert {theme for theme, has_pictures in printed if has_pictures} <= {"light", "dark"}
    tab.context.close()


def test_the_page_logs_no_message_and_makes_no_request(
    desktop: Opened, phone: Opened, address: str
) -> None:
    for it in (desktop, phone):
        assert it.said == []
        assert [url for url in it.asked if not url.startswith("data:")] == [address]


@pytest.mark.slow
def test_hostile_text_runs_no_script_and_creates_no_element(desktop: Opened) -> None:
    assert desktop.page.evaluate("document.querySelectorAll('script').length") == 4
    assert "<script>alert('x')</script>" in desktop.page.inner_text("h2 >> nth=2")


@pytest.mark.slow
def test_the_page_fits_its_window(desktop: Opened, phone: Opened) -> None:
    for it in (desktop, phone):
        it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
        wide = it.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = false)")
        assert wide[0] <= wide[1]


@pytest.mark.slow
def test_charts_fill_their_container(phone: Opened) -> None:
    over = phone.page.eval_on_selector_all(
        ".chart[data-least='0']",
        "all => all.map(node => node.querySelector('svg').clientWidth - node.clientWidth)",
    )
    assert max(over) <= 1


@pytest.mark.slow
def test_claims_become_cards_on_a_phone(phone: Opened, desktop: Opened) -> None:
    display = "getComputedStyle(document.querySelector('.claim')).display"
    assert desktop.page.evaluate(display) == "table-row"
    assert phone.page.evaluate(display) == "block"
    place = "document.querySelector('.claims').parentElement"
    wide = phone.page.evaluate(f"[{place}.scrollWidth, {place}.clientWidth]")
    assert wide[0] <= wide[1]


@pytest.mark.slow
def test_a_wide_matrix_scrolls_inside(phone: Opened) -> None:
    wide = phone.page.eval_on_selector_all(
        ".chart:not([data-least='0'])",
        "all => all.map(node => [node.parentElement.scrollWidth, node.parentElement.clientWidth])",
    )
    assert wide
    assert all(clip <= 360 for _, clip in wide)


@pytest.mark.slow
def test_the_tab_key_reaches_the_skip_link_and_then_the_toggle(browser: Any, address: str) -> None:
    tab = opened(browser, address).page
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "theme"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash") == "#main"
    tab.context.close()


@pytest.mark.slow
def test_filter_buttons_show_their_claims(desktop: Opened) -> None:
    tab = desktop.page

    def shown() -> list[str]:
        return tab.eval_on_selector_all(".claim", "all => all.filter(node => node.offsetParent)"
                                        ".map(node => node.dataset.verdict)")  # fmt: skip

    tab.locator(".filters button[data-verdict=fails]").focus()
    tab.keyboard.press("Enter")
    assert shown() == ["fails"] * 4
    assert tab.inner_text(".filters [role=status]") == "4 of 12 shown"
    pressed = tab.eval_on_selector_all(
        ".filters [aria-pressed=true]", "all => all.map(e => e.dataset.verdict)"
    )
    assert pressed == ["fails"]
    tab.select_option(".filters select", "run-1")
    assert shown() == ["fails"] * 2
    tab.select_option(".filters select", "run-3")
    assert shown() == []
    tab.evaluate("location.hash = 'claim-1'")
    until(tab, "document.querySelector('#claim-1').offsetParent !== null")
    assert len(shown()) == 12


ORDER = "all => all.map(node => node.id)"


@pytest.mark.slow
def test_claims_can_be_sorted_by_keyboard(desktop: Opened) -> None:
    tab = desktop.page
    before = tab.eval_on_selector_all(".claim", ORDER)

    def sort(name: str) -> str:
        tab.locator(".claims thead button", has_text=name).focus()
        tab.keyboard.press("Enter")
        heads = ".claims th[aria-sort]:not([aria-sort=none])"
        return "".join(tab.eval_on_selector_all(heads, "all => all.map(e => e.ariaSort)"))

    def results() -> list[str]:
        return tab.eval_on_selector_all(".observed", "all => all.map(node => node.dataset.value)")

    numbers = sorted((value for value in results() if value), key=float)
    missing = [""] * (len(before) - len(numbers))
    assert len(missing) == 6
    assert sort("Result") == "ascending"
    assert results() == numbers + missing
    assert tab.is_hidden(".claims .group")
    assert tab.is_visible(".claim .of >> nth=0")
    assert sort("Result") == "descending"
    assert results() == numbers[::-1] + missing
    assert sort("Verdict") == "ascending"
    verdicts = tab.eval_on_selector_all(".claim", "all => all.map(node => node.dataset.verdict)")
    assert verdicts == ["fails"] * 4 + ["holds"] * 4 + ["unjudged"] * 4
    tab.locator(".filters button[data-verdict=holds]").click()
    assert tab.locator(".claim:visible").count() == 4
    tab.locator(".filters button[data-verdict='']").click()
    assert sort("Claim") == "ascending"
    says = tab.eval_on_selector_all(".says", "all => all.map(node => node.textContent.trim())")
    assert says == tab.evaluate(
        "says => says.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))", says
    )
    assert [sort("Claim"), sort("Claim")] == ["descending", ""]
    assert tab.eval_on_selector_all(".claim", ORDER) == before
    assert tab.is_visible(".claims .group >> nth=0")
    assert tab.is_hidden(".claim .of >> nth=0")


@pytest.mark.slow
def test_cards_can_be_sorted_on_a_phone(phone: Opened) -> None:
    tab = phone.page
    first = tab.eval_on_selector_all(".claim", ORDER)
    button = tab.locator(".claims thead button", has_text="Verdict")
    assert button.bounding_box()["height"] >= 24
    button.click()
    assert tab.eval_on_selector_all(".claim", ORDER) != first
    button.click()
    button.click()
    assert tab.eval_on_selector_all(".claim", ORDER) == first


@pytest.mark.slow
def test_the_download_contains_all_numbers(desktop: Opened) -> None:
    tab = desktop.page
    tab.locator(".numbers summary").first.click()
    with tab.expect_download() as download:
        tab.locator(".tools button").first.click()
    lines = Path(download.value.path()).read_text().split("\n")
    assert download.value.suggested_filename == "figure-1.csv"
    assert lines[0].strip() == "step,net,value,low,high"
    assert lines[1].startswith('0,"</script>')
    assert len([line for line in lines if line]) == 911
    tab.locator(".numbers summary").first.click()


@pytest.mark.slow
def test_the_toggle_changes_the_colors_and_is_remembered(browser: Any, address: str) -> None:
    tab = opened(browser, address).page
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "document.querySelector('.chart svg .role-axis-title text')?.getAttribute('fill')"
    tab.locator(".chart").first.scroll_into_view_if_needed()
    until(tab, label)
    assert (tab.evaluate(ground), tab.evaluate(label)) == ("rgb(252, 251, 248)", "#1d2227")
    assert tab.inner_text("#theme") == "Switch to dark mode"
    tab.click("#theme")
    until(tab, f"{label} !== '#1d2227'")
    assert tab.inner_text("#theme") == "Switch to light mode"
    assert (tab.evaluate(ground), tab.evaluate(label)) == ("rgb(20, 23, 26)", "#e9e7e2")
    tab.reload()
    assert tab.evaluate(ground) == "rgb(20, 23, 26)"
    tab.context.close()


@pytest.mark.slow
def test_the_theme_follows_the_system(browser: Any, address: str) -> None:
    tab = opened(browser, address, color_scheme="dark").page
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(color_scheme="light")
    until(tab, "document.documentElement.dataset.theme === 'light'")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    tab.context.close()


@pytest.mark.slow
def test_the_page_is_readable_without_scripts(browser: Any, address: str) -> None:
    tab = opened(browser, address, java_script_enabled=False, color_scheme="dark").page
    assert "need JavaScript" in tab.inner_text("noscript")
    assert tab.is_visible(".claim >> nth=0")
    assert tab.is_visible(".chart .instead >> nth=0")
    assert tab.is_hidden("#theme")
    assert tab.is_hidden(".filters")
    assert tab.locator(".claims button").count() == 0
    tab.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", theme.COLORS)
def test_all_text_has_sufficient_contrast(browser: Any, address: str, name: str) -> None:
    it = opened(browser, address, color_scheme=name, viewport={"width": 1280, "height": 800})
    it.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    it.page.locator("#figure-1-1").scroll_into_view_if_needed()
    until(it.page, "document.querySelector('#figure-1-1 svg text') !== null")
    assert_readable(it.page)
    it.page.context.close()
