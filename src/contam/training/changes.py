"""Changes of a training that may prevent contamination, as a table.

To add one, make a `TrainingChange` and list it in `CHANGES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from contam.data.counterfactual import counterfactual
from contam.data.object_removal import pasted, without_objects
from contam.models.background_difference import BackgroundDifference
from contam.models.leaky import with_leaky_activations
from contam.models.normalization import with_centering, with_instance_norm
from contam.models.object_gradients import ObjectGradients
from contam.models.preserve import evaluating
from contam.models.projected_gradients import ProjectedGradients
from contam.training.optimize import Recipe

Edit = Callable[[Tensor, Tensor | None, Generator], Tensor]
"""From images in [0, 1], their masks (or None) and random numbers to images in [0, 1]."""
SPREAD, HUE = 0.3, 0.3
"""Ranges of `jittered`, those of DomainBed: of the factors around 1, and of the hue in turns."""
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""From RGB to brightness and two axes of color."""


@dataclass(frozen=True)
class TrainingChange:
    """One change of a training: of the network, its gradients, its images or how they are drawn.

    >>> CHANGES["centering"].misfit(nn.Flatten(), torch.zeros(2, 3, 8, 8))
    "this Flatten has no BatchNorm2d to convert; networks with layer norm or without \
normalization can't be converted"
    """

    name: str
    what: str
    """What it does, as a sentence."""
    convert: Callable[[nn.Module], nn.Module] | None = None
    """From a network to a copy with other layers and the same parameters."""
    wrap: Callable[[nn.Module], nn.Module] | None = None
    """From a network to a module that is trained in its place. The module takes images with the
    mask as the last channel, and its `network` is the trained network."""
    edit: Edit | None = None
    """From the images of a minibatch to those that the network learns from."""
    needs_masks: bool = False
    balances_domains: bool = False
    """Whether every training domain gives the same number of examples to a minibatch."""
    code: str = ""
    """Lines of Python that make the change in another training."""

    def network(self, model: nn.Module) -> nn.Module:
        """Return the network that the change trains, with the parameters of `model`."""
        return model if self.convert is None else self.convert(model)

    def misfit(
        self,
        model: nn.Module,
        x: Float[Tensor, "few ..."],
        *,
        masks: bool = False,
        pixels: bool = True,
        domains: int = 1,
    ) -> str:
        """Return why the change does not fit the network or the data; empty if it fits.

        Args:
            model: the network.
            x: a few of its inputs.
            masks: whether there are masks of the training images.
            pixels: whether the inputs are images with known values of black and white.
            domains: number of training domains.
        """
        if self.balances_domains and domains < 2:
            return "it balances training domains, and there is one"
        if self.needs_masks and not masks:
            return "it needs masks of the objects in the training images; give masks="
        if self.edit is not None and not pixels:
            return "it edits images, and the inputs are not images of one or three channels"
        if self.wrap is not None:
            convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
            if len(convolutions) < 2 or convolutions[0].in_channels != 3 or x.shape[1] != 3:
                return f"this {type(model).__name__} is not a convolutional network of color images"
        try:
            network = self.network(model)
            with evaluating(network):
                network(x)
            if self.wrap is not None:
                self.wrap(model)
        except (ValueError, RuntimeError) as error:
            return " ".join(str(error).split())[:300]
        return ""


def jittered(
    x: Float[Tensor, "n channels height width"], generator: Generator
) -> Float[Tensor, "n channels height width"]:
    """Change brightness, contrast, saturation and hue of each image at random.

    Brightness, contrast and saturation are multiplied by 0.7 to 1.3, and the hue is rotated by up
    to 0.3 turns. Gray images have no saturation and no hue.

    Args:
        x: images in [0, 1] of one or three channels.
        generator: source of the random numbers.

    Returns:
        Images in [0, 1].

    Source: ours, the color jitter of DomainBed (Gulrajani & Lopez-Paz 2021) on tensors.

    >>> jittered(torch.full((2, 3, 4, 4), 0.5), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4, 4])
    """
    draws = 2 * torch.rand(4, len(x), 1, 1, 1, generator=generator).to(x) - 1
    brightness, contrast, saturation = 1 + SPREAD * draws[:3]
    x = brightness * x
    color = x.shape[1] == 3
    weights = TO_YIQ[0].to(x)[:, None, None] if color else 1.0
    gray = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = gray + contrast * (x - gray)
    if color:
        angle = 2 * math.pi * HUE * draws[3].flatten()
        scale, zero = saturation.flatten(), torch.zeros_like(angle)
        sine, cosine = scale * angle.sin(), scale * angle.cos()
        rows = [[zero + 1, zero, zero], [zero, cosine, -sine], [zero, sine, cosine]]
        turn = torch.stack([torch.stack(row, 1) for row in rows], 1)
        matrix = torch.linalg.inv(TO_YIQ).to(x) @ turn @ TO_YIQ.to(x)
        x = torch.einsum("nij,njhw->nihw", matrix, x)
    return x.clamp(0, 1)


def _jittered(x: Tensor, _masks: Tensor | None, generator: Generator) -> Tensor:
    return jittered(x, generator)


def with_negatives(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"] | None,
    generator: Generator,
) -> Float[Tensor, "n channels height width"]:
    """Invert the background of half of the images, drawn at random.

    Args:
        x: images in [0, 1].
        masks: share of each pixel that the object covers.
        generator: source of the random numbers.

    Returns:
        Images in [0, 1]; pixels of the object stay as they are.

    Source: ours, so that the mean response to a background has both signs.

    >>> x, masks = torch.zeros(64, 3, 1, 2), torch.tensor([1.0, 0.0]).expand(64, 1, 1, 2)
    >>> edited = with_negatives(x, masks, torch.Generator().manual_seed(0))
    >>> edited[..., 0].max().item(), edited[..., 1].unique().tolist()
    (0.0, [0.0, 1.0])
    """
    assert masks is not None
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < 0.5
    return torch.where(chosen, counterfactual(x, masks, "negative", generator=generator), x)


def with_swapped_backgrounds(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"] | None,
    generator: Generator,
) -> Float[Tensor, "n channels height width"]:
    """Give half of the images, drawn at random, the background of another image.

    A background is an image whose object is filled with its surroundings.

    Args:
        x: images.
        masks: share of each pixel that the object covers.
        generator: source of the random numbers.

    Returns:
        Images; pixels that the object covers completely stay as they are.

    Source: ours, so that no background goes with a class.

    >>> x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 6)
    >>> masks = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).expand(2, 1, 1, 6)
    >>> edited = with_swapped_backgrounds(x, masks, torch.Generator().manual_seed(3))
    >>> edited[:, 0, 0].tolist()
    [[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    assert masks is not None
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < 0.5
    others = torch.randperm(len(x), generator=generator).to(x.device)
    swapped = pasted(x, masks, without_objects(x, masks)[others])
    return torch.where(chosen, swapped, x)


def with_plain_backgrounds(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"] | None,
    generator: Generator,
) -> Float[Tensor, "n channels height width"]:
    """Give half of the images, drawn at random, a background of one random color.

    Args:
        x: images in [0, 1].
        masks: share of each pixel that the object covers.
        generator: source of the random numbers.

    Returns:
        Images in [0, 1]; pixels that the object covers completely stay as they are.

    Source: ours, a plain background of random color carries nothing about the class.

    >>> x, masks = torch.zeros(64, 3, 1, 2), torch.tensor([1.0, 0.0]).expand(64, 1, 1, 2)
    >>> edited = with_plain_backgrounds(x, masks, torch.Generator().manual_seed(0))
    >>> edited[..., 0].max().item(), bool(edited[..., 1].max() > 0.9)
    (0.0, True)
    """
    assert masks is not None
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < 0.5
    color = torch.rand(*x.shape[:2], 1, 1, generator=generator).to(x)
    return torch.where(chosen, pasted(x, masks, color.expand_as(x)), x)


def balanced_recipe(recipe: Recipe, *, examples: int, domains: int) -> Recipe:
    """Return a recipe in which every domain gives the same number of examples to a minibatch.

    The number of steps stays; the size of a minibatch is rounded to a multiple of the domains.

    Args:
        recipe: the recipe.
        examples: number of training examples.
        domains: number of training domains.

    Source: ours, domains of equal weight, without other changes.

    >>> balanced = balanced_recipe(Recipe(0.1, 0.0, 32, epochs=2), examples=160, domains=3)
    >>> balanced.batch_size, balanced.steps, balanced.per_domain
    (11, 10, True)
    """
    return replace(
        recipe, batch_size=max(1, round(recipe.batch_size / domains)), epochs=None,
        steps=recipe.length(examples), schedule_epochs=None, per_domain=True,
    )  # fmt: skip


CHANGES: dict[str, TrainingChange] = {
    change.name: change
    for change in (
        TrainingChange(
            "centering",
            "The mean over space is subtracted from every map before batch norm.",
            convert=with_centering,
            code="from contam.models.normalization import with_centering\n\n"
            "model = with_centering(model)  # before the training\n",
        ),
        TrainingChange(
            "instance norm",
            "Instance norm replaces batch norm.",
            convert=with_instance_norm,
            code="from contam.models.normalization import with_instance_norm\n\n"
            "model = with_instance_norm(model)  # before the training\n",
        ),
        TrainingChange(
            "leaky activations",
            "Leaky ReLUs, which have a linear path, replace ReLUs.",
            convert=with_leaky_activations,
            code="from contam.models.leaky import with_leaky_activations\n\n"
            "model = with_leaky_activations(model)  # before the training\n",
        ),
        TrainingChange(
            "background negatives",
            "The background of half of the training images is inverted.",
            edit=with_negatives,
            needs_masks=True,
            code="from contam.training.changes import with_negatives\n\n"
            "x = with_negatives(x, masks, generator)  # images in [0, 1], in every step\n",
        ),
        TrainingChange(
            "background swap",
            "Half of the training images have the background of another image.",
            edit=with_swapped_backgrounds,
            needs_masks=True,
            code="from contam.training.changes import with_swapped_backgrounds\n\n"
            "x = with_swapped_backgrounds(x, masks, generator)  # in every step\n",
        ),
        TrainingChange(
            "plain backgrounds",
            "Half of the training images have a background of one random color.",
            edit=with_plain_backgrounds,
            needs_masks=True,
            code="from contam.training.changes import with_plain_backgrounds\n\n"
            "x = with_plain_backgrounds(x, masks, generator)  # images in [0, 1], in every step\n",
        ),
        TrainingChange(
            "stop gradient",
            "No gradient passes through the maps outside the object.",
            wrap=ObjectGradients,
            needs_masks=True,
            code="import torch\n\nfrom contam.models.object_gradients import ObjectGradients\n\n"
            "learner = ObjectGradients(model)  # train this one\n"
            "logits = learner(torch.cat([x, masks], dim=1))\n"
            "model.load_state_dict(learner.network.state_dict())  # after the training\n",
        ),
        TrainingChange(
            "gradient projection",
            "No gradient passes along the directions of features in which a background moves them.",
            wrap=ProjectedGradients,
            needs_masks=True,
            code="import torch\n\n"
            "from contam.models.projected_gradients import ProjectedGradients\n\n"
            "learner = ProjectedGradients(model)  # train this one\n"
            "logits = learner(torch.cat([x, masks], dim=1))\n"
            "model.load_state_dict(learner.network.state_dict())  # after the training\n",
        ),
        TrainingChange(
            "background difference",
            "The logits of the background alone are subtracted from those of the image.",
            wrap=BackgroundDifference,
            needs_masks=True,
            code="import torch\n\n"
            "from contam.models.background_difference import BackgroundDifference\n\n"
            "learner = BackgroundDifference(model)  # train this one\n"
            "logits = learner(torch.cat([x, masks], dim=1))\n"
            "model.load_state_dict(learner.network.state_dict())  # after the training\n",
        ),
        TrainingChange(
            "color jitter",
            "Brightness, contrast, saturation and hue of the training images vary at random.",
            edit=_jittered,
            code="from contam.training.changes import jittered\n\n"
            "x = jittered(x, generator)  # images in [0, 1], in every step\n",
        ),
        TrainingChange(
            "balanced domains",
            "Every training domain gives the same number of examples to a minibatch.",
            balances_domains=True,
            code="import torch\nfrom torch.utils.data import WeightedRandomSampler\n\n"
            "weights = 1 / torch.bincount(domain)[domain]  # domain: each example's domain index\n"
            "sampler = WeightedRandomSampler(weights.tolist(), len(weights))\n",
        ),
        TrainingChange(
            "no change",
            "The baseline is trained again; on a CPU, its difference is exactly 0.",
        ),
    )
}
"""Every change by its name."""
