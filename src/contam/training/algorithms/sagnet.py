"""SagNet: classes are learned from content, and styles are made uninformative."""

import copy
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.optim import Adam

from contam.batch import Batch
from contam.models.preserve import evaluating
from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings, pooled
from contam.training.algorithms.search_space import LogUniform

STABILITY = 1e-5
"""Added to variances."""


class SagNetSettings(AlgorithmSettings, frozen=True):
    """Settings of SagNet."""

    adversarial_weight: Annotated[NonNegativeFloat, LogUniform(-2, 1)] = 0.1
    """Weight of the adversarial loss."""
    styles_of: Literal["maps", "features"] = "maps"
    """What has a style: the feature maps before the last stage of the encoder, as published by
    Nam et al., or the features that the head reads, as in DomainBed."""


@final
class SagNet(Algorithm):
    """Style-agnostic network: reduces the style bias of the encoder.

    The encoder is split at its feature maps. A content network classifies maps whose style (mean
    and variance over space) is mixed with that of another example. A style network classifies maps
    with their own style and another example's content. The part before the split also learns to
    make the style network's predictions uniform.

    An encoder that is a chain of its child modules can be split, before the last child with a
    convolution: for example `small_cnn`, `resnet8`, CIFAR ResNets, the ResNets of timm, torchvision
    and CLIP, EfficientNets and ConvNeXts. Vision transformers, networks with one convolution, and
    maps of one position can't be split; use `styles_of="features"` for them.

    Source: App. E.4; Nam et al. (2021).

    Raises:
        ValueError: the encoder has too few convolutions.
    """

    name = "SagNet"
    Settings = SagNetSettings
    settings: SagNetSettings
    style: nn.Sequential
    optimizer: Adam
    style_optimizer: Adam

    def build(self) -> None:
        """Split the encoder, and create the style network as a copy of the content network."""
        encoder = self.network.encoder
        self._checked = self.settings.styles_of == "features"
        self._split = (
            SplitEncoder(encoder, nn.Identity()) if self._checked else split_encoder(encoder)
        )
        dropout = nn.Dropout(self.settings.dropout)
        self.style = copy.deepcopy(
            nn.Sequential(self._split.content, dropout, self.network.head)
        ).train()
        self.optimizer = self.adam(self.network.parameters())
        self.style_optimizer = self.adam(self.style.parameters())

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Train the content network, then the style network, then the maps against it.

        Returns:
            `risk` and `style risk`, the cross-entropies of both networks, and `adversarial`.

        Raises:
            ValueError: the encoder is no chain of its child modules, or maps have one position.
        """
        x, y, _ = pooled(batches)
        if not self._checked:
            check_split(self.network.encoder, self._split, x)
            self._checked = True
        split, weight = self._split, self.settings.adversarial_weight

        share, others = torch.rand(len(x), device=x.device), _shuffled(x)
        features = split.content(mix_styles(split.maps(x), share.to(x.dtype), others))
        features = F.dropout(features, self.settings.dropout, training=self.network.training)
        risk = F.cross_entropy(self.logits(features), y)
        self.optimizer.zero_grad()
        risk.backward()
        self.optimizer.step()

        maps = split.maps(x)
        style_risk = F.cross_entropy(self.style(swap_contents(maps.detach(), _shuffled(x))), y)
        self.style_optimizer.zero_grad()
        style_risk.backward()
        self.style_optimizer.step()

        adversarial = weight * uniformity_loss(self.style(swap_contents(maps, _shuffled(x))))
        # Without a gradient, Adam would still move the weights by its momentum.
        if weight:
            self.optimizer.zero_grad()
            adversarial.backward(inputs=[p for p in split.maps.parameters() if p.requires_grad])
            self.optimizer.step()
        self.done += 1
        return {
            "risk": risk.item(),
            "style risk": style_risk.item(),
            "adversarial": adversarial.item(),
        }


def _shuffled(x: Tensor) -> Tensor:
    return torch.randperm(len(x), device=x.device)


def mix_styles(
    maps: Float[Tensor, "batch ..."],
    share: Float[Tensor, " batch"],
    others: Int[Tensor, " batch"],
) -> Float[Tensor, "batch ..."]:
    """Mix the style of each example, mean and variance, with that of another.

    Args:
        maps: maps (batch, channels, height, width), with one style for each channel, or features
            (batch, width), with one style.
        share: share of the example's own style.
        others: index of the other example.

    Source: ours; Nam et al. (2021), Section 3.1.

    >>> maps = torch.tensor([[[[-1.0, 1.0]]], [[[4.0, 8.0]]]])
    >>> mix_styles(maps, torch.tensor([0.0, 1.0]), torch.tensor([1, 0])).flatten().round().tolist()
    [4.0, 8.0, 4.0, 8.0]
    """
    content, mean, variance = _content_and_style(maps)
    share = share.view(-1, *[1] * (mean.ndim - 1))
    mean = share * mean + (1 - share) * mean[others]
    variance = share * variance + (1 - share) * variance[others]
    return (content * (variance + STABILITY).sqrt() + mean).view_as(maps)


def swap_contents(
    maps: Float[Tensor, "batch ..."], others: Int[Tensor, " batch"]
) -> Float[Tensor, "batch ..."]:
    """Keep the style of each example, and take the content of another without its gradient.

    Args:
        maps: maps (batch, channels, height, width) or features (batch, width).
        others: index of the other example.

    Source: ours; Nam et al. (2021), Section 3.2.

    >>> maps = torch.tensor([[[[-1.0, 1.0]]], [[[8.0, 4.0]]]])
    >>> swap_contents(maps, torch.tensor([1, 0])).flatten().round().tolist()
    [1.0, -1.0, 4.0, 8.0]
    """
    content, mean, variance = _content_and_style(maps)
    return (content[others].detach() * (variance + STABILITY).sqrt() + mean).view_as(maps)


def uniformity_loss(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of uniform predictions.

    Args:
        logits: logits.

    Source: ours; Nam et al. (2021), Eq. 6.

    >>> uniformity_loss(torch.zeros(1, 4)).exp()
    tensor(4.)
    """
    return -logits.log_softmax(dim=1).mean()


def _content_and_style(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardized values, mean and variance over the last axis."""
    flat = maps.flatten(2) if maps.ndim > 2 else maps
    variance, mean = torch.var_mean(flat, dim=-1, keepdim=True)
    return (flat - mean) / (variance + STABILITY).sqrt(), mean, variance


class SplitEncoder(NamedTuple):
    """Two modules that share the parameters of an encoder and do its work one after the other."""

    maps: nn.Module
    """From inputs to feature maps."""
    content: nn.Module
    """From feature maps to features."""


def split_encoder(encoder: nn.Module) -> SplitEncoder:
    """Split an encoder before its last child module with a convolution.

    The first part runs the children before it in their order. The second part is the encoder with
    identities in their place. Only `check_split` shows whether the two do the encoder's work.

    Args:
        encoder: the encoder; a module that wraps another one is entered.

    Returns:
        Two modules that share the parameters and buffers of the encoder.

    Raises:
        ValueError: fewer than two convolutions follow one another.

    Source: ours, for networks of any library; Nam et al. (2021) split a ResNet before layer4.

    >>> from contam.models.small import small_cnn
    >>> encoder = small_cnn(width=4).encoder
    >>> split_encoder(encoder).maps(torch.zeros(1, 3, 16, 16)).shape  # before conv3
    torch.Size([1, 8, 4, 4])
    """
    front = _before_last_convolution(encoder)
    inside = {id(module) for part in front for module in part.modules()}
    shared: dict[int, object] = {id(part): nn.Identity() for part in front}
    for module in encoder.modules():
        outside = not any(id(part) in inside for part in module.modules())
        if outside:
            shared[id(module)] = module
    # Modules around the split are copied; their tensors are shared all the same.
    tensors = [*encoder.parameters(), *encoder.buffers()]
    shared |= {id(tensor): tensor for tensor in tensors}
    return SplitEncoder(nn.Sequential(*front), copy.deepcopy(encoder, shared).train())


def _before_last_convolution(module: nn.Module) -> list[nn.Module]:
    """The modules that run before the last child with a convolution."""
    children = list(module.children())
    convolutional = [
        at
        for at, child in enumerate(children)
        if any(isinstance(part, nn.Conv2d) for part in child.modules())
    ]
    if len(convolutional) > 1:
        return children[: convolutional[-1]]
    if not convolutional:
        raise ValueError(
            "SagNet mixes the styles of feature maps between convolutions, and this encoder has "
            'fewer than two that follow one another; set styles_of="features"'
        )
    at = convolutional[0]
    return children[:at] + _before_last_convolution(children[at])


def check_split(encoder: nn.Module, split: SplitEncoder, x: Float[Tensor, "batch ..."]) -> None:
    """Check that the two parts of an encoder do its work.

    Args:
        encoder: the encoder.
        split: its parts.
        x: inputs, of which two are used.

    Raises:
        ValueError: the results differ, or the maps have fewer than two positions.

    Source: ours, a split that changes what the encoder does is reported before the training.

    >>> maps, content = nn.Conv2d(3, 4, 3), nn.Flatten()
    >>> encoder = nn.Sequential(maps, content)
    >>> x = torch.rand(2, 3, 5, 5)
    >>> check_split(encoder, SplitEncoder(maps, content), x)
    >>> check_split(encoder, SplitEncoder(nn.Conv2d(3, 4, 3), content), x)
    Traceback (most recent call last):
    ValueError: SagNet can't split this Sequential at its feature maps, because ...
    """
    x = x[:2]
    try:
        with evaluating(nn.ModuleList([encoder, split.content])):
            maps = split.maps(x)
            same = torch.allclose(split.content(maps), encoder(x), rtol=1e-4, atol=1e-5)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        same, maps = False, x
    if not same:
        raise ValueError(
            f"SagNet can't split this {type(encoder).__name__} at its feature maps, because it is "
            'no chain of its child modules; set styles_of="features"'
        )
    if maps.ndim != 4 or maps[0, 0].numel() < 2:
        raise ValueError(
            f"SagNet needs feature maps with several positions, and those of this "
            f"{type(encoder).__name__} have the shape {tuple(maps.shape[1:])}; give larger images "
            'or set styles_of="features"'
        )
