"""`contam figures`: write figures of runs and audits as files, or their numbers as tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from contam.cli.claims import RunFolders, load_runs, read_experiment
from contam.cli.parsing import nearest
from contam.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from contam.auditing.result import Audit
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
    """Write the figures of runs and audits as files: drawings, or tables of their numbers.

    PDF files have selectable text and embedded fonts; letters have 8 points.

    Args:
        runs: folders of runs, or of audits.
        file_format: pdf, svg and png (300 dots per inch) are drawings; the others are tables of the
            numbers that a figure shows.
        width: width of a drawing with its unit (in, cm, mm, pt): 3.25in is a column of a paper.
        only: figures to write: numbers, or parts of names or titles; all by default.
        out: folder that holds the files.
    """
    from contam.report.figure_files import points_of

    points = points_of(width)
    loaded = _loaded(runs)
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
    from contam.atomic_files import write_atomically
    from contam.report.figure_files import figure_file
    from contam.report.tables import table_text

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


def _loaded(folders: Sequence[Path]) -> "list[Run | Audit]":
    """The finished runs and the audits in folders.

    Raises:
        ValueError: a folder holds neither, or a trial, which has no figures.
    """
    from contam.auditing.result import RECORD, Audit

    if not folders:
        raise ValueError("which run? give folders that 'contam run' or 'contam audit --out' wrote")
    loaded: list[Run | Audit] = []
    for folder in folders:
        if (folder / RECORD).is_file():
            loaded.append(Audit.load(folder))
            continue
        (run,) = load_runs([folder])
        if run.experiment == "trial":
            raise ValueError(f"{folder}: a trial has no figures; its page shows its numbers")
        loaded.append(run)
    return loaded


def _drawn(result: "Run | Audit") -> "Sequence[Figure]":
    from contam.auditing.result import Audit
    from contam.report.audit_figures import of_audit

    if isinstance(result, Audit):
        return of_audit(result.evidence)
    with result.reading():
        return read_experiment(result).draw(result)


def _chosen(
    loaded: "Sequence[Run | Audit]", only: Sequence[str], display: ProgressDisplay
) -> "Iterator[tuple[str, Figure]]":
    """The figures with their file names.

    Raises:
        ValueError: a word of `only` is no number and in no name and no title.
    """
    from contam.report.figure_files import name_of

    drawn = []
    for place, result in enumerate(loaded, 1):
        kind = getattr(result, "experiment", "audit")
        display.update(DRAWN * (place - 1) / len(loaded), f"drawing {kind}")
        # Several runs may be of one experiment.
        prefix = f"{kind}-{place}" if len(loaded) > 1 else kind
        for number, figure in enumerate(_drawn(result), 1):
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
