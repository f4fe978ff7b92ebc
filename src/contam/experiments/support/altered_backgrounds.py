"""Effects of the background on features, on objects of the embedded benchmark.

Each object is shown on several backgrounds, so a change of the features is due to the background.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import ID
from contam.data.counterfactual import CHANGES, counterfactual
from contam.data.objects import Core
from contam.data.shapes import factorial, splits
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.measures.variance import VarianceShares, variance_shares
from contam.rng import generator_for
from contam.training.probe import extract

EACH = 2
"""Backgrounds of each family, on each of which all objects are shown."""


@dataclass(frozen=True)
class Altered:
    """The embedded benchmark's test objects on changed backgrounds."""

    plain: Domain
    """Images like those of the ID test."""
    changed: dict[str, Domain]
    """The same images under each change of their backgrounds."""
    before: list[Domain]
    """The same objects on one background each: those of ID families, then the others."""


@lru_cache(maxsize=1)
def altered_images(seed: int, *, images: int, objects: int, core: Core = "shapes") -> Altered:
    """Draw test objects on changed backgrounds.

    Args:
        seed: random seed.
        images: number of images whose backgrounds are altered, a multiple of 40.
        objects: number of objects that are shown on every background of a list, a multiple of 10.
        core: `shapes` or `digits`.

    Source: ours, the same objects on other backgrounds, so that nothing else differs.

    >>> len(altered_images(0, images=40, objects=10).before)
    18
    """
    # Nothing is trained on these images, so the training and validation splits are minimal.
    drawn = splits(seed, train=40, id_val=40, id_test=images, ood_test=10, core=core)
    shown = drawn["id_test"]
    changed = {}
    for change in CHANGES:
        draws = generator_for(seed, f"coupling/{change}")
        x = counterfactual(shown.x, shown.mask, change, generator=draws)
        changed[change] = Domain(change, Batch(x, shown.y, shown.domain))
    grid = factorial(seed, n=objects, per_family=EACH, core=core)
    before = [Domain(str(k), scenes.batch) for k, scenes in enumerate(grid)]
    return Altered(Domain("plain", shown.batch), changed, before)


class BackgroundEffects(NamedTuple):
    """How the features of a network depend on the background."""

    lost: dict[str, float]
    """The attenuation of the class profile under each change of ID backgrounds."""
    familiar: VarianceShares
    """Shares of the variance on backgrounds of the ID families."""
    everywhere: VarianceShares
    """Shares of the variance on backgrounds of the ID and the OOD families."""

    @property
    def attenuation(self) -> float:
        """The mean attenuation over the changes."""
        return float(torch.tensor([*self.lost.values()], dtype=torch.float64).mean())

    @property
    def dependent(self) -> float:
        """The share of the class response that depends on the background: interaction over class
        and interaction.
        """
        shares = self.everywhere
        return shares.of_interaction / (shares.of_class + shares.of_interaction)


def background_effects(encoder: nn.Module, altered: Altered, classes: int) -> BackgroundEffects:
    """Measure the features of objects whose backgrounds are changed.

    Args:
        encoder: the network.
        altered: the images.
        classes: number of classes.

    Source: ours, what changed backgrounds do to features.
    """
    return effects_on(partial(extract, encoder), altered, classes)


def effects_on(
    features: Callable[[Domain], Float[Tensor, "images neurons"]], altered: Altered, classes: int
) -> BackgroundEffects:
    """Measure any features of objects whose backgrounds are changed, such as those of a layer.

    Args:
        features: a function from images to their features.
        altered: the images.
        classes: number of classes.

    Source: ours, the same for any images with changed copies.
    """

    def means(images: Domain) -> ClassMeans:
        values = features(images)
        return ClassMeans(classes, values.shape[1]).update(values, images.y)

    plain = means(altered.plain)
    lost = {
        name: class_profile_attenuation(plain, means(images), paired=True).value
        for name, images in altered.changed.items()
    }
    values = torch.stack([features(images) for images in altered.before], dim=1)
    y = altered.before[0].y
    familiar = variance_shares(values[:, : EACH * len(ID)], y)
    return BackgroundEffects(lost, familiar, variance_shares(values, y))
