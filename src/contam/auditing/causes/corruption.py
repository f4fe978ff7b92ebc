"""Corruption: noise, blur, compression, contrast, brightness or a color cast of OOD images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from contam.auditing.causes.background import interchange
from contam.auditing.causes.cause import Cause, CauseTest, best_variant
from contam.auditing.comparison import NO_IMAGES, PLAUSIBLE, Comparison, Treatment, gain_of
from contam.auditing.image_edits import (
    Edit,
    affine,
    blockiness,
    blurred,
    channel_statistics,
    jpeg,
    median_filtered,
    noise_level,
    sharpened,
    sharpness,
    with_statistics,
)
from contam.auditing.intervals import above_zero
from contam.auditing.records import CauseEvidence, Interval, Number
from contam.data.object_removal import pasted
from contam.rng import generator_for

NOISIER, BLURRIER, BLOCKIER = 1.5, 0.6, 1.2
"""Ratios of the noise levels above which, of the sharpness below which, and of the steps between
blocks above which ID images are degraded to imitate the OOD images."""
QUALITIES = (60, 30, 15, 8, 4, 2)
"""JPEG qualities that are tried."""
OBJECTS_CHANGED = 0.8
"""Difference of the mean color of the objects, in standard deviations over the ID objects, from
which the objects changed and not only what is behind them."""
BESIDE = 0.75
"""Share of the gain above which an undoing that leaves the object as it is shows no corruption."""
MOST = 0.5
"""Share of the loss above which an undoing shows a corruption where objects can't be cut out."""
ON_OBJECT = 0.25
"""Share of the gain above which an undoing on the object alone shows a corruption all the same."""


@final
@dataclass(frozen=True)
class Corruption(Cause):
    """The accuracy that undoing noise, blur, contrast or color gives back, or that imitating costs.

    An undoing that works as well if it leaves the object as it is shows other backgrounds, not a
    corruption. Noise and blur are imitated on ID images until their levels match the OOD images,
    and only where the center and the border of the images changed alike.

    Source: ours, changes that undo a corruption, judged by the accuracy they restore.
    """

    name = "corruption"
    noun = "the image quality"
    heading = "The OOD images are corrupted"
    question = "Do noise, blur, compression, contrast or color of the images cause the loss?"
    meaning = "The objects are the same; the images are noisy, blurred, faded or tinted."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = comparison.id_images, comparison.ood_images
        if own is None or other is None:
            return self.not_tested(NO_IMAGES)
        undone = self._undone(comparison, base)
        if undone is not None and undone.positive:
            return undone
        imitated = self._imitated(comparison, base)
        if imitated is not None:
            return imitated
        if undone is not None:
            return undone
        return CauseTest(
            self.step(
                None, "no",
                "Filters against noise and blur, and the ID images' contrast, brightness and "
                f"color, give no accuracy on {comparison.name} back.",
            )
        )  # fmt: skip

    def _undone(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest | None:
        assert comparison.id_images is not None and comparison.ood_images is not None
        treated = comparison.treated(base)
        edits = undoings(comparison.id_images.x, treated)
        fixes = [
            Treatment(self.name, what, 1, partial(_edited, edit), fix=fix)
            for what, (edit, fix) in edits.items()
        ]
        best = best_variant(comparison, base, fixes)
        if best is None:
            return None
        test = self.tried(
            comparison, base, best,
            method="Noise is filtered out, blur is sharpened, and contrast, brightness and color "
            "are matched to the ID images. The change is chosen on some OOD images and judged on "
            "others.",
        )  # fmt: skip
        if not test.positive:
            return test
        area, plausible = comparison.masks(comparison.name)
        if plausible < PLAUSIBLE or self._objects_changed(comparison, treated):
            return test
        share = test.step.observed
        if interchange(comparison, base).reason and share is not None and share.value > MOST:
            # The objects can't be cut out, so nothing tells them from their backgrounds.
            return test
        edit = edits[best.what][0]
        parts = {
            "everywhere but on the object": lambda x, rows: pasted(x, area[rows], edit(x)),
            "on the object alone": lambda x, rows: pasted(edit(x), area[rows], x),
        }
        rows = comparison.others if test.again else comparison.judged
        before, after = (comparison.correct(some, rows) for some in (base, [*base, best]))
        gain = float(after.double().mean() - before.double().mean())
        gained, numbers = {}, []
        for part, images in parts.items():
            partly = comparison.correct([*base, Treatment(self.name, part, 1, images)], rows)
            gained[part] = float(partly.double().mean() - before.double().mean())
            value = gain_of(before, partly)
            numbers.append(Number(what=f"gain {part}", on=comparison.name, part=best.what,
                                  value=value))  # fmt: skip
        assert test.evidence is not None
        evidence = test.evidence.model_copy(update={"numbers": (*test.evidence.numbers, *numbers)})
        around, inside = gained.values()
        if around < BESIDE * gain or inside > ON_OBJECT * gain:
            return replace(test, evidence=evidence)
        why = (
            f"{test.step.why[:-1]}; but it gives as much back ({100 * around:+.1f} points) where "
            "the object is left as it is, so the backgrounds matter and not the image quality."
        )
        return CauseTest(self.step(test.step.observed, "no", why), evidence)

    @staticmethod
    def _objects_changed(comparison: Comparison, treated: Tensor) -> bool:
        """Whether the colors of the objects changed, according to given masks of both sets."""
        names = comparison.inputs.id.name, comparison.name
        masks = [comparison.given_masks(name) for name in names]
        assert comparison.id_images is not None
        if masks[0] is None or masks[1] is None or len(masks[0]) < 2:
            return False
        own, other = (
            (mask.to(x) * x).sum((2, 3)) / mask.to(x).sum((2, 3)).clamp(min=1e-6)
            for x, mask in ((comparison.id_images.x, masks[0]), (treated, masks[1]))
        )
        away = (other.mean(0) - own.mean(0)).abs() / own.std(0).clamp(min=1e-6)
        return bool(away.max() > OBJECTS_CHANGED)

    def _imitated(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest | None:
        """The loss of ID images that get the noise or the blur of the OOD images."""
        own, other = comparison.id_images, comparison.ood_images
        assert own is not None and other is not None
        treated = comparison.treated(base)
        few = own.pick(comparison.few)
        degraded = degradation(own.x, treated, seed=comparison.seed)
        if degraded is None:
            return None
        what, edit, ratio = degraded
        before = comparison.answer(few.x).predicted == few.y
        after = comparison.answer(edit(few.x)).predicted == few.y
        loss = gain_of(after, before)
        share, answer = self.share_of_loss(comparison, loss, sure=above_zero(loss))
        low, most = loss.low or 0.0, comparison.loss.high
        if most is not None and low > most:
            # OOD images that were as degraded would have lost more.
            answer = "no"
        why = (
            f"ID images that get the {what} of {comparison.name} lose {100 * loss.value:.1f} of "
            f"the {100 * comparison.loss.value:.1f} points that are lost there."
        )
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="The noise, the blur and the JPEG artifacts of the OOD images are measured. ID "
            "images get as much, and their accuracy is measured again.",
            effect=loss, measured=f"accuracy that ID images lose with the {what} of the OOD images",
            n=len(few.y),
            numbers=(
                Number(what=f"{what}, OOD relative to ID", on=comparison.name,
                       value=Interval(value=ratio)),
                Number(what="imitated loss", on=comparison.inputs.id.name, value=loss),
            ),
        )  # fmt: skip
        return CauseTest(
            self.step(share, answer, why), evidence, imitated=loss if answer == "yes" else None,
            what=f"{what} as in the OOD images",
            fix=f"train with {what}, or remove it when the images are taken",
        )  # fmt: skip


def _edited(edit: Edit, x: Tensor, rows: Tensor) -> Tensor:
    return edit(x)


def undoings(own: Tensor, other: Tensor) -> dict[str, tuple[Edit, str]]:
    """Return changes that undo corruptions of images, and how to make them.

    Args:
        own: ID images.
        other: OOD images.

    Returns:
        A function of images, and lines of code that do the same, by what is changed.

    >>> own = torch.rand(4, 3, 8, 8)
    >>> edit, fix = next(iter(undoings(own, 0.5 * own).values()))
    >>> torch.allclose(edit(0.5 * own), own, atol=1e-4)
    True
    >>> fix.splitlines()[1]
    'x = x * torch.tensor(scale)[:, None, None] + torch.tensor(shift)[:, None, None]'
    """
    mean, std = (v.mean(0) for v in channel_statistics(own))
    ood_mean, ood_std = (v.mean(0) for v in channel_statistics(other))
    scale = std / ood_std.clamp(min=1e-6)
    edits: dict[str, tuple[Edit, str]] = {
        "contrast and color of all images matched to the ID images": (
            partial(affine, scale=scale, shift=mean - scale * ood_mean),
            f"scale, shift = {_listed(scale)}, {_listed(mean - scale * ood_mean)}\n"
            "x = x * torch.tensor(scale)[:, None, None] + torch.tensor(shift)[:, None, None]",
        ),
        "contrast and color of each image matched to the ID images": (
            partial(with_statistics, mean=mean, std=std),
            f"mean, std = {_listed(mean)}, {_listed(std)}  # of the ID images\n"
            "x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)\n"
            "x = x * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]",
        ),
        "a median filter of 3 pixels": (median_filtered, "PIL.ImageFilter.MedianFilter(3)"),
        "a median filter of 5 pixels": (
            partial(median_filtered, side=5), "PIL.ImageFilter.MedianFilter(5)",
        ),
    }  # fmt: skip
    for sigma in (0.6, 1.0, 1.6):
        edits[f"smoothing by {sigma:g} pixels"] = (
            partial(blurred, sigma=sigma), f"PIL.ImageFilter.GaussianBlur({sigma:g})",
        )  # fmt: skip
    for sigma, amount in ((1.0, 1.0), (1.5, 3.0), (2.5, 6.0)):
        edits[f"sharpening by {amount:g} at {sigma:g} pixels"] = (
            partial(sharpened, sigma=sigma, amount=amount),
            f"PIL.ImageFilter.UnsharpMask({sigma:g}, {100 * amount:.0f}, 0)",
        )  # fmt: skip
    return edits


def _listed(values: Tensor) -> str:
    return "[" + ", ".join(f"{float(v):.3g}" for v in values) + "]"


def degradation(own: Tensor, other: Tensor, *, seed: int) -> tuple[str, Edit, float] | None:
    """Return compression, noise or blur that takes ID images to the level of the OOD images.

    For noise and blur center and border must have changed alike, since other backgrounds change the
    border most.

    Args:
        own: ID images.
        other: OOD images.
        seed: seed of the noise.

    Returns:
        The kind, the change, and the level of the OOD images relative to the ID images; None where
        they are about as noisy and as sharp.

    >>> generator = torch.Generator().manual_seed(0)
    >>> own = 0.1 * torch.rand(8, 1, 32, 32, generator=generator)
    >>> noisy = own + 0.2 * torch.randn(own.shape, generator=generator)
    >>> kind, edit, ratio = degradation(own, noisy, seed=0)
    >>> kind, ratio > 2, degradation(own, own, seed=0)
    ('noise', True, None)
    """
    blocks = blockiness(other)
    if blocks > BLOCKIER * blockiness(own) and own.shape[1] in (1, 3):
        near = min(QUALITIES, key=lambda quality: abs(blockiness(jpeg(own, quality)) - blocks))
        return "JPEG compression", partial(jpeg, quality=near), blocks / blockiness(own)
    ratios = {}
    for measure in (noise_level, sharpness):
        parts = [
            float(measure(part(other)).median() / measure(part(own)).median().clamp(min=1e-8))
            for part in (_center, _border)
        ]
        ratios[measure] = parts
    low, high = min(ratios[noise_level]), max(ratios[noise_level])
    if low > NOISIER and high < 3 * low:
        levels = [float(noise_level(_center(x)).median()) for x in (own, other)]
        sigma = math.sqrt(max(0.0, levels[1] ** 2 - levels[0] ** 2))
        drawn = generator_for(seed, "audit/noise")

        def noisy(x: Tensor) -> Tensor:
            return x + sigma * torch.randn(x.shape, generator=drawn).to(x)

        return "noise", noisy, low
    low, high = min(ratios[sharpness]), max(ratios[sharpness])
    if high < BLURRIER and high < 3 * low:
        wanted = float(sharpness(_center(other)).median())
        least, most = 0.0, min(own.shape[2:]) / 4
        for _ in range(12):
            middle = (least + most) / 2
            soft = float(sharpness(_center(blurred(own, middle))).median()) < wanted
            least, most = (least, middle) if soft else (middle, most)
        return "blur", partial(blurred, sigma=most), high
    return None


def _center(x: Tensor) -> Tensor:
    rows, columns = (side // 4 for side in x.shape[2:])
    return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


def _border(x: Tensor) -> Tensor:
    """The upper and the lower quarter of the images, side by side."""
    rows = x.shape[2] // 4
    return torch.cat([x[:, :, :rows], x[:, :, -rows:]], dim=3)
