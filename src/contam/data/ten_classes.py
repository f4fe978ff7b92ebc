"""Pictures of ten classes, some with a square at a place that gives the class away.

The toy data of Murali et al. (2023): in training and in the ID test, a square is at the place of
the picture's class. In the OOD tests the same pictures have no square, or that of another class.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.digits import scans
from contam.data.shapes import splits
from contam.data.small_images import CLASSES, READERS, labeled_images
from contam.rng import generator_for

EMBEDDED = ("digits", "shapes")
"""The sets that need no files."""
SQUARES = {"-patch": 1.0, "-faint": 0.1}
"""Ending of a set's name, and what its square adds to the pixels; 1 is white, as published."""
SQUARE, MIDDLE = 4, 5
"""Side of a square in pixels, and that of class 4, as published."""
WITHOUT = 9
"""The class without a square, as published."""
MOVED, REMOVED = "square of another class", "no square"
"""Names of the OOD tests."""
SHAPES = 4000
"""Number of shapes of a part, which has no end, if all are asked for."""
TEST_SHARE = 0.4
"""Share of the 1797 digits that tests use."""


def with_squares(
    x: Float[Tensor, "n channels 32 32"], shows: Int[Tensor, " n"], brightness: float
) -> Float[Tensor, "n channels 32 32"]:
    """Add to each picture the square of a class, and limit its pixels to 1.

    The places are on a grid of 3 x 3, in the order of the classes 0 to 8; class 9 has none.

    Args:
        x: pictures; black is 0 and white is 1.
        shows: the class whose square a picture gets.
        brightness: what the square adds to its pixels.

    Source: ours, the patch of Murali et al. (2023); the published places are not documented.

    >>> x = with_squares(torch.zeros(2, 1, 32, 32), torch.tensor([0, 9]), 1.0)
    >>> x.sum(dim=(1, 2, 3)).tolist()
    [16.0, 0.0]
    """
    x = x.clone()
    for k in range(CLASSES - 1):
        side = MIDDLE if k == CLASSES // 2 - 1 else SQUARE
        row, column = (1 + 13 * place for place in divmod(k, 3))
        x[shows == k, :, row : row + side, column : column + side] += brightness
    return x.clamp(max=1)


def ten_classes(
    name: str,
    folder: Path | None,
    *,
    train: int | None = None,
    test: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Shift:
    """Return pictures of ten classes, with or without squares.

    Args:
        name: digits or shapes (without files), mnist, kmnist, fashion-mnist, cifar10 or svhn; with
            the ending -patch, white squares give the class away, and with -faint, faint ones.
        folder: folder with a folder for each set of files.
        train: number of training pictures; None for all: those of the files, the digits that are
            not for tests, or 4000 shapes.
        test: number of test pictures; None for all.
        noise: standard deviation of Gaussian noise on all pixels, ours.
        seed: random seed of the noise, the shapes, and which pictures are used.

    Returns:
        One training domain, an ID test and, with squares, two OOD tests with the same pictures and
        noise. `Batch.domain` is the class whose square a picture has.

    Raises:
        ValueError: the name is unknown, files are missing or malformed, or a set has too few
            pictures.

    Source: ours, after the toy data of Murali et al. (2023), Fig. 6.

    >>> shift = ten_classes("digits-patch", None, train=100, test=50)
    >>> shift.train[0].data.x.shape, [test.name for test in shift.ood_tests]
    (torch.Size([100, 3, 32, 32]), ['square of another class', 'no square'])
    """
    kind, brightness = name, None
    for ending, value in SQUARES.items():
        if name.endswith(ending):
            kind, brightness = name.removesuffix(ending), value

    def domain(title: str, part: str, count: int | None, shown: int | None) -> Domain:
        x, y = _pictures(kind, folder, part, count, seed)
        shows = torch.full_like(y, WITHOUT) if shown is None else (y + shown) % CLASSES
        if brightness is not None:
            x = with_squares(x, shows, brightness)
        draws = generator_for(seed, f"ten classes/{part} noise")
        return Domain(title, Batch(x + noise * torch.randn(x.shape, generator=draws), y, shows))

    tests = () if brightness is None else (
        domain(MOVED, "test", test, 1), domain(REMOVED, "test", test, None)
    )  # fmt: skip
    return Shift(
        name, tuple(map(str, range(CLASSES))), (domain("training", "train", train, 0),),
        domain("as in training", "test", test, 0), tests,
    )  # fmt: skip


def _pictures(
    kind: str, folder: Path | None, part: str, count: int | None, seed: int
) -> tuple[Float[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """The pictures of a part, in random order, with pixels in [0, 1]."""
    if kind == "shapes":
        size = count or SHAPES
        train, test = (size, 40) if part == "train" else (40, size)
        drawn = splits(seed, train=train, id_val=40, id_test=test, ood_test=10)
        scenes = drawn["train" if part == "train" else "id_test"]
        return scenes.x, scenes.y
    if kind == "digits":
        ink, y = scans()
        ink = F.interpolate(ink, size=(28, 28), mode="bilinear", align_corners=False)
        x = F.pad(ink, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
        order = torch.randperm(len(y), generator=generator_for(seed, "ten classes/digits"))
        first = round(TEST_SHARE * len(y))
        x, y = (v[order[:first] if part == "test" else order[first:]] for v in (x, y))
    elif folder is None or kind not in READERS:
        known = ", ".join((*EMBEDDED, *READERS))
        raise ValueError(
            f"no set {kind!r}{'' if folder else ' without files'}; choose from {known}, which may "
            f"end in {' or '.join(SQUARES)}"
        )
    else:
        x, y = labeled_images(kind, folder / kind, part)
        order = torch.randperm(len(y), generator=generator_for(seed, f"ten classes/{part}"))
        x, y = x[order[:count]].float() / 255, y[order[:count]]
    if count is not None and count > len(y):
        raise ValueError(f"{kind} has {len(y)} {part} pictures, fewer than {count}")
    return x[:count], y[:count]
