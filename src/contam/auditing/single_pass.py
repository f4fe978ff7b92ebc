"""One pass over a data set, which shows every example to the network once.

A single forward pass of each batch gives the predictions and losses, class means of every layer,
the features of selected examples, the representation that the head reads, the features of a
reference encoder on the same images, and the statistics of their borders.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contam.auditing.alterations import is_image
from contam.auditing.layer_tables import LayerTable, TableCells
from contam.batch import Batch, Domain
from contam.data.object_removal import border_statistics, has_border
from contam.inputs.input_set import InputSet
from contam.measures.class_means import rank_within_class
from contam.models.hooks import LayerError
from contam.models.normalization import without_running_statistics
from contam.models.observe import Observation, Observer
from contam.models.preserve import evaluating
from contam.rng import generator_for

OUT_OF_MEMORY = (
    "memory runs out on a single example; use a machine with more memory, or smaller inputs"
)


@dataclass(frozen=True, eq=False)
class Keep:
    """What a pass keeps of single examples; rows are positions in the data set, in rising order."""

    rows: Int[Tensor, " rows"] = field(default_factory=lambda: torch.arange(0))
    """Examples whose features are kept."""
    layers: Collection[str] = ()
    """Layers whose features are kept."""
    numbers: int = 2**26
    """Features to keep at most; fewer examples are kept where there are many neurons."""
    inputs: Int[Tensor, " inputs"] = field(default_factory=lambda: torch.arange(0))
    """Examples whose inputs are kept."""
    scored: Int[Tensor, " scored"] = field(default_factory=lambda: torch.arange(0))
    """Examples whose logits are kept for estimates of the accuracy without labels."""
    subset: Int[Tensor, " subset"] = field(default_factory=lambda: torch.arange(0))
    """Examples that also have class means of their own."""
    by_domain: bool = False
    """Whether each domain has class means of its own."""
    head: bool = False
    """Whether to keep what the head reads of every example."""
    border: bool = False
    """Whether to keep the border statistics of every image."""
    reference: nn.Module | None = None
    """An encoder that sees the same batches."""


@dataclass(eq=False)
class PassResult:
    """The result of a pass; rows of tensors are the examples in their order."""

    y: Int[Tensor, " n"]
    predicted: Int[Tensor, " n"]
    domain: Int[Tensor, " n"]
    loss: Float[Tensor, " n"]
    """Cross-entropy in nats; nan where logits are not finite."""
    images: bool = False
    """Whether the inputs are gray or color images."""
    tables: dict[str, LayerTable] = field(default_factory=dict)
    """Class means by layer, in the order in which the layers run."""
    subset_tables: dict[str, LayerTable] = field(default_factory=dict)
    """The same of the examples in `Keep.subset`; classes are numbered among those that occur."""
    kept: Int[Tensor, " kept"] = field(default_factory=lambda: torch.arange(0))
    """The examples whose features were kept."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """(kept, neurons) mean activations by layer."""
    logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """(kept, classes)"""
    scored: Int[Tensor, " scored"] = field(default_factory=lambda: torch.arange(0))
    """The examples of `Keep.scored`."""
    scored_logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """(scored, classes)"""
    inputs: Batch | None = None
    """The examples whose inputs were kept, on the CPU."""
    head: Tensor | None = None
    """(n, width) what the linear head reads; None if the logits are not a linear layer's output."""
    reference: Tensor | None = None
    """(n, width) features of the reference encoder."""
    border: Tensor | None = None
    """(n, statistics) of the border of each image."""
    left_out: list[str] = field(default_factory=list)
    rows: Tensor | None = None
    """(classes,) row of each class in `tables`, -1 without one; None if rows are classes."""

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        """Whether each prediction is correct."""
        return self.predicted == self.y

    @property
    def counts(self) -> Int[Tensor, " classes"]:
        """Number of examples of each class that occurs, by class index."""
        return torch.bincount(self.y)


def run_pass(
    model: nn.Module,
    sample: InputSet,
    layers: Sequence[str],
    *,
    classes: int,
    keep: Keep | None = None,
    batch_size: int = 64,
    compact: bool = False,
    rows: Int[Tensor, " classes"] | None = None,
) -> Generator[int, None, PassResult]:
    """Show every example of a data set to a network once.

    A layer that does not run on every batch, changes its size or is not finite is left out, and
    `left_out` says so. Where memory runs out, batches are halved.

    Args:
        model: the network; it stays as it was.
        sample: the data set.
        layers: names of the layers with class means.
        classes: number of classes.
        keep: what to keep of single examples.
        batch_size: examples that are read at a time.
        compact: whether tables number the classes among those that occur, which saves memory.
        rows: row of each class in tables, -1 for classes without class means, as `table_rows`
            returns it.

    Yields:
        The number of examples that were shown in each step.

    Returns:
        The results.

    Source: ours, one pass for all evidence of an audit.

    Raises:
        ValueError: there is no example, or the logits are not one row for each.
        torch.OutOfMemoryError: memory runs out on a single example.

    >>> y = torch.tensor([0, 1, 1])
    >>> data = InputSet("meadow", Domain("meadow", Batch(torch.eye(2)[y], y, torch.zeros_like(y))))
    >>> def answers():
    ...     result = yield from run_pass(nn.Identity(), data, (), classes=2, batch_size=2)
    ...     print(result.correct)
    >>> list(answers())
    tensor([True, True, True])
    [2, 1]
    """
    if len(sample) == 0:
        raise ValueError(f"{sample.name!r} has no examples; an audit needs some of each class")
    keep = keep or Keep()
    if without_running_statistics(model):
        # A batch of one example has no statistics.
        batch_size = next(n for n in range(batch_size, 0, -1) if len(sample) % n != 1 or n < 3)
    while True:
        accumulator = _Accumulator(sample, layers, classes, keep, compact=compact, rows=rows)
        batches = sample.domain.batches(batch_size)
        for observation, encoded in _observe(model, batches, tuple(layers), keep, accumulator):
            yield len(observation.batch.y)
            if len(sample) < len(accumulator.expected):
                break
            accumulator.update(observation, encoded)
        else:
            return accumulator.result()
        # A file could not be read, so the rows have changed: read the rest, and begin again.
        for _ in batches:
            pass


class _Accumulator:
    """Collects the results of a pass batch by batch."""

    def __init__(
        self,
        sample: InputSet,
        layers: Sequence[str],
        classes: int,
        keep: Keep,
        *,
        compact: bool,
        rows: Tensor | None,
    ) -> None:
        self.table_rows = rows
        self.name, self.classes, self.keep = sample.name, classes, keep
        self.left_out: list[str] = []
        y = sample.domain.y.cpu()
        self.expected = y
        subset = keep.subset[keep.subset < len(y)]
        labels = y.unique(return_inverse=True)[1] if compact else y
        size = int(labels.max()) + 1 if compact else classes
        counted = None
        if rows is not None:
            labels, size = rows[y], int(rows.max()) + 1
            counted, labels = labels >= 0, labels.clamp(min=0)
        origin = y * 0
        if keep.by_domain:
            origin = torch.cat([part.cpu() for part in _domain_indices(sample.domain)])
            origin = origin.unique(return_inverse=True)[1]
        self.groups = TableCells(labels, size, origin, counted)
        chosen = torch.zeros(len(y), dtype=torch.bool)
        chosen[subset] = True
        among = torch.zeros_like(y)
        if len(subset):
            among[subset] = y[subset].unique(return_inverse=True)[1]
        self.subset = TableCells(among, int(among.max()) + 1, y * 0, chosen)
        self.rows = keep.rows[keep.rows < len(y)]
        self.scored = keep.scored[keep.scored < len(y)]
        self.done = 0
        self.columns: dict[str, list[Tensor]] = {
            name: [] for name in ("y", "predicted", "domain", "loss", "logits", "scored", "head",
                                  "border", "reference")
        }  # fmt: skip
        self.inputs: list[Batch] = []
        self.images = False
        self.tables: dict[str, LayerTable] = {}
        self.subset_tables: dict[str, LayerTable] = {}
        self.features: dict[str, list[Tensor]] = {}

    def update(self, observation: Observation, encoded: Tensor | None) -> None:
        """Add a batch."""
        batch = observation.batch
        logits = observation.logits.detach()
        if logits.ndim != 2 or len(logits) != len(batch.y):
            raise ValueError(
                f"{self.name!r}: the logits have shape {tuple(logits.shape)} for {len(batch.y)} "
                "examples; wrap the model so that it returns (batch, classes)"
            )
        if not self.done:
            self._begin(observation)
        logits, y = logits.cpu().float(), batch.y.cpu()
        here = slice(self.done, self.done + len(y))
        columns = self.columns
        columns["y"].append(y)
        columns["predicted"].append(logits.argmax(dim=1))
        columns["domain"].append(batch.domain.cpu())
        columns["loss"].append(F.cross_entropy(logits, y, reduction="none"))
        columns["logits"].append(logits[_within(self.rows, here)])
        columns["scored"].append(logits[_within(self.scored, here)])
        if self.keep.head and observation.head is not None:
            columns["head"].append(observation.head.detach().float().cpu())
        if self.keep.border and has_border(batch.x):
            columns["border"].append(border_statistics(batch.x))
        if encoded is not None:
            columns["reference"].append(encoded.detach().cpu())
        wanted = _within(self.keep.inputs, here)
        if len(wanted):
            self.inputs.append(Batch(*(part.detach().cpu()[wanted] for part in batch)))
        self._update_tables(observation, here)
        self.done = here.stop

    def _begin(self, observation: Observation) -> None:
        """Make the tables, whose sizes are known from the first batch."""
        self.images = is_image(observation.batch.x)
        sizes = {name: moments.shape[2] for name, moments in observation.layers.items()}
        domains, parts = self.groups.shape(sum(sizes.values()))
        if self.keep.by_domain and domains < 1 + int(self.groups.domain.max()):
            self.left_out.append(
                f"The domains of {self.name} are not compared: separate class means would not fit "
                "in memory."
            )
        for name, neurons in sizes.items():
            self.tables[name] = LayerTable.empty(
                self.groups.classes, neurons, parts=parts, domains=domains
            )
            if len(self.keep.subset):
                _, few = self.subset.shape(sum(sizes.values()))
                self.subset_tables[name] = LayerTable.empty(self.subset.classes, neurons, parts=few)
            if name in self.keep.layers:
                self.features[name] = []
        kept = 1 + sum(sizes[name] for name in self.features)
        most = max(20, self.keep.numbers // kept)
        if len(self.rows) > most:
            few = balanced(self.expected[self.rows], most, seed=0, purpose="audit/read")
            self.rows = self.rows[few]

    def _update_tables(self, observation: Observation, here: slice) -> None:
        inside = _within(self.rows, here)
        for name in [*self.tables]:
            moments = observation.layers.get(name)
            if moments is None or moments.shape[2] != self.tables[name].neurons:
                if moments is not None:
                    self.left_out.append(_changing(name, self.name))
                self._forget(name)
                continue
            self.groups.add(self.tables[name], moments, here)
            if name in self.subset_tables:
                self.subset.add(self.subset_tables[name], moments, here)
            if name in self.features:
                self.features[name].append(moments[:, 0].detach().cpu()[inside])

    def _forget(self, layer: str) -> None:
        for results in (self.tables, self.subset_tables, self.features):
            results.pop(layer, None)

    def result(self) -> PassResult:
        """Return the results of all batches."""
        columns = {name: torch.cat(parts) for name, parts in self.columns.items() if parts}
        for name in [name for name, table in self.tables.items() if not table.finite]:
            self.left_out.append(
                f"Layer {name} is left out: some of its activations on {self.name} are not finite."
            )
            self._forget(name)
        known = {name: columns.get(name) for name in ("head", "reference", "border")}
        return PassResult(
            columns["y"], columns["predicted"], columns["domain"], columns["loss"], self.images,
            tables=self.tables,
            subset_tables=self.subset_tables,
            kept=self.rows,
            features={name: torch.cat(parts) for name, parts in self.features.items()},
            logits=columns["logits"],
            scored=self.scored,
            scored_logits=columns["scored"],
            inputs=Batch(*map(torch.cat, zip(*self.inputs, strict=True))) if self.inputs else None,
            left_out=self.left_out,
            rows=self.table_rows,
            **{n: v if v is not None and len(v) == self.done else None for n, v in known.items()},
        )  # fmt: skip


def _within(rows: Tensor, here: slice) -> Tensor:
    """The rows that lie in a slice, counted from its start."""
    first, last = torch.searchsorted(rows, torch.tensor([here.start, here.stop])).tolist()
    return rows[first:last] - here.start


def _observe(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: tuple[str, ...],
    keep: Keep,
    accumulator: _Accumulator,
) -> Iterator[tuple[Observation, Tensor | None]]:
    """Observe batches, smaller ones where memory runs out, without layers that do not run."""
    observer, size = Observer(model, layers, "moments", head=keep.head), None
    for batch in batches:
        waiting = [batch]
        while waiting:
            now = waiting.pop(0)
            if size is not None and len(now.y) > size:
                waiting = [now.pick(slice(None, size)), now.pick(slice(size, None)), *waiting]
                continue
            try:
                observation, encoded = observer(now), None
                if keep.reference is not None:
                    with evaluating(keep.reference):
                        encoded = keep.reference(observation.batch.x).flatten(1).float()
            except torch.OutOfMemoryError:
                if len(now.y) == 1:
                    raise torch.OutOfMemoryError(OUT_OF_MEMORY) from None
                size, waiting = len(now.y) // 2, [now, *waiting]
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
                continue
            except LayerError as error:
                layers = tuple(name for name in layers if name not in error.layers)
                accumulator.left_out += [_changing(n, accumulator.name) for n in error.layers]
                waiting = [now, *waiting]
                observer = Observer(model, layers, "moments", head=keep.head)
                continue
            yield observation, encoded


def _changing(layer: str, where: str) -> str:
    return f"Layer {layer} is left out: it does not run in the same way on all batches of {where}."


def balanced(y: Int[Tensor, " n"], most: int, *, seed: int, purpose: str) -> Int[Tensor, " some"]:
    """Return at most `most` positions, with equal numbers of each class as far as possible.

    Args:
        y: class indices.
        most: number of positions.
        seed: seed of the draw.
        purpose: name of the draw.

    Returns:
        The positions in rising order.

    >>> y = torch.tensor([0, 0, 0, 1])
    >>> y[balanced(y, 2, seed=0, purpose="example")].tolist()
    [0, 1]
    """
    if len(y) <= most:
        return torch.arange(len(y))
    shuffled = torch.randperm(len(y), generator=generator_for(seed, purpose))
    place = torch.empty_like(shuffled)
    place[shuffled] = rank_within_class(y.cpu()[shuffled], int(y.max()) + 1)
    return place.argsort(stable=True)[:most].sort().values


def _domain_indices(domain: Domain) -> Iterator[Tensor]:
    """The domain index of all examples, without reading their inputs where that is possible."""
    origin = getattr(domain, "origin", None)
    if origin is not None:
        yield origin
    elif type(domain) is Domain:
        yield domain.data.domain
    else:
        yield from (batch.domain for batch in domain.batches(64))
