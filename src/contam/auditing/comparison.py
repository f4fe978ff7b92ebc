"""An ID set beside one OOD set, with the images that the tests of causes change.

A test of a cause changes the images, the representation's reader or the answers of the OOD set,
and measures whether the lost accuracy comes back. What is changed is chosen on some examples and
judged on others, so that a gain by chance does not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.head_probes import linear_classifier, probe_recipe
from contam.auditing.interchange import proposed_masks
from contam.auditing.intervals import chance_accuracy
from contam.auditing.passes import Passes
from contam.auditing.records import Interval, SetScores
from contam.auditing.single_pass import PassResult, balanced
from contam.batch import Batch
from contam.data.object_removal import has_border
from contam.measures.accuracy import Accuracy, paired_change, unpaired_change
from contam.measures.intervals import bootstrap
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import Observer

NO_IMAGES = "the inputs are not images of at least 8 pixels, or the tests that edit them are off"
"""Why tests that edit images are not made."""
CHOSEN, FIRST = 48, 16
"""Images on which a variant is chosen, and those among them on which all variants are tried."""
JUDGED = 100
"""Images on which a chosen variant is judged, at most."""
PLAUSIBLE = 0.5
"""Smallest share of images in which a plausible object is found, for object and background to be
told apart."""
EDITED = 80
"""ID images that the tests edit."""


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """What the network returns for some images."""

    predicted: Int[Tensor, " n"]
    """The most likely class of each image."""
    head: Float[Tensor, "n width"] | None
    """What its linear head reads; None without one."""
    confidence: Float[Tensor, " n"]
    """The largest probability of each image; nan where it was not kept."""


@dataclass(frozen=True, eq=False)
class Treatment:
    """A change that gives lost accuracy back, and the cause that this shows."""

    cause: str
    what: str
    """What is changed, such as `red and blue channels exchanged`."""
    stage: int
    """Treatments are applied in the order of their stages, images first, answers last."""
    images: Callable[[Tensor, Tensor], Tensor] | None = None
    """From images and their rows among the OOD images to images."""
    reads: Callable[[NetworkOutputs], Tensor] | None = None
    """From what the network returns to predicted classes."""
    relabels: Callable[[Tensor], Tensor] | None = None
    """From predicted classes to classes."""
    fix: str = ""
    """A line of code, or an instruction, that makes the change permanent."""


def _applied(
    treatments: Sequence[Treatment],
    x: Tensor,
    rows: Tensor,
    answer: Callable[[Tensor], NetworkOutputs],
) -> NetworkOutputs:
    """Return the answers of the network under several treatments together.

    Args:
        treatments: the treatments, in any order.
        x: OOD images.
        rows: their rows among the OOD images of the comparison.
        answer: runs the network.
    """
    ordered = sorted(treatments, key=lambda treatment: treatment.stage)
    for treatment in ordered:
        if treatment.images is not None:
            x = treatment.images(x, rows)
    return read(ordered, answer(x))


def read(treatments: Sequence[Treatment], outputs: NetworkOutputs) -> NetworkOutputs:
    """Return the answers under the treatments that do not change images, in their order.

    >>> outputs = NetworkOutputs(torch.tensor([0, 1]), None, torch.ones(2))
    >>> read([], outputs).predicted
    tensor([0, 1])
    """
    predicted = outputs.predicted
    for treatment in treatments:
        if treatment.reads is not None:
            predicted = treatment.reads(outputs)
    for treatment in treatments:
        if treatment.relabels is not None:
            predicted = treatment.relabels(predicted)
    return replace(outputs, predicted=predicted)


@dataclass(eq=False)
class Comparison:
    """An ID set and an OOD set, with up to 200 and 400 images that the tests may change.

    Args:
        passes: results of `run_passes`.
        scores: accuracies of the ID set and of the OOD set.
    """

    passes: Passes
    scores: tuple[SetScores, SetScores]
    shown: int = 0
    """Images that the tests showed to the network so far."""
    size: int = 0
    """Images in a forward pass, where memory ran out before; 0 for the audit's batches."""
    known: dict[tuple[frozenset[Treatment], tuple[int, ...]], NetworkOutputs] = field(
        default_factory=dict
    )
    """Answers under treatments, by these and the rows."""
    proposed: dict[str, tuple[Tensor, float]] = field(default_factory=dict)
    """Masks by set, and the share of them that is plausible."""
    interchanges: dict[tuple[str, ...], object] = field(default_factory=dict)
    """Results of the interchange of backgrounds, by the treatments that were applied."""

    @property
    def inputs(self) -> AuditInputs:
        """The network and its data."""
        return self.passes.inputs

    @property
    def name(self) -> str:
        """Name of the OOD set."""
        return self.scores[1].name

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.inputs.seed

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.inputs.classes)

    @property
    def id(self) -> PassResult:
        """The pass over the ID set."""
        return self.passes.id

    @property
    def ood(self) -> PassResult:
        """The pass over the OOD set."""
        return self.passes.sets[self.name]

    @cached_property
    def loss(self) -> Interval:
        """ID accuracy minus OOD accuracy, with the interval of `difference_of`."""
        return difference_of(self.id.correct, self.ood.correct)

    @property
    def chance(self) -> float:
        """Accuracy of always predicting the most frequent class of the OOD set."""
        return chance_accuracy(self.scores[1])

    # The images

    @property
    def id_images(self) -> Batch | None:
        """Images of the ID set; None if the inputs are not images of at least 8 pixels."""
        return self._images(self.inputs.id.name)

    @property
    def ood_images(self) -> Batch | None:
        """Images of the OOD set; None if the inputs are not images of at least 8 pixels."""
        return self._images(self.name)

    def _images(self, name: str) -> Batch | None:
        batch = self.passes.images.get(name)
        return batch if batch is not None and has_border(batch.x) else None

    def rows(self, name: str) -> Int[Tensor, " n"]:
        """The rows of a set whose images were kept."""
        return self.passes.image_rows[name]

    def given_masks(self, name: str) -> Float[Tensor, "n 1 height width"] | None:
        """The user's masks of the kept images of a set."""
        sample = next(s for s in (self.inputs.id, *self.inputs.ood) if s.name == name)
        return None if sample.masks is None else sample.masks[self.rows(name)]

    def masks(self, name: str) -> tuple[Float[Tensor, "n 1 height width"], float]:
        """Masks of the kept images of a set, given or proposed, and the share that is plausible."""
        if name not in self.proposed:
            masks, share = self.given_masks(name), 1.0
            if masks is None:
                masks, plausible = proposed_masks(self.passes.images[name].x)
                share = float(plausible.double().mean())
            self.proposed[name] = masks, share
        return self.proposed[name]

    def treated(self, treatments: Sequence[Treatment]) -> Float[Tensor, "n ..."]:
        """Return the kept OOD images under the treatments of images among these."""
        assert self.ood_images is not None
        x, rows = self.ood_images.x, torch.arange(len(self.ood_images.y))
        for treatment in sorted(treatments, key=lambda treatment: treatment.stage):
            if treatment.images is not None:
                x = treatment.images(x, rows)
        return x

    @cached_property
    def few(self) -> Int[Tensor, " few"]:
        """Some of the kept ID images, of all classes alike, that the tests edit."""
        assert self.id_images is not None
        return balanced(self.id_images.y, EDITED, seed=self.seed, purpose="audit/edited")

    @cached_property
    def kept_rows(self) -> Int[Tensor, " n"]:
        """The rows of the OOD set that treatments are tried on: its kept images, or all."""
        images = self.ood_images
        return torch.arange(len(self.ood.y)) if images is None else self.rows(self.name)

    @cached_property
    def y(self) -> Int[Tensor, " n"]:
        """Class indices of these examples."""
        return self.ood.y[self.kept_rows]

    @cached_property
    def chosen(self) -> Int[Tensor, " some"]:
        """The examples among these on which a variant is chosen."""
        share = 2 if self.ood_images is None else 3
        most = len(self.y) // share
        most = most if self.ood_images is None else min(CHOSEN, most)
        return balanced(self.y, most, seed=self.seed, purpose="audit/chosen")

    @property
    def every(self) -> Int[Tensor, " n"]:
        """All of these examples, which judge a second time what none of them chose."""
        return torch.arange(len(self.y))

    @cached_property
    def others(self) -> Int[Tensor, " others"]:
        """All others of these examples, on which what was chosen is judged a second time."""
        others = torch.ones(len(self.y), dtype=torch.bool)
        others[self.chosen] = False
        return others.nonzero().flatten()

    @cached_property
    def judged(self) -> Int[Tensor, " judged"]:
        """Some of these others, on which what was chosen is judged first."""
        if self.ood_images is None:
            return self.others
        y = self.y[self.others]
        return self.others[balanced(y, JUDGED, seed=self.seed, purpose="audit/judged")]

    @cached_property
    def first(self) -> Int[Tensor, " few"]:
        """Examples among `chosen` on which all variants are tried."""
        few = balanced(self.y[self.chosen], FIRST, seed=self.seed, purpose="audit/first")
        return self.chosen[few]

    # The network

    def answer(self, x: Float[Tensor, "n ..."]) -> NetworkOutputs:
        """Run the network on images, in batches."""
        self.shown += len(x)
        outputs, self.size = outputs_of(self.inputs.model, x, self.size or self.inputs.batch_size)
        return outputs

    def in_network_range(self, edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return an edit of the network's inputs as an edit of the audit's images."""
        return network_range_edit(self.inputs.model, edit)

    def under(self, treatments: Sequence[Treatment], rows: Int[Tensor, " some"]) -> NetworkOutputs:
        """Return the answers on some of the kept OOD examples under treatments."""
        images = self.ood_images
        if images is not None and any(t.images is not None for t in treatments):
            key = (frozenset(treatments), tuple(rows.tolist()))
            if key not in self.known:
                self.known[key] = _applied(treatments, images.x[rows], rows, self.answer)
            return self.known[key]
        at, head = self.kept_rows[rows], self.ood.head
        known = NetworkOutputs(
            self.ood.predicted[at], None if head is None else head[at],
            torch.full((len(at),), torch.nan),
        )  # fmt: skip
        return read(sorted(treatments, key=lambda treatment: treatment.stage), known)

    def correct(
        self, treatments: Sequence[Treatment], rows: Int[Tensor, " some"]
    ) -> Bool[Tensor, " some"]:
        """Return which of these OOD examples are classified correctly under treatments."""
        return self.under(treatments, rows).predicted == self.y[rows]

    @cached_property
    def fresh_head(self) -> Callable[[NetworkOutputs], Tensor] | None:
        """A linear head that is fitted to ID features of other content than the images that judge.

        None if the network has no linear head, or too few ID examples.
        """
        features = self.id.head
        if features is None or self.passes.fresh_correct is None:
            return None
        pairs = self.passes.same_content(self.name)
        judged = torch.isin(pairs[:, 1], self.kept_rows[self.others])
        fitted = torch.ones(len(features), dtype=torch.bool)
        fitted[pairs[judged, 0]] = False
        if len(self.id.y[fitted].unique()) < len(self.id.y.unique()):
            return None
        recipe = probe_recipe([features], EXACT, classes=self.classes)
        head = linear_classifier(features[fitted], self.id.y[fitted], recipe, classes=self.classes)

        def read(outputs: NetworkOutputs) -> Tensor:
            assert outputs.head is not None
            return head(outputs.head)

        return read


def outputs_of(
    model: nn.Module, x: Float[Tensor, "n ..."], batch_size: int
) -> tuple[NetworkOutputs, int]:
    """Run a network on images, in batches, which are halved where memory runs out.

    Args:
        model: the network.
        x: images.
        batch_size: images in a forward pass.

    Returns:
        What it returns, and the batch size that fits.

    >>> answers, size = outputs_of(nn.Flatten(), torch.eye(3)[:2], batch_size=2)
    >>> answers.predicted, size
    (tensor([0, 1]), 2)
    """
    place = next((p.device for p in model.parameters()), x.device)
    observer = Observer(model, (), "moments", head=True)
    predicted, confidence, head = [], [], []
    waiting = [*x.split(batch_size)]
    while waiting:
        part = waiting.pop(0)
        empty = torch.zeros(len(part), dtype=torch.int64)
        try:
            observation = observer(Batch(part.to(place), empty, empty))
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            batch_size = len(part) // 2
            waiting = [few for some in (part, *waiting) for few in some.split(batch_size)]
            continue
        most = observation.logits.detach().cpu().float().softmax(1).max(1)
        predicted.append(most.indices)
        confidence.append(most.values)
        if observation.head is not None:
            head.append(observation.head.detach().cpu().float())
    features = torch.cat(head) if head else None
    return NetworkOutputs(torch.cat(predicted), features, torch.cat(confidence)), batch_size


def network_range_edit(
    model: nn.Module, edit: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return an edit of a network's inputs as an edit of the audit's images.

    Args:
        model: the network.
        edit: from inputs to inputs.

    >>> network_range_edit(nn.Identity(), lambda x: 1 - x)(torch.tensor([0.25]))
    tensor([0.7500])
    """
    pixel_range = model.pixel_range if isinstance(model, LogitsAdapter) else None
    if pixel_range is None:
        return edit
    return lambda x: pixel_range.pictures(edit(pixel_range.inputs(x)))


def interval_of(
    statistic: Callable[..., Tensor], units: tuple[int, ...], *, seed: int = 0
) -> Interval:
    """Return a statistic with its bootstrap interval as a record.

    >>> correct = torch.ones(20)
    >>> interval_of(lambda rows: correct[rows].mean(), (20,)).value
    1.0
    """
    estimate = bootstrap(statistic, units, seed=seed, resamples=500)
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def gain_of(before: Bool[Tensor, " n"], after: Bool[Tensor, " n"]) -> Interval:
    """Return the gain in accuracy on the same examples, with the interval of `paired_change`.

    >>> gain = gain_of(torch.zeros(9).bool(), torch.ones(9).bool())
    >>> gain.value, round(gain.low, 3), round(gain.high, 3)
    (1.0, 0.402, 1.0)
    """
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = paired_change(gained, lost, len(before))
    return Interval(value=(gained - lost) / len(before), low=low, high=high)


def difference_of(one: Bool[Tensor, " n"], other: Bool[Tensor, " m"]) -> Interval:
    """Return the accuracy on some examples minus that on others, with its interval.

    >>> loss = difference_of(torch.ones(20).bool(), torch.ones(20).bool())
    >>> loss.value, round(loss.low, 3), round(loss.high, 3)
    (0.0, -0.123, 0.123)
    """
    first, second = (Accuracy(int(correct.sum()), len(correct)) for correct in (one, other))
    low, high = unpaired_change(second, first)
    return Interval(value=first.share - second.share, low=low, high=high)


def mean_interval(values: Float[Tensor, " n"], seed: int = 0) -> Interval:
    """Return a mean with its bootstrap interval as a record.

    >>> mean = mean_interval(torch.tensor([0.0, 1.0]).repeat(50))
    >>> mean.value, mean.low < 0.5 < mean.high
    (0.5, True)
    """
    return interval_of(lambda rows: values[rows].mean(), (len(values),), seed=seed)
