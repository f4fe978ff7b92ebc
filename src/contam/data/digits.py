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
"""Side of the image in pixels."""
DIGIT = 16
"""Side of the digit's square in pixels."""
JITTER = 2
"""Maximum shift of the square from the center along each axis, in pixels."""

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
"""RGB color of each frame, from 0 to 255; the paper's is red, and cyan is its complement."""


def frame_color(frame: str) -> Float[Tensor, " 3"]:
    """Return the color of a frame, in [0, 1].

    Args:
        frame: name of the frame.

    Raises:
        ValueError: the frame is unknown or has no constant color.

    >>> frame_color("white").tolist()
    [1.0, 1.0, 1.0]
    """
    color = FRAMES[_known(frame)]
    if color is None:
        constant = [name for name, rgb in FRAMES.items() if rgb is not None]
        raise ValueError(f"frame {frame!r} has no constant color; choose from {constant}")
    return torch.tensor(color) / 255


def padded_digits(
    frame: str = "red", *, seed: int = 0, train: int = 1200, validation: int = 197
) -> Shift:
    """Return colored digits with one frame in training and every other frame in the OOD tests.

    Training, validation and test digits are disjoint. The OOD tests have the digits of the ID
    test, pixel for pixel, and differ from it only in the frame. The digits, their colors and their
    positions depend on the seed and not on the frame, so networks with different training frames
    are trained on the same digits.

    Args:
        frame: a name of `FRAMES`. `random` draws a color for each image, as a control. `none` has
            no frame and a larger, centered digit, a control that also changes the scale.
        seed: random seed.
        train: number of training digits.
        validation: number of validation digits; the rest of 1797 is the test.

    Returns:
        A `Shift` of images (3, 24, 24) in [0, 1].

    Raises:
        ValueError: the frame is unknown, or no digit remains for the test.

    Source: App. F.4.

    >>> shift = padded_digits("red", train=100, validation=50)
    >>> len(shift.id_test), len(shift.ood_tests), shift.train[0].name
    (1647, 8, 'red frame')
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
        return Domain(frame_title(name), _framed(parts[part], name, seed=seed, part=part))

    return Shift(
        name=f"padded digits, {frame}",
        classes=tuple("0123456789"),
        train=(domain("train", frame),),
        id_val=domain("validation", frame),
        id_test=domain("test", frame),
        ood_tests=tuple(domain("test", other) for other in FRAMES if other != frame),
    )


def frame_title(frame: str) -> str:
    """Return the name of a domain whose images have a frame of this color.

    >>> frame_title("red"), frame_title("none")
    ('red frame', 'no frame')
    """
    return "no frame" if frame == "none" else f"{frame} frame"


def _known(frame: str) -> str:
    if frame not in FRAMES:
        near = difflib.get_close_matches(frame, FRAMES, n=3) or list(FRAMES)
        raise ValueError(f"no frame {frame!r}; did you mean one of {near}?")
    return frame


@cache
def scans() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """Return scikit-learn's 1797 digits.

    Returns:
        Ink (1797, 1, 8, 8) in [0, 1], and labels (1797,).

    Source: ours, real images that need no download.

    >>> scans()[0].shape
    torch.Size([1797, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    return torch.as_tensor(ink).float().reshape(-1, 1, 8, 8) / 16, torch.as_tensor(digit).long()


def _framed(which: Int[Tensor, " n"], frame: str, *, seed: int, part: str) -> Batch:
    """Return the selected digits with random colors inside a frame."""
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
    """Return (n, 3, side, side) images of the frame's color."""
    if frame == "random":
        colors = rgb(*torch.rand(3, n, 1, generator=generator))
    else:
        colors = frame_color(frame).expand(n, 3)
    return colors[:, :, None, None].repeat(1, 1, SIDE, SIDE)


def _digit_colors(n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Draw bright colors of any hue: saturation at most 0.7, value at least 0.6."""
    hue, saturation, value = torch.rand(3, n, 1, generator=generator)
    return rgb(hue, 0.7 * saturation, 0.6 + 0.4 * value)
