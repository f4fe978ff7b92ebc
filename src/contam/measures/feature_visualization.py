"""Pictures of features: inputs that maximize a channel of a network, and how colored they are."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contam.measures.color import hue_axis
from contam.models.preserve import evaluating
from contam.rng import generator_for

LONGER = 1.3
"""Restarts after the middle one take this many times as many steps, as in the published code."""
LOWEST, SPAN = 128 / 255, 20 / 255
"""The optimization starts from uniform noise in [LOWEST, LOWEST + SPAN]: nearly mid-gray."""


def visualize_channels(
    model: nn.Module,
    layer: str,
    channels: Sequence[int],
    size: int,
    *,
    restarts: int = 10,
    steps: int = 200,
    step_size: float = 0.05,
    blur: int = 5,
    penalty: float = 1e-2,
    norm: Literal["squared", "plain"] = "plain",
    seed: int = 0,
) -> Float[Tensor, "channels 3 size size"]:
    """Optimize one picture for each channel, so that the channel's mean output is high.

    Adam minimizes `penalty * ||x - 0.5|| - mean(channel)` (or the squared norm). After `steps`
    steps the picture is blurred by a box filter and Adam starts again from it; the last result is
    not blurred. Pixels are not bounded. The network is in evaluation mode meanwhile; its modes,
    hooks, gradients and the random state are restored at the end.

    The published script feeds the network pictures that it has standardized once more, so its
    start and its penalty are in standardized units; here both are in the pixels that the network
    takes. The published code penalizes the norm itself.

    Args:
        model: a network of images `(batch, 3, height, width)` in [0, 1].
        layer: name of a module with output `(batch, channels, height, width)`.
        channels: indices of the channels.
        size: height and width of the pictures in pixels.
        restarts: how many times Adam starts; those after the middle take 1.3 times `steps`.
        steps: Adam steps of a restart.
        step_size: step size of Adam, in pixel units.
        blur: width of the box filter in pixels, odd; 1 leaves pictures as they are.
        penalty: weight of the distance from mid-gray.
        norm: "plain" penalizes the L2 norm, "squared" its square.
        seed: random seed of the start.

    Returns:
        A picture for each channel. `displayed` brings them to [0, 1].

    Raises:
        ValueError: the layer is missing or returns no maps, a channel does not exist, the blur is
            even, or a number is not positive.

    Source: App. F.4; Allen-Zhu and Li (2022), whose technique the paper uses.

    >>> model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    >>> _ = nn.init.constant_(model[0].weight, 1.0)
    >>> pictures = visualize_channels(model, "0", [1], 8, restarts=1, steps=3)
    >>> pictures.shape, bool((pictures > 0.5).all())
    (torch.Size([1, 3, 8, 8]), True)
    """
    if min(restarts, steps, size) < 1 or step_size <= 0 or penalty < 0 or blur < 1 or blur % 2 == 0:
        raise ValueError(
            "a visualization takes positive restarts, steps, size and step_size, an odd blur and "
            f"a penalty >= 0, not {restarts}, {steps}, {size}, {step_size}, {blur}, {penalty}"
        )
    try:
        module = model.get_submodule(layer)
    except AttributeError:
        names = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
        raise ValueError(f"no layer {layer!r}; its convolutions are {names}") from None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    picked = torch.as_tensor(channels, device=device)
    start = torch.rand(len(picked), 3, size, size, generator=generator_for(seed, "visualization"))
    x = (LOWEST + SPAN * start).to(device)
    maps: list[Tensor] = []

    def record(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        maps.append(output)

    hook = module.register_forward_hook(record)
    try:
        with evaluating(model), torch.enable_grad():
            for restart in range(restarts):
                if restart > 0:
                    x = box_blur(x, blur)
                x = x.detach().requires_grad_()
                adam = torch.optim.Adam([x], step_size)
                for _ in range(int(steps * LONGER) if restart > restarts / 2 else steps):
                    maps.clear()
                    model(x)
                    loss = penalty * _distance(x, norm) - channel_means(maps[-1], picked)
                    (x.grad,) = torch.autograd.grad(loss.sum(), x)
                    adam.step()
    finally:
        hook.remove()
    return x.detach().cpu()


def channel_means(maps: Tensor, channels: Tensor) -> Float[Tensor, " pictures"]:
    """Return the mean over space of one channel for each picture.

    Args:
        maps: output of a layer, `(pictures, channels, height, width)`.
        channels: the channel of each picture.

    Raises:
        ValueError: the output is no batch of maps, or a channel does not exist.

    Source: App. F.4.

    >>> channel_means(torch.arange(8.0).view(2, 2, 1, 2), torch.tensor([0, 1])).tolist()
    [0.5, 6.5]
    """
    if maps.ndim != 4 or int(channels.min()) < 0 or int(channels.max()) >= maps.shape[1]:
        raise ValueError(
            f"the layer's output has shape {tuple(maps.shape)}; expected (batch, channels, height, "
            f"width) with channels {int(channels.min())} to {int(channels.max())}"
        )
    return maps[torch.arange(len(maps), device=maps.device), channels].mean(dim=(1, 2))


def box_blur(
    pictures: Float[Tensor, "n 3 height width"], width: int
) -> Float[Tensor, "n 3 height width"]:
    """Average every pixel with its neighbors in a square; borders are reflected.

    Args:
        pictures: at least `(width + 1) / 2` pixels high and wide.
        width: pixels along a side of the square, odd.

    Source: App. F.4.

    >>> box_blur(torch.tensor([[[[0.0, 9.0, 0.0]]]]).expand(1, 3, 3, 3), 3)[0, 0, 1].tolist()
    [6.0, 3.0, 6.0]
    """
    edge = width // 2
    return F.avg_pool2d(F.pad(pictures, [edge] * 4, mode="reflect"), width, stride=1)


def displayed(pictures: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """Rescale every picture to [0, 1] by its own lowest and highest value, for display.

    A picture of one value becomes mid-gray.

    Source: App. F.4, where pictures are shown so.

    >>> displayed(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)).flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    low = pictures.amin(dim=(1, 2, 3), keepdim=True)
    span = pictures.amax(dim=(1, 2, 3), keepdim=True) - low
    return torch.where(span > 0, (pictures - low) / span, torch.full_like(pictures, 0.5))


def redness(
    pictures: Float[Tensor, "n 3 height width"], color: Float[Tensor, " 3"] | None = None
) -> Float[Tensor, " n"]:
    """Measure how red displayed pictures are: the mean over pixels of R - (G + B) / 2.

    1 is pure red, 0 any gray, -1 cyan, red's complement. Red and cyan areas of one picture cancel;
    see `hue_share` for how much of its color they are. Given another color, it is the same along
    the axis from the color's complement to the color.

    Args:
        pictures: values in [0, 1].
        color: a color that is not gray; None is red.

    Returns:
        The redness of each picture, in [-1, 1].

    Raises:
        ValueError: the color is a gray.

    Source: ours, a number beside Fig. 13, which shows pictures alone.

    >>> pictures = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    >>> [round(value) for value in redness(pictures.view(3, 3, 1, 1)).tolist()]
    [1, -1, 0]
    """
    axis = _hue_axis(pictures, color)
    return (pictures.mean(dim=(2, 3)) * axis / axis.clamp(min=0).sum()).sum(dim=1)


def hue_share(
    pictures: Float[Tensor, "n 3 height width"], color: Float[Tensor, " 3"] | None = None
) -> Float[Tensor, " n"]:
    """Measure how much of the pictures' color lies between red and its complement, cyan.

    The color of a pixel is its deviation from the gray of the same mean: a vector in a plane. This
    is the share of the squared lengths of these vectors, summed over pixels, that lies along the
    axis from cyan to red: 1 if every pixel is a shade of red, cyan or gray, 0 if none is reddish
    or cyanish, and 1/2 on average for colors without a preferred hue. It does not depend on the
    brightness, contrast or saturation of a picture.

    Args:
        pictures: any finite values.
        color: a color that is not gray, whose axis is meant; None is red.

    Returns:
        The share for each picture, in [0, 1]; nan for a picture without color.

    Raises:
        ValueError: the color is a gray.

    Source: ours, a number beside Fig. 13, which shows pictures alone.

    >>> pictures = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.7, 0.7], [0.5, 0.7, 0.3]])
    >>> [round(share, 3) for share in hue_share(pictures.view(3, 3, 1, 1)).tolist()]
    [1.0, 1.0, 0.0]
    """
    axis = _hue_axis(pictures, color)
    colors = pictures - pictures.mean(dim=1, keepdim=True)
    along = (colors * (axis / axis.norm())[:, None, None]).sum(dim=1)
    return along.square().sum(dim=(1, 2)) / colors.square().sum(dim=(1, 2, 3))


def _hue_axis(pictures: Tensor, color: Tensor | None) -> Tensor:
    return hue_axis(torch.tensor([1.0, 0.0, 0.0]) if color is None else color).to(pictures)


def _distance(x: Tensor, norm: str) -> Tensor:
    squares = (x - 0.5).square().flatten(1).sum(dim=1)
    return squares if norm == "squared" else squares.sqrt()
