"""The page about every experiment, as a reader opens it: complete, quiet, no overflow."""

import pytest
from support.browser import until

from contam import report
from contam.experiments import EXPERIMENTS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(shared_runs, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    runs = [shared_runs.smoke(experiment) for experiment in EXPERIMENTS]
    report.write(runs, path, {experiment.name: experiment for experiment in EXPERIMENTS})
    assert path.stat().st_size < 250_000 * len(EXPERIMENTS)
    return path.as_uri()


def test_every_chart_is_drawn_without_messages_or_requests(browser, address):
    context = browser.new_context(
        viewport={"width": 360, "height": 900}, color_scheme="dark", offline=True
    )
    tab = context.new_page()
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    charts = tab.locator(".chart")
    assert charts.count() >= 20
    for i in range(charts.count()):
        charts.nth(i).scroll_into_view_if_needed()
    until(tab, "[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg'))")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert said == []
    assert asked == [address]
    context.close()
