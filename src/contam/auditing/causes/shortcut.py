"""Shortcut: the network predicts the class without the object.

Two kinds of evidence. Background-only accuracy is what the network predicts when the object is
removed: what it uses. The mutual information of background and class in the ID data is what it
could use.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from contam.auditing.causes.cause import SIGNIFICANCE, Cause, Findings
from contam.auditing.intervals import above_chance, compare, percent
from contam.auditing.passes import Passes
from contam.auditing.records import CauseEvidence, Interval, Number, Remedy, Step
from contam.auditing.scores import share_correct
from contam.rng import generator_for

FEWEST = 20
"""Examples below which neither number is reported."""
CLUSTERS = 20
"""Kinds of background that border statistics are clustered into, at most."""
PERMUTATIONS = 199

WITHOUT, GUESSING = "accuracy without the object", "chance"
BITS, P_VALUE = "bits shared by background and class", "p-value of no bits"
SOURCES = {
    "masks": "Without their objects, ID images are still classified correctly in",
    "border": "From their border alone, ID images are classified correctly in",
    "labels": "Where object and background suggest different classes, the network follows the "
    "background in",
}
"""How the object was removed, and how a sentence about it begins."""

STOP_GRADIENT = Remedy(
    what="Stop the gradient outside the object during training; this needs masks.",
    effect="Networks that relied on the background rose from 0.13 to 0.60 and from 0.45 to 0.85 "
    "OOD accuracy, others from 0.41 to 0.54.",
    caveat="In networks that do not rely on the background, wrong masks helped half as much "
    "(0.47).",
)


@final
@dataclass(frozen=True)
class Shortcut(Cause):
    """Background-only accuracy; the background of the ID data where that cannot be measured.

    Source: ours, what a network uses, and what it could use.
    """

    threshold: float = 0.25
    """Background-only accuracy from chance to perfect above which the network uses a shortcut."""

    name = "spurious correlation"
    noun = "a spurious correlation"
    heading = (
        "Spurious correlation: the network relies on a feature that is correlated with the class"
    )
    question = "Does the network predict the class without the object?"
    measured = "accuracy on ID images without their objects, from chance (0) to perfect (1)"
    may_follow = ("undertrained",)
    reason_rank = 2
    remedies = (
        Remedy(
            what="Collect or make training images whose background does not predict the class.",
            effect="On images without objects, networks that were trained on predictive "
            "backgrounds were correct in 0.91, and networks that were trained on independent ones "
            "in 0.10, which is chance.",
            caveat="This removes the shortcut; accuracy may still fall on backgrounds of a new "
            "kind.",
        ),
        STOP_GRADIENT,
    )

    def measure(self, passes: Passes) -> CauseEvidence:
        alone, n, why_alone = background_only(passes)
        shared, why_shared = background_and_class(passes)
        return CauseEvidence(
            cause=self.name,
            title="Does the network rely on the background?",
            method="The object is removed from ID images: the box around its mask, or everything "
            "but the border without masks, is filled with mirrored surroundings. Chance is the "
            "accuracy of the same predictions in random order. Bits count how much the background "
            "says about the class in the ID data, above chance.",
            effect=alone[0].value if alone else None,
            measured="accuracy without the object",
            n=n,
            numbers=(*alone, *shared),
            left_out=tuple(reason for reason in (why_alone, why_shared) if reason),
        )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        evidence = findings.evidence.get(self.name)
        alone = evidence and evidence.find(WITHOUT)
        guessing = evidence and evidence.find(GUESSING)
        bits, p_value = (evidence and evidence.find(what) for what in (BITS, P_VALUE))
        if alone and guessing and guessing.value.value < 1:
            chance = guessing.value.value
            found = above_chance(alone.value, chance)
            answer = compare(found, self.threshold, below="no")
            conclusion = {
                "yes": "the network relies on a feature other than the object",
                "no": "the network needs the object",
                "undecided": "it is unclear whether the network needs the object",
            }[answer]
            why = (
                f"{SOURCES[alone.part]} {percent(alone.value)} of cases "
                f"(chance {100 * chance:.0f} %): {conclusion}."
            )
            return self.step(found, answer, why)
        if not (bits and p_value):
            return self.step(None, "undecided", "The accuracy without the object was not measured.")
        p = p_value.value.value
        if p > SIGNIFICANCE:
            return self.step(
                None, "no",
                f"In the ID data the background says nothing about the class "
                f"({bits.value.value:.2f} bits, p = {p:.2f}), so the network cannot have learned "
                "to use it.",
            )  # fmt: skip
        return self.step(
            None, "undecided",
            f"In the ID data the background says {bits.value.value:.2f} bits about the class "
            f"(p = {p:.3f}). Whether the network uses them was not measured.",
        )  # fmt: skip

    def sentence(self, findings: Findings) -> str:
        return (
            "Spurious correlation: the network predicts the class without the object. Other causes "
            "may hide behind this one."
        )

    def to_provide(self, findings: Findings) -> str:
        evidence = findings.evidence.get(self.name)
        if evidence is None or evidence.find(WITHOUT) is None:
            return (
                "Masks of the objects, or labels of the backgrounds: they allow a test without the "
                "object."
            )
        return (
            f"More ID examples, or masks of the objects: {evidence.n} images without the object "
            "leave the answer open."
        )


def background_only(passes: Passes) -> tuple[tuple[Number, ...], int, str]:
    """Return the accuracy on ID images without their objects, or why it cannot be measured.

    Where the inputs are not images, labels of the backgrounds serve: among the examples whose
    background occurs mostly with another class in the ID data, the share that the network assigns
    to that class.

    Returns:
        The accuracy and that of the same predictions in random order, the number of examples, and a
        sentence if there are none.

    Source: ours, what a network uses and not what it could use.
    """
    inputs, result = passes.inputs, passes.background_only
    not_measured = "The accuracy without the object was not measured:"
    if result is not None:
        n = len(result.y)
        if n < FEWEST:
            reason = f"{n} ID images show both an object and a background around it"
            return (), 0, f"{not_measured} {reason}, and at least {FEWEST} are needed."
        source = "border" if inputs.id.masks is None else "masks"
        return *_beside_chance(source, result.predicted, result.y, inputs.id.name), ""
    if inputs.id.background is None:
        reason = "the inputs are not images of at least 8 pixels, or no ID images were changed"
        return (), 0, f"{not_measured} {reason}. Labels of the backgrounds would serve instead."
    suggested, predicted = _suggested_by_background(passes)
    n = len(suggested)
    if n < FEWEST:
        reason = f"in only {n} examples object and background suggest different classes"
        return (), 0, (
            f"{not_measured} {reason}, and at least {FEWEST} are needed. Provide masks, or an OOD "
            "set with labels of the backgrounds."
        )  # fmt: skip
    return *_beside_chance("labels", predicted, suggested, inputs.id.name), ""


def _suggested_by_background(passes: Passes) -> tuple[Tensor, Tensor]:
    """The class that goes with the background where the object has another, and the prediction."""
    inputs = passes.inputs
    labeled = [
        (sample.background, passes.sets[sample.name])
        for sample in (inputs.id, *inputs.ood)
        if sample.background is not None
    ]
    own, kinds = labeled[0][0], 1 + max(int(background.max()) for background, _ in labeled)
    table = torch.zeros(kinds, len(inputs.classes), dtype=torch.int64)
    y = passes.sets[inputs.id.name].y
    table.index_put_((own, y), torch.ones_like(y), accumulate=True)
    suggested, predicted = [], []
    for background, result in labeled:
        hint = table[background].argmax(dim=1)
        conflict = (hint != result.y) & (table[background].sum(dim=1) > 0)
        suggested.append(hint[conflict])
        predicted.append(result.predicted[conflict])
    return torch.cat(suggested), torch.cat(predicted)


def _beside_chance(
    source: str, predicted: Tensor, wanted: Tensor, name: str
) -> tuple[tuple[Number, ...], int]:
    """The accuracy of predictions, and that of the same predictions in random order."""
    classes = 1 + int(max(predicted.max(), wanted.max()))
    guesses, targets = (torch.bincount(v, minlength=classes).double() for v in (predicted, wanted))
    chance = float(guesses @ targets) / len(wanted) ** 2
    score = share_correct(predicted == wanted)
    numbers = (
        Number(what=WITHOUT, on=name, part=source, value=score.accuracy),
        Number(what=GUESSING, on=name, part=source, value=Interval(value=chance)),
    )
    return numbers, score.count


def background_and_class(passes: Passes) -> tuple[tuple[Number, ...], str]:
    """Return how many bits background and class share in the ID data, or why that is unknown.

    Backgrounds are labeled, or clustered by the mean and the spread of their border's colors.

    Source: ours, what a network could use.
    """
    inputs = passes.inputs
    result, background = passes.sets[inputs.id.name], inputs.id.background
    if len(result.y) < FEWEST:
        return (
            (),
            f"Backgrounds were not compared with classes: {len(result.y)} examples are too few.",
        )
    if background is not None:
        kind, source = background.cpu(), "labels"
    elif result.border is not None:
        kind, source = clusters(result.border, seed=inputs.seed), "border"
    else:
        return (), (
            "Backgrounds were not compared with classes: the inputs are not images. Provide labels "
            "of the backgrounds."
        )
    bits, p_value = shared_bits(kind, result.y, classes=len(inputs.classes), seed=inputs.seed)
    return (
        Number(what=BITS, on=inputs.id.name, part=source, value=bits),
        Number(what=P_VALUE, on=inputs.id.name, part=source, value=Interval(value=p_value)),
    ), ""


def clusters(statistics: Float[Tensor, "n statistics"], *, seed: int = 0) -> Int[Tensor, " n"]:
    """Return the k-means cluster of each row, at most `CLUSTERS` and one for 25 rows."""
    rows = statistics.double()
    # A spread is a shade of the same color, so it is not rescaled to the size of the means.
    distinct = len(rows.unique(dim=0))
    count = min(max(2, min(CLUSTERS, len(rows) // 25)), distinct)
    return torch.from_numpy(KMeans(count, random_state=seed).fit_predict(rows.numpy())).long()


def shared_bits(
    kind: Int[Tensor, " n"], y: Int[Tensor, " n"], *, classes: int, seed: int = 0
) -> tuple[Interval, float]:
    """Return the mutual information of two labels in bits above chance, and its p-value.

    Chance is the mean over random orders of the labels, which also give the p-value. The interval
    is the normal one of a mean over examples.

    Args:
        kind: kind of background of each example.
        y: class indices.
        classes: number of classes.
        seed: seed of the permutations.

    Returns:
        About 0 for independent labels, at most the entropy of either; the permutation p-value.

    Source: ours, the plug-in estimate without its bias.

    >>> y = torch.arange(400) % 4
    >>> bits, p_value = shared_bits(y, y, classes=4)
    >>> round(bits.value, 1), p_value
    (2.0, 0.005)
    """
    kinds, n = 1 + int(kind.max()), len(y)

    def pointwise(labels: Tensor) -> Tensor:
        joint = torch.bincount(kind * classes + labels, minlength=kinds * classes)
        table = joint.view(kinds, classes).double() / n
        independent = table.sum(dim=1, keepdim=True) * table.sum(dim=0, keepdim=True)
        return (table / independent)[kind, labels].log2()

    per_example = pointwise(y)
    generator = generator_for(seed, "audit/background and label")
    permuted = torch.stack(
        [pointwise(y[torch.randperm(n, generator=generator)]).mean() for _ in range(PERMUTATIONS)]
    )
    value = float(per_example.mean() - permuted.mean())
    half = 1.96 * float(per_example.std()) / math.sqrt(n)
    # Rounding must not separate equal tables.
    as_large = int((permuted >= per_example.mean() - 1e-9).sum())
    return (
        Interval(value=value, low=value - half, high=value + half),
        (1 + as_large) / (1 + PERMUTATIONS),
    )
