"""Images without their objects, objects on other backgrounds, and statistics of borders.

A mask that leaves the object's outline visible leaves its class visible, so the whole box around
the object is filled with its surroundings, mirrored at the nearest edge of the box.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MARGIN = 1
"""Pixels by which a box is wider than the object's mask on each side."""
BORDER = 0.1
"""Share of the image's sides that counts as border on each side, where there are no masks."""
SMALLEST = 8
"""Pixels along the shorter side below which an image has no separate border."""


def has_border(x: Tensor) -> bool:
    """Return whether a batch holds images that are large enough for a border.

    >>> has_border(torch.rand(1, 3, 32, 32)), has_border(torch.rand(1, 3, 2, 2))
    (True, False)
    """
    return x.ndim == 4 and min(x.shape[2:]) >= SMALLEST


def without_boxes(
    x: Float[Tensor, "n channels height width"], boxes: Int[Tensor, "n 4"]
) -> Float[Tensor, "n channels height width"]:
    """Fill a box in each image with its surroundings, mirrored at the nearest edge of the box.

    A box is filled from above and below or from both sides, whichever has more pixels; the
    surroundings repeat where they are narrower than the box.

    Args:
        x: images.
        boxes: first row, row after the last, first column, column after the last.

    Source: ours, a background without the object's outline.

    >>> image = torch.arange(6.0).view(1, 1, 1, 6)
    >>> without_boxes(image, torch.tensor([[0, 1, 2, 4]])).flatten().tolist()
    [0.0, 1.0, 1.0, 4.0, 4.0, 5.0]
    """
    boxes = boxes.to(x.device)
    height, width = x.shape[2:]
    top, bottom, left, right = boxes.T[:, :, None]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    within = ((rows >= top) & (rows < bottom))[:, :, None]
    within = within & ((columns >= left) & (columns < right))[:, None, :]
    beside = _mirrored(left, right, width)[:, None, None, :].expand(x.shape)
    above = _mirrored(top, bottom, height)[:, None, :, None].expand(x.shape)
    sideways = (width - right + left) * height >= (height - bottom + top) * width
    filled = torch.where(sideways[..., None, None], x.gather(3, beside), x.gather(2, above))
    return torch.where(within[:, None], filled, x)


def _mirrored(low: Int[Tensor, "n 1"], high: Int[Tensor, "n 1"], size: int) -> Tensor:
    """(n, size) index that each position takes its value from: itself, or its mirror image."""
    at = torch.arange(size, device=low.device)
    before, after = low, size - high
    nearer_low = (at - low < high - 1 - at) & (before > 0) | (after == 0)
    # The depth inside the box, counted from 0 at the edge, back and forth over the surroundings.
    depth = torch.where(nearer_low, at - low, high - 1 - at)
    available = torch.where(nearer_low, before, after).clamp(min=1)
    turn = depth % (2 * available)
    offset = torch.where(turn < available, turn, 2 * available - 1 - turn)
    source = torch.where(nearer_low, low - 1 - offset, high + offset).clamp(0, size - 1)
    return torch.where((at >= low) & (at < high), source, at.expand_as(source))


def object_boxes(
    masks: Float[Tensor, "n 1 height width"] | None, size: tuple[int, int], count: int
) -> Int[Tensor, "n 4"]:
    """Return the box around each mask, `MARGIN` wider, or all but the border without masks.

    Args:
        masks: share of each pixel that the object covers; an empty mask has an empty box.
        size: height and width of the images.
        count: number of images.

    Returns:
        First row, row after the last, first column, column after the last.

    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[0, 0, 3:5, 2] = 1
    >>> object_boxes(mask, (8, 8), 1).tolist()
    [[2, 6, 1, 4]]
    """
    if masks is None:
        rows, columns = (max(1, round(BORDER * side)) for side in size)
        return torch.tensor([rows, size[0] - rows, columns, size[1] - columns]).repeat(count, 1)
    ends = []
    for axis in (3, 2):
        touched = (masks > 0).any(dim=axis)[:, 0]
        length = touched.shape[1]
        first = touched.int().argmax(dim=1)
        last = length - touched.flip(1).int().argmax(dim=1)
        empty = ~touched.any(dim=1)
        ends.append(torch.where(empty, 0, (first - MARGIN).clamp(min=0)))
        ends.append(torch.where(empty, 0, (last + MARGIN).clamp(max=length)))
    return torch.stack(ends, dim=1)


def without_objects(
    x: Float[Tensor, "n channels height width"], masks: Float[Tensor, "n 1 height width"] | None
) -> Float[Tensor, "n channels height width"]:
    """Return images whose objects are filled with their surroundings.

    Args:
        x: images.
        masks: share of each pixel that the object covers; None for everything but the border.

    Source: ours, without its object, an image shows what the background alone decides.

    >>> image = torch.arange(6.0).view(1, 1, 1, 6)
    >>> mask = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 6)
    >>> without_objects(image, mask).flatten().tolist()
    [0.0, 1.0, 1.0, 5.0, 5.0, 5.0]
    """
    return without_boxes(x, object_boxes(masks, (x.shape[2], x.shape[3]), len(x)))


def pasted(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"],
    behind: Float[Tensor, "n channels height width"],
) -> Float[Tensor, "n channels height width"]:
    """Put the objects of images in front of backgrounds.

    Args:
        x: images.
        masks: share of each pixel that the object covers.
        behind: backgrounds.

    Source: ours, objects are shown on other backgrounds, to tell what an answer depends on.

    >>> x, behind = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    >>> pasted(x, mask, behind).flatten().tolist()
    [1.0, 0.0, 0.0, 0.5]
    """
    share = masks.to(x)
    return share * x + (1 - share) * behind.to(x)


def removable(boxes: Int[Tensor, "n 4"], size: tuple[int, int]) -> Bool[Tensor, " n"]:
    """Return which boxes are not empty and leave some of the image outside.

    >>> removable(torch.tensor([[0, 8, 0, 8], [2, 4, 2, 4]]), (8, 8))
    tensor([False,  True])
    """
    outside = (boxes[:, 1] - boxes[:, 0] < size[0]) | (boxes[:, 3] - boxes[:, 2] < size[1])
    return (boxes[:, 0] < boxes[:, 1]) & outside


def border_statistics(
    x: Float[Tensor, "n channels height width"],
) -> Float[Tensor, "n statistics"]:
    """Return the mean and the standard deviation of each channel along the border of each image.

    Source: ours, a description of the background where there are no masks.

    >>> border_statistics(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 6])
    """
    top, bottom, left, right = object_boxes(None, (x.shape[2], x.shape[3]), 1)[0].tolist()
    inside = torch.zeros(x.shape[2:], dtype=torch.bool)
    inside[top:bottom, left:right] = True
    border = x.flatten(2)[:, :, ~inside.flatten().to(x.device)].float()
    return torch.cat([border.mean(dim=2), border.std(dim=2)], dim=1).cpu()
