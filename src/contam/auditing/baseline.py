"""Lines of standard models, the baseline of effective robustness."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from contam.measures.robustness import IMAGENET_LINES, Line
from contam.measures.standard_models import read_models

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
        baseline: a CSV table of standard models, which
            `contam.measures.standard_models.read_models` reads, with one column for the ID set,
            under its name or `id`, and one for each OOD set, under its name; or fitted lines by
            name of the set. None selects our ImageNet lines for a network of 1000 classes.
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
    table = read_models(baseline)
    own = next((name for name in (id_name, "id") if name in table.columns), None)
    if own is None:
        raise ValueError(
            f"the baseline {baseline} has the columns {[*table.columns]}; it needs {id_name!r} or "
            "'id', and one for each OOD set"
        )
    lines = {name: table.line(own, name) for name in sets if name in table.columns}
    return lines, _missing([name for name in sets if name not in lines], table.name)


def _missing(missing: Sequence[str], where: str) -> list[str]:
    return [f"No effective robustness on {name!r}: {where} has no such set." for name in missing]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
