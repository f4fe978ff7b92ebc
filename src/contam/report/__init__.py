"""Write runs as one self-contained HTML page that loads nothing and opens from a file.

`view` collects the contents, `words` formats them, `theme` holds the colors, and `document` renders
the template. Nothing here trains, and nothing depends on a particular experiment. `audit_page`
writes the page about an audit and has its own template.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contam.atomic_files import write_atomically
from contam.experiment import Experiment
from contam.report import words
from contam.report.audit_page import audit_page
from contam.report.document import document
from contam.report.view import ROWS_SHOWN, sections
from contam.run import Run

__all__ = ["TITLE", "audit_page", "page", "write"]

TITLE = "Feature contamination: claims and results"
"""Title of a page with claims. A page without claims has the title of its experiment."""


def page(
    runs: Sequence[Run],
    experiments: Mapping[str, Experiment],
    progress: Callable[[float, str], None] | None = None,
) -> str:
    """Return the page about runs as HTML.

    Args:
        runs: the runs, in the order of the page.
        experiments: the experiment of each run, by name.
        progress: gets the share of the work done and what it works on.

    Raises:
        RunError: a finished run is damaged, or its experiment is not in `experiments`.

    >>> "No claim was judged" in page([], {})
    True
    """
    shown = sections(runs, experiments, progress)
    judging = not shown or any(section.claims or not section.finished for section in shown)
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
    held, failed, unjudged = map(sum, zip((0, 0, 0), *(s.counts for s in shown), strict=True))
    if judging:
        unfinished = sum(not section.finished for section in shown)
        title, headline = TITLE, words.headline(held, failed, unjudged, unfinished)
    else:
        title = " · ".join(dict.fromkeys(section.experiment.title for section in shown))
        headline = " ".join(section.summary for section in shown)
    return document(
        "page.html.j2",
        {"charts": charts, "numbers": numbers},
        styles=["page.css"],
        scripts=["charts.js", "page.js"],
        title=title,
        sections=shown,
        counts=(held, failed, unjudged),
        headline=headline,
        judging=judging,
        published=any(judged.claim.published for s in shown for judged in s.claims),
        rows_shown=ROWS_SHOWN,
    )


def write(
    runs: Sequence[Run],
    path: Path,
    experiments: Mapping[str, Experiment],
    progress: Callable[[float, str], None] | None = None,
) -> None:
    """Write the page about runs to `path`.

    The file is replaced only when the new page is complete.

    Args:
        runs: the runs, in the order of the page.
        path: the HTML file.
        experiments: the experiment of each run, by name.
        progress: gets the share of the work done and what it works on.

    Raises:
        RunError: as for `page`.
        WriteError: the file can't be written.

    >>> write([], Path("index.html"), {})
    >>> Path("index.html").read_text()[:15]
    '<!doctype html>'
    """
    write_atomically(path, page(runs, experiments, progress).encode())
