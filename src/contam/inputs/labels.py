"""Which class, which domain and which color a number means, alike in all sets of an audit."""

from collections.abc import Sequence

import torch
from torch import Tensor

from contam.inputs.parts import listed, numbered, some_of
from contam.inputs.pixel_range import PixelRange, measured_span, span_of
from contam.inputs.reading import Table


def class_names(tables: Sequence[Table], given: Sequence[str] | None, width: int) -> list[str]:
    """The classes in the order of the logits: as given, as the ID data say, or numbers.

    Raises:
        ValueError: they are not as many as the network's logits.
    """
    first = tables[0]
    names = given or first.classes
    if names is None and not isinstance(first.y, Tensor):
        names = sorted(set(first.y))
    found = [str(i) for i in range(width)] if names is None else list(map(str, names))
    if len(found) != width:
        raise ValueError(
            f"the data have {len(found)} classes ({some_of(found)}), and the network gives {width} "
            "logits; give classes= with a name for each logit, in their order"
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"the class {twice!r} is there twice; want {len(found)} different names")
    return found


def labeled(table: Table, classes: Sequence[str], *, renamed: bool = False) -> Tensor:
    """Labels by the numbers of `classes`.

    A set whose own class names are among them is numbered by name. `renamed` says that they are
    the user's names for what the set calls otherwise, in the same order.

    Raises:
        ValueError: labels that are no class.
    """
    y, own = table.y, table.classes
    if isinstance(y, Tensor) and own is not None and list(own) != list(classes):
        strange = sorted(set(own) - set(classes))
        if not strange:
            y = [own[i] for i in _within(table, y, own).tolist()]
        elif not (renamed and len(own) == len(classes)):
            raise ValueError(
                f"{table.name!r} has the class {strange[0]!r}, which is none of the "
                f"{len(classes)} classes {some_of(classes)}; all sets need one list of classes"
            )
    if not isinstance(y, Tensor):
        try:
            y, _ = numbered(y, classes)
        except ValueError as error:
            raise ValueError(f"{table.name!r}: the label {error}; all sets need one list") from None
    return _within(table, y, classes)


def _within(table: Table, y: Tensor, classes: Sequence[str]) -> Tensor:
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(classes):
        raise ValueError(
            f"{table.name!r} has labels {low}..{high}, and there are {len(classes)} classes, "
            "numbered from 0"
        )
    return y


def origins(tables: Sequence[Table]) -> tuple[list[Tensor], tuple[str, ...]]:
    """Each example's domain by number, set by set, and the domains' names where there are some.

    A set without domains is one domain.
    """
    if not any(isinstance(table.origin, list) for table in tables):
        return [
            torch.full((len(t),), place) if t.origin is None else torch.as_tensor(t.origin)
            for place, t in enumerate(tables)
        ], ()
    told = []
    for table in tables:
        if table.origin is None:
            told.append([table.name] * len(table))
        else:
            told.append([str(o) for o in listed(table.origin)])
    names = tuple(dict.fromkeys(name for column in told for name in column))
    return [numbered(column, names)[0] for column in told], names


def common_span(tables: Sequence[Table]) -> PixelRange | None:
    """What black and white are in these data: as a transform says, or as their values tell."""
    shapes = {table.shape for table in tables}
    if any(len(shape) != 3 or shape[0] not in (1, 3) for shape in shapes):
        return None
    known = [span_of(t.transform) for t in tables if t.transform is not None]
    known = [span for span in known if span is not None and len(span.low) in (1, 3)]
    if known:
        return known[0]
    lows = [t.low for t in tables if t.low is not None]
    highs = [t.high for t in tables if t.high is not None]
    if len(lows) < len(tables) or len({len(low) for low in lows}) > 1:
        return None
    low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    # A channel that never changes has the range of the others.
    still = high <= low
    return measured_span(torch.where(still, low.min(), low), torch.where(still, high.max(), high))
