"""Head: a fresh linear head on the same features gives the lost accuracy back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from contam.auditing.causes.cause import Cause, CauseTest, paired_p_value
from contam.auditing.comparison import Comparison, Treatment, gain_of
from contam.auditing.head_probes import CLOSED_FORM, FEWEST_PER_CLASS, probe_recipe
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.intervals import points
from contam.auditing.passes import Passes
from contam.auditing.records import CauseEvidence, Interval, Number, Step
from contam.auditing.scores import share_correct
from contam.models.logits_adapter import LogitsAdapter

OWN, FRESH = "accuracy with the network's own head", "accuracy with a fresh head"
GAIN, P_VALUE = "gain of the fresh head", "p-value of no gain (McNemar)"
CLOSING = "The head is taken to be the last linear layer, before the closing {}."


@final
@dataclass(frozen=True)
class Head(Cause):
    """The share of the OOD loss that a linear head gives back which is fitted on ID features.

    The head is fitted on ID images whose content is not among the judged OOD images.

    Source: ours, good features under a bad head.
    """

    name = "head"
    noun = "the classifier head"
    heading = "The classifier head wastes good features"
    question = "Does a fresh linear head do better than the network's own?"
    meaning = "The features are sound; only the last layer has to be fitted again."

    threshold_id: float = 0.04
    """Gain in ID accuracy, relative to 1 minus chance, above which the head is to blame although no
    accuracy is lost."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        passes = comparison.passes
        if comparison.fresh_head is None or passes.fresh_correct is None:
            reason = _without_fresh_head(passes)
            if not reason:
                reason = "too few ID images have other content than the OOD images"
            return self.not_tested(reason)
        treatment = Treatment(
            self.name, "a fresh linear head, fitted to ID features", 8,
            reads=comparison.fresh_head,
            fix='model = result.repair("fresh head")',
        )  # fmt: skip
        method = (
            "A linear head is fitted to the network's features of the ID set, and judged on the "
            "OOD images beside the network's own head."
        )
        if base:
            return self.tried(comparison, base, treatment, method=method)
        # Nothing was chosen, so all OOD examples judge the head.
        before, after = comparison.ood.correct, passes.fresh_correct[comparison.name]
        return self.judged(comparison, treatment, before, after, method=method)


def _without_fresh_head(passes: Passes) -> str:
    """Return why no fresh head was fitted; an empty string if one was."""
    if passes.fresh_correct is not None:
        return ""
    if passes.id.head is None:
        return "the logits are not the output of a final linear layer"
    n, classes = len(passes.id.y), len(passes.id.y.unique())
    return (
        f"{n} ID examples of {classes} classes are too few to fit a fresh head; give at least "
        f"{FEWEST_PER_CLASS} of each class"
    )


def head_evidence(passes: Passes) -> CauseEvidence:
    """Return the accuracy of the own head and of a fresh one on every data set.

    Args:
        passes: results of `run_passes`.

    Source: ours, a better head on the same features needs no other representation.
    """
    title = "Is the classifier head to blame?"
    method = (
        "The network's own head is compared with a linear head that is fitted on the same features "
        "of ID data, on the same images. ID images are judged by a head that was fitted on the "
        "other half of them."
    )
    reason = _without_fresh_head(passes)
    features = passes.id.head
    if reason or features is None or passes.fresh_correct is None:
        return CauseEvidence(
            cause=Head.name, title=title, method=method,
            left_out=(f"The head was not compared with a fresh one: {reason}.",),
        )  # fmt: skip
    recipe = probe_recipe([features], EXACT, classes=len(passes.inputs.classes))
    numbers: list[Number] = []
    for name, fresh in passes.fresh_correct.items():
        own = passes.sets[name].correct
        gain = gain_of(own, fresh)
        p_value = paired_p_value(int((fresh & ~own).sum()), int((own & ~fresh).sum()))
        for what, value in (
            (OWN, share_correct(own).accuracy),
            (FRESH, share_correct(fresh).accuracy),
            (GAIN, gain),
            (P_VALUE, Interval(value=p_value)),
        ):
            numbers.append(Number(what=what, on=name, value=value))
    left_out = [] if recipe is EXACT else [CLOSED_FORM]
    model = passes.inputs.model
    if isinstance(model, LogitsAdapter) and model.output not in (None, "logits"):
        left_out.append(CLOSING.format(model.output))
    best = max(
        (number for number in numbers if number.what == GAIN), key=lambda number: number.value.value
    )
    return CauseEvidence(
        cause=Head.name, title=title, method=method, effect=best.value,
        measured=f"largest gain in accuracy, on {best.on}", n=len(passes.sets[best.on].y),
        numbers=tuple(numbers), left_out=tuple(left_out),
    )  # fmt: skip


def head_on_id(cause: Head, passes: Passes) -> Step | None:
    """Return whether a fresh head does better on the ID set itself; None if that is unknown.

    Args:
        cause: the cause with its threshold.
        passes: results of `run_passes`.
    """
    if passes.fresh_correct is None:
        return None
    name = passes.inputs.id.name
    own, fresh = passes.id.correct, passes.fresh_correct[name]
    gain = gain_of(own, fresh)
    p_value = paired_p_value(int((fresh & ~own).sum()), int((own & ~fresh).sum()))
    chance = 1 / len(passes.inputs.classes)
    large = gain.value > cause.threshold_id * (1 - chance)
    return Step(
        question="Does a fresh linear head do better on the ID data?",
        evidence="gain in ID accuracy", observed=gain, threshold=cause.threshold_id * (1 - chance),
        answer="yes" if large and p_value < 0.01 else "no", leads_to=cause.name,
        why=f"On {name} a fresh linear head, judged on images that it was not fitted to, reaches "
        f"{100 * fresh.double().mean():.1f} % accuracy and the network's own head "
        f"{100 * own.double().mean():.1f} % ({points(gain)}, p = {p_value:.2g}).",
    )  # fmt: skip
