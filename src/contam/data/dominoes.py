"""Dominoes: images of two halves, a core feature below and a spurious feature above.

The lower half determines the class. The upper half is correlated with the class in training and not
at test time. A half can be digits that are easy or hard to read, a white square, noise, or pictures
from files. The 1797 digits come with scikit-learn.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.digits import scans
from contam.data.small_images import CLASSES, PADDED, labeled_images
from contam.rng import generator_for

SIDE = 16
"""Side in pixels of a half with digits, a square or noise."""
DIGIT = 12
"""Side of a digit in pixels."""
PARTS = {"train": 0.6, "validation": 0.08, "test": 0.32}
"""Share of the digits that each part uses; no digit is in two parts."""
HELD_OUT = 1 / 8
"""Share of a data set's training pictures that validation uses."""
STRENGTH = (0.5, 1.0)
"""Range of the strength of a background, drawn for each picture."""
BLANK = 2
"""Domain index of a black half, which shows neither 0 nor 1."""


class Half(Protocol):
    """A function that draws one half of dominoes, given the class (0 or 1) that each shows."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 side side"]: ...


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, some of which mean class 0 and others class 1.

    Each digit of the part is used equally often, give or take one, with random position, polarity
    and noise.

    Source: ours; the halves of Murali et al. (2023) in miniature.
    """

    name: str
    zero: tuple[int, ...] = (4, 7)
    one: tuple[int, ...] = (1, 9)
    moved: bool = True
    """Whether the position of a digit is random instead of central."""
    inverted: bool = False
    """Whether a random half of the digits is dark on light."""
    noise: float = 0.0
    """Standard deviation of the pixels' noise; ink is in [0, 1], and values are not clipped."""

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 16 16"]:
        draws = generator_for(seed, purpose)
        ink = torch.empty(len(shows), DIGIT, DIGIT)
        for bit, digits in enumerate((self.zero, self.one)):
            here = shows == bit
            pool = _scanned(digits, part, seed)
            turn = torch.arange(int(here.sum())) % len(pool)
            ink[here] = pool[torch.randperm(len(pool), generator=draws)[turn]]
        margin = SIDE - DIGIT
        corners = torch.full((len(shows), 2), margin // 2)
        if self.moved:
            corners = torch.randint(margin + 1, (len(shows), 2), generator=draws)
        x = torch.zeros(len(shows), SIDE, SIDE)
        for image, digit, (top, left) in zip(x, ink, corners.tolist(), strict=True):
            image[top : top + DIGIT, left : left + DIGIT] = digit
        if self.inverted:
            x = torch.where(torch.rand(len(shows), 1, 1, generator=draws) < 0.5, 1 - x, x)
        return _gray(x + self.noise * torch.randn(x.shape, generator=draws))


@dataclass(frozen=True)
class Patch:
    """Noise in [0, 0.5], with a white square in the upper left corner for class 1.

    Source: ours; the patch of Murali et al. (2023) in miniature.
    """

    name: str
    size: int = 4
    """Side of the square in pixels; 0 gives only noise."""
    side: int = SIDE
    """Side of the half in pixels."""

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 side side"]:
        x = torch.rand(len(shows), self.side, self.side, generator=generator_for(seed, purpose)) / 2
        x[shows == 1, : self.size, : self.size] = 1
        return _gray(x)


CORE = Digits("core", zero=(3, 5, 8), one=(2, 6, 9), noise=0.1)
"""Digits of medium difficulty: the core feature."""
EASY = Patch("easy")
"""A spurious feature that is easier than `CORE`."""
HARD = Digits("hard", inverted=True, noise=0.5)
"""A spurious feature that is harder than `CORE`."""
NOISE = Patch("noise", size=0)
"""Independent of the class, so that the other half is the only feature."""
DOSES = (
    Digits("centered", moved=False),
    Digits("moved", noise=0.1),
    Digits("inverted", inverted=True, noise=0.1),
    Digits("noisy", inverted=True, noise=0.25),
    HARD,
)
"""The same digits, from easy to hard."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of two classes of a data set; each is used at most once in a part.

    Source: ours; the halves of Murali et al. (2023).
    """

    name: str
    train: tuple[UInt8[Tensor, "n 3 32 32"], UInt8[Tensor, "m 3 32 32"]]
    """The pictures of class 0, and those of class 1."""
    test: tuple[UInt8[Tensor, "n 3 32 32"], UInt8[Tensor, "m 3 32 32"]]
    corner: int = 0
    """Side in pixels of a white square in the upper left corner of the pictures of class 1."""

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 32 32"]:
        draws = generator_for(seed, purpose)
        x = torch.empty(len(shows), 3, 32, 32)
        for bit, held in enumerate(self.test if part == "test" else self.train):
            pool = torch.arange(len(held))
            if part != "test":
                pool = torch.randperm(
                    len(held), generator=generator_for(seed, f"dominoes/held out {bit}")
                )
                first = round(HELD_OUT * len(held))
                pool = pool[:first] if part == "validation" else pool[first:]
            here = shows == bit
            count = int(here.sum())
            if count > len(pool):
                raise ValueError(
                    f"{count} pictures of class {bit} are needed from {self.name}, but its {part} "
                    f"part has {len(pool)}; ask for fewer dominoes"
                )
            picked = pool[torch.randperm(len(pool), generator=draws)[:count]]
            x[here] = held[picked].float() / 255
        x[shows == 1, :, : self.corner, : self.corner] = 1
        return x


def pictures(
    kind: str, folder: Path, *, zero: int = 0, one: int = 1, resize: bool = False, corner: int = 0
) -> Pictures:
    """Read two classes of MNIST, KMNIST, Fashion-MNIST, CIFAR-10 or SVHN as a half.

    Args:
        kind: as for `labeled_images`.
        folder: the folder of the files.
        zero: label of the pictures of class 0.
        one: label of the pictures of class 1.
        resize: whether images of 28 x 28 pixels are resized, as published, instead of padded.
        corner: side in pixels of a white square on the pictures of class 1.

    Raises:
        ValueError: as for `labeled_images`; or the labels are not two of 0 to 9, or one has no
            picture.

    Source: ours; the halves of Murali et al. (2023).

    >>> import struct
    >>> for part in ("train", "t10k"):
    ...     images = struct.pack(">HBBIII", 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
    ...     _ = Path(f"{part}-images-idx3-ubyte").write_bytes(images)
    ...     labels = struct.pack(">HBBI", 0, 8, 1, 2) + bytes([0, 1])
    ...     _ = Path(f"{part}-labels-idx1-ubyte").write_bytes(labels)
    >>> pictures("mnist", Path(".")).name
    'mnist'
    """
    if zero == one or not {zero, one} <= set(range(CLASSES)):
        raise ValueError(f"expected two different labels from 0 to 9, got {zero} and {one}")
    parts = []
    for part in ("train", "test"):
        images, y = labeled_images(kind, folder, part)
        absent = [label for label in (zero, one) if not (y == label).any()]
        if absent:
            raise ValueError(f"{kind} in {folder} has no {part} picture of class {absent[0]}")
        halves = images[y == zero], images[y == one]
        if resize and kind in PADDED:
            halves = tuple(_resized(half) for half in halves)
        parts.append(halves)
    return Pictures(f"{kind}-patch" if corner else kind, *parts, corner=corner)


def _resized(padded: UInt8[Tensor, "n 3 32 32"]) -> UInt8[Tensor, "n 3 32 32"]:
    """Return the inner 28 x 28 pixels, resized."""
    inner = padded[:, :, 2:-2, 2:-2].float()
    whole = F.interpolate(inner, padded.shape[2:], mode="bilinear", align_corners=False)
    return whole.round().to(torch.uint8)


def dominoes(
    top: Half,
    bottom: Half,
    *,
    agreement: float = 1.0,
    train: int = 1600,
    validation: int = 400,
    test: int = 800,
    seed: int = 0,
) -> Shift:
    """Return dominoes whose lower half shows the class and whose upper half agrees in a share.

    The OOD tests have the lower halves of the ID test, pixel for pixel, below upper halves that are
    randomized (a share of 0.5), flipped (a share of 0) or black. `Batch.domain` is the class that
    the upper half shows: 0, 1, or 2 if it is black. The lower halves depend on the seed and not on
    the upper half.

    Args:
        top: the spurious feature.
        bottom: the core feature.
        agreement: share of examples whose upper half shows their class, in training, validation
            and ID test; exact for each class, up to rounding. The others are counter-examples.
        train: number of training examples.
        validation: number of validation examples; 0 for none.
        test: number of examples of each test.
        seed: random seed.

    Raises:
        ValueError: the share is outside [0, 1], a part lacks an example of a class, the halves
            differ in size, or a data set has too few pictures.

    Source: ours; the dominoes of Murali et al. (2023).

    >>> shift = dominoes(EASY, CORE, train=20, validation=4, test=10)
    >>> shift.train[0].data.x.shape
    torch.Size([20, 3, 32, 16])
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement must be in [0, 1], got {agreement}")
    if min(train, test) < 2 or validation == 1 or validation < 0:
        raise ValueError(
            f"expected at least 2 dominoes in each part (or no validation), one per class; "
            f"got {train}, {validation} and {test}"
        )

    def domain(name: str, part: str, n: int, share: float | None) -> Domain:
        y = torch.arange(n) % 2
        shown = torch.full_like(y, BLANK)
        if share is not None:
            shown = _shown(y, share, generator_for(seed, f"dominoes/{name} agreement"))
        lower = bottom(y, part, seed=seed, purpose=f"dominoes/{part} bottom")
        upper = torch.zeros_like(lower)
        if share is not None:
            upper = top(shown, part, seed=seed, purpose=f"dominoes/{name} top")
        if upper.shape != lower.shape:
            sides = upper.shape[-1], lower.shape[-1]
            raise ValueError(
                f"the halves have {sides[0]} and {sides[1]} pixels; they must have the same side"
            )
        return Domain(name, Batch(torch.cat([upper, lower], dim=2), y, shown))

    return Shift(
        name=f"dominoes, {top.name} over {bottom.name}",
        classes=("0", "1"),
        train=(domain("training", "train", train, agreement),),
        id_val=domain("validation", "validation", validation, agreement) if validation else None,
        id_test=domain("as in training", "test", test, agreement),
        ood_tests=(
            domain("top randomized", "test", test, 0.5),
            domain("top flipped", "test", test, 0.0),
            domain("top blank", "test", test, None),
        ),
    )


def _shown(y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return what the upper halves show: the class for a share of each class, else the other."""
    shown = y.clone()
    for label in (0, 1):
        members = (y == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        shown[members[order[round(share * len(members)) :]]] = 1 - label
    return shown


@cache
def _enlarged() -> tuple[Tensor, Tensor]:
    """Return all digits at 12 x 12 pixels, with ink in [0, 1], and their labels."""
    ink, digit = scans()
    ink = F.interpolate(ink, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return ink[:, 0], digit


def _scanned(digits: tuple[int, ...], part: str, seed: int) -> Tensor:
    """Return the scans of some digits that a part uses."""
    ink, digit = _enlarged()
    order = torch.randperm(len(digit), generator=generator_for(seed, "dominoes/digits"))
    first = [round(share * len(digit)) for share in (0.0, PARTS["train"], 1 - PARTS["test"], 1.0)]
    start = list(PARTS).index(part)
    pool = order[first[start] : first[start + 1]]
    return ink[pool[torch.isin(digit[pool], torch.tensor(digits))]]


def _gray(x: Float[Tensor, "n side side"]) -> Float[Tensor, "n 3 side side"]:
    return x[:, None].expand(-1, 3, -1, -1)


def background_patterns(height: int, width: int, seed: int) -> Float[Tensor, "2 1 height width"]:
    """Return two smooth random patterns whose pixels have a standard deviation of 1.

    Args:
        height: pixels of a picture.
        width: pixels of a picture.
        seed: random seed.

    Source: ours, the background features of Def. 3.1 on pictures.

    >>> background_patterns(32, 16, seed=0).shape
    torch.Size([2, 1, 32, 16])
    """
    coarse = torch.randn(2, 1, 8, 4, generator=generator_for(seed, "dominoes/patterns"))
    patterns = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return patterns / patterns.std(dim=(1, 2, 3), keepdim=True)
