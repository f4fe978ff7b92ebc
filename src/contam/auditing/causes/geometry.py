"""Geometry: the objects are rotated, mirrored, larger or smaller in the OOD images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import NO_IMAGES, Answers, Comparison, Treatment
from contam.auditing.image_edits import Edit, turned, zoomed
from contam.auditing.records import Interval, Number

ANGLES = (45, 90, 135, 180, 225, 270, 315)
ZOOMS = (0.6, 0.8, 1.25, 1.6, 2.0)


@final
@dataclass(frozen=True)
class Geometry(Cause):
    """The accuracy that turning, mirroring or resizing the OOD images gives back.

    Either all images get the same change, or each image gets the one that the network is most
    confident about, which needs no labels.

    Source: ours.
    """

    name = "geometry"
    noun = "the orientation or the size of the objects"
    heading = "The objects are turned or have another size in the OOD images"
    question = "Are the objects turned, mirrored, larger or smaller?"
    meaning = "The network recognizes the objects once they are turned or resized as in the ID set."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        images = comparison.ood_images
        if images is None:
            return self.not_tested(NO_IMAGES)
        turns: dict[str, Edit] = {f"rotation by {a}°": partial(turned, degrees=a) for a in ANGLES}
        zooms: dict[str, Edit] = {
            f"enlargement by {factor:g}" if factor > 1 else f"reduction to {factor:g}": partial(
                zoomed, factor=factor
            )
            for factor in ZOOMS
        }
        flips: dict[str, Edit] = {
            "mirrored left and right": lambda x: x.flip(3),
            "mirrored top and bottom": lambda x: x.flip(2),
        }
        rows, y = comparison.chosen, images.y[comparison.chosen]
        single = {**turns, **zooms, **flips}
        answers = {
            name: comparison.under([*base, _treatment(name, edit)], rows)
            for name, edit in single.items()
        }
        plain = comparison.under([*base, _treatment("no change", lambda x: x)], rows)
        scores = {name: int((one.predicted == y).sum()) for name, one in answers.items()}
        groups = {"turned": turns, "resized": zooms}
        for group, edits in groups.items():
            picks = _most_confident([plain, *(answers[name] for name in edits)])
            stacked = torch.stack([plain.predicted, *(answers[n].predicted for n in edits)])
            predicted = stacked.gather(0, picks[None])[0]
            scores[f"each image {group} as the network is most confident"] = int(
                (predicted == y).sum()
            )
        best = max(scores, key=lambda name: scores[name])
        tried = Number(
            what="changes tried", on=comparison.name, value=Interval(value=float(len(scores)))
        )
        if scores[best] <= int((plain.predicted == y).sum()):
            return CauseTest(
                self.step(
                    None, "no",
                    f"None of {len(scores)} rotations, mirrorings and sizes gives accuracy on "
                    f"{comparison.name} back.",
                )
            )  # fmt: skip
        if best in single:
            edit = single[best]
        else:
            group = next(group for group in groups if group in best)
            edit = partial(_confident, comparison, tuple(groups[group].values()))
        treatment = _treatment(best, edit)
        judged = comparison.judged
        return self.judged(
            comparison, treatment, comparison.correct([*base], judged),
            comparison.correct([*base, treatment], judged),
            method="OOD images are rotated, mirrored and resized. The change is chosen on some "
            "images and judged on others.",
            numbers=(tried,),
        )  # fmt: skip


def _most_confident(answers: Sequence[Answers]) -> Tensor:
    """The index of the answer in which the network is most confident, for each image."""
    return torch.stack([one.confidence for one in answers]).argmax(0)


def _treatment(what: str, edit: Edit) -> Treatment:
    return Treatment(
        Geometry.name, what, 3, lambda x, rows: edit(x),
        fix="check the orientation (EXIF) and the resizing of the OOD images; otherwise train with "
        "such rotations and sizes",
    )  # fmt: skip


def _confident(comparison: Comparison, edits: tuple[Edit, ...], x: Tensor) -> Tensor:
    """Each image under the edit in which the network is most confident."""
    variants = [x, *(edit(x) for edit in edits)]
    confidence = torch.stack([comparison.answer(variant).confidence for variant in variants])
    picks = confidence.argmax(0)
    return torch.stack(variants)[picks, torch.arange(len(x))]
