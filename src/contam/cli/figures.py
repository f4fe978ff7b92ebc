"""`contam figures`: write the figures of runs as files for papers, or their numbers as tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from contam.cli.claims import RunFolders, load_runs, read_experiment
from contam.cli.parsing import nearest
from contam.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from contam.plots import Figure
    from contam.run import Run

Format = Literal["pdf", "svg", "png", "csv", "latex", "markdown", "json"]
SUFFIXES = {"latex": "tex", "markdown": "md"}
DRAWN = 0.5
"""Share of the progress at which the figures of all runs are drawn and their files begin."""
READABLE = 7.0
"""Smallest size of letters in points that needs no remark."""


def figures(
    runs: RunFolders,
    file_format: Annotated[Format, tyro.conf.arg(name="format")] = "pdf",
    width: str = "3.25in",
    only: tuple[str, ...] = (),
    out: Path = Path("figures"),
) -> int:
    """Write the figures of runs as files: drawings for a paper, or tables of their numbers.

    PDF files have selectable text and embedded fonts; letters have 8 points.

    Args:
        runs: folders of runs.
        file_format: pdf, svg and png (300 dots per inch) are drawings; the others are tables of the
            numbers that a figure shows.
        width: width of a drawing with its unit (in, cm, mm, pt): 3.25in is a column of a paper.
        only: figures to write: numbers, or parts of names or titles; all by default.
        out: folder that holds the files.
    """
    from contam.report.figure_files import points_of

    points = points_of(width)
    loaded = load_runs(runs)
    lines = []
    with ProgressDisplay("figures") as display:
        chosen = list(_chosen(loaded, only, display))
        for place, (name, figure) in enumerate(chosen):
            display.update(DRAWN + (1 - DRAWN) * place / len(chosen), name)
            lines.append(_write(name, figure, file_format, points, out))
    print("\n".join(lines))
    return 0


def _write(name: str, figure: "Figure", file_format: Format, points: float, out: Path) -> str:
    """Write the file of one figure, and return a line about it."""
    from contam.report.figure_files import figure_file
    from contam.report.tables import table_text
    from contam.run import write_atomically

    path = out / f"{name}.{SUFFIXES.get(file_format, file_format)}"
    if file_format in ("pdf", "svg", "png"):
        file = figure_file(figure, file_format, points)
        content = file.content
        remark = f"{file.width / 72:.3g} x {file.height / 72:.3g} in"
        if file.letters < READABLE:
            needed = points * 8 / file.letters / 72
            remark += f", letters of {file.letters:.1f} pt: 8 pt need --width {needed:.1f}in"
    elif figure.rows:
        content = table_text(figure.rows, file_format).encode()
        remark = f"{len(figure.rows)} rows"
    else:
        return f"{name}: has no table"
    write_atomically(path, content)
    return f"{path}  {remark}"


def _chosen(
    runs: "Sequence[Run]", only: Sequence[str], display: ProgressDisplay
) -> "Iterator[tuple[str, Figure]]":
    """The figures with their file names.

    Raises:
        ValueError: a word of `only` is no number and in no name and no title.
    """
    from contam.report.figure_files import name_of

    drawn = []
    for place, run in enumerate(runs, 1):
        display.update(DRAWN * (place - 1) / len(runs), f"drawing {run.experiment}")
        # Several runs may be of one experiment.
        prefix = f"{run.experiment}-{place}" if len(runs) > 1 else run.experiment
        with run.reading():
            figures = read_experiment(run).draw(run)
        for number, figure in enumerate(figures, 1):
            drawn.append((f"{prefix}-{number}-{name_of(figure)}", str(number), figure))
    matched = set()
    for name, number, figure in drawn:
        text = f"{name_of(figure)} {figure.title}".lower()
        words = {
            word for word in only if (word == number if word.isdigit() else word.lower() in text)
        }
        matched |= words
        if words or not only:
            yield name, figure
    for word in only:
        if word not in matched:
            names = [name_of(figure) for _, _, figure in drawn]
            raise ValueError(f"no figure {word!r}; {nearest(word, names)}")
