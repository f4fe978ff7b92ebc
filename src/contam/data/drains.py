"""Drawn X-rays: a lesion that decides the label, and a drain that is correlated with it.

The lesion is a handwritten digit on a smooth texture: 2, 6 and 9 for ill, 3, 5 and 8 for healthy.
The drain is a bright curve from the left or right edge. As with chest drains, most ill patients
have one, because they are treated, and most healthy ones do not.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.dominoes import CORE
from contam.rng import generator_for

SIDE = 32
CLASSES = ("healthy", "ill")
GROUPS = ("no drain", "drain")
INDEPENDENT = "drains independent of the label"
ROOM = 8
"""A digit's position varies by so many pixels."""
POINTS = 24
"""Number of points of a drain that are drawn."""
SIGMA = 0.7
"""Standard deviation of a drain's profile in pixels."""


def drawn_xrays(*, agreement: float, train: int, test: int, seed: int) -> Shift:
    """Draw X-rays whose drain agrees with the label in a share of the examples.

    The ID test has the same share; in the OOD test, drains are independent of the label.
    `Batch.domain` is 1 for a drain.

    Args:
        agreement: share of examples with a drain if and only if ill; 0.5 is independent.
        train: number of training examples.
        test: number of examples of each test.
        seed: random seed.

    Raises:
        ValueError: the agreement is not in [0, 1], or a number is below 2.

    Source: ours, chest drains of Murali et al. (2023), Fig. 8 in miniature.

    >>> shift = drawn_xrays(agreement=0.9, train=20, test=10, seed=0)
    >>> x, y, drain = shift.train[0].data
    >>> x.shape, int((y == drain).sum())
    (torch.Size([20, 3, 32, 32]), 18)
    """
    if not 0 <= agreement <= 1 or min(train, test) < 2:
        raise ValueError(
            f"expected an agreement in [0, 1] and at least 2 examples, got {agreement}, {train} "
            f"and {test}"
        )

    def domain(name: str, part: str, count: int, share: float) -> Domain:
        return Domain(name, _drawn(name, part, count, share, seed)[0])

    return Shift(
        name=f"drawn X-rays, {agreement:.0%} agreeing",
        classes=CLASSES,
        train=(domain("training", "train", train, agreement),),
        id_test=domain("test", "test", test, agreement),
        ood_tests=(domain(INDEPENDENT, "test", test, 0.5),),
    )


def drain_pixels(*, agreement: float, test: int, seed: int) -> Bool[Tensor, "n 32 32"]:
    """Return the pixels of the drains in the ID test of `drawn_xrays` with the same arguments.

    Args:
        agreement: share of examples with a drain if and only if ill.
        test: number of examples.
        seed: random seed.

    Returns:
        True where a drain has at least half of its largest brightness; images without a drain have
        no such pixel.

    Source: ours.

    >>> drains = drain_pixels(agreement=1, test=4, seed=0)
    >>> drains.any(dim=2).any(dim=1).tolist()
    [False, True, False, True]
    """
    return _drawn("test", "test", test, agreement, seed)[1] > 0.5


def _drawn(
    name: str, part: str, count: int, share: float, seed: int
) -> tuple[Batch, Float[Tensor, "n 32 32"]]:
    """Draw examples, and return them with the brightness of their drains."""
    y = torch.arange(count) % 2
    generator = generator_for(seed, f"drains/{name} {share:g}")
    # The share holds within each label as closely as the numbers allow.
    agrees = torch.zeros(count, dtype=torch.bool)
    for label in (0, 1):
        here = (y == label).nonzero().flatten()
        here = here[torch.randperm(len(here), generator=generator)]
        agrees[here[: round(share * len(here))]] = True
    drain = torch.where(agrees, y, 1 - y)
    x = _without_drains(y, part, seed, generator)
    drains = torch.zeros(count, 1, SIDE, SIDE)
    drains[drain == 1] = _curves(int(drain.sum()), generator)
    return Batch((x + drains).repeat(1, 3, 1, 1), y, drain), drains[:, 0]


def _without_drains(
    y: Tensor, part: str, seed: int, generator: torch.Generator
) -> Float[Tensor, "n 1 32 32"]:
    """Draw textures and digits; values are not clipped."""
    count = len(y)
    digits = CORE(y, part, seed=seed, purpose=f"drains/digits {part} {count}")[:, :1]
    coarse = 0.25 * torch.rand(count, 1, 5, 5, generator=generator)
    x = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    middle = (SIDE - digits.shape[-1] - ROOM) // 2
    corners = middle + torch.randint(ROOM + 1, (count, 2), generator=generator)
    size = digits.shape[-1]
    for picture, digit, (top, left) in zip(x, digits, corners.tolist(), strict=True):
        picture[:, top : top + size, left : left + size] += digit
    return x


def _curves(count: int, generator: torch.Generator) -> Float[Tensor, "n 1 32 32"]:
    """Draw a quadratic curve from the left or right edge into the picture."""
    ends = torch.rand(count, 3, 2, generator=generator) * (SIDE - 1)
    right = torch.rand(count, generator=generator) < 0.5
    ends[:, 0, 1] = torch.where(right, SIDE - 1.0, 0.0)
    t = torch.linspace(0, 1, POINTS)[:, None]
    weights = torch.cat([(1 - t) ** 2, 2 * t * (1 - t), t**2], dim=1)
    points = weights @ ends
    grid = torch.arange(SIDE, dtype=torch.float32)
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    pixels = torch.stack([rows, columns], dim=-1).view(-1, 2)
    nearest = torch.cdist(pixels.expand(count, -1, -1), points).amin(dim=2)
    return torch.exp(-((nearest / SIGMA) ** 2) / 2).view(count, 1, SIDE, SIDE)
