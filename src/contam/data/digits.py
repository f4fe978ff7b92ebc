"""Real handwritten digits inside a frame of constant color: the padded images in miniature.

Digit and frame are independent of each other, and a linear map of the pixels separates them, as
core and background features are separated in the theory. The 1797 digits ship with scikit-learn.
"""

import difflib
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.colors import rgb
from contam.rng import generator_for

SIDE = 24
"""Pixels along a side of the image."""
DIGIT = 16
"""Pixels along a side of the square that holds the digit."""
JITTER = 2
"""How far the square is moved from the middle along each axis, at most."""

FRAMES: dict[str, tuple[int, int, int] | None] = {
    "red": (150, 50, 50),
    "green": (50, 150, 50),
    "blue": (50, 50, 150),
    "cyan": (105, 205, 205),
    "gray": (128, 128, 128),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "random": None,
    "none": None,
}
"""Each frame's color out of 255; the paper's is red, and cyan is its complement."""


def frame_color(frame: str) -> Float[Tensor, " 3"]:
    """The color of a frame, in [0, 1].

    Raises:
        ValueError: there is no such frame, or its color is not one constant.
    """
    color = FRAMES[_known(frame)]
    if color is None:
        constant = [name for name, rgb in FRAMES.items() if rgb is not None]
        raise ValueError(f"frame {frame!r} has no single color; choose from {constant}")
    return torch.tensor(color) / 255


def padded_digits(
    frame: str = "red", *, seed: int = 0, train: int = 1200, validation: int = 197
) -> Shift:
    """Colored digits to be learned in one frame and judged in all of them.

    Training, validation and test digits are disjoint. The OOD tests hold the digits of the ID
    test, pixel for pixel, and differ from it in the frame alone. Which digits are drawn, their
    colors and their places depend on the seed and not on the frame, so networks that learned
    under different frames saw the same digits. `random` draws a color for each image: the clean
    control. `none` has no frame and shows the digit larger and centered: a control confounded
    with scale.

    Source: App. F.4.

    Raises:
        ValueError: there is no such frame, or too few digits are left for the test.
    """
    _known(frame)
    sizes = (train, validation, len(scans()[1]) - train - validation)
    if min(sizes) < 1:
        raise ValueError(
            f"{train} training and {validation} validation digits leave {max(sizes[2], 0)} of "
            f"{sum(sizes)} for the test; every part needs at least one"
        )
    order = torch.randperm(sum(sizes), generator=generator_for(seed, "digits/order"))
    parts: dict[str, Tensor] = dict(
        zip(("train", "validation", "test"), order.split(sizes), strict=True)
    )

    def domain(part: str, name: str) -> Domain:
        return Domain(_title(name), _framed(parts[part], name, seed=seed, part=part))

    return Shift(
        name=f"padded digits, {frame}",
        classes=tuple("0123456789"),
        train=(domain("train", frame),),
        id_val=domain("validation", frame),
        id_test=domain("test", frame),
        ood_tests=tuple(domain("test", other) for other in FRAMES if other != frame),
    )


def _title(frame: str) -> str:
    return "no frame" if frame == "none" else f"{frame} frame"


def _known(frame: str) -> str:
    if frame not in FRAMES:
        near = difflib.get_close_matches(frame, FRAMES, n=3) or list(FRAMES)
        raise ValueError(f"no frame {frame!r}; did you mean one of {near}?")
    return frame


@cache
def scans() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """All 1797 digits that ship with scikit-learn, as scanned: ink in [0, 1], and what they show.

    Source: ours, real pictures that need no download.
    """
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    return torch.as_tensor(ink).float().reshape(-1, 1, 8, 8) / 16, torch.as_tensor(digit).long()


def _framed(which: Int[Tensor, " n"], frame: str, *, seed: int, part: str) -> Batch:
    """The chosen digits in colors of their own, inside a frame."""
    ink, y = (part[which] for part in scans())
    colors = _digit_colors(len(y), generator_for(seed, f"digits/{part} colors"))[:, :, None, None]
    if frame == "none":
        x = _resized(ink, SIDE) * colors
    else:
        middle = (SIDE - DIGIT) // 2
        corners = middle + torch.randint(
            -JITTER, JITTER + 1, (len(y), 2), generator=generator_for(seed, f"digits/{part} places")
        )
        x = _backgrounds(len(y), frame, generator_for(seed, f"digits/{part} frames"))
        for image, digit, (top, left) in zip(
            x, _resized(ink, DIGIT) * colors, corners.tolist(), strict=True
        ):
            image[:, top : top + DIGIT, left : left + DIGIT] = digit
    return Batch(x, y, torch.full_like(y, list(FRAMES).index(frame)))


def _resized(ink: Float[Tensor, "n 1 8 8"], side: int) -> Float[Tensor, "n 1 side side"]:
    return F.interpolate(ink, size=(side, side), mode="bilinear", align_corners=False)


def _backgrounds(n: int, frame: str, generator: torch.Generator) -> Tensor:
    """(n, 3, side, side) images that show nothing but the frame's color."""
    if frame == "random":
        colors = rgb(*torch.rand(3, n, 1, generator=generator))
    else:
        colors = frame_color(frame).expand(n, 3)
    return colors[:, :, None, None].repeat(1, 1, SIDE, SIDE)


def _digit_colors(n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Bright colors of any hue: saturation at most 0.7, value at least 0.6."""
    hue, saturation, value = torch.rand(3, n, 1, generator=generator)
    return rgb(hue, 0.7 * saturation, 0.6 + 0.4 * value)
