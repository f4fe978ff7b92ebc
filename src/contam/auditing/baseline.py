"""Lines of standard models, the baseline of effective robustness."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from contam.measures.robustness import IMAGENET_LINES, Line, fit_line

IMAGENET_CLASSES = 1000


def find_lines(
    baseline: str | Path | Mapping[str, Line] | None,
    sets: Sequence[str],
    *,
    id_name: str,
    classes: int,
) -> tuple[dict[str, Line], list[str]]:
    """Return the lines of standard models for OOD sets.

    Args:
        baseline: a CSV table of standard models' accuracies in [0, 1] with one column for the ID
            set, under its name or `id`, and one for each OOD set, under its name; or fitted lines
            by name of the set. None selects our ImageNet lines for a network of 1000 classes.
        sets: names of the OOD sets.
        id_name: name of the ID set.
        classes: number of classes.

    Returns:
        The lines by name of the set, and a sentence for each set without one.

    Raises:
        ValueError: the file can't be read, lacks a column, or its models determine no line.

    Source: ours, from standard models of the user's task or published ones.

    >>> lines, notes = find_lines({}, ["sketch"], id_name="photo", classes=10)
    >>> notes
    ["No effective robustness on 'sketch': the baseline has no such set."]
    """
    if isinstance(baseline, Mapping):
        known = dict(baseline)
        missing = [name for name in sets if name not in known]
        return {n: known[n] for n in sets if n in known}, _missing(missing, "the baseline")
    if baseline is None:
        if classes != IMAGENET_CLASSES:
            return {}, []
        plain = {_plain(name): line for name, line in IMAGENET_LINES.items()}
        return {name: plain[_plain(name)] for name in sets if _plain(name) in plain}, []
    path = Path(baseline)
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"can't read the baseline {path}: {error}") from None
    columns = list(rows[0]) if rows else []
    own = next((name for name in (id_name, "id") if name in columns), None)
    if own is None:
        raise ValueError(
            f"the baseline {path} has the columns {columns}; it needs {id_name!r} or 'id', and "
            "one for each OOD set"
        )
    lines = {}
    for name in sets:
        if name in columns:
            try:
                both = [[float(row[column]) for row in rows] for column in (own, name)]
            except (TypeError, ValueError):
                raise ValueError(
                    f"the baseline {path} has values that are not numbers under {own!r} or {name!r}"
                ) from None
            x, y = torch.tensor(both, dtype=torch.float64)
            lines[name] = fit_line(x, y)
    return lines, _missing([name for name in sets if name not in lines], path.name)


def _missing(missing: Sequence[str], where: str) -> list[str]:
    return [f"No effective robustness on {name!r}: {where} has no such set." for name in missing]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
