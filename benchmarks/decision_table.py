"""The decision table that an earlier audit used, as a baseline for `audit_zoo`.

Six causes were asked about in a fixed order, and the last one was what remained by elimination. An
answer whose interval contains the threshold left the question open, and with it every later one.
"""

import torch
from scipy.stats import binomtest
from torch import Tensor

from contam.data.object_removal import object_boxes, removable, without_boxes
from contam.measures.accuracy import clopper_pearson
from contam.measures.class_means import rank_within_class
from contam.models.classifier import Classifier
from contam.rng import generator_for
from contam.training.probe import FullBatch, fit_probe

PROBE = FullBatch(penalties=(1e-3,), iterations=200)
UNDERTRAINED, SHORTCUT, MISSING, MISSING_OWN, HEAD, LOST = 0.60, 0.25, 0.65, 0.42, 0.04, 0.21
"""The thresholds, which were chosen on networks of these six causes alone."""
FEWEST, WITHOUT_OBJECT, SIGNIFICANCE, READABLE = 20, 200, 0.05, 0.3
UNDECIDED = "undecided"
Scores = tuple[float, float, float]
"""A share and the ends of its interval."""


def answer(
    model: Classifier,
    id_set: tuple[Tensor, Tensor],
    ood_set: tuple[Tensor, Tensor],
    *,
    masks: Tensor | None = None,
    reference: torch.nn.Module | None = None,
    seed: int = 0,
) -> str:
    """The cause that the decision table names, or `undecided`.

    Args:
        model: the network.
        id_set: images and labels.
        ood_set: images and labels.
        masks: masks of the objects of the ID set.
        reference: an encoder of the same images.
        seed: seed of the halves.
    """
    y = {"id": id_set[1], "ood": ood_set[1]}
    with torch.no_grad():
        features = {"id": model.encoder(id_set[0]), "ood": model.encoder(ood_set[0])}
        correct = {k: model.head(z).argmax(1) == y[k] for k, z in features.items()}
        probes = [features]
        if reference is not None:
            probes.append({"id": reference(id_set[0]), "ood": reference(ood_set[0])})
        alone = _without_objects(model, id_set, masks, seed)
    whole = fit_probe(features["id"], y["id"], PROBE, classes=model.head.out_features)
    fresh = {
        "id": _by_other_half(features["id"], y["id"], model.head.out_features, seed),
        "ood": whole(features["ood"]).argmax(1) == y["ood"],
    }
    chance = {k: float(labels.bincount().max() / len(labels)) for k, labels in y.items()}
    own = {k: _above(_share(c), chance[k]) for k, c in correct.items()}
    kept = _kept(own)
    id_fresh = _above(_share(fresh["id"]), chance["id"])
    questions = (
        ("undertrained", _below(max(own["id"], id_fresh), UNDERTRAINED)),
        ("spurious correlation", alone),
        ("core information missing", _missing(probes, y, chance, kept, seed)),
        ("head", _head(fresh, correct, chance)),
        ("healthy", _below((1 - kept[0], 1 - kept[2], 1 - kept[1]), LOST)),
    )
    for cause, positive in questions:
        if positive is None:
            return UNDECIDED
        if positive:
            return cause
    return "contaminated"


def _share(correct: Tensor) -> Scores:
    right, n = int(correct.sum()), len(correct)
    return right / n, *clopper_pearson(right, n)


def _above(score: Scores, chance: float) -> Scores:
    low, middle, high = ((part - chance) / (1 - chance) for part in (score[1], score[0], score[2]))
    return middle, low, high


def _below(score: Scores, threshold: float) -> bool | None:
    _, low, high = score
    return True if high < threshold else False if low > threshold else None


def _kept(own: dict[str, Scores]) -> Scores:
    """The share of the above-chance ID accuracy that is left, by propagation of both errors."""
    (known, known_low, known_high), (new, new_low, new_high) = own["id"], own["ood"]
    if known <= 0:
        return 1.0, 1.0, 1.0
    ratio = new / known
    down, up = (
        ((ood - new) ** 2 + (ratio * (end - known)) ** 2) ** 0.5 / known
        for ood, end in ((new_low, known_high), (new_high, known_low))
    )
    return ratio, ratio - down, ratio + up


def _by_other_half(x: Tensor, y: Tensor, classes: int, seed: int) -> Tensor:
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/halves"))
    order = order[y[order].argsort(stable=True)]
    halves = order[::2], order[1::2]
    correct = torch.zeros(len(y), dtype=torch.bool)
    for fitted, judged in (halves, halves[::-1]):
        probe = fit_probe(x[fitted], y[fitted], PROBE, classes=classes)
        correct[judged] = probe(x[judged]).argmax(1) == y[judged]
    return correct


def _without_objects(
    model: Classifier, id_set: tuple[Tensor, Tensor], masks: Tensor | None, seed: int
) -> bool | None:
    """Whether ID images without their objects are classified correctly."""
    x, y = id_set
    some = torch.arange(len(y))
    if len(y) > WITHOUT_OBJECT:
        shuffled = torch.randperm(len(y), generator=generator_for(seed, "audit/changes"))
        place = torch.empty_like(shuffled)
        place[shuffled] = rank_within_class(y[shuffled], int(y.max()) + 1)
        some = place.argsort(stable=True)[:WITHOUT_OBJECT].sort().values
    size = (x.shape[2], x.shape[3])
    boxes = object_boxes(None if masks is None else masks[some], size, len(some))
    usable = removable(boxes, size)
    if int(usable.sum()) < FEWEST:
        return None
    predicted = model(without_boxes(x[some][usable], boxes[usable])).argmax(1)
    y = y[some][usable]
    guesses, targets = (
        v.bincount(minlength=model.head.out_features).double() for v in (predicted, y)
    )
    chance = float(guesses @ targets) / len(y) ** 2
    if chance == 1:
        return None
    relies = _below(_above(_share(predicted == y), chance), SHORTCUT)
    return None if relies is None else not relies


def _missing(
    probes: list[dict[str, Tensor]],
    y: dict[str, Tensor],
    chance: dict[str, float],
    kept: Scores,
    seed: int,
) -> bool | None:
    """Whether no probe that is fitted on OOD images does well on them."""
    classes, usable, best = len(y["id"].unique()), False, kept
    fewest = min(map(len, y.values()))
    order = torch.randperm(len(y["id"]), generator=generator_for(seed, "audit/control"))[:fewest]
    for features in probes:
        control = _by_other_half(features["id"][order], y["id"][order], classes, seed)
        known = _above(_share(control), chance["id"])[0]
        if known < READABLE:
            continue
        usable = True
        new = _above(_share(_by_other_half(features["ood"], y["ood"], classes, seed)),
                     chance["ood"])  # fmt: skip
        if new[0] / known > best[0]:
            best = (new[0] / known, new[1] / known, new[2] / known)
    threshold = MISSING if len(probes) > 1 else MISSING_OWN
    result = _below(best, threshold)
    return result if usable or result is False else None


def _head(
    fresh: dict[str, Tensor], correct: dict[str, Tensor], chance: dict[str, float]
) -> bool | None:
    """Whether a fresh head gains on either set; open if the gain may be chance."""
    large, significant = [], []
    for k, own in correct.items():
        gained, lost = int((fresh[k] & ~own).sum()), int((own & ~fresh[k]).sum())
        if (gained - lost) / len(own) / (1 - chance[k]) > HEAD:
            large.append(k)
            p = binomtest(gained, gained + lost, alternative="greater").pvalue
            significant += [k] if p < SIGNIFICANCE / len(correct) else []
    return True if significant else None if large else False
