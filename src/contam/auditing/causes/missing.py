"""Missing information: a reference encoder can't recognize the object in the OOD images, either."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.causes.label_noise import ALIKE, domain_auc
from contam.auditing.comparison import Comparison, Treatment
from contam.auditing.head_probes import CLOSED_FORM, correct_by_other_half, probe_recipe
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.intervals import above_chance, chance_accuracy, scaled
from contam.auditing.records import CauseEvidence, Interval, Number
from contam.auditing.scores import share_correct
from contam.rng import generator_for

PROBE = "accuracy of a probe fitted on the set itself"
OWN = "this network"
READABLE = 0.3
"""Above-chance accuracy that a probe must reach on ID data to be used as evidence."""


@final
@dataclass(frozen=True)
class MissingInformation(Cause):
    """The loss of a linear probe of a reference encoder, fitted on OOD and judged on OOD.

    Probes of the network's own features can only refute the cause: they may have lost what the
    images show. Images that are not told apart from ID images do not lack anything.

    Source: ours, what no network can answer, estimated by a reference encoder's probe.
    """

    name = "information missing"
    noun = "missing information in the OOD images"
    heading = "The object can't be recognized in the OOD images"
    question = "Is the object missing from the OOD images?"
    measured = "share of the above-chance ID accuracy that a probe reaches on OOD data"
    meaning = "Even an encoder that was not trained on these data does not recognize the objects."

    threshold: float = 0.65
    """Share of the ID accuracy of a probe below which the object cannot be recognized."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        inputs, passes = comparison.inputs, comparison.passes
        if inputs.reference is None:
            return self.not_tested(
                "there is no reference encoder, and this network's own features can't show what "
                "the images lack; give one with reference="
            )
        names = (inputs.id.name, comparison.name)
        features = [passes.sets[name].reference for name in names]
        if features[0] is not None and features[1] is not None:
            domains = domain_auc(features[0], features[1], seed=comparison.seed)
            if domains < ALIKE:
                return CauseTest(
                    self.step(
                        None, "no",
                        f"The images of {comparison.name} are like the ID images for the reference "
                        f"encoder (area under the ROC curve {domains:.2f}, 0.5: not told apart), "
                        "so they do not lack objects.",
                    )
                )  # fmt: skip
        numbers: list[Number] = []
        left_out: tuple[str, ...] = ()
        shares: dict[str, Interval] = {}
        for encoder, attribute in ((OWN, "head"), (inputs.reference_name or "reference encoder",
                                                   "reference")):  # fmt: skip
            columns = {name: getattr(passes.sets[name], attribute) for name in names}
            known = {n: (x, passes.sets[n].y) for n, x in columns.items() if x is not None}
            if len(known) < 2:
                continue
            if probe_recipe(
                (x for x, _ in known.values()), EXACT, classes=comparison.classes
            ) is not (EXACT):
                left_out = (CLOSED_FORM,)
            accuracy = probe_accuracy(known, classes=comparison.classes, seed=comparison.seed)
            numbers += [
                Number(what=PROBE, on=name, part=encoder, value=value)
                for name, value in accuracy.items()
            ]
            own, other = (
                above_chance(accuracy[scores.name], chance_accuracy(scores))
                for scores in comparison.scores
            )
            if own.value >= READABLE:
                shares[encoder] = scaled(other, 1 / own.value)
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="Linear probes are fitted on one half of each data set and judged on the other "
            "half. The ID set is reduced to the size of the OOD set. A high accuracy proves that "
            "the object is in the images.",
            effect=max(shares.values(), key=lambda share: share.value, default=None),
            measured=self.measured, n=len(comparison.ood.y), numbers=tuple(numbers),
            left_out=left_out,
        )  # fmt: skip
        if not shares.keys() - {OWN}:
            step = self.step(
                None,
                "undecided",
                "The reference encoder does not recognize the ID objects, either.",
            )
            return CauseTest(step, evidence)
        reader = max(shares, key=lambda encoder: shares[encoder].value)
        share = shares[reader]
        answer = "no"
        if share.value < self.threshold:
            low_enough = share.high is not None and share.high < self.threshold
            answer = "yes" if low_enough else "undecided"
        why = (
            f"On {comparison.name} the best linear probe (of {reader}), fitted on OOD data, "
            f"reaches {100 * share.value:.0f} % of the above-chance accuracy that it has on ID "
            "data: "
            + ("the objects are hard to recognize for any reader." if answer == "yes" else
               "the objects can be recognized." if answer == "no" else
               "this is near the threshold.")
        )  # fmt: skip
        above = comparison.scores[0].overall.accuracy.value - comparison.chance
        missing = Interval(
            value=max(0.0, above * (1 - share.value)),
            low=None if share.high is None else max(0.0, above * (1 - share.high)),
            high=None if share.low is None else max(0.0, above * (1 - share.low)),
        )
        return CauseTest(
            self.step(share, answer, why), evidence, imitated=missing if answer == "yes" else None,
            what="objects that no reader recognizes",
            fix="look at the OOD images; provide images in which a person can see the object",
        )  # fmt: skip


def probe_accuracy(
    sets: dict[str, tuple[Float[Tensor, "_ width"], Int[Tensor, " _"]]],
    *,
    classes: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the accuracy of probes that are fitted on half of a set and judged on the other half.

    Args:
        sets: features and labels by name, ID first. The ID set is the control, so it is reduced to
            the size of the smallest set: where a probe fails even there, the examples are too few.
        classes: number of classes.
        seed: seed of the halves and of the reduced ID set.

    Source: ours, whether the information is still there.

    >>> y = torch.arange(40) % 2
    >>> x = torch.nn.functional.one_hot(y).float()
    >>> shares = probe_accuracy({"ID": (x, y), "dark": (0 * x, y)}, classes=2)
    >>> {name: accuracy.value for name, accuracy in shares.items()}
    {'ID': 1.0, 'dark': 0.5}
    """
    (control, (x, y)), *others = sets.items()
    fewest = min(len(labels) for _, labels in sets.values())
    some = torch.randperm(len(y), generator=generator_for(seed, "audit/control"))[:fewest]
    recipe = probe_recipe((x for x, _ in sets.values()), EXACT, classes=classes)
    return {
        name: share_correct(
            correct_by_other_half(features, labels, recipe, classes=classes, seed=seed)
        ).accuracy
        for name, (features, labels) in [(control, (x[some], y[some])), *others]
    }
