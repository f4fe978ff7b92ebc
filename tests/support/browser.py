"""Pages in Chromium, and the contrast of their texts."""

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest


class Opened(NamedTuple):
    """A page in the browser, with what it said and asked for."""

    page: Any
    said: list[str]
    asked: list[str]


def opened(browser: Any, address: str, **context: Any) -> Opened:
    tab = browser.new_context(**{"color_scheme": "light"} | context).new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    return Opened(tab, said, asked)


def until(tab: Any, condition: str) -> None:
    """Wait for a condition, a minute at most on a busy machine.

    The browser's own waiting needs the eval that the page forbids.
    """
    for _ in range(1200):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The contrast ratio of two colors, 1 to 21. Colors have channels of 0 to 255.

    Source: WCAG 2.
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def assert_readable(tab: Any) -> None:
    """Assert that each text on a page has a contrast of at least 4.5 to its background."""
    texts = tab.evaluate(TEXTS)
    assert len(texts) > 8
    for ink, grounds, what in texts:
        ground = next(color for text in grounds if (color := _rgba(text))[3] == 1)
        assert contrast(_rgba(ink), ground) >= 4.5, f"{what}: {ink} on {ground}"


# Each text that is seen: its ink, and the grounds from its own element up to the page.
TEXTS = """() => {
  const colors = new Map();
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || !element.offsetParent && element.tagName !== "text") continue;
    const own = [...element.childNodes].filter(node => node.nodeType === 3);
    if (!own.some(node => node.textContent.trim())) continue;
    if (element.closest(".role-mark")) continue; // numbers in cells have the cell's own ground
    const style = getComputedStyle(element);
    const ink = element.tagName === "text" ? style.fill : style.color;
    const grounds = [], names = element.className;
    for (let at = element; at; at = at.parentElement)
      grounds.push(getComputedStyle(at).backgroundColor);
    const key = ink + grounds.filter(ground => ground !== "rgba(0, 0, 0, 0)")[0];
    colors.set(key, [ink, grounds, `${element.tagName}.${names.baseVal ?? names}`]);
  }
  return [...colors.values()];
}"""


def _rgba(color: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in re.findall(r"[\d.]+", color))
    return numbers if len(numbers) == 4 else (*numbers, 1.0)


def _luminance(color: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (channel / 255 for channel in color[:3])]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def chromium() -> str | None:
    """Return the path of Chromium: from the environment, or from the usual places."""
    named = os.environ.get("CONTAM_CHROMIUM")
    if named:
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests. Without Chromium they are skipped; in CI they fail."""
    path = chromium()
    if path is None:
        missing = "no Chromium found; install it, or name it in CONTAM_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()
