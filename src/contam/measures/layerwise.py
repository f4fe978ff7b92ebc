"""What the layers of a network make of two sets of examples, one layer after the other.

Probes look from queries into a labeled support. No more than a few layers are held at a time, at
the price of one forward pass for each few.
"""

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.inputs import as_domain
from contam.models.observe import Observation, layers_of, observe
from contam.models.readings import Reading

INPUT, OUTPUT = "input", "softmax"
"""The names of the first and of the last probe."""


class Layer(NamedTuple):
    """One probe's features of both sets."""

    name: str
    support: Tensor
    """(support, neurons)"""
    queries: Tensor
    """(queries, neurons)"""


def over_grid(
    maps: Float[Tensor, "batch neurons ..."], side: int = 8
) -> Float[Tensor, "batch cells"]:
    """Maps with their channels first, averaged over at most `side` x `side` cells, then flattened.

    Vectors, and maps that are no larger, keep every number.

    Source: ours, as small a grid as the published code reads.

    Raises:
        ValueError: three axes, which is how a sequence of tokens comes, with its neurons last.
    """
    if maps.ndim == 3:
        raise ValueError(
            f"an output of shape {tuple(maps.shape)} looks like a sequence of tokens, neurons "
            "last; read it with over_tokens"
        )
    if maps.ndim == 4 and max(maps.shape[2:]) > side:
        rows, columns = (min(side, length) for length in maps.shape[2:])
        maps = F.adaptive_avg_pool2d(maps, (rows, columns))
    return maps.flatten(1)


def reading_name(reduce: Reading) -> str:
    """A reading as a result names it, such as `over_grid(side=4)`."""
    if isinstance(reduce, partial):
        given = [*map(repr, reduce.args), *(f"{k}={v!r}" for k, v in reduce.keywords.items())]
        return f"{reduce.func.__name__}({', '.join(given)})"
    return getattr(reduce, "__name__", type(reduce).__name__)


def layerwise(
    model: nn.Module,
    support: Any,
    queries: Any,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    rows: Int[Tensor, " picked"] | None = None,
    reduce: Reading = over_grid,
    ends: bool = True,
    batch_size: int = 256,
    at_once: int = 1,
) -> Iterator[Layer]:
    """Every probe's features: the input, the layers in the order given, the network's softmax.

    Input and layers are read by `reduce`. `rows` picks examples of the support, in rising order;
    `ends=False` leaves out input and softmax. Each pass over the data reads `at_once` probes, and
    so many are held.

    Source: ours, since all layers of all examples rarely fit in memory.

    Raises:
        ValueError: nothing to show, a layer named twice, or what `observe` refuses.
    """
    support, queries = as_domain(support), as_domain(queries)
    if at_once < 1 or not len(support) or not len(queries):
        raise ValueError(
            f"want examples on both sides and at least 1 probe at once, not {len(support)}, "
            f"{len(queries)} and {at_once}"
        )
    if isinstance(layers, str):
        layers = _auto(model, queries, layers)
    if len(set(layers)) < len(layers):
        raise ValueError(f"each layer is a probe once, not {list(layers)}")
    probes = [(name, False) for name in layers]
    if ends:
        probes = [(INPUT, True), *probes, (OUTPUT, True)]
    everything = torch.arange(len(support)) if rows is None else rows
    for start in range(0, len(probes), at_once):
        group = probes[start : start + at_once]
        read = partial(_features, model, group=group, reduce=reduce, size=batch_size)
        both = read(support, rows=everything), read(queries, rows=torch.arange(len(queries)))
        for (name, _), known, asked in zip(group, *both, strict=True):
            yield Layer(name, known, asked)


def predictions(model: nn.Module, data: Any, *, batch_size: int = 256) -> Int[Tensor, " examples"]:
    """The class of the largest logit for every example, in order."""
    seen = observe(model, data, layers=(), batch_size=batch_size)
    return torch.cat([one.logits.argmax(dim=1).cpu() for one in seen])


def _auto(model: nn.Module, domain: Domain, asked: str) -> list[str]:
    if asked != "auto":
        raise ValueError(f"layers is a list of names, or 'auto'; for one layer give [{asked!r}]")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return layers_of(model, next(domain.batches(1)).x.to(device))


def _features(
    model: nn.Module,
    domain: Domain,
    *,
    rows: Tensor,
    group: list[tuple[str, bool]],
    reduce: Reading,
    size: int,
) -> list[Tensor]:
    """(rows, neurons) for each probe of a group."""
    found: list[Tensor] = []
    done = 0
    inside = [name for name, is_end in group if not is_end]
    for seen in observe(model, _picked(domain, rows, size), inside, reduce):
        parts = [_of(seen, name, reduce) if is_end else seen.layers[name] for name, is_end in group]
        if not found:
            found = [part.new_empty(len(rows), part.shape[1]) for part in parts]
        for whole, part in zip(found, parts, strict=True):
            whole[done : done + len(part)] = part
        done += len(parts[0])
    return found


def _of(seen: Observation, end: str, reduce: Reading) -> Tensor:
    return reduce(seen.batch.x) if end == INPUT else seen.logits.softmax(dim=1)


def _picked(domain: Domain, rows: Tensor, size: int) -> Iterator[Batch]:
    """The examples of these rows, in order; the others are not shown to the network."""
    wanted = torch.zeros(len(domain), dtype=torch.bool)
    wanted[rows] = True
    done = 0
    for batch in domain.batches(size):
        here = wanted[done : done + len(batch.y)]
        done += len(batch.y)
        if here.any():
            yield batch.pick(here)
