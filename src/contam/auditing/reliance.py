"""Reliance on the background: what the network predicts without the object, on ID images.

Background-only accuracy is what the network predicts when the object is removed: what it uses. The
mutual information of background and class in the ID data is what it could use. Reliance alone costs
no accuracy, so it is a side finding and no cause.
"""

import math

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from contam.auditing.causes.background import BackgroundShortcut
from contam.auditing.intervals import above_chance, percent
from contam.auditing.passes import Passes
from contam.auditing.records import CauseEvidence, Interval, Number
from contam.auditing.scores import share_correct
from contam.rng import generator_for

RELIES = 0.25
"""Background-only accuracy from chance to perfect above which the network relies on the
background."""
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


def reliance(passes: Passes) -> CauseEvidence:
    """Return what the network predicts without the object, and what it could predict.

    Args:
        passes: results of `run_passes`.

    Source: ours, what a network uses, and what it could use.
    """
    alone, n, why_alone = _background_only(passes)
    shared, why_shared = _background_and_class(passes)
    return CauseEvidence(
        cause=BackgroundShortcut.name,
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


def relies(evidence: CauseEvidence) -> str:
    """Return a sentence if the network predicts the class without the object, or an empty string.

    Args:
        evidence: the result of `reliance`.

    >>> from contam.auditing.records import Interval
    >>> def evidence(accuracy):
    ...     numbers = (
    ...         Number(what=WITHOUT, part="masks", value=Interval(value=accuracy)),
    ...         Number(what=GUESSING, part="masks", value=Interval(value=0.5)))
    ...     return CauseEvidence(cause="", title="", method="", numbers=numbers)
    >>> relies(evidence(0.9)).split(" in ")[1].split(":")[0]
    '90.0 % of cases (chance 50 %)'
    >>> relies(evidence(0.55))
    ''
    """
    alone, guessing = evidence.find(WITHOUT), evidence.find(GUESSING)
    if alone is None or guessing is None or guessing.value.value >= 1:
        return ""
    chance = guessing.value.value
    solved = above_chance(alone.value, chance)
    if (solved.value if solved.low is None else solved.low) <= RELIES:
        return ""
    return (
        f"{SOURCES[alone.part]} {percent(alone.value)} of cases (chance {100 * chance:.0f} %): the "
        "network relies on the background, or the class shows there, too."
    )


def _background_only(passes: Passes) -> tuple[tuple[Number, ...], int, str]:
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


def _background_and_class(passes: Passes) -> tuple[tuple[Number, ...], str]:
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
    """Return the k-means cluster of each row, at most `CLUSTERS` and one for 25 rows.

    >>> clusters(torch.tensor([[0.0], [0.1], [9.0], [9.1]])).unique(return_counts=True)[1]
    tensor([2, 2])
    """
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
