"""Geometry: the objects are rotated, mirrored, larger or smaller in the OOD images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest, best_variant
from contam.auditing.comparison import NO_IMAGES, Comparison, Treatment
from contam.auditing.image_edits import Edit, stretched, turned, zoomed

ANGLES = (45, 90, 135, 180, 225, 270, 315)
ZOOMS = (0.6, 0.8, 1.25, 1.6)
STRETCHES = (1.4, 2.2)
"""Factors of the height, or of the width."""


@final
@dataclass(frozen=True)
class Geometry(Cause):
    """The accuracy that turning, mirroring or resizing the OOD images gives back.

    Either all images get the same change, or each image gets the one that the network is most
    confident about, which needs no labels.

    Source: ours, rotations, mirroring and zooms, judged by the accuracy they restore.
    """

    name = "geometry"
    noun = "the orientation or the size of the objects"
    heading = "The objects are turned, mirrored or of another size in the OOD images"
    question = "Are the objects turned, mirrored, larger or smaller?"
    meaning = "The network recognizes the objects once they are as they are in the ID set."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        images = comparison.ood_images
        if images is None:
            return self.not_tested(NO_IMAGES)
        turns: dict[str, Edit] = {f"rotation by {a}°": partial(turned, degrees=a) for a in ANGLES}
        zooms: dict[str, Edit] = {
            f"{'enlargement by' if factor > 1 else 'reduction to'} {factor:g}": partial(
                zoomed, factor=factor
            )
            for factor in ZOOMS
        }
        stretches: dict[str, Edit] = {
            f"{side} stretched by {factor:g}": partial(stretched, factor=factor, axis=axis)
            for axis, side in ((2, "height"), (3, "width"))
            for factor in STRETCHES
        }
        flips: dict[str, Edit] = {
            "mirrored left and right": lambda x: x.flip(3),
            "mirrored top and bottom": lambda x: x.flip(2),
        }
        edits = {
            **turns, **zooms, **stretches, **flips,
            **{
                f"each image {what} as the network is most confident": partial(
                    _confident, comparison, tuple(group.values())
                )
                for what, group in (("turned", turns), ("resized", zooms), ("mirrored", flips))
            },
        }  # fmt: skip
        best = best_variant(comparison, base, [_treatment(*edit) for edit in edits.items()])
        if best is None:
            return CauseTest(
                self.step(
                    None, "no",
                    f"None of {len(edits)} rotations, mirrorings and sizes gives accuracy on "
                    f"{comparison.name} back.",
                )
            )  # fmt: skip
        return self.tried(
            comparison, base, best,
            method="OOD images are rotated, mirrored and resized. The change is chosen on some "
            "images and judged on others.",
        )  # fmt: skip


def _treatment(what: str, edit: Edit) -> Treatment:
    return Treatment(
        Geometry.name, what, 3, lambda x, rows: edit(x),
        fix="check the orientation (EXIF) and the resizing of the OOD images; otherwise train with "
        "such rotations and sizes",
    )  # fmt: skip


def _confident(comparison: Comparison, edits: tuple[Edit, ...], x: Tensor) -> Tensor:
    """Each image under the edit in which the network is most confident."""
    best, highest = x, comparison.answer(x).confidence
    for edit in edits:  # one variant at a time, since all of many large images fill the memory
        variant = edit(x)
        confidence = comparison.answer(variant).confidence
        higher = confidence > highest
        best = torch.where(higher[:, None, None, None], variant, best)
        highest = torch.where(higher, confidence, highest)
    return best
