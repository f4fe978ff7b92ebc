"""Where in an image a convolutional network finds its evidence for a class.

Heat is what a layer's channels add up to, each weighted by how much it moves the class's logit. It
needs gradients, so this room has the one hook outside `contam.models.observe`. Heat as it comes can
be compared between images of one network: it falls when the network finds less. Normalized heat
hides just that, and is for looking at.
"""

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contam.models.preserve import evaluating

Formula = Callable[[Tensor, Tensor], Tensor]
"""From a layer's maps and the logit's gradients with respect to them to heat."""


def grad_cam(
    maps: Float[Tensor, "batch channels height width"],
    gradients: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """Channels weighted by their mean gradient, where they speak for the class; never negative.

    In units of the logit: if the network averages these maps and adds them up with the weights of
    a linear head, all positions' evidence, before what is negative is cut, is the logit without
    its bias.

    Source: Selvaraju et al. (2017).
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu()


def grad_cam_plus_plus(
    maps: Float[Tensor, "batch channels height width"],
    gradients: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """Channels weighted by positive gradients alone, less where their maps are large everywhere.

    Never negative. With a class score of exp(logit), higher derivatives are powers of the gradient
    g, and the coefficient g^2 / (2 g^2 + S g^3) is 1 / (2 + S g), S being the sum of the channel's
    map. The factor exp(logit), the same for every position, is left out.

    Source: Sec. 5; Chattopadhay et al. (2018).

    Raises:
        ValueError: a channel sums to less than zero, where the coefficient has a pole.
    """
    sums = maps.sum(dim=(2, 3), keepdim=True)
    if torch.any(sums < 0):
        raise ValueError(
            f"Grad-CAM++ needs channels that do not sum below zero, and one sums to "
            f"{float(sums.min()):.3g}; choose the output of a ReLU, or the formula grad_cam"
        )
    positive = gradients.relu()
    weights = (positive / (2 + sums * positive)).sum(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu()


def heat_maps(
    model: nn.Module,
    x: Float[Tensor, "batch ..."],
    layer: str,
    y: Int[Tensor, " batch"] | None = None,
    *,
    formula: Formula = grad_cam_plus_plus,
) -> Float[Tensor, "batch height width"]:
    """Return Grad-CAM heat maps of images at one layer.

    The model runs in eval mode; its modes, hooks, gradients and the random state are restored. A
    layer that runs several times is read at its last run.

    Args:
        model: a network that returns logits.
        x: images.
        layer: name of a convolutional layer.
        y: the class of each image; by default the predicted class.
        formula: `grad_cam_plus_plus` or `grad_cam`.

    Returns:
        Unnormalized heat at the layer's resolution, on the model's device.

    Raises:
        ValueError: the layer does not exist, has no maps or does not affect the logits, or a label
            is not a class.

    Source: Sec. 5.

    >>> layers = nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    >>> heat_maps(nn.Sequential(*layers), torch.rand(4, 3, 8, 8), "1").shape
    torch.Size([4, 6, 6])
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = x.to(device)
    modules = dict(model.named_modules())
    if layer not in modules:
        near = difflib.get_close_matches(layer, modules, n=3, cutoff=0.4) or [*modules][1:11]
        raise ValueError(f"no layer {layer!r}; did you mean one of {near}?")
    seen: list[Tensor] = []

    def read(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {layer!r} gives {shape}, not maps (batch, channels, height, width); "
                "choose a convolutional layer"
            )
        seen.append(output.detach().requires_grad_())
        # What follows may work in place, so it gets a copy.
        return seen[-1].clone()

    with evaluating(model), torch.enable_grad():
        hook = modules[layer].register_forward_hook(read)
        try:
            logits = model(x)
        finally:
            hook.remove()
        if not seen:
            raise ValueError(f"layer {layer!r} did not run; choose one that the forward pass calls")
        maps = seen[-1]
        (gradients,) = torch.autograd.grad(_scores(logits, y).sum(), maps, allow_unused=True)
    if gradients is None:
        raise ValueError(f"the logits don't depend on layer {layer!r}; choose one before the head")
    return formula(maps.detach(), gradients)


def normalized(
    heat: Float[Tensor, "batch height width"],
) -> Float[Tensor, "batch height width"]:
    """Heat between 0 and 1 in each image, for looking at; an even map becomes all zeros.

    Source: ours, since a picture needs a range.
    """
    heat = heat - heat.amin(dim=(1, 2), keepdim=True)
    top = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(top > 0, top, 1)


def upsampled(
    heat: Float[Tensor, "batch height width"], size: tuple[int, int]
) -> Float[Tensor, "batch rows columns"]:
    """Heat at every pixel of an image of this size, interpolated linearly between positions.

    Source: Selvaraju et al. (2017).
    """
    return F.interpolate(heat[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def heat_on_object(
    heat: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, " batch"]:
    """The mean heat of the object's pixels, at least 0 and in the heat's own units.

    Give heat that is not normalized: it falls where the network stops finding the object.

    Source: ours, the weight of core objects that Fig. 6 shows, as a number.

    Raises:
        ValueError: a mask without a pixel.
    """
    area = mask.sum(dim=(1, 2))
    if not area.all():
        raise ValueError(
            f"every mask needs an object, and those of {(area == 0).nonzero().flatten().tolist()} "
            "are empty; leave these images out"
        )
    return _inside(heat, mask) / area


def heat_share(
    heat: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, " batch"]:
    """The share of all heat that lies on the object, in [0, 1]; nan for an image without heat.

    The object's share of the area is what even heat gives. On maps of a few positions, linear
    interpolation spreads heat far beyond the object: read it at a layer of 8 x 8 or more.

    Source: ours, where masks exist.
    """
    return _inside(heat, mask) / upsampled(heat, (mask.shape[1], mask.shape[2])).sum(dim=(1, 2))


def _inside(heat: Tensor, mask: Tensor) -> Tensor:
    return (upsampled(heat, (mask.shape[1], mask.shape[2])) * mask).sum(dim=(1, 2))


def _scores(logits: Tensor, y: Tensor | None) -> Tensor:
    """The logit of each example's class."""
    if y is None:
        return logits.amax(dim=1)
    y = y.to(logits.device)
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise ValueError(
            f"labels {int(y.min())}..{int(y.max())} don't fit {logits.shape[1]} classes numbered "
            "from 0"
        )
    return logits.gather(1, y[:, None].long())[:, 0]
