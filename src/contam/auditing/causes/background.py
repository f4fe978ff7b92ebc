"""New backgrounds and background shortcuts: objects and backgrounds are interchanged.

ID objects on OOD backgrounds show what the backgrounds cost; OOD objects on ID backgrounds show
what they give back. If it comes back only on backgrounds of the object's own class, the network
relies on a background that is correlated with the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest, TreatmentResult
from contam.auditing.comparison import NO_IMAGES, PLAUSIBLE, Comparison, Treatment
from contam.auditing.interchange import donors
from contam.auditing.intervals import points
from contam.auditing.records import Answer, CauseEvidence, Interval, Number
from contam.auditing.scores import share_correct
from contam.batch import Batch
from contam.data.object_removal import pasted, without_objects
from contam.rng import generator_for

KEPT = 0.6
"""Share of the above-chance ID accuracy that pasted ID objects have to keep on ID backgrounds of
their own class; otherwise the interchange itself destroys the objects."""
COST = 0.2
"""Smallest share of the loss that OOD backgrounds have to cost ID objects."""
REFERENCE = (
    "ID objects on ID backgrounds of their class", "ID objects on ID backgrounds of other classes",
    "ID objects on OOD backgrounds", "OOD objects on ID backgrounds of other classes",
    "OOD objects on ID backgrounds of their class", "OOD images",
)  # fmt: skip
"""The arms of the interchange."""


@dataclass(frozen=True, eq=False)
class Interchange:
    """The correct answers in the arms of the interchange, or why it could not be made."""

    correct: dict[str, Bool[Tensor, " n"]]
    treatments: dict[bool, Treatment]
    """OOD objects on ID backgrounds of other classes (False) and of their own class (True)."""
    masked: bool
    """Whether objects were cut out along masks."""
    reason: str = ""
    """Why there is no result; empty if there is one."""

    def share(self, arm: str) -> float:
        """The accuracy in an arm."""
        return _share(self.correct[arm])

    def lost(self, better: str, worse: str) -> float:
        """The accuracy in one arm minus that in another."""
        return self.share(better) - self.share(worse)


def interchange(comparison: Comparison, base: Sequence[Treatment]) -> Interchange:
    """Put objects on other backgrounds and show them to the network, once for each base.

    Args:
        comparison: the ID set and the OOD set.
        base: treatments of plumbing faults, which are applied, too.

    Returns:
        Which answers are correct in each arm, or the reason why there is no result.
    """
    key = tuple(treatment.what for treatment in base)
    if key not in comparison.interchanges:
        comparison.interchanges[key] = _interchange(comparison, base)
    result = comparison.interchanges[key]
    assert isinstance(result, Interchange)
    return result


class NoInterchangeError(Exception):
    """The interchange can't be made; the message gives the reason."""


def _interchange(comparison: Comparison, base: Sequence[Treatment]) -> Interchange:
    names = comparison.inputs.id.name, comparison.name
    masked = all(comparison.given_masks(name) is not None for name in names if name in
                 comparison.passes.images)  # fmt: skip
    try:
        own, other = _images(comparison)
        # What was behind the objects is filled with their surroundings.
        behind_own = without_objects(own.x, comparison.masks(names[0])[0])
        correct = _id_objects(comparison, own, behind_own)
        treated = comparison.treated(base)
        behind_other = without_objects(treated, comparison.masks(names[1])[0])
        few, cut = own.pick(comparison.few), comparison.masks(names[0])[0][comparison.few]
        drawn = generator_for(comparison.seed, "audit/OOD behind")
        x = pasted(few.x, cut, behind_other[torch.randint(len(other.y), (len(few.y),),
                                                          generator=drawn)])  # fmt: skip
        correct[REFERENCE[2]] = comparison.answer(x).predicted == few.y
    except NoInterchangeError as error:
        return Interchange({}, {}, masked, str(error))
    treatments = {}
    cut_other, rows = comparison.masks(names[1])[0], comparison.judged
    for same in (False, True):
        sources, _ = donors(
            other.y, own.y, same=same, seed=comparison.seed, purpose=f"audit/OOD on ID, {same}"
        )

        def images(x: Tensor, rows: Tensor, sources: Tensor = sources) -> Tensor:
            return pasted(x, cut_other[rows], behind_own[sources[rows]])

        kind = "of their own class" if same else "of other classes"
        treatments[same] = Treatment("", f"OOD objects on ID backgrounds {kind}", 2, images)
        arm = REFERENCE[4] if same else REFERENCE[3]
        correct[arm] = comparison.correct([*base, treatments[same]], rows)
    correct[REFERENCE[5]] = comparison.correct(base, rows)
    return Interchange(correct, treatments, masked)


def _images(comparison: Comparison) -> tuple[Batch, Batch]:
    """The images of both sets, if their objects can be cut out."""
    own, other = comparison.id_images, comparison.ood_images
    if own is None or other is None:
        raise NoInterchangeError(NO_IMAGES)
    if own.x.shape[1:] != other.x.shape[1:]:
        raise NoInterchangeError("the images of the two sets have different sizes")
    if min(comparison.masks(name)[1] for name in (comparison.inputs.id.name, comparison.name)) < (
        PLAUSIBLE
    ):
        raise NoInterchangeError(
            "no object stands out from the border in most images, which may show one texture all "
            "over; give masks= of both sets"
        )
    return own, other


def _id_objects(
    comparison: Comparison, own: Batch, behind: Tensor
) -> dict[str, Bool[Tensor, " n"]]:
    """The answers on ID objects on ID backgrounds, if these keep the objects recognizable."""
    name, seed = comparison.inputs.id.name, comparison.seed
    few, cut = own.pick(comparison.few), comparison.masks(name)[0][comparison.few]
    correct: dict[str, Bool[Tensor, " n"]] = {}
    for same, arm in ((True, REFERENCE[0]), (False, REFERENCE[1])):
        rows, fits = donors(few.y, own.y, same=same, seed=seed, purpose=f"audit/ID behind, {same}")
        if not fits.all():
            raise NoInterchangeError("some class has too few ID images")
        x = pasted(few.x, cut, behind[rows])
        correct[arm] = comparison.answer(x).predicted == few.y
    chance = 1 / comparison.classes
    plain = _share(comparison.answer(few.x).predicted == few.y)
    kept = _share(correct[REFERENCE[0]])
    masked = comparison.given_masks(name) is not None
    if kept - chance < KEPT * (plain - chance):
        raise NoInterchangeError(
            f"ID objects that are cut out {'along their masks' if masked else 'without masks'} are "
            f"not recognized on other ID backgrounds of their class ({100 * kept:.0f} % against "
            f"{100 * plain:.0f} %)" + ("" if masked else "; give masks= of both sets")
        )
    if not masked:
        # Where the border alone and the center alone both tell the class, it fills the frame.
        flat = few.x.mean((0, 2, 3), keepdim=True).expand_as(few.x)
        alone = [behind[comparison.few], pasted(few.x, cut, flat)]
        read = min(_share(comparison.answer(x).predicted == few.y) for x in alone)
        if read - chance > 0.5 * (plain - chance):
            raise NoInterchangeError(
                "the class shows in the center and along the border of the images alike, so that "
                "object and background can't be told apart without masks"
            )
    return correct


def _share(correct: Bool[Tensor, " n"]) -> float:
    return float(correct.double().mean())


def _numbers_of(comparison: Comparison, result: Interchange) -> tuple[Number, ...]:
    """Return the accuracy of each arm of the interchange."""
    return tuple(
        Number(what="accuracy", on=comparison.name, part=arm, value=share_correct(values).accuracy)
        for arm, values in result.correct.items()
    )


METHOD = (
    "Objects are put on other backgrounds: {how}. ID objects on OOD backgrounds show what the "
    "backgrounds cost; OOD objects on ID backgrounds show what they give back. ID objects on other "
    "ID backgrounds are the control."
)


def _method(result: Interchange) -> str:
    how = (
        "cut out along their masks"
        if result.masked
        else ("without masks of both sets, a disc in the center of the image stands for the object")
    )
    return METHOD.format(how=how)


@final
@dataclass(frozen=True)
class NewBackgrounds(Cause):
    """The accuracy that ID backgrounds of other classes give back to OOD objects.

    OOD backgrounds must also cost ID objects accuracy, beyond what ID backgrounds of other classes
    cost.

    Source: ours, the double dissociation of objects and backgrounds.
    """

    name = "new backgrounds"
    noun = "new backgrounds"
    heading = "The network fails on new backgrounds"
    question = "Do the backgrounds cause the loss?"
    meaning = "The objects are recognized, but not in front of these backgrounds."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        interchanged = interchange(comparison, base)
        if interchanged.reason:
            return self.not_tested(interchanged.reason)
        treatment = Treatment(
            self.name, "OOD objects on ID backgrounds", 2, interchanged.treatments[False].images,
            fix="train on images with more varied backgrounds",
        )  # fmt: skip

        def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
            under = [*base, interchanged.treatments[False]]
            return comparison.correct(base, rows), comparison.correct(under, rows)

        test = self.judged_twice(
            comparison, treatment, answers, method=_method(interchanged),
            numbers=_numbers_of(comparison, interchanged), again=comparison.every,
        )  # fmt: skip
        lost = interchanged.lost(REFERENCE[1], REFERENCE[2])
        cost = lost / max(comparison.loss.value, 1e-9)
        why = (
            f"{test.step.why} ID objects lose {100 * lost:.1f} "
            "points on the OOD backgrounds, beyond other ID backgrounds."
        )
        answer: Answer = test.step.answer
        if answer == "yes" and cost < COST:
            answer = "no"
            why += " Backgrounds that cause the loss would cost ID objects as much."
        step = self.step(test.step.observed, answer, why)
        return CauseTest(
            step, test.evidence, treatment if answer == "yes" else None, what=test.what,
            fix=test.fix, again=test.again,
        )  # fmt: skip


@final
@dataclass(frozen=True)
class BackgroundShortcut(Cause):
    """The OOD accuracy that backgrounds of the own class give back beyond those of other classes.

    ID objects on backgrounds of other classes must also be misclassified.

    Source: ours, objects are exchanged between backgrounds, so that nothing else differs.
    """

    name = "background shortcut"
    noun = "a background that is correlated with the class"
    heading = "Shortcut: the network relies on a background that is correlated with the class"
    question = "Does the network rely on the background of the class?"
    measured = "share of the lost accuracy that backgrounds of the own class give back"
    meaning = "The network learned the background of the class, which the OOD images do not have."

    follows: float = 0.15
    """Smallest fall of the ID accuracy on backgrounds of other classes, as a share."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        interchanged = interchange(comparison, base)
        if interchanged.reason:
            return self.not_tested(interchanged.reason)
        fall = interchanged.lost(REFERENCE[0], REFERENCE[1])
        treatment = Treatment(
            self.name, "OOD objects on ID backgrounds of their own class", 2,
            interchanged.treatments[True].images,
            fix="train on images whose background does not predict the class",
        )  # fmt: skip

        def arms(rows: Tensor) -> TreatmentResult:
            other, own = (
                comparison.correct([*base, interchanged.treatments[same]], rows)
                for same in (False, True)
            )
            return TreatmentResult(comparison.name, treatment, other, own)

        relies = fall >= self.follows
        for rows, significance in self.looks(comparison, comparison.every):
            result = arms(rows)
            share, answer = self.share_of_loss(
                comparison, result.gain, sure=relies and result.p_value < significance
            )
            if not relies or answer != "undecided":
                break
        gain = result.gain
        answer = "yes" if answer == "yes" else "no"
        why = (
            f"ID objects lose {100 * fall:.1f} points on ID backgrounds of other classes. OOD "
            f"objects gain {points(gain)} on backgrounds of their own class beyond those of others "
            f"(p = {result.p_value:.2g}): the network "
            f"{'relies' if relies else 'does not rely'} on the background of the class"
            + (", which does not account for the loss." if relies and answer == "no" else ".")
        )
        evidence = CauseEvidence(
            cause=self.name, title=self.question, method=_method(interchanged), effect=gain,
            measured="gain of OOD objects on backgrounds of their own class", n=len(result.before),
            numbers=(
                Number(what="fall of the ID accuracy on backgrounds of other classes",
                       on=comparison.inputs.id.name, value=Interval(value=fall)),
                Number(what="gain", on=comparison.name, value=gain),
            ),
        )  # fmt: skip
        return CauseTest(
            self.step(share, answer, why), evidence, treatment if answer == "yes" else None,
            what=treatment.what, fix=treatment.fix, again=len(rows) > len(comparison.judged),
        )  # fmt: skip
