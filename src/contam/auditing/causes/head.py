"""Head: a fresh linear head on the same features does better than the network's own head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from scipy.stats import binomtest

from contam.auditing.causes.cause import SIGNIFICANCE, Cause, Findings, for_fresh_head
from contam.auditing.head_probes import CLOSED_FORM, FEWEST_PER_CLASS, probe_recipe
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.intervals import chance_accuracy, points, scaled
from contam.auditing.passes import Passes
from contam.auditing.records import Answer, CauseEvidence, Interval, Number, Remedy, Step
from contam.auditing.scores import share_correct
from contam.measures.intervals import bootstrap
from contam.models.logits_adapter import LogitsAdapter

OWN, FRESH = "accuracy with the network's own head", "accuracy with a fresh head"
GAIN, P_VALUE = "gain of the fresh head", "p-value of no gain (McNemar)"
CLOSING = "The head is taken to be the last linear layer, before the closing {}."


@final
@dataclass(frozen=True)
class Head(Cause):
    """The gain of a linear head that is fitted on ID data, on the same images.

    Source: ours, good features under a bad head.
    """

    threshold: float = 0.04
    """Gain in accuracy, relative to 1 minus chance, above which the head is to blame."""

    name = "head"
    noun = "the classifier head"
    heading = "The classifier head wastes good features"
    question = "Does a fresh linear head do better than the network's own?"
    measured = "gain in accuracy on the same images, relative to 1 minus chance"
    may_follow = ("spurious correlation", "core information missing")
    remedies = (
        Remedy(
            what="Keep the encoder and fit a new linear head on ID data "
            "(`contam.training.probe.fit_probe`).",
            effect="The gain that this audit measured on this network.",
            caveat="It does not repair a further cause behind the head.",
        ),
    )

    def measure(self, passes: Passes) -> CauseEvidence:
        method = (
            "The network's own head is compared with a linear head that is fitted on the same "
            "features of ID data, on the same images. ID images are judged by a head that was "
            "fitted on the other half of them."
        )
        title = "Is the classifier head to blame?"
        features = passes.id.head
        if features is None or passes.fresh_correct is None:
            n, classes = len(passes.id.y), len(passes.id.y.unique())
            reason = (
                "the logits are not the output of a final linear layer."
                if features is None
                else f"{n} ID examples of {classes} classes are too few to fit it; give at least "
                f"{FEWEST_PER_CLASS} of each class."
            )
            return CauseEvidence(
                cause=self.name, title=title, method=method,
                n=0 if features is None else n,
                left_out=(f"The head was not compared with a fresh one: {reason}",),
            )  # fmt: skip
        recipe = probe_recipe([features], EXACT, classes=len(passes.inputs.classes))
        numbers: list[Number] = []
        for name, fresh in passes.fresh_correct.items():
            own = passes.sets[name].correct
            gained = fresh.double() - own.double()
            gain = bootstrap(
                lambda rows, gained=gained: gained[rows].mean(), (len(gained),),
                seed=passes.inputs.seed,
            )  # fmt: skip
            p_value = paired_p_value(int((gained > 0).sum()), int((gained < 0).sum()))
            for what, value in (
                (OWN, share_correct(own).accuracy),
                (FRESH, share_correct(fresh).accuracy),
                (GAIN, Interval(value=gain.value, low=gain.low, high=gain.high)),
                (P_VALUE, Interval(value=p_value)),
            ):
                numbers.append(Number(what=what, on=name, value=value))
        gains = [number for number in numbers if number.what == GAIN]
        left_out = [] if recipe is EXACT else [CLOSED_FORM]
        model = passes.inputs.model
        if isinstance(model, LogitsAdapter) and model.output not in (None, "logits"):
            left_out.append(CLOSING.format(model.output))
        best = max(gains, key=lambda number: number.value.value)
        return CauseEvidence(
            cause=self.name,
            title=title,
            method=method,
            effect=best.value,
            measured=f"largest gain in accuracy, on {best.on}",
            n=len(passes.sets[best.on].y),
            numbers=tuple(numbers),
            left_out=tuple(left_out),
        )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        evidence = findings.evidence.get(self.name)
        if evidence is None or evidence.effect is None:
            return self.step(
                None, "undecided", "The network's head was not compared with a fresh one."
            )
        own, fresh, gain, p_value = map(evidence.table, (OWN, FRESH, GAIN, P_VALUE))
        gains = {
            scores.name: scaled(gain[scores.name], 1 / (1 - chance_accuracy(scores)))
            for scores in (findings.id_scores, findings.worst)
            if scores and scores.name in gain and chance_accuracy(scores) < 1
        }
        if not gains:
            return self.step(None, "undecided", "There is only one class, so any head is correct.")
        significant = [name for name in gains if p_value[name].value < SIGNIFICANCE / len(gains)]
        large = [name for name in gains if gains[name].value > self.threshold]
        both = [name for name in large if name in significant]
        name = max(both or large or gains, key=lambda name: gains[name].value)
        answer: Answer = "yes" if both else "undecided" if large else "no"
        conclusion = {
            "yes": "a better head could use these features",
            "no": "the head is not to blame",
            "undecided": "the gain may be chance",
        }[answer]
        return self.step(
            gains[name], answer,
            f"On {name} a fresh head, fitted on ID data, reaches {100 * fresh[name].value:.1f} % "
            f"accuracy and the network's own head {100 * own[name].value:.1f} % (gain "
            f"{points(gain[name])}, p = {p_value[name].value:.2g}): {conclusion}.",
        )  # fmt: skip

    def sentence(self, findings: Findings) -> str:
        return "Head: the classifier head wastes good features; a fresh head does better."

    def to_provide(self, findings: Findings) -> str:
        evidence = findings.evidence.get(self.name)
        if evidence is None or evidence.effect is None:
            return for_fresh_head(findings)
        n = findings.id_scores.overall.count
        return f"More ID images (you gave {n}): the gain of a fresh head may be chance."

    def repaired(self, findings: Findings) -> Findings:
        """Return the findings of the network with the fresh head."""
        evidence = findings.evidence[self.name]
        fresh = evidence.table(FRESH)
        sets = tuple(
            scores.model_copy(
                update={
                    "overall": scores.overall.model_copy(
                        update={"accuracy": fresh.get(scores.name, scores.overall.accuracy)}
                    )
                }
            )
            for scores in findings.sets
        )
        after = {
            OWN: lambda number: fresh[number.on],
            GAIN: lambda _: Interval(value=0.0, low=0.0, high=0.0),
            P_VALUE: lambda _: Interval(value=1.0),
        }
        numbers = tuple(
            number.model_copy(update={"value": after[number.what](number)})
            if number.what in after
            else number
            for number in evidence.numbers
        )
        same = evidence.model_copy(update={"numbers": numbers})
        return replace(findings, sets=sets, evidence=findings.evidence | {self.name: same})


def paired_p_value(gained: int, lost: int) -> float:
    """Return the exact one-sided McNemar p-value of the hypothesis that there is no gain.

    Args:
        gained: examples that only the fresh head classifies correctly.
        lost: examples that only the network's own head classifies correctly.

    Source: ours; McNemar (1947).

    >>> paired_p_value(5, 0)
    0.03125
    """
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)
