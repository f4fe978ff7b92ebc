"""Features of two sets of examples, one layer of a network after the other.

Probes compare queries with a labeled support. Only as many layers as fit in a given memory are read
at a time; each group of layers costs one forward pass over both sets.
"""

from collections.abc import Collection, Iterable, Iterator
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
"""Names of the first and the last probe."""
MEMORY = 2**29
"""Bytes of features that are held at a time; one layer may need more."""


class Layer(NamedTuple):
    """Features of both sets at one probe."""

    name: str
    support: Tensor
    """(support, neurons)"""
    queries: Tensor
    """(queries, neurons)"""


def over_grid(
    maps: Float[Tensor, "batch neurons ..."], side: int = 8
) -> Float[Tensor, "batch cells"]:
    """Average maps over a grid of at most `side` x `side` cells and flatten them.

    Vectors and smaller maps keep all values.

    Args:
        maps: Outputs of a layer, channels first.
        side: Maximum number of cells along each side.

    Raises:
        ValueError: If the output has three axes, like a sequence of tokens.

    Source: ours, the grid of the published code.

    >>> over_grid(torch.arange(16.0).view(1, 1, 4, 4), side=2).tolist()
    [[2.5, 4.5, 10.5, 12.5]]
    """
    if maps.ndim == 3:
        raise ValueError(
            f"an output of shape {tuple(maps.shape)} looks like a sequence of tokens with neurons "
            "last; read it with over_tokens"
        )
    if maps.ndim == 4 and max(maps.shape[2:]) > side:
        rows, columns = (min(side, length) for length in maps.shape[2:])
        maps = F.adaptive_avg_pool2d(maps, (rows, columns))
    return maps.flatten(1)


def reading_name(reduce: Reading) -> str:
    """Return the name of a reading with its settings.

    >>> reading_name(partial(over_grid, side=4))
    'over_grid(side=4)'
    """
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
    memory: int = MEMORY,
) -> Iterator[Layer]:
    """Yield the features of each probe: the input, the layers in order, and the softmax.

    Args:
        model: Network.
        support: Labeled examples.
        queries: Examples to compare with the support.
        layers: Names of the layers, or "auto" for all activations.
        rows: Indices of the support examples to use, in increasing order.
        reduce: Reading of input and layers.
        ends: Whether input and softmax are probes, too.
        batch_size: Examples of a forward pass.
        memory: Bytes of features that are held at a time. One pass reads as many layers as fit,
            and at least one.

    Raises:
        ValueError: If a set is empty, a layer is named twice, or as for `observe`.

    Source: ours, since all layers of all examples rarely fit in memory.

    >>> data = torch.ones(3, 4), torch.tensor([0, 1, 0])
    >>> model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> [(layer.name, layer.queries.shape[1]) for layer in layerwise(model, data, data)]
    [('input', 4), ('1', 5), ('softmax', 2)]
    """
    support, queries = as_domain(support), as_domain(queries)
    if not len(support) or not len(queries):
        raise ValueError(f"expected examples in both sets, got {len(support)} and {len(queries)}")
    if isinstance(layers, str):
        layers = _auto(model, queries, layers)
    if len(set(layers)) < len(layers):
        raise ValueError(f"a layer is named twice in {list(layers)}")
    probes = [(name, False) for name in layers]
    if ends:
        probes = [(INPUT, True), *probes, (OUTPUT, True)]
    everything = torch.arange(len(support)) if rows is None else rows
    one = _features(model, [next(queries.batches(1))], 1, group=probes, reduce=reduce)
    sizes = [(len(everything) + len(queries)) * row.nbytes for row in one]
    for group in _groups(probes, sizes, memory):
        read = partial(_features, model, group=group, reduce=reduce)
        both = (
            read(_picked(support, everything, batch_size), len(everything)),
            read(queries.batches(batch_size), len(queries)),
        )
        for (name, _), known, asked in zip(group, *both, strict=True):
            yield Layer(name, known, asked)


def _groups(
    probes: list[tuple[str, bool]], sizes: list[int], memory: int
) -> Iterator[list[tuple[str, bool]]]:
    """Yield consecutive probes whose bytes fit in the memory, or a single one."""
    group, used = [], 0
    for probe, size in zip(probes, sizes, strict=True):
        if group and used + size > memory:
            yield group
            group, used = [], 0
        group, used = [*group, probe], used + size
    if group:
        yield group


def predictions(model: nn.Module, data: Any, *, batch_size: int = 256) -> Int[Tensor, " examples"]:
    """Return the predicted class of every example, in order.

    >>> data = torch.eye(2), torch.tensor([0, 1])
    >>> predictions(nn.Identity(), data).tolist()
    [0, 1]
    """
    observations = observe(model, data, layers=(), batch_size=batch_size)
    return torch.cat([one.logits.argmax(dim=1).cpu() for one in observations])


def _auto(model: nn.Module, domain: Domain, asked: str) -> list[str]:
    if asked != "auto":
        raise ValueError(
            f"layers must be a list of names or 'auto'; for one layer give [{asked!r}]"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return layers_of(model, next(domain.batches(1)).x.to(device))


def _features(
    model: nn.Module,
    batches: Iterable[Batch],
    count: int,
    *,
    group: list[tuple[str, bool]],
    reduce: Reading,
) -> list[Tensor]:
    """Return features of shape (count, neurons) for each probe of a group."""
    features: list[Tensor] = []
    done = 0
    inside = [name for name, is_end in group if not is_end]
    for observation in observe(model, batches, inside, reduce):
        parts = [
            _of(observation, name, reduce) if is_end else observation.layers[name]
            for name, is_end in group
        ]
        if not features:
            features = [part.new_empty(count, part.shape[1]) for part in parts]
        for whole, part in zip(features, parts, strict=True):
            whole[done : done + len(part)] = part
        done += len(parts[0])
    return features


def _of(observation: Observation, end: str, reduce: Reading) -> Tensor:
    return reduce(observation.batch.x) if end == INPUT else observation.logits.softmax(dim=1)


def _picked(domain: Domain, rows: Tensor, size: int) -> Iterator[Batch]:
    """Yield the examples of these rows, in order."""
    wanted = torch.zeros(len(domain), dtype=torch.bool)
    wanted[rows] = True
    done = 0
    for batch in domain.batches(size):
        here = wanted[done : done + len(batch.y)]
        done += len(batch.y)
        if here.any():
            yield batch.pick(here)
