"""Common class names, domain indices and pixel ranges of several sets."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contam.inputs.parts import listed, numbered, some_of
from contam.inputs.pixel_range import PixelRange, measured_pixel_range, pixel_range_of
from contam.inputs.tables import RawSet

UNLABELED = "; -1 often marks examples without a label, so leave them out"
"""Hint for labels of -1."""
MOST_VALUES = 50
"""Maximum number of values of a metadata column whose values have accuracies of their own."""
FEWEST = 8
"""Number of examples from which metadata can be found to differ on almost every example."""


def class_names(sets: Sequence[RawSet], given: Sequence[str] | None, width: int) -> list[str]:
    """Return the class names in the order of the logits.

    Args:
        sets: the sets, with the ID set first.
        given: the user's names; by default those of the ID set, or numbers.
        width: number of logits.

    Returns:
        One name for each logit.

    Raises:
        ValueError: the numbers of classes and logits differ, or a name occurs twice.

    >>> from contam.inputs.forms import Options, read_raw
    >>> raw = read_raw("ID", (torch.zeros(2, 3), ["dog", "cat"]), "ID", Options())
    >>> class_names([raw], None, 2)
    ['cat', 'dog']
    """
    first = sets[0]
    names = given or first.classes
    if names is None and not isinstance(first.y, Tensor):
        names = sorted(set(first.y))
    classes = [str(i) for i in range(width)] if names is None else list(map(str, names))
    if len(classes) != width:
        raise ValueError(
            f"the data have {len(classes)} classes ({some_of(classes)}), and the network gives "
            f"{width} logits; give classes= with a name for each logit, in their order"
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(
            f"the class {twice!r} is there twice; expected {len(classes)} different names"
        )
    return classes


def labeled(raw: RawSet, classes: Sequence[str], *, renamed: bool = False) -> Tensor:
    """Convert the labels of a set to indices of `classes`.

    Labels are matched by name if the class names of the set are among `classes`.

    Args:
        raw: the set.
        classes: names in the order of the logits.
        renamed: whether `classes` are new names of the set's classes, in the same order.

    Returns:
        (n,) class indices.

    Raises:
        ValueError: a label is none of the classes.

    >>> from contam.inputs.forms import Options, read_raw
    >>> raw = read_raw("ID", (torch.zeros(2, 3), ["dog", "cat"]), "ID", Options())
    >>> labeled(raw, ["ant", "cat", "dog"]).tolist()
    [2, 1]
    """
    y, own = raw.y, raw.classes
    if isinstance(y, Tensor) and own is not None and list(own) != list(classes):
        unknown = sorted(set(own) - set(classes))
        if not unknown:
            y = [own[i] for i in _within(raw, y, own).tolist()]
        elif not (renamed and len(own) == len(classes)):
            raise ValueError(
                f"{raw.name!r} has the class {unknown[0]!r}, which is none of the "
                f"{len(classes)} classes {some_of(classes)}; all sets need one list of classes"
            )
    if not isinstance(y, Tensor):
        try:
            y, _ = numbered(y, classes)
        except ValueError as error:
            raise ValueError(f"{raw.name!r}: the label {error}; all sets need one list") from None
    return _within(raw, y, classes)


def _within(raw: RawSet, y: Tensor, classes: Sequence[str]) -> Tensor:
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(classes):
        raise ValueError(
            f"{raw.name!r} has labels {low}..{high}, and there are {len(classes)} classes, "
            f"numbered from 0{UNLABELED if low == -1 else ''}"
        )
    return y


def choose_domain(raw: RawSet, wanted: str | int | None, *, declared: bool = False) -> None:
    """Make one column of a set's metadata its domain, and note what was chosen.

    By default, this is the first column with several values that are neither different on almost
    every example (such as paths) nor the labels.

    Args:
        raw: the set; `origin` and `remarks` are changed.
        wanted: name or number of the column; None for the default.
        declared: whether the metadata are known to be domains.

    Raises:
        ValueError: there is no such column.

    >>> from contam.inputs.forms import Options, read_raw
    >>> columns = torch.tensor([[0, 5], [1, 5]])
    >>> raw = read_raw("ID", (torch.zeros(2, 3), [0, 0], columns), "ID", Options())
    >>> choose_domain(raw, 1)
    >>> raw.origin.tolist()
    [5, 5]
    """
    columns = raw.groupings
    names = list(columns)
    if wanted is not None:
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            wanted = names[wanted]
        # The key of a dict was resolved when the set was read, and leaves a column without a name.
        key = "" if names == [""] and isinstance(wanted, str) else wanted
        if key not in columns:
            raise ValueError(
                f"{raw.name!r} has no metadata column {wanted!r} for domain=; "
                + (f"choose from {names}" if names else "its examples have no metadata")
            )
        raw.origin, raw.domain_column = columns[str(key)], str(key)
        return
    raw.origin, unique, others, chosen = None, [], [], ""
    for name, column in columns.items():
        count = len(set(listed(column)))
        if not declared and _nearly_unique(column):
            unique.append(name)
        elif raw.origin is None and count > 1 and (declared or not _same(column, raw.y)):
            raw.origin = column
            chosen = name
        else:
            others.append(name)
    if raw.origin is None and others:
        chosen = others[0]
        raw.origin = columns[chosen]
    raw.domain_column = chosen
    if unique:
        named = f"columns {some_of(unique)} of the " if any(unique) else ""
        raw.remarks.append(
            f"No domains are taken from the {named}metadata of {raw.name!r}, because they have "
            "another value for almost every example."
        )
    if len(columns) > 1 and raw.origin is not None:
        raw.remarks.append(
            f"The metadata of {raw.name!r} have the columns {some_of(names)}; {chosen!r} is the "
            "domain. Choose another with domain=."
        )


def group_columns(raw: RawSet) -> dict[str, list[str]]:
    """Return the columns of a set's metadata, other than the domain, that group its examples.

    A column is usable if it has at most `MOST_VALUES` values, more than one of them, and does not
    make the same groups as the labels, the domain or an earlier column.

    Args:
        raw: the set; `remarks` gets a sentence about columns with too many values.

    Returns:
        The value of each example as text, by column.

    >>> from contam.inputs.forms import Options, read_raw
    >>> columns = torch.tensor([[0, 5, 1], [1, 5, 1], [0, 6, 1]])
    >>> raw = read_raw("ID", (torch.zeros(3, 2), [0, 1, 1], columns), "ID", Options())
    >>> group_columns(raw)
    {'column 1': ['5', '5', '6']}
    """
    known = [listed(raw.y)] + ([] if raw.origin is None else [listed(raw.origin)])
    groups: dict[str, list[str]] = {}
    too_many: list[str] = []
    for name, column in raw.groupings.items():
        values = listed(column)
        count = len(set(values))
        if count < 2 or name == raw.domain_column or _nearly_unique(column):
            continue
        if count > MOST_VALUES:
            too_many.append(name)
        elif not any(_same_groups(values, others) for others in known):
            known.append(values)
            groups[column_title(name)] = [str(value) or "(none)" for value in values]
    if too_many:
        raw.remarks.append(
            f"The columns {some_of(too_many)} of {raw.name!r} have more than {MOST_VALUES} values, "
            "so there are no accuracies by their values."
        )
    return groups


def column_title(name: str) -> str:
    """Return the name of a metadata column for readers; a number becomes `column 0`.

    >>> column_title("0"), column_title("site")
    ('column 0', 'site')
    """
    return f"column {name}" if name.isdecimal() else name


def _nearly_unique(column: Tensor | list[str]) -> bool:
    """Whether almost every example has another value."""
    return len(column) >= FEWEST and len(set(listed(column))) > len(column) / 2


def _same_groups(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two columns group the examples in the same way."""
    return len(set(first)) == len(set(second)) == len(set(zip(first, second, strict=True)))


def _same(column: Tensor | list[str], y: Tensor | list[str]) -> bool:
    return listed(column) == listed(y)


def origins(sets: Sequence[RawSet]) -> tuple[list[Tensor], tuple[str, ...]]:
    """Index the domains of several sets consistently.

    Args:
        sets: the sets; a set without domains is one domain.

    Returns:
        (n,) domain indices for each set, and the names of the domains; no names if the domains of
        all sets are indices.

    >>> from contam.inputs.forms import Options, read_raw
    >>> x, y = torch.zeros(2, 3), [0, 1]
    >>> raw = [read_raw(name, (x, y), name, Options()) for name in ("ID", "OOD")]
    >>> [index.tolist() for index in origins(raw)[0]]
    [[0, 0], [1, 1]]
    """
    if not any(isinstance(raw.origin, list) for raw in sets):
        return [
            torch.full((len(raw),), place) if raw.origin is None else torch.as_tensor(raw.origin)
            for place, raw in enumerate(sets)
        ], ()
    columns = [
        [raw.name] * len(raw) if raw.origin is None else [str(o) for o in listed(raw.origin)]
        for raw in sets
    ]
    names = tuple(dict.fromkeys(name for column in columns for name in column))
    return [numbered(column, names)[0] for column in columns], names


def shared_pixel_range(sets: Sequence[RawSet]) -> PixelRange | None:
    """Return the values of black and white in these sets, from a transform or as measured.

    Args:
        sets: the sets.

    Returns:
        The common pixel range; None if the inputs are not images.

    >>> from contam.inputs.forms import Options, read_raw
    >>> raw = read_raw("ID", (torch.rand(2, 3, 4, 4), [0, 1]), "ID", Options())
    >>> shared_pixel_range([raw]).is_unit
    True
    """
    shapes = {raw.shape for raw in sets}
    if any(len(shape) != 3 or shape[0] not in (1, 3) for shape in shapes):
        return None
    known = [pixel_range_of(raw.transform) for raw in sets if raw.transform is not None]
    known = [values for values in known if values is not None and len(values.low) in (1, 3)]
    if known:
        return known[0]
    lows = [raw.low for raw in sets if raw.low is not None]
    highs = [raw.high for raw in sets if raw.high is not None]
    if len(lows) < len(sets) or len({len(low) for low in lows}) > 1:
        return None
    low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    # A constant channel gets the range of the others.
    constant = high <= low
    return measured_pixel_range(
        torch.where(constant, low.min(), low), torch.where(constant, high.max(), high)
    )
