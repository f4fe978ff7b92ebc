"""What a watch looks at: a few examples of each class, the same ones at every look.

They are drawn once, before training. Reading them leaves every random state as it was found, those
of a loader and of Python's and NumPy's own generators, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from contam.batch import Batch, Domain, Shift
from contam.rng import generator_for, preserve_rng

Data = Shift | Domain | Dataset[Any] | Iterable[Any]
"""A shift, a domain, a data set, a loader, or (inputs, labels) and (inputs, labels, domains)."""

INPUTS = ("x", "pixel_values", "image", "images", "img", "input", "inputs")
LABELS = ("y", "labels", "label", "target", "targets")
MOST_CLASSES = 20
"""Classes that are watched; of more, so many are drawn."""
SUPPORT = 200
"""Examples on each side, unless the user says how many of each class."""
READ = 2000
"""Examples that are read at most of what doesn't say its labels beforehand."""


class Answers(nn.Module):
    """A network as measures take it: a tensor goes in, the logits of the watched classes come out.

    It shares the network's modules and changes none. Layers are called `model.` and their names.

    Source: ours, since networks answer in records and in half precision, too.
    """

    def __init__(self, model: nn.Module, classes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.classes = None if classes is None else torch.tensor(classes)

    def forward(self, x: Tensor) -> Tensor:
        weights = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if weights is not None and x.is_floating_point():
            x = x.to(weights.dtype)
        answer = self.model(x)
        if isinstance(answer, Mapping):
            answer = answer.get("logits")
        answer = getattr(answer, "logits", answer)
        if isinstance(answer, tuple | list) and answer:
            answer = answer[0]
        if not isinstance(answer, Tensor) or answer.ndim != 2:
            told = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(
                f"want a network that answers with logits (batch, classes), or a record of them as "
                f"'logits'; this {type(self.model).__name__} answers with {told}"
            )
        answer = answer.float()
        return answer if self.classes is None else answer[:, self.classes.to(answer.device)]


def bare(model: nn.Module) -> nn.Module:
    """The network inside what parallel training and compiling wrap around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True, eq=False)
class Examples:
    """What is looked at; classes are numbered anew, from 0."""

    support: Domain
    """As many of each class: neighbors are looked up here."""
    queries: Domain
    others: tuple[Domain, ...]
    """The same classes elsewhere."""
    classes: tuple[int, ...]
    """The watched classes, by the numbers that the user's labels have."""
    left_out: tuple[str, ...]
    """What could not be had, a line each."""

    @property
    def per_class(self) -> int:
        """Examples of each class in the support."""
        return len(self.support) // len(self.classes)


def choose(
    data: Data,
    queries: Data | None,
    others: Mapping[str, Data],
    *,
    outputs: int,
    per_class: int | None,
    seed: int,
) -> Examples:
    """Draw the examples: half of `data` is asked about where there are no `queries`.

    Source: ours.

    Raises:
        ValueError: labels that the network has no output for, fewer than two classes with enough
            examples, or data that can't be read.
    """
    if isinstance(data, Shift):
        if queries is None:
            queries = data.id_test if data.id_val is None else data.id_val
        pools = data.train
    else:
        pools = (_domain(data, "training"),)
    y = _labels(pools, outputs)
    counts = torch.bincount(y, minlength=outputs)
    if queries is None:
        asked, counts, share = pools, counts // 2, 0.5
    else:
        asked, share = (_domain(queries, "queries"),), 1.0
        counts = counts.minimum(torch.bincount(_labels(asked, outputs), minlength=outputs))
    enough = (counts >= 2).nonzero().flatten()
    if len(enough) < 2:
        raise ValueError(
            f"want two classes or more with 2 examples for the support and 2 to ask about; of "
            f"{len(y)} examples read, {len(enough)} have them: give more data"
        )
    left_out = []
    scarce = sorted(set(y.tolist()) - set(enough.tolist()))
    if scarce:
        left_out.append(f"classes {_few(scarce)}: fewer than 2 examples on a side")
    if len(enough) > MOST_CLASSES:
        drawn = torch.randperm(len(enough), generator=generator_for(seed, "watch/classes"))
        left_out.append(f"{len(enough) - MOST_CLASSES} of {len(enough)} classes, drawn at random")
        enough = enough[drawn[:MOST_CLASSES]].sort().values
    size = min(per_class or max(2, SUPPORT // len(enough)), int(counts[enough].min()))
    classes = tuple(enough.tolist())
    support = _draw("support", pools, classes, size, seed, part=(0.0, share))
    shown = _draw("queries", asked, classes, size, seed, part=(1 - share, 1.0))
    elsewhere = []
    for name, other in others.items():
        here = (_domain(other, name),)
        missing = sorted(set(classes) - set(_labels(here, outputs).tolist()))
        if missing:
            left_out.append(f"{name!r}: no example of classes {_few(missing)}")
        else:
            elsewhere.append(_draw(name, here, classes, size, seed))
    return Examples(support, shown, tuple(elsewhere), classes, tuple(left_out))


def first(data: Data) -> Tensor:
    """One input, as a batch.

    Source: ours, to find out what the network answers with.

    Raises:
        ValueError: there is none, or the data can't be read.
    """
    pool = data.train[0] if isinstance(data, Shift) else _domain(data, "training", read=1)
    if not len(pool):
        raise ValueError(f"{pool.name!r} has no examples")
    return next(pool.batches(1)).x[:1]


def _domain(data: Data, name: str, read: int = READ) -> Domain:
    if isinstance(data, Domain):
        return data
    if isinstance(data, Shift):
        raise ValueError(f"{name!r} is a shift; give one of its domains")
    if isinstance(data, Iterator):
        raise ValueError(
            f"{name!r} is an iterator, which looking at it would use up; give the loader, or a "
            "list of its batches"
        )
    if isinstance(data, tuple | list) and data and isinstance(data[0], Tensor):
        return Domain(name, _batch(data))
    with preserve_rng(data):
        found, count = [], 0
        for batch in _batches(data, read):
            found.append(_batch(batch))
            count += len(found[-1].y)
            if count >= read:
                break
    if not found:
        raise ValueError(f"{name!r} has no examples")
    return Domain(name, Batch(*(torch.cat(parts) for parts in zip(*found, strict=True))))


def _batches(data: Any, read: int) -> Iterable[Any]:
    if not isinstance(data, Dataset) and not hasattr(data, "features"):
        return data
    whole: Any = data
    if not isinstance(data, IterableDataset):
        # Files often lie sorted by class, so the first ones would be of one class.
        count = len(whole)
        rows = np.linspace(0, count - 1, min(read, count)).round().astype(int).tolist()
        whole = Subset(whole, rows)
    return DataLoader(whole, batch_size=64)


def _batch(batch: Any) -> Batch:
    """The inputs, labels and domains in what a loader gives."""
    domain = None
    if isinstance(batch, Mapping):
        x, y = (next((batch[k] for k in keys if k in batch), None) for keys in (INPUTS, LABELS))
        if x is None or y is None:
            raise ValueError(
                f"a batch has {_few(sorted(map(str, batch)))}; want inputs under one of "
                f"{list(INPUTS)} and labels under one of {list(LABELS)}"
            )
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        x, y, *more = batch
        domain = more[0] if more else None
    else:
        raise ValueError(
            f"a batch is (inputs, labels), with more behind them, or a dict; got a "
            f"{type(batch).__name__}"
        )
    y = torch.as_tensor(y).detach().cpu()
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if not isinstance(x, Tensor) or y.ndim != 1 or y.is_floating_point() or len(x) != len(y):
        told = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"want a tensor of inputs and a class number for each; got {told} and labels of shape "
            f"{tuple(y.shape)}, {str(y.dtype).removeprefix('torch.')}"
        )
    # What comes third names domains only if it is a whole number for each example.
    named = isinstance(domain, Tensor) and domain.shape == y.shape
    if not named or domain is None or domain.is_floating_point():
        domain = torch.zeros_like(y)
    return Batch(x.detach().cpu(), y.long(), domain.detach().cpu().long())


def _labels(pools: Sequence[Domain], outputs: int) -> Tensor:
    y = torch.cat([pool.y.cpu() for pool in pools])
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < outputs:
        raise ValueError(
            f"labels {int(y.min())}..{int(y.max())} in {pools[0].name!r} don't fit a network that "
            f"answers with {outputs} numbers; want 0..{outputs - 1}"
        )
    return y


def _draw(
    name: str,
    pools: Sequence[Domain],
    classes: Sequence[int],
    size: int,
    seed: int,
    *,
    part: tuple[float, float] = (0.0, 1.0),
) -> Domain:
    """At most `size` of each class, out of the given part of a shuffled order."""
    y = torch.cat([pool.y.cpu() for pool in pools])
    rows = []
    for c in classes:
        members = (y == c).nonzero().flatten()
        generator = generator_for(seed, f"watch/class {c}")
        members = members[torch.randperm(len(members), generator=generator)]
        begin, end = (round(edge * len(members)) for edge in part)
        rows.append(members[begin:end][:size])
    wanted, found, start = torch.cat(rows).sort().values, [], 0
    for pool in pools:
        own = wanted[(wanted >= start) & (wanted < start + len(pool))] - start
        start += len(pool)
        if len(own):
            found += pool.fetch([(own, torch.zeros_like(own))])
    batch = Batch(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))
    anew = torch.full((max(classes) + 1,), -1)
    anew[torch.tensor(classes)] = torch.arange(len(classes))
    return Domain(name, batch._replace(y=anew[batch.y]))


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(map(str, items[:5]))
    return f"{shown}, ..." if len(items) > 5 else shown
