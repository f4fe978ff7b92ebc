"""One pass over a data set for everything that an audit asks of it: answers, tables and features.

A pass keeps a table for each layer, whatever the number of examples, and the features of the few
examples that were asked for. So accuracy, class profiles, coupling, probes and neighbors cost one
look at each example.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.auditing.audit_inputs import Sample
from contam.batch import Batch, Domain
from contam.measures.class_means import ClassMeans, rank_within_class
from contam.measures.selectivity import selectivity
from contam.models.observe import Observation, layers_of, observe
from contam.rng import generator_for

PARTS = 10
"""Groups of examples whose tables are kept apart: what the intervals are made of."""
FEWEST = 4
"""Groups where tables are large."""
ENTRIES = 2**26
"""Numbers in the tables of one pass, from which on there are fewer groups."""

MOST = 2**28
"""Numbers in the tables of one pass, from which on domains have none of their own."""


@dataclass(frozen=True, eq=False)
class Table:
    """Class means and firing rates of a layer, accumulated over batches."""

    means: ClassMeans
    """Mean activations, in the network's units."""
    fires: Float[Tensor, "classes neurons"]
    """Summed shares of positions at which the neuron is positive."""

    @property
    def neurons(self) -> int:
        return self.fires.shape[1]

    @property
    def finite(self) -> bool:
        """Whether no activation was infinite or not a number."""
        return bool(self.means.squares.isfinite().all())

    def pooled(self) -> "Table":
        """Return the same examples in one part and one domain."""
        return Table(self.means.pooled(), self.fires.clone())

    def merge(self, other: "Table") -> "Table":
        """Add the examples of another table."""
        self.means.merge(other.means)
        self.fires.add_(other.fires)
        return self

    @property
    def selectivity(self) -> Float[Tensor, " neurons"]:
        """Eq. 61 on the classes that have examples; nan for fewer than two.

        Negative means count as zero, without which the ratio has a pole for GELU neurons.
        """
        present = self.means.counts > 0
        means = self.means.sums[present] / self.means.counts[present][:, None]
        if len(means) < 2:
            return means.new_full(means.shape[1:], torch.nan)
        return selectivity(means.clamp(min=0))

    @property
    def rate(self) -> Float[Tensor, " neurons"]:
        """Share of positions, over all examples, at which each neuron is positive."""
        return self.fires.sum(dim=0) / self.means.counts.sum()


@dataclass(eq=False)
class Look:
    """What a pass found. Rows of tensors are the examples that were shown, in their order."""

    y: Int[Tensor, " shown"]
    predicted: Int[Tensor, " shown"]
    domain: Int[Tensor, " shown"]
    loss: Float[Tensor, " shown"]
    """Cross-entropy in nats; nan where logits are not finite."""
    counts: Int[Tensor, "domains parts classes"]
    tables: dict[str, Table] = field(default_factory=dict)
    """In the order of the layers."""
    kept: Int[Tensor, " kept"] = field(default_factory=lambda: torch.arange(0))
    """Which rows' features there are."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """(kept, neurons) for each layer, averaged over space or tokens."""
    logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """(kept, classes)"""
    left_out: list[str] = field(default_factory=list)

    def forget(self, layer: str) -> None:
        """Drop what is known of a layer."""
        self.tables.pop(layer, None)
        self.features.pop(layer, None)


def looking(
    model: nn.Module,
    sample: Sample,
    layers: Sequence[str],
    *,
    classes: int,
    keep: Int[Tensor, " kept"] | None = None,
    keep_in: Collection[str] = (),
    by_domain: bool = False,
    batch_size: int = 64,
) -> Generator[float, None, Look]:
    """Show a data set to a network once; yields the share that is done and returns the `Look`.

    `keep` says, in rising order, whose features of the layers `keep_in` are kept. With `by_domain`
    each domain has sums of its own. A layer that does not run on every batch, changes its size or
    is not finite is left out, and `left_out` says so. Where memory runs out, batches are halved.

    Source: ours, one pass for the evidence of an audit.
    """
    domain, y = sample.domain, sample.domain.y.cpu()
    kept = torch.arange(0) if keep is None else keep
    origin = torch.cat([b.domain.cpu() for b in _labels(domain)]) if by_domain else y * 0
    _, origin = origin.unique(return_inverse=True)
    place = rank_within_class(y, classes)
    empty = torch.zeros(1, 1, classes, dtype=torch.int64)
    found = Look(y, y.clone(), y.clone(), torch.empty(len(y)), empty, kept=kept)
    names, done, part = tuple(layers), 0, y
    for seen in _observing(model, domain.batches(batch_size), names, found.left_out, sample.name):
        here = slice(done, done + len(seen.batch.y))
        if not done:
            width = sum(m.shape[2] for m in seen.layers.values())
            domains = int(origin.max()) + 1
            if domains > 1 and domains * FEWEST * classes * width > MOST:
                found.left_out.append(
                    f"The domains of {sample.name} are not compared: tables of {domains} domains, "
                    f"{classes} classes and {width} neurons would not fit in memory."
                )
                origin, domains = origin * 0, 1
            parts = min(PARTS, max(FEWEST, ENTRIES // max(1, domains * classes * width)))
            part = place % parts
            cell = (origin * parts + part) * classes + y
            found.counts = torch.bincount(cell, minlength=domains * parts * classes)
            found.counts = found.counts.view(domains, parts, classes)
            found.tables = {
                name: Table(
                    ClassMeans(classes, moments.shape[2], parts=parts, domains=domains),
                    torch.zeros(classes, moments.shape[2], dtype=torch.float64),
                )
                for name, moments in seen.layers.items()
            }
            found.features = {
                name: moments.new_empty(len(kept), moments.shape[2], device="cpu")
                for name, moments in seen.layers.items()
                if name in keep_in
            }
            found.logits = torch.empty(len(kept), seen.logits.shape[1])
        logits = seen.logits.detach().cpu().float()
        found.predicted[here] = logits.argmax(dim=1)
        found.domain[here] = seen.batch.domain.cpu()
        found.loss[here] = F.cross_entropy(logits, y[here], reduction="none")
        first, last = torch.searchsorted(kept, torch.tensor([here.start, here.stop])).tolist()
        inside = kept[first:last] - done
        found.logits[first:last] = logits[inside]
        for name in [*found.tables]:
            moments = seen.layers.get(name)
            if moments is None or moments.shape[2] != found.tables[name].neurons:
                if moments is not None:
                    found.left_out.append(_changing(name, sample.name))
                found.forget(name)
                continue
            means, rates = moments.detach().cpu().double().unbind(1)
            table = found.tables[name]
            table.means.update(means, y[here], part=part[here], domain=origin[here])
            table.fires.index_add_(0, y[here], rates)
            if name in found.features:
                found.features[name][first:last] = moments[:, 0].detach().cpu()[inside]
        done = here.stop
        yield done / len(y)
    for name in [name for name, table in found.tables.items() if not table.finite]:
        found.left_out.append(
            f"Layer {name} is not looked at: on {sample.name} some of its activations are not "
            "finite."
        )
        found.forget(name)
    return found


def _observing(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: tuple[str, ...],
    left_out: list[str],
    where: str,
) -> Iterator[Observation]:
    """As `observe` with moments; where memory runs out in smaller batches, and without layers that
    do not run.
    """
    size = None
    for batch in batches:
        waiting = [batch]
        while waiting:
            now = waiting.pop(0)
            if size is not None and len(now.y) > size:
                waiting = [now.pick(slice(None, size)), now.pick(slice(size, None)), *waiting]
                continue
            try:
                (seen,) = observe(model, [now], layers, "moments")
            except torch.OutOfMemoryError:
                if len(now.y) == 1:
                    raise
                size, waiting = len(now.y) // 2, [now, *waiting]
                continue
            except ValueError:
                lost = [name for name in layers if not _runs(model, now, name)]
                if not lost:
                    raise
                layers = tuple(name for name in layers if name not in lost)
                left_out += [_changing(name, where) for name in lost]
                waiting = [now, *waiting]
                continue
            yield seen


def _changing(layer: str, where: str) -> str:
    return f"Layer {layer} is not looked at: it does not run alike on all batches of {where}."


def _runs(model: nn.Module, batch: Batch, layer: str) -> bool:
    try:
        list(observe(model, [batch], [layer], "moments"))
    except ValueError:
        return False
    return True


def running_layers(model: nn.Module, sample: Sample) -> tuple[str, ...]:
    """All activations of a network in the order in which they run on a data set's first example."""
    first = next(iter(sample.domain.batches(1))).x
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(layers_of(model, first.to(device)))


def picked(sample: Sample, which: Int[Tensor, " some"]) -> Sample:
    """Some examples of a data set, in the order given, with what is known of them."""
    domain = sample.domain
    # Domains that read their examples one by one know how to read some.
    pick = getattr(domain, "pick", None)
    if pick is not None:
        some: Domain = pick(which)
    elif type(domain) is Domain:
        some = Domain(domain.name, domain.data.pick(which))
    else:
        some = Domain(domain.name, _filtered(domain, which))
    masks = None if sample.masks is None else sample.masks[which]
    background = None if sample.background is None else sample.background[which]
    return Sample(sample.name, some, masks, background)


def _filtered(domain: Domain, which: Tensor) -> Batch:
    """The examples of a domain that can only be read in order."""
    order = which.argsort()
    wanted, parts, done = which[order], [], 0
    for batch in domain.batches(64):
        ends = torch.tensor([done, done + len(batch.y)])
        first, last = torch.searchsorted(wanted, ends).tolist()
        if first < last:
            parts.append(batch.pick(wanted[first:last] - done))
        done += len(batch.y)
    back = order.argsort()
    return Batch(*(torch.cat(each)[back] for each in zip(*parts, strict=True)))


def balanced(y: Int[Tensor, " n"], most: int, *, seed: int, purpose: str) -> Int[Tensor, " some"]:
    """At most so many examples, as equally of every class as there are, in rising order."""
    if len(y) <= most:
        return torch.arange(len(y))
    shuffled = torch.randperm(len(y), generator=generator_for(seed, purpose))
    place = torch.empty_like(shuffled)
    place[shuffled] = rank_within_class(y.cpu()[shuffled], int(y.max()) + 1)
    return place.argsort(stable=True)[:most].sort().values


def _labels(domain: Domain) -> Iterator[Batch]:
    """The domain indices of all examples, without reading what can be left unread."""
    origin = getattr(domain, "origin", None)
    if origin is not None:
        yield Batch(domain.y, domain.y, origin)
    elif type(domain) is Domain:
        yield domain.data
    else:
        yield from domain.batches(64)
