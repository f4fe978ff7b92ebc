"""All passes of an audit: every example once, and a small sample of changed images and controls."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from contam.auditing.alterations import altered, changes_of
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.audited_layers import count_neurons
from contam.auditing.head_probes import correct_with_fresh_head, too_few_per_class
from contam.auditing.layer_records import LayerRecordBuilder
from contam.auditing.layer_tables import LISTED, MOST_CLASS_MEANS, table_rows
from contam.auditing.single_pass import Keep, PassResult, balanced, run_pass
from contam.batch import Batch, Domain
from contam.data.object_removal import (
    has_border,
    object_boxes,
    removable,
    without_boxes,
)
from contam.experiment import Stage
from contam.inputs.duplicates import same_content
from contam.inputs.input_set import InputSet
from contam.models.batch_statistics import batch_norms, calibrate
from contam.models.linear_head import find_head
from contam.models.logits_adapter import LogitsAdapter
from contam.models.normalization import without_running_statistics
from contam.rng import generator_for


@dataclass(frozen=True)
class Budget:
    """How many examples an audit uses beside its one pass over each data set."""

    fitted: int = 1200
    """ID examples that probes and nearest neighbors are fitted to."""
    queries: int = 400
    """Examples of each data set that probes and neighbors are judged on."""
    per_class: int = 30
    """Neighbors of each class, for prediction depth and usable information."""
    probed_layers: int = 16
    """Layers with probes and neighbors, evenly spaced and with the last."""
    without_object: int = 100
    """ID images that are shown without their objects."""
    changed: int = 40
    """ID images whose background or style is changed, to both networks."""
    control: int = 200
    """Examples of each data set that the untrained network sees."""
    statistics: int = 64
    """ID examples of these from which its batch norms get their statistics."""
    edited: int = 200
    """Examples of the ID set and of unlabeled sets whose inputs the tests and repairs change."""
    edited_ood: int = 400
    """The same of each OOD set, most of them for a second look."""
    edited_numbers: int = 2**28
    """Numbers of these inputs at most, of all data sets together."""
    repaired: bool = True
    """Whether repairs are measured."""
    share: float = 0.2
    """Largest share of the ID set that is changed, and of each set that the control sees."""
    numbers: int = 2**26
    """Features to keep at most."""
    scored: int = 5000
    """Examples of each data set whose logits estimates of the accuracy without labels use; fewer
    where there are many classes."""

    def limited(self, most: int, count: int) -> int:
        """Return a number of examples, limited by the share of a set of `count`."""
        return min(most, max(1, int(self.share * count)))


BUDGET = Budget()


@dataclass(eq=False)
class Passes:
    """The results of all passes over the data, from which the evidence is taken."""

    inputs: AuditInputs
    layers: LayerRecordBuilder
    """What is known of each layer."""
    sets: dict[str, PassResult] = field(default_factory=dict)
    """The ID set first; without class means, which `layers` has taken."""
    controls: dict[str, PassResult] = field(default_factory=dict)
    """The untrained network on a sample of each set."""
    background_only: PassResult | None = None
    """ID images without their objects; None where the inputs are not images."""
    changed_rows: Int[Tensor, " changed"] = field(default_factory=lambda: torch.arange(0))
    """The ID images that were changed."""
    changed_inputs: dict[str, Batch] = field(default_factory=dict)
    """These images, unchanged under the empty name and by change."""
    changed: dict[str, PassResult] = field(default_factory=dict)
    """The network on these images, by change."""
    head_name: str = ""
    """Name of the linear head; empty if there is none that repairs can replace."""
    images: dict[str, Batch] = field(default_factory=dict)
    """Inputs of some examples of each set, for the tests of causes and for repairs."""
    image_rows: dict[str, Int[Tensor, " some"]] = field(default_factory=dict)
    """These examples."""
    unlabeled: dict[str, PassResult] = field(default_factory=dict)
    """The sets without labels; the class index of all their examples is 0."""
    left_out: list[str] = field(default_factory=list)
    pairs: dict[str, Int[Tensor, "pairs 2"]] = field(default_factory=dict)
    """Results of `same_content`."""

    @property
    def id(self) -> PassResult:
        """The pass over the ID set."""
        return self.sets[self.inputs.id.name]

    def same_content(self, name: str) -> Int[Tensor, "pairs 2"]:
        """Rows of ID examples and of examples of an OOD set that show the same content."""
        if name not in self.pairs:
            own = self.inputs.id
            other = next(sample for sample in self.inputs.ood if sample.name == name)
            first, second = own.fingerprints, other.fingerprints
            y, labels = self.id.y, self.sets[name].y
            self.pairs[name] = torch.empty(0, 2).long()
            # Files that could not be read shift the rows.
            if (
                first is not None and len(first) == len(y)
                and second is not None and len(second) == len(labels)
            ):  # fmt: skip
                self.pairs[name] = same_content((first, y), (second, labels))
        return self.pairs[name]

    @cached_property
    def fresh_correct(self) -> dict[str, Bool[Tensor, " n"]] | None:
        """Whether a fresh linear head classifies each example correctly.

        None without a head, or with too few ID examples for many classes.
        """
        features = {name: (result.head, result.y) for name, result in self.sets.items()}
        known = {name: (x, y) for name, (x, y) in features.items() if x is not None}
        if self.inputs.id.name not in known or too_few_per_class(self.id.y):
            return None
        own = known.pop(self.inputs.id.name)
        same = {name: self.same_content(name) for name in known}
        fresh, others = correct_with_fresh_head(
            own, known, classes=len(self.inputs.classes), same=same, seed=self.inputs.seed
        )
        return {self.inputs.id.name: fresh, **others}


def run_passes(
    inputs: AuditInputs, layers: Sequence[str], budget: Budget = BUDGET
) -> Generator[Stage, None, Passes]:
    """Run all passes of an audit.

    Args:
        inputs: the network and its data.
        layers: names of the layers with records.
        budget: numbers of examples; 0 leaves out changed images or the control.

    Yields:
        The share of examples that were shown, and what is shown.

    Returns:
        The results of all passes.

    Source: ours, one pass over each data set for everything.

    Raises:
        ValueError: a set has no examples, or the logits are not one row for each.

    >>> y = torch.arange(40) % 2
    >>> data = InputSet("meadow", Domain("meadow", Batch(torch.eye(2)[y], y, torch.zeros_like(y))))
    >>> def passes():
    ...     inputs = AuditInputs("identity", nn.Identity(), ("cow", "camel"), data)
    ...     results = yield from run_passes(inputs, layers=())
    ...     print(results.id.correct.sum())
    >>> [stage.doing for stage in passes()]
    tensor(40)
    ['examples of meadow']
    """
    runner = _PassRunner(inputs, tuple(layers), budget)
    total, shown = runner.planned(), 0
    work = runner.run()
    while True:
        try:
            shown += next(work)
        except StopIteration as end:
            return end.value
        yield Stage(min(1.0, shown / total), runner.doing)


class _PassRunner:
    """Runs the passes in an order that keeps the inputs and class means of one set at a time."""

    def __init__(self, inputs: AuditInputs, layers: tuple[str, ...], budget: Budget) -> None:
        self.inputs, self.layers, self.budget = inputs, layers, budget
        self.probed = _spaced(layers, budget.probed_layers)
        self.passes = Passes(inputs, LayerRecordBuilder(inputs))
        self.doing = ""
        y = inputs.id.domain.y.cpu()
        self.kept = self._balanced(y, budget.fitted + budget.queries, "audit/read")
        self.without = self._balanced(y, budget.without_object, "audit/changes")
        changed = min(budget.changed, budget.limited(budget.changed, len(y)))
        pool = self.without if len(self.without) >= changed else torch.arange(len(y))
        self.changed = pool[self._balanced(y[pool], changed, "audit/changes")]
        self.rows = self._table_rows(y)
        self.control_rows: Tensor | None = None

    def _table_rows(self, y: Tensor) -> Tensor | None:
        """The row of each of many classes in the tables; None if every class has one."""
        inputs = self.inputs
        classes = len(inputs.classes)
        if classes <= LISTED:
            return None
        neurons = count_neurons(inputs.model, inputs.id, self.layers) if self.layers else 0
        others = [sample.domain.y.cpu() for sample in inputs.ood]
        most = MOST_CLASS_MEANS // max(1, neurons)
        rows = table_rows(y, others, classes=classes, most=most)
        present, kept = len(torch.cat([y, *others]).unique()), int(rows.max()) + 1
        if kept < present:
            self.passes.left_out.append(
                f"Class means are of {kept} of the {present} classes that occur, those with the "
                "most examples, because tables of all would not fit in memory."
            )
        return rows

    def _balanced(self, y: Tensor, most: int, purpose: str) -> Tensor:
        return balanced(y, most, seed=self.inputs.seed, purpose=purpose)

    def planned(self) -> int:
        """Return about how many examples will be shown."""
        inputs, budget = self.inputs, self.budget
        sets = (inputs.id, *inputs.ood)
        changes = 4 * len(self.changed)
        total = sum(map(len, (*sets, *inputs.unlabeled))) + len(self.without) + changes
        if inputs.untrained is not None and budget.control:
            total += changes + sum(budget.limited(budget.control, len(s)) for s in sets)
            if inputs.calibrated and batch_norms(inputs.untrained):
                total += min(budget.statistics, budget.limited(budget.control, len(inputs.id)))
        return max(1, total)

    def run(self) -> Generator[int, None, Passes]:
        inputs, passes = self.inputs, self.passes
        control = inputs.untrained if self.budget.control else None
        if control is None and self.layers:
            passes.left_out.append(
                "The numbers have no control: there is no untrained network; give one with "
                "untrained=."
            )
        norms = without_running_statistics(inputs.model)
        if norms:
            passes.left_out.append(
                f"Batch norm without running statistics ({norms[0]}, {len(norms)} in all) uses "
                "those of each batch: predictions depend on the order of the examples."
            )
        yield from self._id_set(control)
        for sample in inputs.ood:
            y = sample.domain.y.cpu()
            rows = self._control_rows(y, torch.arange(0))
            edited = self._edited_rows(sample, self.budget.edited_ood)
            kept = self._balanced(y, self.budget.queries, "audit/read")
            wanted = torch.cat([edited, *([rows] if control else [])]).unique()
            result = yield from self._main_pass(sample, kept, inputs=wanted)
            passes.layers.add_ood_set(sample.name, result)
            result.tables = {}
            n = len(result.y)
            rows, wanted = rows[rows < n], wanted[wanted < n]
            self._keep_images(sample, result, edited, wanted)
            if control is not None:
                yield from self._control_pass(control, sample, result, rows, wanted)
            result.inputs = None
        for sample in inputs.unlabeled:
            yield from self._unlabeled_pass(sample)
        passes.layers.finish()
        for result in passes.sets.values():
            result.tables, result.subset_tables, result.inputs = {}, {}, None
        return passes

    def _id_set(self, control: nn.Module | None) -> Generator[int, None, None]:
        passes, sample = self.passes, self.inputs.id
        rows = self._control_rows(sample.domain.y.cpu(), self.changed)
        edited = self._edited_rows(sample, self.budget.edited)
        some = self.without, self.changed, edited, torch.arange(1)
        wanted = torch.cat([*some, *([rows] if control else [])]).unique()
        result = yield from self._main_pass(
            sample, self.kept, inputs=wanted, subset=self.changed, own=True
        )
        passes.layers.add_id_set(sample.name, result)
        # Files that could not be read are no longer counted.
        n = len(result.y)
        self.without, self.changed = self.without[self.without < n], self.changed[self.changed < n]
        rows, wanted = rows[rows < n], wanted[wanted < n]
        self._keep_images(sample, result, edited, wanted)
        if self.budget.repaired and result.head is not None:
            passes.head_name = self._head_name(result.inputs)
        if result.inputs is not None and len(self.without):
            yield from self._without_objects(result.inputs, wanted)
        if result.inputs is not None and len(self.changed):
            yield from self._changes(self.inputs.model, result, wanted)
        if control is not None and result.inputs is not None:
            plain = yield from self._control_pass(control, sample, result, rows, wanted, own=True)
            if len(self.changed):
                yield from self._changes(control, plain, wanted, control=True)
        result.inputs = None

    def _main_pass(
        self,
        sample: InputSet,
        kept: Tensor,
        *,
        inputs: Tensor | None = None,
        subset: Tensor | None = None,
        own: bool = False,
    ) -> Generator[int, None, PassResult]:
        self.doing = f"examples of {sample.name}"
        none, wanted = torch.arange(0), self.budget.fitted + self.budget.queries
        everything = wanted + self.budget.queries * len(self.inputs.ood)
        share = (wanted if own else self.budget.queries) / max(1, everything)
        keep = Keep(
            rows=kept, layers=self.probed, numbers=int(share * self.budget.numbers),
            inputs=none if inputs is None else inputs, subset=none if subset is None else subset,
            by_domain=own, head=True, border=own, reference=self.inputs.reference,
            scored=self._scored_rows(sample),
        )  # fmt: skip
        result = yield from self._pass(self.inputs.model, sample, keep, rows=self.rows)
        self.passes.left_out += result.left_out
        self.passes.sets[sample.name] = result
        return result

    def _unlabeled_pass(self, sample: InputSet) -> Generator[int, None, None]:
        self.doing = f"examples of {sample.name}"
        edited = self._edited_rows(sample, self.budget.edited)
        keep = Keep(inputs=edited, head=True, scored=self._scored_rows(sample))
        result = yield from run_pass(
            self.inputs.model, sample, (), classes=len(self.inputs.classes), keep=keep,
            batch_size=self.inputs.batch_size,
        )  # fmt: skip
        self.passes.left_out += result.left_out
        self.passes.unlabeled[sample.name] = result
        self._keep_images(sample, result, edited, edited[edited < len(result.y)])
        result.inputs = None

    def _scored_rows(self, sample: InputSet) -> Tensor:
        """The examples whose confidences are compared, a random sample of large sets."""
        if not self.inputs.unlabeled:
            return torch.arange(0)
        fitting = self.budget.numbers // (4 * len(self.inputs.classes))
        most = max(1, min(self.budget.scored, fitting))
        drawn = generator_for(self.inputs.seed, f"audit/confidences of {sample.name}")
        return torch.randperm(len(sample), generator=drawn)[:most].sort().values

    def _pass(
        self,
        model: nn.Module,
        sample: InputSet,
        keep: Keep,
        *,
        compact: bool = False,
        rows: Tensor | None = None,
    ) -> Generator[int, None, PassResult]:
        return (
            yield from run_pass(
                model, sample, self.layers, classes=len(self.inputs.classes), keep=keep,
                batch_size=self.inputs.batch_size, compact=compact, rows=rows,
            )
        )  # fmt: skip

    def _control_rows(self, y: Tensor, at_least: Tensor) -> Tensor:
        """The examples that the control sees, the changed ones among them."""
        most = self.budget.limited(self.budget.control, len(y)) if self.budget.control else 0
        others = torch.ones(len(y), dtype=torch.bool)
        others[at_least] = False
        rows = others.nonzero().flatten()
        more = self._balanced(y[rows], max(0, most - len(at_least)), "audit/control")
        return torch.cat([at_least, rows[more]]).sort().values

    def _control_pass(
        self,
        control: nn.Module,
        sample: InputSet,
        result: PassResult,
        rows: Tensor,
        held: Tensor,
        *,
        own: bool = False,
    ) -> Generator[int, None, PassResult]:
        """Show some of the inputs that the main pass kept to the untrained network."""
        assert result.inputs is not None
        self.doing = "untrained network"
        batch = result.inputs.pick(torch.searchsorted(held, rows))
        subset = torch.searchsorted(rows, self.changed) if own else torch.arange(0)
        everything = torch.arange(len(batch.y))
        keep = Keep(
            rows=everything, layers=self.probed, numbers=self.budget.numbers, subset=subset,
            by_domain=own,
        )  # fmt: skip
        few = InputSet(sample.name, Domain(sample.name, batch))
        if own and self.inputs.calibrated:
            yield from self._calibrate(control, batch.x)
        if own and self.rows is not None:
            # The control sees few examples, of fewer classes.
            classes, most = len(self.inputs.classes), int(self.rows.max()) + 1
            self.control_rows = table_rows(batch.y, (), classes=classes, most=most)
        plain = yield from self._pass(control, few, keep, rows=self.control_rows)
        self.passes.left_out += [f"Untrained network: {line}" for line in plain.left_out]
        self.passes.controls[sample.name] = plain
        self.passes.layers.add_control(sample.name, plain, own=own)
        plain.tables = {}
        return plain

    def _calibrate(self, control: nn.Module, x: Tensor) -> Generator[int, None, None]:
        """Give the batch norms of the untrained network the statistics of some ID examples.

        As they are drawn, they have none, and the scale of the activations can grow or shrink from
        layer to layer, which no training is needed to change.
        """
        if not batch_norms(control):
            return
        # Examples are in the order of the set, so evenly spaced ones are of all its classes.
        count = min(self.budget.statistics, len(x))
        rows = torch.linspace(0, len(x) - 1, count).round().long()
        try:
            calibrate(control, x[rows].split(self.inputs.batch_size))
        except (RuntimeError, ValueError) as error:  # a batch may be too small, or too large
            for norm in batch_norms(control):
                norm.reset_running_stats()
            message = " ".join(str(error).split())[:120]
            self.passes.left_out.append(
                f"The untrained network's batch norms have no statistics of the inputs ({message})."
            )
        yield count

    def _head_name(self, held: Batch | None) -> str:
        """The name of the head that repairs replace; it is found with a single example."""
        model = self.inputs.model
        if held is None or not isinstance(model, LogitsAdapter):
            return ""
        device = next((value.device for value in model.parameters()), torch.device("cpu"))
        try:
            return find_head(model, held.x[:1].to(device))
        except ValueError:
            return ""

    def _edited_rows(self, sample: InputSet, most: int) -> Tensor:
        """The examples whose inputs are kept for the tests of causes and for repairs."""
        y = sample.domain.y.cpu()
        # The ID images that are shown without objects are kept anyway.
        own = sample is self.inputs.id and len(self.without)
        pool = self.without if own else torch.arange(len(y))
        return pool[self._balanced(y[pool], most, "audit/repairs")]

    def _keep_images(
        self, sample: InputSet, result: PassResult, rows: Tensor, held: Tensor
    ) -> None:
        """Keep the inputs of some examples for the tests of causes and for repairs."""
        rows = rows[rows < len(result.y)]
        if len(rows) and result.inputs is not None:
            sets = 1 + len(self.inputs.ood) + len(self.inputs.unlabeled)
            most = self.budget.edited_numbers // (sets * result.inputs.x[0].numel())
            rows = rows[self._balanced(result.y[rows], most, "audit/repairs")]
            self.passes.images[sample.name] = result.inputs.pick(torch.searchsorted(held, rows))
            self.passes.image_rows[sample.name] = rows

    def _without_objects(self, held: Batch, rows: Tensor) -> Generator[int, None, None]:
        """Show ID images whose objects are replaced by their surroundings."""
        self.doing = "images without objects"
        batch = held.pick(torch.searchsorted(rows, self.without))
        if not has_border(batch.x):
            return
        size = (batch.x.shape[2], batch.x.shape[3])
        masks = self.inputs.id.masks
        boxes = object_boxes(None if masks is None else masks[self.without], size, len(batch.y))
        usable = removable(boxes, size)
        empty = torch.arange(0)
        self.passes.background_only = PassResult(empty, empty, empty, empty.float())
        if usable.any():
            batch = batch.pick(usable)
            bare = batch._replace(x=without_boxes(batch.x, boxes[usable]))
            name = f"{self.inputs.id.name} without objects"
            steps = run_pass(
                self.inputs.model, InputSet(name, Domain(name, bare)), (),
                classes=len(self.inputs.classes), batch_size=self.inputs.batch_size,
            )  # fmt: skip
            self.passes.background_only = yield from steps

    def _changes(
        self, model: nn.Module, plain: PassResult, rows: Tensor, *, control: bool = False
    ) -> Generator[int, None, None]:
        """Show ID images whose backgrounds or styles are changed."""
        passes, inputs = self.passes, self.inputs
        self.doing = "changed images" + (", untrained network" if control else "")
        if not control:
            assert plain.inputs is not None
            batch = plain.inputs.pick(torch.searchsorted(rows, self.changed))
            if not plain.images:
                passes.left_out.append(
                    "Backgrounds are not changed: the inputs are not images of one or three "
                    "channels."
                )
                return
            masks = None if inputs.id.masks is None else inputs.id.masks[self.changed]
            if masks is None:
                passes.left_out.append(
                    "Backgrounds are not changed alone, because there are no masks of the objects; "
                    "the style of whole images is changed instead. Give masks= to change "
                    "backgrounds."
                )
            passes.changed_rows = self.changed
            passes.changed_inputs = {"": batch} | {
                change: batch._replace(x=altered(batch.x, masks, change, seed=inputs.seed))
                for change in changes_of(batch.x, masked=masks is not None)
            }
        for change, batch in passes.changed_inputs.items():
            if change:
                few = InputSet(change, Domain(change, batch))
                result = yield from self._pass(model, few, Keep(), compact=True)
                passes.layers.add_change(
                    change, plain.subset_tables, result, control=control, ranks=not inputs.ood
                )
                result.tables = {}
                if not control:
                    passes.changed[change] = result
        plain.subset_tables = {}


def _spaced(layers: tuple[str, ...], most: int) -> tuple[str, ...]:
    """At most so many layers, evenly spaced, with the last."""
    places = torch.linspace(len(layers) - 1, 0, min(most, len(layers))).round().long()
    return tuple(layers[k] for k in sorted(set(places.tolist())))
