"""Grad-CAM and Grad-CAM++: heat maps of a convolutional network's evidence for a class.

Heat is the sum of a layer's channels, weighted by their effect on the class's logit. It needs
gradients, so this module has the only hook outside `contam.models`. Unnormalized heat is comparable
between images of one network: it falls when the network finds less evidence. Normalized heat is
not, and is for display.
"""

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contam.models.preserve import evaluating

Formula = Callable[[Tensor, Tensor], Tensor]
"""Function from a layer's maps and the logit's gradients with respect to them to heat."""


def grad_cam(
    maps: Float[Tensor, "batch channels height width"],
    gradients: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """Return Grad-CAM: the positive part of channels weighted by their mean gradient.

    Heat has the unit of the logit: if the network averages these maps before a linear head, the sum
    over positions, before negative values are cut, is the logit without its bias.

    Args:
        maps: Outputs of a layer.
        gradients: Gradients of the class's logit with respect to them.

    Source: Selvaraju et al. (2017).

    >>> maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradients = torch.tensor([[[[1.0, 1.0]], [[-1.0, -1.0]]]])
    >>> grad_cam(maps, gradients).tolist()
    [[[0.0, 2.0]]]
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu()


def grad_cam_plus_plus(
    maps: Float[Tensor, "batch channels height width"],
    gradients: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """Return Grad-CAM++, which weights channels by positive gradients alone; at least 0.

    With a class score of exp(logit), higher derivatives are powers of the gradient g, and the
    coefficient g^2 / (2 g^2 + S g^3) is 1 / (2 + S g), where S is the sum of the channel's map. The
    factor exp(logit), the same for every position, is left out.

    Args:
        maps: Outputs of a layer.
        gradients: Gradients of the class's logit with respect to them.

    Raises:
        ValueError: If a channel has a negative sum, where the coefficient has a pole.

    Source: Sec. 5; Chattopadhay et al. (2018).

    >>> maps, gradients = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    >>> grad_cam_plus_plus(maps, gradients).tolist()  # 2 * 1 / (2 + 2)
    [[[0.5, 0.5]]]
    """
    sums = maps.sum(dim=(2, 3), keepdim=True)
    if torch.any(sums < 0):
        raise ValueError(
            f"Grad-CAM++ needs channels with nonnegative sums, got {float(sums.min()):.3g}; "
            f"choose the output of a ReLU, or the formula grad_cam"
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
    """Return the heat of every image for a class, at one layer.

    The model runs in evaluation mode; its modes, hooks, gradients and the random state are restored
    afterwards. A layer that runs several times is read at its last run.

    Args:
        model: Network that returns logits.
        x: Inputs.
        layer: Name of a convolutional layer.
        y: Class of each image; by default the predicted one.
        formula: Grad-CAM++ or Grad-CAM.

    Returns:
        Unnormalized heat at the layer's resolution, on the model's device.

    Raises:
        ValueError: If there is no such layer, it has no maps or no effect on the logits, or a label
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
    outputs: list[Tensor] = []

    def read(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer {layer!r} returns {shape}, not maps (batch, channels, height, width); "
                "choose a convolutional layer"
            )
        outputs.append(output.detach().requires_grad_())
        # Later layers may work in place, so they get a copy.
        return outputs[-1].clone()

    with evaluating(model), torch.enable_grad():
        hook = modules[layer].register_forward_hook(read)
        try:
            logits = model(x)
        finally:
            hook.remove()
        if not outputs:
            raise ValueError(f"layer {layer!r} did not run; choose one that the forward pass calls")
        maps = outputs[-1]
        (gradients,) = torch.autograd.grad(_scores(logits, y).sum(), maps, allow_unused=True)
    if gradients is None:
        raise ValueError(f"the logits do not depend on layer {layer!r}; choose one before the head")
    return formula(maps.detach(), gradients)


def normalized(
    heat: Float[Tensor, "batch height width"],
) -> Float[Tensor, "batch height width"]:
    """Return heat scaled to [0, 1] in each image, for display; constant maps become 0.

    Source: ours, since a picture needs a range.

    >>> normalized(torch.tensor([[[1.0, 3.0]]])).tolist()
    [[[0.0, 1.0]]]
    """
    heat = heat - heat.amin(dim=(1, 2), keepdim=True)
    top = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(top > 0, top, 1)


def upsampled(
    heat: Float[Tensor, "batch height width"], size: tuple[int, int]
) -> Float[Tensor, "batch rows columns"]:
    """Return heat at every pixel of an image, by bilinear interpolation.

    Args:
        heat: Heat at the layer's resolution.
        size: Rows and columns of the image.

    Source: Selvaraju et al. (2017).

    >>> upsampled(torch.ones(1, 2, 2), (8, 8)).shape
    torch.Size([1, 8, 8])
    """
    return F.interpolate(heat[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def heat_on_object(
    heat: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, " batch"]:
    """Return the mean heat of the object's pixels, in the unit of the heat.

    Args:
        heat: Unnormalized heat, which falls where the network stops finding the object.
        mask: Pixels of the object.

    Raises:
        ValueError: If a mask is empty.

    Source: ours, the weight of core objects in Fig. 6 as a number.

    >>> heat = torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])
    >>> heat_on_object(heat, torch.tensor([[[True, True], [False, False]]])).tolist()
    [2.0]
    """
    area = mask.sum(dim=(1, 2))
    if not area.all():
        raise ValueError(
            f"the masks of images {(area == 0).nonzero().flatten().tolist()} are empty; leave "
            "these images out"
        )
    return _inside(heat, mask) / area


def heat_share(
    heat: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, " batch"]:
    """Return the share of all heat that lies on the object, in [0, 1]; nan without heat.

    Constant heat gives the object's share of the area. On maps of few positions, interpolation
    spreads heat far beyond the object: use a layer of 8 x 8 positions or more.

    Args:
        heat: Heat at the layer's resolution.
        mask: Pixels of the object.

    Source: ours, where masks exist.

    >>> heat = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
    >>> heat_share(heat, torch.tensor([[[True, False], [False, False]]])).tolist()
    [0.75]
    """
    return _inside(heat, mask) / upsampled(heat, (mask.shape[1], mask.shape[2])).sum(dim=(1, 2))


def _inside(heat: Tensor, mask: Tensor) -> Tensor:
    return (upsampled(heat, (mask.shape[1], mask.shape[2])) * mask).sum(dim=(1, 2))


def _scores(logits: Tensor, y: Tensor | None) -> Tensor:
    """Return the logit of each example's class."""
    if y is None:
        return logits.amax(dim=1)
    y = y.to(logits.device)
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise ValueError(
            f"labels {int(y.min())}..{int(y.max())} don't fit {logits.shape[1]} classes numbered "
            "from 0"
        )
    return logits.gather(1, y[:, None].long())[:, 0]
