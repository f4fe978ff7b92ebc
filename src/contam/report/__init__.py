"""Runs -> one self-contained HTML page: no request leaves it, and it opens from a file anywhere.

`view` decides what is said, `words` how, `theme` in which colors; `page.html.j2`, `page.css` and
`page.js` are the page itself, `document` puts them together. Nothing here trains, or knows an
experiment by name. `audit_page` is the page about an audit, with files of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from contam.experiment import Experiment
from contam.report import words
from contam.report.audit_page import audit_page
from contam.report.document import document
from contam.report.view import ROWS_SHOWN, sections
from contam.run import Run, write_atomically

__all__ = ["TITLE", "audit_page", "page", "write"]

TITLE = "Feature contamination, put to the test"


def page(runs: Sequence[Run], experiments: Mapping[str, Experiment], *, title: str = TITLE) -> str:
    """The page about the runs, in the order given; `experiments` holds each run's experiment.

    Raises:
        RunError: a finished run is damaged, or none of the experiments made it.
    """
    shown = sections(runs, experiments)
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
    return document(
        "page.html.j2",
        {"charts": charts, "numbers": numbers},
        styles=["page.css"],
        scripts=["charts.js", "page.js"],
        title=title,
        sections=shown,
        counts=(held, failed, unjudged),
        headline=words.headline(held, failed, unjudged, unfinished),
        printed=any(each.claim.published for section in shown for each in section.claims),
        rows_shown=ROWS_SHOWN,
    )


def write(runs: Sequence[Run], path: Path, experiments: Mapping[str, Experiment]) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        RunError: as for `page`, or the file can't be written.
    """
    write_atomically(path, page(runs, experiments).encode())
