"""Directions of the background in images, patches and features, and networks without them."""

from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contam.data.object_removal import pasted, without_objects
from contam.data.shapes import Scenes, splits
from contam.experiments.background_projection.config import (
    ENVIRONMENTS,
    MAIN,
    PAIRS,
    RANDOM,
    Config,
)
from contam.models.classifier import Classifier
from contam.models.projected_gradients import background_moment, main_directions
from contam.remedies.fresh_head import fit_linear_head
from contam.rng import generator_for

PER_CLASS = 20
"""Images of each class in an environment whose differences block gradients."""


class Pairs(NamedTuple):
    """Training images, and the same objects on the backgrounds of others."""

    plain: Float[Tensor, "pairs 3 height width"]
    swapped: Float[Tensor, "pairs 3 height width"]


class Drawn(NamedTuple):
    """The images of a seed."""

    scenes: dict[str, Scenes]
    pairs: Pairs

    @property
    def ood(self) -> list[Scenes]:
        """The OOD tests, one for each family of backgrounds."""
        return [scenes for name, scenes in self.scenes.items() if name.startswith("ood/")]


def drawn(config: Config, seed: int) -> Drawn:
    """Draw the images of a seed."""
    scenes = splits(seed, train=config.train, id_val=40, id_test=config.id_test,
                    ood_test=config.ood_test)  # fmt: skip
    shown, generator = scenes["train"], generator_for(seed, "background projection/pairs")
    own, other = (torch.randint(len(shown.y), (config.pairs,), generator=generator)
                  for _ in range(2))  # fmt: skip
    behind = without_objects(shown.x[other], shown.mask[other])
    return Drawn(scenes, Pairs(shown.x[own], pasted(shown.x[own], shown.mask[own], behind)))


def environments(
    shown: Scenes, per_class: int = PER_CLASS
) -> tuple[Float[Tensor, "classes images 3 h w"], Float[Tensor, "classes images 3 h w"]]:
    """Return the first images of each class with backgrounds of each of the first two families.

    Args:
        shown: training images.
        per_class: images of each class, or as many as the rarest class of a family has.

    Source: ours, environments whose backgrounds differ.
    """
    cells = _cells(shown)
    count = min(per_class, *(int(cell.sum()) for row in cells for cell in row))
    first, second = (torch.stack([shown.x[cell][:count] for cell in row]) for row in cells)
    return first, second


def _cells(shown: Scenes) -> list[list[Tensor]]:
    """Masks of the images of each class with backgrounds of each of the first two families."""
    return [
        [(shown.y == label) & (shown.domain == family) for label in shown.y.unique()]
        for family in range(2)
    ]


def restrict(model: nn.Module, basis: Float[Tensor, "patch directions"]) -> None:
    """Make the first convolution blind to directions of its patches, now and in training.

    Args:
        model: the network, changed in place.
        basis: orthonormal directions of the patches.

    Source: ours, the projection of Sec. 5 where a convolution has its inputs.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 1))
    >>> restrict(model, torch.eye(1))  # The only direction of a patch of one pixel.
    >>> torch.equal(model(torch.ones(1, 1, 2, 2)), model(torch.zeros(1, 1, 2, 2)))
    True
    """
    weight = _first_convolution(model).weight

    def outside(values: Tensor) -> Tensor:
        flat = values.flatten(1)
        return (flat - (flat @ basis) @ basis.T).view_as(values)

    with torch.no_grad():
        weight.copy_(outside(weight))
    weight.register_hook(outside)


def patch_directions(
    model: nn.Module, pairs: Pairs, directions: int, seed: int, *, random: bool
) -> Float[Tensor, "patch directions"]:
    """Return the main directions in which the patches of pairs differ, or as many random ones.

    Args:
        model: the network whose first convolution reads the patches.
        pairs: images of the same objects on two backgrounds.
        directions: number of directions.
        seed: random seed of random directions.
        random: whether to draw the directions.

    Source: ours, directions of the background, estimated from patches without labels.
    """
    convolution = _first_convolution(model)
    if random:
        width = convolution.weight[0].numel()
        return _random_directions(width, directions, seed).float()
    patches = [
        F.unfold(
            images, convolution.kernel_size, convolution.dilation, int(convolution.padding[0]),
            convolution.stride,
        ).transpose(1, 2).flatten(0, 1)
        for images in pairs
    ]  # fmt: skip
    return main_directions(background_moment(*patches), directions).float()


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def _random_directions(width: int, directions: int, seed: int) -> Float[Tensor, "width directions"]:
    """Return an orthonormal basis of random directions.

    Source: ours, the control of directions that are estimated.
    """
    drawn = torch.randn(width, directions, dtype=torch.float64,
                        generator=generator_for(seed, "background projection/random"))  # fmt: skip
    return torch.linalg.qr(drawn)[0]


@torch.no_grad()
def projected(config: Config, model: Classifier, images: Drawn, seed: int) -> list[dict[str, Any]]:
    """Project directions out of a network's features, and fit a fresh head to the rest.

    Returns:
        A row for each source and number of directions: accuracies, and `class_share`, the share of
        the variance between class means that lies in the directions.

    Source: ours, features without the background's directions, judged by a fresh head.
    """
    shown = images.scenes["train"]
    parts = (shown.x, images.scenes["id_test"].x, *(scenes.x for scenes in images.ood))
    train, *tests = (_features(model, x) for x in parts)
    labels = [images.scenes["id_test"].y, *(scenes.y for scenes in images.ood)]
    plain, swapped = (_features(model, x) for x in images.pairs)
    means = torch.stack([train[shown.y == label].mean(dim=0) for label in shown.y.unique()])
    means = means - means.mean(dim=0)
    bases = {
        PAIRS: lambda count: torch.linalg.qr((swapped - plain)[:count].T)[0],
        MAIN: partial(main_directions, background_moment(plain, swapped)),
        ENVIRONMENTS: partial(main_directions, _between_environments(train, shown)),
        RANDOM: lambda count: _random_directions(train.shape[1], count, seed),
    }
    nothing = train.new_zeros(train.shape[1], 1)
    cases = [("nothing", 0, nothing)] + [
        (source, count, basis(count))
        for source, basis in bases.items()
        for count in config.directions
        # Two environments differ in one mean for each class.
        if count < train.shape[1] and (source != ENVIRONMENTS or count <= len(means))
    ]
    rows = []
    for source, count, basis in cases:
        left, *others = (
            (values - (values @ basis) @ basis.T).float() for values in (train, *tests)
        )
        head = fit_linear_head(left, shown.y, classes=len(means))
        own, *ood = (accuracy(head(values), y) for values, y in zip(others, labels, strict=True))
        rows.append({
            "source": source, "directions": count, "seed": seed, "width": train.shape[1],
            "id_accuracy": own, "ood_accuracy": fmean(ood),
            "class_share": float((means @ basis).square().sum() / means.square().sum()),
        })  # fmt: skip
    return rows


def _between_environments(train: Tensor, shown: Scenes) -> Tensor:
    """The second moment of the differences of class means between the first two families."""
    means = [torch.stack([train[cell].mean(dim=0) for cell in cells]) for cells in _cells(shown)]
    return background_moment(*means)


def _features(model: Classifier, x: Tensor) -> Tensor:
    return torch.cat([model.encoder(part) for part in x.split(500)]).double()


def accuracy(logits: Tensor, y: Tensor) -> float:
    """The share of examples whose largest logit is that of the class.

    >>> accuracy(torch.eye(2), torch.tensor([0, 0]))
    0.5
    """
    return float((logits.argmax(1) == y).double().mean())
