"""Copies of networks with another normalization in place of batch norm.

Parameters keep their names and values, so a converted network can be trained further, load the
weights of the original, or be observed in the same layers.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn


def centered(
    maps: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """Subtract from the maps of each image and channel their mean over space.

    Source: ours, so that the mean of a background is removed before it can open or close a gate.

    Raises:
        ValueError: the maps have a single position, so the result would be 0.

    >>> import torch
    >>> centered(torch.tensor([[[1.0, 3.0]]])).tolist()
    [[[-1.0, 1.0]]]
    """
    if maps[0, 0].numel() < 2:
        raise ValueError(
            f"maps of shape {tuple(maps.shape)} have one position, so centering over space would "
            "return 0; give larger images, or keep batch norm in this network"
        )
    return maps - maps.flatten(2).mean(dim=2).view(*maps.shape[:2], *[1] * (maps.ndim - 2))


def with_centering(model: nn.Module) -> nn.Module:
    """Copy a network, and center its feature maps image by image before every batch norm.

    Batch norm keeps its statistics and parameters. A network that was trained without centering has
    to be trained further, because its statistics are those of other maps. A network that is
    centered already is only copied.

    Source: ours, the remedy of the embedded benchmark.

    Raises:
        ValueError: the model has no two-dimensional batch norm.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> [type(layer).__name__ for layer in with_centering(model).modules()][2:]
    ['CenteredBatchNorm2d']
    """
    return _converted(model, _center)


def with_instance_norm(model: nn.Module) -> nn.Module:
    """Copy a network with instance norm in place of every batch norm.

    Each map is centered and divided by its own standard deviation, in training and in evaluation
    mode. Scale, offset and epsilon are those of the batch norm; running statistics are dropped.

    Source: ours, with Ulyanov et al. (2016).

    Raises:
        ValueError: the model has no two-dimensional batch norm, or one of a kind unknown here.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> [type(layer).__name__ for layer in with_instance_norm(model).modules()][2:]
    ['InstanceNorm2d']
    """
    return _converted(model, _instance)


def without_running_statistics(model: nn.Module) -> list[str]:
    """Name the batch norms that use the statistics of each batch, also in evaluation mode.

    A network with one of them needs batches of several examples, and its logits for an example
    depend on the others in the batch.

    Source: ours, the logits of such networks depend on the other examples of a batch.

    >>> without_running_statistics(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)))
    ['0']
    """
    kind = nn.modules.batchnorm._BatchNorm
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, kind) and module.running_mean is None
    ]


def _converted(model: nn.Module, convert: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    """Copy a network and convert every batch norm; a shared layer stays shared."""
    model = copy.deepcopy(model)
    done: dict[nn.Module, nn.Module] = {}
    if isinstance(model, nn.BatchNorm2d):
        return convert(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                done.setdefault(child, convert(child))
                setattr(parent, name, done[child])
    if not done:
        raise ValueError(
            f"this {type(model).__name__} has no BatchNorm2d to convert; "
            "networks with layer norm or without normalization can't be converted"
        )
    return model


class _Centering:
    """Centers the input of a batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(centered(x))  # pyright: ignore[reportAttributeAccessIssue]


@cache
def _centering(kind: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    """A subclass of a batch norm (torch's or timm's) that centers its input first."""
    return type(f"Centered{kind.__name__}", (_Centering, kind), {})


def _center(norm: nn.BatchNorm2d) -> nn.Module:
    if not isinstance(norm, _Centering):
        norm.__class__ = _centering(type(norm))
    return norm


@final
class _InstanceNormAct(nn.InstanceNorm2d):
    """Instance norm with the activation that timm has inside its batch norm."""

    def __init__(self, channels: int, drop: nn.Module, act: nn.Module, **options: Any) -> None:
        super().__init__(channels, **options)
        self.drop = drop
        self.act = act

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _instance(norm: nn.BatchNorm2d) -> nn.Module:
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    options = {"eps": norm.eps, "affine": False}
    if type(norm) is nn.BatchNorm2d:
        new = nn.InstanceNorm2d(norm.num_features, **options)
    elif isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        new = _InstanceNormAct(norm.num_features, drop, act, **options)
    else:
        raise ValueError(
            f"can't replace a {type(norm).__name__} by instance norm, since it may do more than "
            "batch norm; convert from BatchNorm2d or from timm's BatchNormAct2d"
        )
    new.affine, new.weight, new.bias = norm.affine, norm.weight, norm.bias
    return new.train(norm.training)
