"""Color shortcut: the network answers to a color that goes with the class in the ID data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import NO_IMAGES, PLAUSIBLE, Comparison, Treatment
from contam.auditing.image_edits import channel_statistics, with_statistics
from contam.auditing.interchange import donors
from contam.auditing.records import Interval, Number
from contam.data.object_removal import pasted

FOLLOWS = 0.1
"""Smallest fall of the ID accuracy under the colors of other classes, as a share."""


@final
@dataclass(frozen=True)
class ColorShortcut(Cause):
    """The OOD accuracy that colors of the same class give back beyond colors of another class.

    Three conditions: ID images in the colors of another class are misclassified; OOD images in the
    colors of ID images of their own class are classified correctly; in the colors of another class
    they are not.

    Source: ours.
    """

    name = "color shortcut"
    noun = "a color that goes with the class"
    heading = "Shortcut: the network answers to a color that goes with the class in the ID data"
    question = "Does the network answer to the color of the object?"
    measured = "share of the lost accuracy that the class's own colors give back"
    meaning = "The network learned the color of the class, which the OOD images do not have."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = comparison.id_images, comparison.ood_images
        if own is None or other is None:
            return self.not_tested(NO_IMAGES)
        if own.x.shape[1] < 3:
            return self.not_tested("the images have no colors")
        # Where no object stands out, the color of the whole image is changed.
        found = [comparison.masks(name) for name in (comparison.inputs.id.name, comparison.name)]
        usable = all(plausible >= PLAUSIBLE for _, plausible in found)
        masks = [cut if usable else None for cut, _ in found]
        seed = comparison.seed
        few = own.pick(comparison.few)
        others, fits = donors(few.y, own.y, same=False, seed=seed, purpose="audit/color of another")
        if not fits.all():
            return self.not_tested("the ID images have one class")
        edited = colored(
            few.x, own.x[others], _some(masks[0], comparison.few), _some(masks[0], others)
        )
        plain = comparison.answer(few.x).predicted == few.y
        recolored = comparison.answer(edited).predicted == few.y
        follows = float(plain.double().mean() - recolored.double().mean())
        if follows < FOLLOWS:
            return CauseTest(
                self.step(
                    None, "no",
                    f"ID images in the colors of other classes lose {100 * follows:.1f} points: "
                    "the network does not answer to the color.",
                )
            )  # fmt: skip
        treatments = {}
        for same in (False, True):
            rows_of, _ = donors(
                other.y, own.y, same=same, seed=seed, purpose=f"audit/colors, same {same}"
            )

            def images(x: Tensor, rows: Tensor, rows_of: Tensor = rows_of) -> Tensor:
                behind = rows_of[rows]
                return colored(x, own.x[behind], _some(masks[1], rows), _some(masks[0], behind))

            kind = "its own class" if same else "another class"
            treatments[same] = Treatment(
                self.name, f"the colors of ID images of {kind}", 1, images,
                fix="train on images whose color does not predict the class, or with color jitter",
            )  # fmt: skip
        rows = comparison.judged
        without = comparison.correct([*base, treatments[False]], rows)
        with_own = comparison.correct([*base, treatments[True]], rows)
        number = Number(
            what="fall of the ID accuracy in the colors of another class",
            on=comparison.inputs.id.name, value=Interval(value=follows),
        )  # fmt: skip
        return self.judged(
            comparison, treatments[True], torch.maximum(without, comparison.correct([*base], rows)),
            with_own,
            method="The mean and the spread of each color channel of the object (of the whole "
            "image if no object stands out) are replaced by those of an ID image of the same "
            "class, and of another class. Before: the better of the OOD images as they are, and "
            "in the colors of another class.",
            numbers=(number,),
        )  # fmt: skip


def colored(x: Tensor, like: Tensor, mask: Tensor | None, mask_like: Tensor | None) -> Tensor:
    """Give the objects of images the mean and the spread of the colors of other objects.

    Args:
        x: (n, channels, height, width) images.
        like: images of the same shape, whose colors are taken.
        mask: share of each pixel that the object covers in `x`; None for the whole image.
        mask_like: the same in `like`.
    """
    if mask is None or mask_like is None:
        return with_statistics(x, *channel_statistics(like))
    (mean, std), (own_mean, own_std) = (_within(v, m) for v, m in ((like, mask_like), (x, mask)))
    scale = (std / own_std.clamp(min=1e-6)).clamp(max=5.0)[..., None, None]
    return pasted((x - own_mean[..., None, None]) * scale + mean[..., None, None], mask, x)


def _within(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    weight = mask.to(x).flatten(2)
    total = weight.sum(2).clamp(min=1e-6)
    mean = (weight * x.flatten(2)).sum(2) / total
    variance = (weight * (x.flatten(2) - mean[..., None]) ** 2).sum(2) / total
    return mean, variance.sqrt()


def _some(masks: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if masks is None else masks[rows]
