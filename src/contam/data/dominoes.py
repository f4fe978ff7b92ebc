"""Dominoes: two pictures in one, of which the lower says what the class is.

The upper one goes along with the class while a network learns, and no longer when it is judged.
Which of both is easier decides what a network learns, and each can be chosen: digits that are clean
or hard to read, a white square, noise, or pictures from files. The 1797 digits ship with
scikit-learn.
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
from contam.data.small_images import CLASSES, labeled_images
from contam.rng import generator_for

SIDE = 16
"""Pixels along a side of a half that shows digits, a square or noise."""
DIGIT = 12
"""Pixels along a side of a digit."""
PARTS = {"train": 0.6, "validation": 0.08, "test": 0.32}
"""The shares of the digits that each part draws from; no digit is in two parts."""
HELD_OUT = 1 / 8
"""The share of a set's training pictures that validation draws from."""
BLANK = 2
"""What a black half is said to show, since it shows neither 0 nor 1."""


class Half(Protocol):
    """What draws one half of dominoes, given what each is to show: 0 or 1."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 side side"]: ...


@dataclass(frozen=True)
class Digits:
    """Real handwritten digits, some of which stand for 0 and others for 1.

    Every digit of the part is drawn about equally often, anew in its place, polarity and noise.

    Source: ours; the halves of Murali et al. (2023) in miniature.
    """

    name: str
    zero: tuple[int, ...] = (4, 7)
    one: tuple[int, ...] = (1, 9)
    moved: bool = True
    """Whether a digit is anywhere in its half instead of in the middle."""
    inverted: bool = False
    """Whether every second one, at random, is dark on light."""
    noise: float = 0.0
    """Standard deviation of the pixels' noise, beside ink in [0, 1]; nothing is cut off."""

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 16 16"]:
        draws = generator_for(seed, purpose)
        ink = torch.empty(len(shows), DIGIT, DIGIT)
        for bit, digits in enumerate((self.zero, self.one)):
            here = shows == bit
            pool = _scanned(digits, part, seed)
            # Each as often as the others, give or take one.
            turn = torch.arange(int(here.sum())) % len(pool)
            ink[here] = pool[torch.randperm(len(pool), generator=draws)[turn]]
        room = SIDE - DIGIT
        corners = torch.full((len(shows), 2), room // 2)
        if self.moved:
            corners = torch.randint(room + 1, (len(shows), 2), generator=draws)
        x = torch.zeros(len(shows), SIDE, SIDE)
        for image, digit, (top, left) in zip(x, ink, corners.tolist(), strict=True):
            image[top : top + DIGIT, left : left + DIGIT] = digit
        if self.inverted:
            x = torch.where(torch.rand(len(shows), 1, 1, generator=draws) < 0.5, 1 - x, x)
        return _gray(x + self.noise * torch.randn(x.shape, generator=draws))


@dataclass(frozen=True)
class Patch:
    """Noise in [0, 0.5], with a white square in the upper left corner where 1 is shown.

    Source: ours; the patch of Murali et al. (2023) in miniature.
    """

    name: str
    size: int = 4
    """Pixels along a side of the square; 0 leaves nothing but noise."""
    side: int = SIDE
    """Pixels along a side of the half."""

    def __call__(
        self, shows: Int[Tensor, " n"], part: str, *, seed: int, purpose: str
    ) -> Float[Tensor, "n 3 side side"]:
        x = torch.rand(len(shows), self.side, self.side, generator=generator_for(seed, purpose)) / 2
        x[shows == 1, : self.size, : self.size] = 1
        return _gray(x)


CORE = Digits("core", zero=(3, 5, 8), one=(2, 6, 9), noise=0.1)
"""Digits of medium difficulty, for the half that says what the class is."""
EASY = Patch("easy")
"""Easier than `CORE`."""
HARD = Digits("hard", inverted=True, noise=0.5)
"""Harder than `CORE`."""
NOISE = Patch("noise", size=0)
"""Says nothing; with it, the other half stands alone."""
DOSES = (
    Digits("centered", moved=False),
    Digits("moved", noise=0.1),
    Digits("inverted", inverted=True, noise=0.1),
    Digits("noisy", inverted=True, noise=0.25),
    HARD,
)
"""The same digits, ever harder to read."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of two classes of a data set, each used once at most in a part.

    Source: ours; the halves of Murali et al. (2023).
    """

    name: str
    train: tuple[UInt8[Tensor, "n 3 32 32"], UInt8[Tensor, "m 3 32 32"]]
    """Those that stand for 0, and those that stand for 1."""
    test: tuple[UInt8[Tensor, "n 3 32 32"], UInt8[Tensor, "m 3 32 32"]]

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
            wanted = int(here.sum())
            if wanted > len(pool):
                raise ValueError(
                    f"{wanted} pictures that stand for {bit} are wanted of {self.name}, "
                    f"and its {part} part has {len(pool)}; ask for fewer dominoes"
                )
            picked = pool[torch.randperm(len(pool), generator=draws)[:wanted]]
            x[here] = held[picked].float() / 255
        return x


def pictures(kind: str, folder: Path, *, zero: int = 0, one: int = 1) -> Pictures:
    """Two classes of MNIST, KMNIST, Fashion-MNIST, CIFAR-10 or SVHN, from `labeled_images`.

    Source: ours; the halves of Murali et al. (2023).

    Raises:
        ValueError: as `labeled_images`, the classes are not two of 0 to 9, or one has no picture.
    """
    if zero == one or not {zero, one} <= set(range(CLASSES)):
        raise ValueError(f"want two different classes from 0 to 9, not {zero} and {one}")
    parts = []
    for part in ("train", "test"):
        images, y = labeled_images(kind, folder, part)
        absent = [label for label in (zero, one) if not (y == label).any()]
        if absent:
            raise ValueError(f"{kind} in {folder} has no {part} picture of class {absent[0]}")
        parts.append((images[y == zero], images[y == one]))
    return Pictures(kind, *parts)


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
    """Dominoes whose lower half shows the class, and whose upper half shows it in a share of them.

    `agreement` is that share, in training, validation and ID test. At 0.5 the upper half says
    nothing about the class; at 1 no example tells both apart. It holds exactly for each class, up
    to rounding. The OOD tests have the lower halves of the ID test, pixel for pixel, below upper
    ones that are randomized (a share of 0.5), flipped (0) or black. `Batch.domain` is what the
    upper half shows: 0, 1, or 2 where it is black; an example in which it is not `y` is a
    counter-example. The lower halves depend on the seed and not on the upper ones. With
    `validation=0` there is none.

    Source: ours; the dominoes of Murali et al. (2023).

    Raises:
        ValueError: a share outside [0, 1], a part without an example of each class, halves of
            different size, or too few pictures in a data set.
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"the share of agreeing halves lies in [0, 1], not at {agreement}")
    if min(train, test) < 2 or validation == 1 or validation < 0:
        raise ValueError(
            f"want 2 dominoes or more in each part (or no validation), one for each class; "
            f"not {train}, {validation} and {test}"
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
            raise ValueError(f"halves of {sides[0]} and {sides[1]} pixels don't make a domino")
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
    """What the upper halves show: the class for a share of each class, else the other one."""
    shown = y.clone()
    for label in (0, 1):
        members = (y == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        shown[members[order[round(share * len(members)) :]]] = 1 - label
    return shown


@cache
def _enlarged() -> tuple[Tensor, Tensor]:
    """All digits on 12 x 12 pixels, ink in [0, 1], and what they show."""
    ink, digit = scans()
    ink = F.interpolate(ink, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return ink[:, 0], digit


def _scanned(digits: tuple[int, ...], part: str, seed: int) -> Tensor:
    """The scans of some digits that a part draws from."""
    ink, digit = _enlarged()
    order = torch.randperm(len(digit), generator=generator_for(seed, "dominoes/digits"))
    first = [round(share * len(digit)) for share in (0.0, PARTS["train"], 1 - PARTS["test"], 1.0)]
    start = list(PARTS).index(part)
    pool = order[first[start] : first[start + 1]]
    return ink[pool[torch.isin(digit[pool], torch.tensor(digits))]]


def _gray(x: Float[Tensor, "n side side"]) -> Float[Tensor, "n 3 side side"]:
    return x[:, None].expand(-1, 3, -1, -1)
