"""Input mismatch: the OOD images reach the network in another form than the ID images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from contam.auditing.causes.cause import (
    SIGNIFICANCE,
    Cause,
    CauseTest,
    TreatmentResult,
    best_variant,
)
from contam.auditing.comparison import NO_IMAGES, Comparison, Treatment
from contam.auditing.image_edits import HALVES, IMAGENET, Edit, denormalized, normalized
from contam.auditing.intervals import above_chance, chance_accuracy
from contam.auditing.passes import Passes
from contam.auditing.records import SetScores, Step

SOLVED, LEAST_GAIN = 0.6, 0.15
"""ID accuracy from chance to perfect up to which the ID images are tested, too, and the least gain
in accuracy that shows another form there."""
CLOSER = 0.02
"""ID standard deviations by which exchanged channels may move the mean away from the ID mean."""
MEAN_OFF, SPREAD_OFF = 0.6, 1.4
"""After a change of scale, the largest difference of the mean from the ID mean, in ID standard
deviations, and the largest ratio of the standard deviations."""


METHOD = (
    "Channels are exchanged, and values are inverted, scaled and normalized in other ways. The "
    "change is chosen on some images and judged on others."
)


@final
@dataclass(frozen=True)
class InputMismatch(Cause):
    """The accuracy that a change of the channels, the scale or the sign of all images gives back.

    The change is chosen on some images and judged on others. It counts only if the images are then
    more like the ID images: a change of scale or sign must give them the mean and the spread of the
    ID images, and exchanged channels must not move their mean away from that of the ID images.

    Source: ours, mistakes of preprocessing, judged by the accuracy that undoing them restores.
    """

    name = "input mismatch"
    noun = "the preprocessing of the images"
    heading = "The OOD images are preprocessed differently from the ID images"
    question = "Do the OOD images reach the network in another form?"
    meaning = "The network is not at fault; the images are read or normalized in another way."
    plumbing = True

    threshold: float = 0.65

    def on_id(self, passes: Passes, scores: SetScores) -> CauseTest | None:
        """Test whether the ID images reach the network in another form than it was trained on.

        Args:
            passes: results of `run_passes`.
            scores: accuracy on the ID set.

        Returns:
            None where the network solves the ID data, where a fresh head on features of the images
            as they are does as well, or where they are no images.
        """
        solved = above_chance(scores.overall.accuracy, chance_accuracy(scores))
        same = Comparison(passes, (scores, scores))
        if solved.value > SOLVED or same.id_images is None:
            return None
        try:
            best = self._best(same, ())
            if best is None:
                return None
            before, after = (same.correct(some, same.judged) for some in ([], [best]))
        except (ValueError, RuntimeError):  # the network can't be run on edited images
            return None
        result = TreatmentResult(same.name, best, before, after)
        if result.gain.value < LEAST_GAIN or result.p_value >= SIGNIFICANCE:
            return None
        if passes.fresh_correct is not None:
            fresh = passes.fresh_correct[same.name][same.kept_rows[same.judged]]
            if fresh.double().mean() >= after.double().mean():
                return None  # The features of the images as they are hold as much.
        step = Step(
            question="Do the ID images reach the network in another form than it was trained on?",
            evidence="gain in ID accuracy", observed=result.gain, answer="yes",
            threshold=LEAST_GAIN, leads_to=self.name, why=f"{result.sentence}.",
        )  # fmt: skip
        return CauseTest(
            step, result.evidence(self, METHOD), best, what=best.what, fix=best.fix
        )  # fmt: skip

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = comparison.id_images, comparison.ood_images
        if own is None or other is None:
            return self.not_tested(NO_IMAGES)
        best = self._best(comparison, base)
        if best is None:
            return CauseTest(
                self.step(
                    None, "no",
                    "Exchanged channels, inverted images and other scales and normalizations of "
                    f"the images of {comparison.name} give no accuracy back.",
                )
            )  # fmt: skip
        return self.tried(comparison, base, best, method=METHOD)

    def _best(self, comparison: Comparison, base: Sequence[Treatment]) -> Treatment | None:
        """The variant with the most correct answers among those that fit the ID images."""
        own, other = comparison.id_images, comparison.ood_images
        assert own is not None and other is not None
        # Where a set is compared with itself, its own pixel statistics say nothing.
        alone = own is other
        variants = [
            Treatment(self.name, variant.what, 0, comparison_edit(variant.edit), fix=variant.fix)
            for variant in input_variants(own.x, comparison.in_network_range)
            if alone or _closer(variant, other.x, own.x)
        ]
        return best_variant(comparison, base, variants) if variants else None


def comparison_edit(edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an edit as a treatment's function, which also gets the rows of the images.

    >>> comparison_edit(lambda x: 1 - x)(torch.zeros(1), torch.tensor([0]))
    tensor([1.])
    """
    return lambda x, rows: edit(x)


class InputVariant(NamedTuple):
    """A form in which images may have reached the network by mistake, undone."""

    what: str
    edit: Callable[[Tensor], Tensor]
    fix: str
    """A line of code."""
    scale: bool
    """Whether it changes the scale or the sign, so that pixel statistics must match afterwards."""


def input_variants(x: Tensor, wrap: Callable[[Edit], Edit]) -> list[InputVariant]:
    """Return the changes that fit images of this kind.

    Args:
        x: ID images.
        wrap: from an edit of the network's inputs to one of these images.

    >>> [variant.what for variant in input_variants(torch.rand(2, 1, 8, 8), lambda edit: edit)][:2]
    ['inverted images', 'values divided by 255']
    """
    low = x.amin((0, 2, 3))[:, None, None]
    high = x.amax((0, 2, 3))[:, None, None]
    variants = [
        ("inverted images", lambda x: low.to(x) + high.to(x) - x, "x = low + high - x", True),
        ("values divided by 255", wrap(lambda x: x / 255), "x = x / 255", True),
        ("values multiplied by 255", wrap(lambda x: x * 255), "x = x * 255", True),
        (
            "values divided by 257, as 16-bit images need it", wrap(lambda x: x / 257),
            "x = x / 257", True,
        ),
        (
            "normalization to [-1, 1]", wrap(lambda x: normalized(x, *HALVES)),
            "x = (x - 0.5) / 0.5", True,
        ),
        (
            "normalization from [-1, 1] undone", wrap(lambda x: denormalized(x, *HALVES)),
            "x = 0.5 * x + 0.5", True,
        ),
    ]  # fmt: skip
    scaled: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
        ("divided", lambda x: x / 255, "x / 255"), ("multiplied", lambda x: x * 255, "x * 255")
    ]  # fmt: skip
    known = [("normalization to [-1, 1]", HALVES)]
    known += [("ImageNet normalization", IMAGENET)] if x.shape[1] == 3 else []
    for name, statistics in known:
        for verb, edit, code in scaled:
            variants.append((
                f"values {verb} by 255 before the {name}",
                wrap(
                    lambda x, edit=edit, s=statistics: normalized(edit(denormalized(x, *s)), *s)
                ),
                f"x = {code}  # before the {name}", True,
            ))  # fmt: skip
    if x.shape[1] != 3:
        return [InputVariant(*variant) for variant in variants]
    imagenet = "mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet"
    variants = [
        (
            "red and blue channels exchanged (BGR)", lambda x: x.flip(1),
            "x = x[:, [2, 1, 0]]  # BGR to RGB", False,
        ),
        *variants,
        (
            "ImageNet normalization", wrap(lambda x: normalized(x, *IMAGENET)),
            f"{imagenet}\nx = torchvision.transforms.functional.normalize(x, mean, std)", True,
        ),
        (
            "ImageNet normalization undone", wrap(lambda x: denormalized(x, *IMAGENET)),
            f"{imagenet}\n"
            "x = x * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]", True,
        ),
    ]  # fmt: skip
    return [InputVariant(*variant) for variant in variants]


def matches(x: Tensor, own: Tensor) -> bool:
    """Return whether images have about the mean and the spread of the ID images in each channel.

    Args:
        x: the images.
        own: ID images.

    >>> x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> matches(x[:4], x[4:]), matches(x[:4] / 255, x[4:])
    (True, False)
    """
    mean, spread = own.mean((0, 2, 3)), own.std((0, 2, 3)).clamp(min=1e-6)
    distance = ((x.mean((0, 2, 3)) - mean) / spread).abs()
    ratio = (x.std((0, 2, 3)).clamp(min=1e-9) / spread).log().abs()
    return bool((distance < MEAN_OFF).all() and (ratio < torch.tensor(SPREAD_OFF).log()).all())


def _closer(variant: InputVariant, x: Tensor, own: Tensor) -> bool:
    """Whether a change makes images more like the ID images, or at least no less."""
    changed = variant.edit(x)
    if variant.scale:
        return matches(changed, own)
    return _distance(changed, own) < _distance(x, own) + CLOSER


def _distance(x: Tensor, own: Tensor) -> float:
    """Distance of the mean color from that of the ID images, in ID standard deviations."""
    mean, spread = own.mean((0, 2, 3)), own.std((0, 2, 3)).clamp(min=1e-6)
    return float(((x.mean((0, 2, 3)) - mean) / spread).norm())
