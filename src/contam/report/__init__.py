"""Runs -> one self-contained HTML page: no request leaves it, and it opens from a file anywhere.

`view` decides what is said, `words` how, `theme` in which colors; `page.html.j2`, `page.css` and
`page.js` are the page itself. Nothing here trains, or knows an experiment by name.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from contam.experiment import Experiment
from contam.report import theme, words
from contam.report.view import ROWS_SHOWN, sections
from contam.run import Run, write_atomically

TITLE = "Feature contamination, put to the test"


def page(runs: Sequence[Run], experiments: Mapping[str, Experiment], *, title: str = TITLE) -> str:
    """The page about the runs, in the order given; `experiments` holds each run's experiment.

    Raises:
        RunError: a finished run is damaged, or none of the experiments made it.
    """
    shown = sections(runs, experiments)
    styles = theme.stylesheet() + _text("page.css")
    scripts = {"boot": _text("boot.js"), "vega": _vega(), "page": _text("page.js")}
    charts = {
        panel.anchor: panel.chart
        for section in shown
        for figure in section.figures
        for panel in figure.panels
        if panel.chart is not None
    }
    numbers = {
        figure.anchor: {"columns": figure.columns, "rows": figure.numbers}
        for section in shown
        for figure in section.figures
    }
    held, failed, unjudged = (
        sum(each) for each in zip((0, 0, 0), *(section.counts for section in shown), strict=True)
    )
    unfinished = sum(not section.finished for section in shown)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_digest(styles)}; script-src {' '.join(map(_digest, scripts.values()))}"
    )
    template = _environment().get_template("page.html.j2")
    html = template.render(
        title=title,
        policy=policy,
        styles=styles,
        scripts=scripts,
        data={"charts": charts, "numbers": numbers, "themes": theme.CHARTS},
        sections=shown,
        counts=(held, failed, unjudged),
        headline=words.headline(held, failed, unjudged, unfinished),
        printed=any(each.claim.published for section in shown for each in section.claims),
        rows_shown=ROWS_SHOWN,
        version=version("contam"),
    )
    return html.strip() + "\n"


def write(runs: Sequence[Run], path: Path, experiments: Mapping[str, Experiment]) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        RunError: as for `page`, or the file can't be written.
    """
    write_atomically(path, page(runs, experiments).encode())


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("contam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "typeset": words.typeset,
        "cell": words.cell,
        "rough": words.rough,
        "json": words.json_in_html,
    }
    environment.globals |= {"words": words}
    return environment


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script, of the version that the charts are made for."""
    release = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", release)
    # What would end the script element, or hide its end, says the same with a backslash.
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


@functools.cache
def _text(name: str) -> str:
    return files("contam.report").joinpath(name).read_text()


def _digest(text: str) -> str:
    """The source expression that lets a page run or apply exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
