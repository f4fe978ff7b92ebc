"""Shortcuts: the network relies on an image property that predicts the class in the ID data.

Images get the property of ID images of their own class, or of another class.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import one_hot

from contam.auditing.causes.cause import SIGNIFICANCE, Cause, CauseTest
from contam.auditing.comparison import NO_IMAGES, PLAUSIBLE, Comparison, Treatment
from contam.auditing.image_edits import channel_statistics, with_statistics
from contam.auditing.interchange import donors
from contam.auditing.records import Interval, Number
from contam.data.object_removal import pasted

FOLLOWS = 0.1
"""Smallest fall of the ID accuracy with the property of other classes, as a share."""
NEIGHBORS = 5

Exchange = Callable[[Tensor, str, Tensor, Tensor], Tensor]
"""From images, the name of their set, their rows in it, and rows of ID images to images with the
property of these."""


@dataclass(frozen=True)
class Shortcut(Cause):
    """The OOD accuracy that a property of the own class gives back beyond that of another class.

    Three conditions: ID images with the property of another class are misclassified; OOD images
    with that of ID images of their own class are classified correctly; with that of another class
    they are not.
    """

    property: ClassVar[str]
    """What is exchanged, in the plural or as a mass, such as `the colors`."""
    method: ClassVar[str]
    """How it is exchanged, as a sentence."""
    advice: ClassVar[str]
    """What to do about it."""
    stage: ClassVar[int] = 1
    """Place of the exchange among treatments."""
    measured = "share of the lost accuracy that the property of the own class gives back"

    @abstractmethod
    def exchange(self, comparison: Comparison) -> Exchange | CauseTest:
        """Return the edit that exchanges the property, or the test's result where there is none."""

    def purposes(self, *, same: bool) -> tuple[str, str]:
        """Return the names of the draws of ID images for ID and for OOD images."""
        return f"audit/{self.name}, ID", f"audit/{self.name}, same {same}"

    @final
    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = comparison.id_images, comparison.ood_images
        if own is None or other is None:
            return self.not_tested(NO_IMAGES)
        exchange = self.exchange(comparison)
        if isinstance(exchange, CauseTest):
            return exchange
        name, seed, few = comparison.inputs.id.name, comparison.seed, own.pick(comparison.few)
        purpose, _ = self.purposes(same=False)
        others, fits = donors(few.y, own.y, same=False, seed=seed, purpose=purpose)
        if not fits.all():
            return self.not_tested("the ID images have one class")
        plain = comparison.answer(few.x).predicted == few.y
        edited = exchange(few.x, name, comparison.few, others)
        still = comparison.answer(edited).predicted == few.y
        follows = float(plain.double().mean() - still.double().mean())
        if follows < FOLLOWS:
            return CauseTest(
                self.step(
                    None, "no",
                    f"ID images with {self.property} of other classes lose {100 * follows:.1f} "
                    "points: the network does not rely on this.",
                )
            )  # fmt: skip
        treatments = {}
        for same, kind in ((False, "another class"), (True, "their own class")):
            _, purpose = self.purposes(same=same)
            like, _ = donors(other.y, own.y, same=same, seed=seed, purpose=purpose)

            def images(x: Tensor, rows: Tensor, like: Tensor = like) -> Tensor:
                return exchange(x, comparison.name, rows, like[rows])

            treatments[same] = Treatment(
                self.name, f"{self.property} of ID images of {kind}", self.stage, images,
                fix=self.advice,
            )  # fmt: skip

        def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
            before, without, after = (
                comparison.correct([*base, *some], rows)
                for some in ([], [treatments[False]], [treatments[True]])
            )
            return max(before, without, key=Tensor.sum), after

        number = Number(
            what=f"fall of the ID accuracy with {self.property} of another class", on=name,
            value=Interval(value=follows),
        )  # fmt: skip
        return self.judged_twice(
            comparison, treatments[True], answers,
            method=f"{self.method} Before: the better of the OOD images as they are, and with "
            "those of another class.",
            control=f"the better of no change and {self.property} of another class",
            numbers=(number,), again=comparison.every,
        )  # fmt: skip


@final
@dataclass(frozen=True)
class ColorShortcut(Shortcut):
    """The mean and the spread of the colors of the object, or of the image where none stands out.

    Source: ours, a test of colors that go with the class.
    """

    name = "color shortcut"
    noun = "a color that is correlated with the class"
    heading = (
        "Shortcut: the network relies on a color that is correlated with the class in the ID data"
    )
    question = "Does the network rely on the color of the object?"
    meaning = "The network learned the color of the class, which the OOD images do not have."
    property = "the colors"
    method = (
        "The mean and the spread of each color channel of the object (of the whole image if no "
        "object stands out) are replaced by those of an ID image of the same class, and of "
        "another class."
    )
    advice = "train on images whose color does not predict the class, or with color jitter"

    def purposes(self, *, same: bool) -> tuple[str, str]:
        return "audit/color of another", f"audit/colors, same {same}"

    def exchange(self, comparison: Comparison) -> Exchange | CauseTest:
        own = comparison.id_images
        assert own is not None
        if own.x.shape[1] < 3:
            return self.not_tested("the images have no colors")
        # Where no object stands out, the color of the whole image is changed.
        names = comparison.inputs.id.name, comparison.name
        given = {name: comparison.masks(name) for name in names}
        usable = all(plausible >= PLAUSIBLE for _, plausible in given.values())

        def exchanged(x: Tensor, of: str, rows: Tensor, like: Tensor) -> Tensor:
            masks = (given[of][0][rows], given[names[0]][0][like]) if usable else (None, None)
            return colored(x, own.x[like], *masks)

        return exchanged


def colored(x: Tensor, like: Tensor, mask: Tensor | None, mask_like: Tensor | None) -> Tensor:
    """Give the objects of images the mean and the spread of the colors of other objects.

    Args:
        x: (n, channels, height, width) images.
        like: images of the same shape, whose colors are taken.
        mask: share of each pixel that the object covers in `x`; None for the whole image.
        mask_like: the same in `like`.

    >>> x, like = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8) / 2
    >>> changed = colored(x, like, None, None)
    >>> torch.allclose(changed.mean((2, 3)), like.mean((2, 3)), atol=1e-5)
    True
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


@dataclass(frozen=True)
class ClassSignal:
    """How well a property of images predicts their class."""

    excess: float
    """Accuracy above that of the most frequent class."""
    p_value: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the property is correlated with the class beyond chance."""
        return self.p_value < SIGNIFICANCE


def class_signal(values: Float[Tensor, "n numbers"], y: Int[Tensor, " n"]) -> ClassSignal:
    """Predict the class of each image from the images with the nearest values.

    Args:
        values: the property of each image.
        y: class indices.

    >>> y = torch.arange(40) % 2
    >>> class_signal(y[:, None] + 0.1, y).excess, class_signal(torch.ones(40, 1), y).beyond_chance
    (0.5, False)
    """
    values = values.double() - values.double().mean(0)
    values = values / values.std(0, correction=0).clamp(min=1e-9)
    distance = torch.cdist(values, values).fill_diagonal_(torch.inf)
    nearest = distance.topk(min(NEIGHBORS, len(y) - 1), largest=False).indices
    predicted = one_hot(y)[nearest].sum(1).argmax(1)
    chance = float(torch.bincount(y).max()) / len(y)
    right = int((predicted == y).sum())
    test = binomtest(right, len(y), min(chance, 0.999), alternative="greater")
    return ClassSignal(right / len(y) - chance, float(test.pvalue))
