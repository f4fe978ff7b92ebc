"""Edits of whole images that undo, or imitate, faults of an input pipeline, a sensor or a camera.

Images are in the form that the network takes; no edit assumes that they lie in [0, 1].
"""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Images = Float[Tensor, "n channels height width"]
Edit = Callable[[Tensor], Tensor]
"""A function from a batch of images to a batch of images."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels in [0, 1], with which most networks train."""
HALVES = ((0.5,), (0.5,))
"""Mean and standard deviation that map [0, 1] to [-1, 1]."""


def affine(x: Images, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale times x plus shift, for each channel, or for each channel of each image.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> affine(x, torch.tensor([2.0]), torch.tensor([1.0])).mean()
    tensor(3.)
    """
    return x * scale[..., None, None].to(x) + shift[..., None, None].to(x)


def normalized(x: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract a mean and divide by a standard deviation, one for all channels or one for each.

    >>> normalized(torch.ones(1, 3, 1, 1), (0.5,), (0.5,)).flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    centers, spreads = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (mean, std))
    return (x - centers[:, None, None]) / spreads[:, None, None]


def denormalized(x: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Undo `normalized`.

    >>> denormalized(torch.ones(1, 3, 1, 1), (0.5,), (0.5,)).flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    centers, spreads = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (mean, std))
    return x * spreads[:, None, None] + centers[:, None, None]


def channel_statistics(
    x: Images,
) -> tuple[Float[Tensor, "n channels"], Float[Tensor, "n channels"]]:
    """Return the mean and the standard deviation of each channel of each image.

    >>> mean, std = channel_statistics(torch.tensor([[[[0.0, 2.0]]]]))
    >>> mean, std
    (tensor([[1.]]), tensor([[1.4142]]))
    """
    flat = x.flatten(2)
    return flat.mean(2), flat.std(2)


def with_statistics(x: Images, mean: Tensor, std: Tensor) -> Tensor:
    """Give each channel of each image this mean and standard deviation.

    Args:
        x: images; a channel that is constant keeps its spread of zero.
        mean: (channels,) or (n, channels) means.
        std: standard deviations of the same shape.

    >>> y = with_statistics(torch.rand(2, 3, 8, 8), torch.zeros(3), torch.ones(3))
    >>> bool(y.mean().abs() < 1e-5)
    True
    """
    own_mean, own_std = channel_statistics(x)
    scale = std.to(x) / own_std.clamp(min=1e-6)
    return affine(x, scale, mean.to(x) - scale * own_mean)


def turned(x: Images, degrees: float) -> Tensor:
    """Rotate images counter-clockwise about their center; the border is repeated outside.

    >>> turned(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), 90)
    tensor([[[[0., 0.],
              [1., 0.]]]])
    """
    if degrees % 90 == 0:
        return (
            torch.rot90(x, int(degrees // 90), (2, 3))
            if x.shape[2] == x.shape[3] or (degrees % 180 == 0)
            else _warped(x, degrees, 1.0)
        )
    return _warped(x, degrees, 1.0)


def zoomed(x: Images, factor: float) -> Tensor:
    """Enlarge images about their center by a factor; below 1, the border is repeated outside.

    >>> zoomed(torch.ones(1, 3, 4, 4), 2.0).shape
    torch.Size([1, 3, 4, 4])
    """
    return _warped(x, 0.0, factor)


def zoomed_about(x: Images, factors: Float[Tensor, " n"], centers: Float[Tensor, "n 2"]) -> Tensor:
    """Enlarge each image by a factor of its own about a point; the outside is 0.

    Args:
        x: images.
        factors: the factor of each image.
        centers: the point that stays, across and down, from -1 to 1.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> torch.equal(zoomed_about(x, torch.ones(1), torch.zeros(1, 2)), x)
    True
    """
    matrix = torch.zeros(len(x), 2, 3).to(x)
    for axis in range(2):
        matrix[:, axis, axis] = 1 / factors.to(x)
        matrix[:, axis, 2] = centers[:, axis].to(x) * (1 - 1 / factors.to(x))
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", align_corners=False)


def stretched(x: Images, factor: float, axis: int) -> Tensor:
    """Enlarge the height (axis 2) or the width (axis 3) about the center; the rest is cut off.

    >>> stretched(torch.arange(4.0).view(1, 1, 1, 4), 2.0, 3).flatten().tolist()
    [0.75, 1.25, 1.75, 2.25]
    """
    side = x.shape[axis]
    size = [round(factor * length) if k == axis else length for k, length in enumerate(x.shape)]
    larger = F.interpolate(x, size[2:], mode="bilinear", align_corners=False)
    return larger.narrow(axis, (size[axis] - side) // 2, side)


def _warped(x: Tensor, degrees: float, factor: float) -> Tensor:
    angle, ratio = math.radians(degrees), x.shape[3] / x.shape[2]
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    matrix = torch.tensor([[cosine, -sine / ratio, 0.0], [sine * ratio, cosine, 0.0]]).to(x)
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def blurred(x: Images, sigma: float) -> Tensor:
    """Convolve with a Gaussian of this standard deviation in pixels; edges are mirrored.

    >>> x = torch.zeros(1, 1, 5, 5)
    >>> x[..., 2, 2] = 1
    >>> float(blurred(x, sigma=1.0).max()) < 0.2
    True
    """
    if sigma <= 0:
        return x
    reach = min(max(1, math.ceil(3 * sigma)), min(x.shape[2:]) - 1)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="reflect"), weights.view(1, 1, -1, 1))
    return flat.view_as(x)


def sharpened(x: Images, sigma: float, amount: float) -> Tensor:
    """Add `amount` times the difference between images and their blurred copies.

    >>> x = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]] * 4]])
    >>> bool(sharpened(x, sigma=1.0, amount=1.0).max() > 1)
    True
    """
    return x + amount * (x - blurred(x, sigma))


def median_filtered(x: Images, side: int = 3) -> Tensor:
    """Replace each value by the median of its square of `side` pixels; edges are mirrored.

    >>> x = torch.zeros(1, 1, 5, 5)
    >>> x[0, 0, 2, 2] = 9.0
    >>> float(median_filtered(x).max())
    0.0
    """
    reach = side // 2
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(4).median(dim=4).values


def jpeg(x: Images, quality: int) -> Tensor:
    """Compress images of one or three channels as JPEG and read them again.

    Args:
        x: images; their smallest and largest value become black and white.
        quality: from 1 to 95, as Pillow counts it.

    >>> x = torch.rand(1, 3, 16, 16)
    >>> jpeg(x, quality=90).shape
    torch.Size([1, 3, 16, 16])
    """
    low, high = float(x.min()), float(x.max())
    scale = max(high - low, 1e-8) / 255
    data = ((x - low) / scale).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for image in data:
        file = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        read.append(np.array(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(x) * scale + low


def blockiness(x: Images) -> float:
    """Return how much larger the steps between blocks of 8 pixels are than the other steps.

    About 1 for images without block artifacts of JPEG.

    >>> flat = torch.rand(9, 1, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    >>> blockiness(flat + 0.01 * torch.rand(9, 1, 16, 16)) > 5
    True
    """
    ratios = []
    for axis in (2, 3):
        steps = x.diff(dim=axis).abs().transpose(axis, 0).flatten(1).mean(1)
        between = torch.arange(len(steps)) % 8 == 7
        ratios.append(steps[between].mean() / steps[~between].mean().clamp(min=1e-8))
    return float(sum(ratios)) / 2


def noise_level(x: Images) -> Float[Tensor, " n"]:
    """Return the standard deviation of the noise of each image, averaged over channels.

    It is the median absolute deviation of the finest diagonal Haar details, which edges and
    textures of more than a pixel hardly change.

    Source: Donoho and Johnstone (1994), the estimate of the noise in wavelet shrinkage.

    >>> x = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    >>> round(float(noise_level(x)), 1)
    1.0
    """
    height, width = (side // 2 * 2 for side in x.shape[2:])
    x = x[:, :, :height, :width]
    diagonal = (
        x[:, :, ::2, ::2] - x[:, :, 1::2, ::2] - x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
    ) / 2
    return diagonal.flatten(2).abs().median(2).values.mean(1) / 0.6745


def sharpness(x: Images) -> Float[Tensor, " n"]:
    """Return the share of each image's variance that lies in the differences of neighbors.

    Blur lowers it, whatever the contrast.

    >>> x = torch.rand(1, 3, 16, 16)
    >>> bool(sharpness(x) > sharpness(blurred(x, 1.0)))
    True
    """
    across = x.diff(dim=3).flatten(2).var(2) + x.diff(dim=2).flatten(2).var(2)
    return (across / x.flatten(2).var(2).clamp(min=1e-8)).mean(1)
