"""Undertrained: the features do not solve even the ID data, although others do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import Comparison, Treatment
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.head_probes import correct_by_other_half, probe_recipe
from contam.auditing.intervals import above_chance, chance_accuracy, compare, percent
from contam.auditing.passes import Passes
from contam.auditing.records import CauseEvidence, Number, SetScores
from contam.auditing.scores import share_correct

FRESH, HALF, REFERENCE = (
    "ID accuracy with a fresh head", "the same, fitted on half as many examples",
    "ID accuracy of a probe of the reference encoder",
)  # fmt: skip
RISES, BETTER = 0.03, 0.1
"""Gain of the fresh head from twice as many examples, and lead of the reference encoder, from which
more training or data can help."""


@final
@dataclass(frozen=True)
class Undertrained(Cause):
    """The ID accuracy that a linear head reaches on the network's features, a fresh one or its own.

    A low accuracy alone shows nothing, since data can be hard or noisy. Either a probe of a
    reference encoder must do better on the same images, or the probe of the network must still
    improve with more examples.

    Source: ours, a network that fails on ID data, too, shows nothing about shifts.
    """

    name = "undertrained"
    noun = "too little training"
    heading = "Undertrained: the features do not solve the ID data"
    question = "Do the features fail even on ID data?"
    measured = "ID accuracy with a linear head, from chance (0) to perfect (1)"
    meaning = "The features do not solve even the ID data, so OOD accuracy says little."

    threshold: float = 0.60
    """Share of the way from chance to perfect below which the features are not learned."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        return self.on_id(comparison.passes, comparison.scores[0])

    def on_id(self, passes: Passes, scores: SetScores) -> CauseTest:
        """Test the ID set alone.

        Args:
            passes: results of `run_passes`.
            scores: accuracy on the ID set.
        """
        result, classes = passes.id, len(passes.inputs.classes)
        own, name = scores.overall.accuracy, passes.inputs.id.name
        fresh = None if passes.fresh_correct is None else share_correct(passes.fresh_correct[name])
        accuracy = own if fresh is None or own.value > fresh.accuracy.value else fresh.accuracy
        solved = above_chance(accuracy, chance_accuracy(scores))
        low = compare(solved, self.threshold, below="yes")
        why = (
            f"On {name} a linear head reaches {percent(accuracy)} accuracy, which is "
            f"{percent(solved)} of the way from chance to perfect"
        )
        if low != "yes" or fresh is None:
            ending = ": the features solve the ID data." if low == "no" else "."
            answer = "no" if low == "no" else "undecided"
            return CauseTest(self.step(solved, answer, why + ending))
        numbers = [Number(what=FRESH, on=name, value=fresh.accuracy)]
        assert result.head is not None
        half = torch.arange(0, len(result.y), 2)
        fewer = share_correct(
            correct_by_other_half(
                result.head[half], result.y[half],
                probe_recipe([result.head], EXACT, classes=classes), classes=classes,
                seed=passes.inputs.seed,
            )
        ).accuracy  # fmt: skip
        numbers.append(Number(what=HALF, on=name, value=fewer))
        rises = fresh.accuracy.value - fewer.value
        better = None
        if result.reference is not None:
            better = share_correct(
                correct_by_other_half(
                    result.reference, result.y,
                    probe_recipe([result.reference], EXACT, classes=classes), classes=classes,
                    seed=passes.inputs.seed,
                )
            ).accuracy  # fmt: skip
            numbers.append(Number(what=REFERENCE, on=name, value=better))
        leads = 0.0 if better is None else better.value - accuracy.value
        positive = leads > BETTER or rises > RISES
        cause = (
            f"; a probe of {passes.inputs.reference_name or 'the reference encoder'} reaches "
            f"{100 * better.value:.1f} % on the same images"
            if better is not None and leads > BETTER
            else f"; it still gains {100 * rises:.1f} points from twice as many examples"
            if positive
            else "; no other reader does better, so the data may be hard or their labels wrong"
        )
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="A new linear head is fitted on the network's features of one half of the ID "
            "set and judged on the other half; the same with half as many examples, and with the "
            "features of the reference encoder.",
            effect=fresh.accuracy, measured="ID accuracy with a fresh head", n=fresh.count,
            numbers=tuple(numbers),
        )  # fmt: skip
        return CauseTest(
            self.step(solved, "yes" if positive else "undecided", f"{why}{cause}."), evidence,
            what="features that do not solve the ID data",
            fix="train for longer, on more data, or a wider network",
        )  # fmt: skip
