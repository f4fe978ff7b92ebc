"""Evidence about backgrounds: what the network answers without the object, and what it could use.

Mutual information says what was there to be used, background-only accuracy says what is used. Both
ask more than they seem to: a mask that leaves the object's outline visible would leave its class
visible, so a box around the object is filled from outside, mirrored at the box's nearest edge.
"""

import math
from collections.abc import Generator, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.records import BackgroundLabel, BackgroundOnly, Interval
from contam.batch import Batch
from contam.measures.accuracy import clopper_pearson
from contam.models.observe import observe
from contam.rng import generator_for

MARGIN = 1
"""Pixels by which a box is wider than the object's mask on each side."""
BORDER = 0.1
"""The share of the image's sides that counts as border on each side, where there are no masks."""
FEWEST = 20
"""Examples below which nothing is said."""
KINDS = 20
"""At most so many kinds of backgrounds are told apart by their borders."""
SHUFFLES = 199


class Answers(Protocol):
    """Examples with the logits that a network gave them."""

    @property
    def y(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...


def background_only(
    subject: AuditInputs, readings: Sequence[Answers], *, batch_size: int = 256
) -> Generator[float, None, tuple[BackgroundOnly | None, str]]:
    """What the network answers on ID images without their objects, or why that can't be said.

    With masks, a box around each object is filled from the background beside it; without, all but
    the border is. Where the inputs are no images, declared backgrounds serve: of the examples
    whose background goes with another class in the ID data, how many are answered as it suggests.
    `chance` is the accuracy of the same answers given at random. `readings` are the network's
    answers on the ID set and the OOD sets.

    Source: ours, what a network uses and not what it could use.
    """
    sample = subject.id
    first = next(sample.domain.batches(1)).x
    if first.ndim != 4 or min(first.shape[2:]) < 8:
        if sample.background is None:
            return None, (
                "What the network answers without the object was not asked: the inputs are no "
                "images; declare background labels."
            )
        return _by_labels(subject, readings)
    if sample.masks is None:
        boxes = _inner(len(sample), first.shape[2], first.shape[3])
    else:
        boxes = bounding_boxes(sample.masks)
    answers, labels, done = [], [], 0
    for batch in sample.domain.batches(batch_size):
        here = boxes[done : done + len(batch.y)]
        done += len(batch.y)
        usable = ((here[:, 0] < here[:, 1]) & _leaves_something(here, batch.x)).to(batch.x.device)
        if usable.any():
            seen = batch.pick(usable)
            bare = Batch(without(seen.x, here[usable.cpu()]), seen.y, seen.domain)
            [found] = observe(subject.model, [bare], layers=())
            answers.append(found.logits.argmax(dim=1).cpu())
            labels.append(seen.y.cpu())
        yield done / len(sample)
    count = sum(map(len, labels))
    if count < FEWEST:
        return None, (
            f"What the network answers without the object was not asked: {count} images have both "
            f"an object and a background around it, and {FEWEST} are the least."
        )
    kind = "border" if sample.masks is None else "masks"
    return _answered(kind, torch.cat(answers), torch.cat(labels)), ""


def without(
    x: Float[Tensor, "n channels height width"], boxes: Int[Tensor, "n 4"]
) -> Float[Tensor, "n channels height width"]:
    """Images whose boxes are filled with what lies beside them, mirrored at the nearest edge.

    A box is its first row, the row after its last, and the same for columns. It is filled from
    above and below or from both sides, wherever there is more, again and again where that is
    little.

    Source: ours, a background without the object's outline.
    """
    boxes = boxes.to(x.device)
    height, width = x.shape[2:]
    top, bottom, left, right = boxes.T[:, :, None]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    within = ((rows >= top) & (rows < bottom))[:, :, None]
    within = within & ((columns >= left) & (columns < right))[:, None, :]
    beside = _mirrored(left, right, width)[:, None, None, :].expand(x.shape)
    above = _mirrored(top, bottom, height)[:, None, :, None].expand(x.shape)
    sideways = (width - right + left) * height >= (height - bottom + top) * width
    filled = torch.where(sideways[..., None, None], x.gather(3, beside), x.gather(2, above))
    return torch.where(within[:, None], filled, x)


def _mirrored(low: Int[Tensor, "n 1"], high: Int[Tensor, "n 1"], size: int) -> Tensor:
    """(n, size) where each place takes its value from: itself, or its mirror image outside."""
    at = torch.arange(size, device=low.device)
    before, after = low, size - high
    nearer_low = (at - low < high - 1 - at) & (before > 0) | (after == 0)
    # How far inside the box, counted from 0 at the edge, and back and forth over what is outside.
    depth = torch.where(nearer_low, at - low, high - 1 - at)
    room = torch.where(nearer_low, before, after).clamp(min=1)
    turn = depth % (2 * room)
    step = torch.where(turn < room, turn, 2 * room - 1 - turn)
    source = torch.where(nearer_low, low - 1 - step, high + step).clamp(0, size - 1)
    return torch.where((at >= low) & (at < high), source, at.expand_as(source))


def bounding_boxes(masks: Float[Tensor, "n 1 height width"]) -> Int[Tensor, "n 4"]:
    """The box around each mask, `MARGIN` wider: first row, row after the last, and columns alike.

    An empty mask has an empty box.
    """
    ends = []
    for axis in (3, 2):
        touched = (masks > 0).any(dim=axis)[:, 0]
        size = touched.shape[1]
        first = touched.int().argmax(dim=1)
        last = size - touched.flip(1).int().argmax(dim=1)
        none = ~touched.any(dim=1)
        ends.append(torch.where(none, 0, (first - MARGIN).clamp(min=0)))
        ends.append(torch.where(none, 0, (last + MARGIN).clamp(max=size)))
    return torch.stack(ends, dim=1)


def _inner(n: int, height: int, width: int) -> Int[Tensor, "n 4"]:
    """The same box for all: everything but the border."""
    rows, columns = (max(1, round(BORDER * side)) for side in (height, width))
    return torch.tensor([rows, height - rows, columns, width - columns]).expand(n, 4)


def _leaves_something(boxes: Tensor, x: Tensor) -> Tensor:
    return (boxes[:, 1] - boxes[:, 0] < x.shape[2]) | (boxes[:, 3] - boxes[:, 2] < x.shape[3])


def _by_labels(
    subject: AuditInputs, readings: Sequence[Answers]
) -> tuple[BackgroundOnly | None, str]:
    """How often a background is answered where the object says otherwise."""
    assert subject.id.background is not None
    classes = len(subject.classes)
    kinds = 1 + max(
        int(sample.background.max())
        for sample in (subject.id, *subject.ood)
        if sample.background is not None
    )
    table = torch.zeros(kinds, classes, dtype=torch.int64)
    inside = readings[0].y
    table.index_put_((subject.id.background, inside), torch.ones_like(inside), accumulate=True)
    suggested, answered = [], []
    for sample, seen in zip((subject.id, *subject.ood), readings, strict=True):
        if sample.background is not None:
            hint = table[sample.background].argmax(dim=1)
            other = (hint != seen.y) & (table[sample.background].sum(dim=1) > 0)
            suggested.append(hint[other])
            answered.append(seen.logits.argmax(dim=1)[other])
    hints = torch.cat(suggested)
    if len(hints) < FEWEST:
        return None, (
            "What the network answers without the object was not asked: in only "
            f"{len(hints)} examples object and background suggest different classes, and {FEWEST} "
            "are the least; bring masks, or an OOD set with declared backgrounds."
        )
    return _answered("labels", torch.cat(answered), hints), ""


def _answered(made_from: str, answers: Tensor, labels: Tensor) -> BackgroundOnly:
    """The accuracy of answers, and that of the same answers in any order."""
    correct, count = int((answers == labels).sum()), len(labels)
    low, high = clopper_pearson(correct, count)
    most = 1 + int(max(answers.max(), labels.max()))
    given, wanted = (torch.bincount(each, minlength=most).double() for each in (answers, labels))
    return BackgroundOnly.model_validate(
        {
            "made_from": made_from,
            "accuracy": Interval(value=correct / count, low=low, high=high),
            "chance": float(given @ wanted) / count**2,
        }
    )


def background_label(subject: AuditInputs) -> tuple[BackgroundLabel | None, str]:
    """How many bits the background says about the label in the ID data, or why that is unknown.

    Backgrounds are declared, or told apart by k-means on the mean color and the spread of their
    border's pixels. What labels in any order would seem to share with them is taken off.

    Source: ours, what a network could use.
    """
    sample, classes = subject.id, len(subject.classes)
    y = sample.domain.y.cpu()
    if len(y) < FEWEST:
        return None, f"Backgrounds were not compared with labels: {len(y)} examples are too few."
    if sample.background is not None:
        kind, known_from = sample.background.cpu(), "labels"
    else:
        found = _kinds_of_borders(sample, subject.seed)
        if found is None:
            return None, (
                "Backgrounds were not compared with labels: the inputs are no images; declare "
                "background labels."
            )
        kind, known_from = found, "border"
    bits, p_value = shared_bits(kind, y, classes=classes, seed=subject.seed)
    return BackgroundLabel.model_validate(
        {"known_from": known_from, "bits": bits, "p_value": p_value}
    ), ""


def shared_bits(
    kind: Int[Tensor, " n"], y: Int[Tensor, " n"], *, classes: int, seed: int = 0
) -> tuple[Interval, float]:
    """The mutual information of two labels in bits above chance, and its permutation p-value.

    About 0 for independent labels, up to the entropy of either. Chance is the mean over labels in
    other orders; the interval is the normal one of the mean over examples.

    Source: ours, the plug-in estimate without its bias.
    """
    kinds, n = 1 + int(kind.max()), len(y)

    def pointwise(labels: Tensor) -> Tensor:
        joint = torch.bincount(kind * classes + labels, minlength=kinds * classes)
        table = joint.view(kinds, classes).double() / n
        apart = table.sum(dim=1, keepdim=True) * table.sum(dim=0, keepdim=True)
        return (table / apart)[kind, labels].log2()

    each = pointwise(y)
    generator = generator_for(seed, "audit/background and label")
    drawn = torch.stack(
        [pointwise(y[torch.randperm(n, generator=generator)]).mean() for _ in range(SHUFFLES)]
    )
    value = float(each.mean() - drawn.mean())
    half = 1.96 * float(each.std()) / math.sqrt(n)
    # Rounding must not tell equal tables apart.
    as_much = int((drawn >= each.mean() - 1e-9).sum())
    return (
        Interval(value=value, low=value - half, high=value + half),
        (1 + as_much) / (1 + SHUFFLES),
    )


def _kinds_of_borders(sample: Sample, seed: int) -> Int[Tensor, " n"] | None:
    """Clusters of images by the mean and the spread of each channel along their border."""
    rows = []
    for batch in sample.domain.batches(256):
        if batch.x.ndim != 4 or min(batch.x.shape[2:]) < 8:
            return None
        outside = _border(batch.x)
        rows.append(torch.cat([outside.mean(dim=2), outside.std(dim=2)], dim=1).cpu())
    looks = torch.cat(rows).double()
    # Spread is a shade of the same color, so it is not blown up to the size of the means.
    different = len(looks.unique(dim=0))
    clusters = min(max(2, min(KINDS, len(looks) // 25)), different)
    found = KMeans(clusters, random_state=seed).fit_predict(looks.numpy())
    return torch.from_numpy(found).long()


def _border(x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels pixels"]:
    top, bottom, left, right = _inner(1, x.shape[2], x.shape[3])[0].tolist()
    inside: Bool[Tensor, "height width"] = torch.zeros(x.shape[2:], dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return x.flatten(2)[:, :, ~inside.flatten().to(x.device)].float()
