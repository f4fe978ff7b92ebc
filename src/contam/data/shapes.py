"""The embedded benchmark: shapes to be told apart, on backgrounds that say nothing about them.

What is learned on four families of backgrounds is judged on five others. Objects and backgrounds
are drawn independently of each other, so the same objects can stand on any background, and two
pictures of an object differ in the background alone. Everything is painted within seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import DIVERSE, FAMILIES, ID, MILD, OOD, SIDE, backgrounds
from contam.data.colors import rgb
from contam.data.outlines import OUTLINES
from contam.seeds import stream

CLASSES = tuple(OUTLINES)
SIZES = (6.4, 9.2)
"""Half of an object's extent, in pixels."""
REACH = 4.0
"""How far an object's middle is moved along each axis, at most, in pixels."""
TILT = 0.35
"""How far an object is turned either way, at most, in radians."""
STRETCH = 1.25
"""How much longer than wide an object is made, at most, or wider than long."""
RIM = 0.3
"""The rim's brightness as a share of the object's; it is one pixel wide."""
NOISE = 0.02
"""Standard deviation of the pixels' noise."""


class Objects(NamedTuple):
    """Objects that stand on no background yet, each with the noise of its picture."""

    y: Tensor
    """(n,) class index, int64."""
    mask: Tensor
    """(n, 1, side, side) share of each pixel that the object covers, with its rim."""
    color: Tensor
    """(n, 3, side, side) the object's colors where it is."""
    noise: Tensor
    """(n, 3, side, side) what is added to the picture."""

    def pick(self, which: Tensor | slice) -> "Objects":
        """The objects that a slice, a mask or an index tensor picks."""
        return Objects(*(part[which] for part in self))


@dataclass(frozen=True)
class Scenes:
    """Pictures whose objects are known pixel by pixel."""

    x: Tensor
    """(n, 3, side, side) in [0, 1], float32."""
    y: Tensor
    """(n,) class index, int64."""
    domain: Tensor
    """(n,) index of the background's family in `FAMILIES`, int64."""
    mask: Tensor
    """(n, 1, side, side) share of each pixel that the object covers."""

    @property
    def batch(self) -> Batch:
        """The pictures as a network sees them."""
        return Batch(self.x, self.y, self.domain)


def objects(n: int, *, seed: int = 0, part: str = "test") -> Objects:
    """The first `n` objects of a part of the data; their classes take turns.

    Size, place, tilt, stretch and color are drawn independently of the class. The first objects
    are the same however many are drawn.

    Source: ours, the features that say what the class is.
    """
    y = torch.arange(n) % len(CLASSES)
    looks = torch.rand(n, 5, generator=stream(seed, f"shapes/{part} objects"))
    colors = torch.rand(n, 3, generator=stream(seed, f"shapes/{part} colors"))
    noise = torch.empty(n, 3, SIDE, SIDE)
    noise.normal_(std=NOISE, generator=stream(seed, f"shapes/{part} noise"))
    size = SIZES[0] + (SIZES[1] - SIZES[0]) * looks[:, 0]
    away, tilt = REACH * (2 * looks[:, 1:3] - 1), TILT * (2 * looks[:, 3] - 1)
    stretch = STRETCH ** (looks[:, 4] - 0.5)
    distance = torch.empty(n, SIDE, SIDE)
    for label, outline in enumerate(OUTLINES.values()):
        here = y == label
        x, down = _seen_from(away[here], tilt[here])
        half, long = size[here, None, None], stretch[here, None, None]
        # Stretching changes distances by a few per cent; the outline itself stays exact.
        distance[here] = half * outline(x / (half * long), down * long / half)
    fill = rgb(colors[:, :1], 0.7 * colors[:, 1:2], 0.6 + 0.4 * colors[:, 2:])[:, :, None, None]
    mask, inner = ((0.5 - distance - rim).clamp(0, 1)[:, None] for rim in (0, 1))
    return Objects(y, mask, fill * (RIM + (1 - RIM) * inner), noise)


def _seen_from(away: Float[Tensor, "n 2"], tilt: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """The pixels' places, right and down, as objects that were moved and turned see them."""
    pixels = torch.arange(SIDE) - (SIDE - 1) / 2
    x = pixels[None, None, :] - away[:, :1, None]
    y = pixels[None, :, None] - away[:, 1:, None]
    cos, sin = tilt.cos()[:, None, None], tilt.sin()[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def placed(
    shown: Objects,
    behind: Float[Tensor, "#n 3 side side"],
    domain: Int[Tensor, " n"],
    *,
    noisy: bool = True,
) -> Scenes:
    """Objects in front of their backgrounds, or all in front of one.

    Source: ours, a picture is its object and its background.
    """
    x = torch.lerp(behind, shown.color, shown.mask)
    if noisy:
        x = (x + shown.noise).clamp_(0, 1)
    return Scenes(x, shown.y, domain, shown.mask)


def scenes(
    families: Sequence[str], n: int, *, seed: int = 0, part: str = "test", first: int = 0
) -> Scenes:
    """`n` objects of a part, from the one with number `first` on, on every family in turn.

    Ten objects, one of each class, stand on the first family, the next ten on the second, and so
    on. So every class appears equally often on every family.

    Source: ours, the background is independent of the class by construction.

    Raises:
        ValueError: `n` is not a positive multiple of the classes times the families, or there is
            no such family or part.
    """
    _whole(n, len(families), "pictures")
    shown = objects(first + n, seed=seed, part=part).pick(slice(first, None))
    return placed(shown, *_behind(families, n, seed=seed, part=part))


def shapes(
    seed: int = 0,
    *,
    train: int = 4000,
    id_val: int = 800,
    id_test: int = 2000,
    ood_test: int = 400,
) -> Shift:
    """Ten shapes on four families of backgrounds, to be recognized on five other families.

    Every training domain is a family. Each OOD test is a family with `ood_test` pictures; its
    objects are the next ones of the ID test, down to their noise, so that by default the OOD tests
    together show the objects of the ID test and differ from it in the background alone.

    Source: ours, the phenomenon at the size of a laptop.

    Raises:
        ValueError: a number of ID pictures is not a positive multiple of 40, or that of an OOD
            test not one of 10, so that classes and families would not balance.
    """
    for n, families in ((train, ID), (id_val, ID), (id_test, ID), (ood_test, OOD[:1])):
        _whole(n, len(families), "pictures")
    learned = scenes(ID, train, seed=seed, part="train")
    shown = objects(max(id_test, len(OOD) * ood_test), seed=seed, part="test")

    def test(families: Sequence[str], first: int, n: int) -> Batch:
        behind = _behind(families, n, seed=seed, part="test")
        return placed(shown.pick(slice(first, first + n)), *behind).batch

    return Shift(
        name="shapes",
        classes=CLASSES,
        train=_by_family(learned, ID),
        id_val=Domain("ID validation", scenes(ID, id_val, seed=seed, part="validation").batch),
        id_test=Domain("ID test", test(ID, 0, id_test)),
        ood_tests=tuple(
            Domain(family, test((family,), k * ood_test, ood_test)) for k, family in enumerate(OOD)
        ),
    )


def mild(seed: int = 0, *, each: int = 400) -> tuple[Domain, ...]:
    """New families that most models master, with the first objects of the ID test.

    They are no part of the shift, because they would make its size a matter of how many there are.

    Source: ours, a shift that is no test.

    Raises:
        ValueError: `each` is not a positive multiple of 10.
    """
    return tuple(Domain(family, scenes((family,), each, seed=seed).batch) for family in MILD)


def pretraining(
    seed: int = 0, kind: Literal["diverse", "all"] = "diverse", *, n: int = 9000
) -> tuple[Domain, ...]:
    """What a teacher learns from: other objects on more families of backgrounds, a domain each.

    `diverse` shows textures like those of the training in all colors, and no family of the OOD
    tests. `all` shows the ID and the OOD families: a teacher that has seen what its student is
    judged on.

    Source: ours, pre-training in miniature.

    Raises:
        ValueError: there is no such kind, or `n` is not a positive multiple of the classes times
            the families, of which there are 5 or 9.
    """
    kinds = {"diverse": DIVERSE, "all": ID + OOD}
    if kind not in kinds:
        raise ValueError(f"no pre-training {kind!r}; choose from {list(kinds)}")
    families = kinds[kind]
    return _by_family(scenes(families, n, seed=seed, part="pretraining"), families)


def blended(seed: int, strength: float, *, n: int = 600) -> Scenes:
    """The first objects of the ID test before a mixture of an ID and an OOD background, no noise.

    `strength` in [0, 1] is the share of the OOD background, from whose family the domain's index
    is. Objects and both backgrounds are the same at every strength. A mixture of both has less
    contrast than either.

    Source: ours, a shift whose size can be chosen.

    Raises:
        ValueError: the strength lies outside [0, 1], or `n` is not a positive multiple of 200.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of a shift lies between 0 and 1; got {strength}")
    _whole(n, len(ID) * len(OOD), "pictures")
    familiar, _ = _behind(ID, n, seed=seed, part="test")
    new, domain = _behind(OOD, n, seed=seed, part="test")
    behind = torch.lerp(familiar, new, strength)
    return placed(objects(n, seed=seed), behind, domain, noisy=False)


def factorial(seed: int = 0, *, n: int = 200, each: int = 2) -> tuple[Scenes, ...]:
    """The first `n` objects of the ID test before every background of a list, without noise.

    One record for each background: `each` of every ID family, then `each` of every OOD family. In
    one record all objects stand before the same background.

    Source: ours, what a two-way analysis of variance of neurons needs.

    Raises:
        ValueError: `n` is not a positive multiple of 10, or `each` is below 1.
    """
    _whole(n, 1, "objects")
    if each < 1:
        raise ValueError(f"want at least 1 background of each family, not {each}")
    shown = objects(n, seed=seed)
    found = []
    for family in ID + OOD:
        domain = torch.full((n,), list(FAMILIES).index(family))
        for behind in backgrounds(family, each, seed=seed, part="test"):
            found.append(placed(shown, behind[None], domain, noisy=False))
    return tuple(found)


def _whole(n: int, families: int, what: str) -> None:
    share = len(CLASSES) * families
    if n < 1 or n % share:
        raise ValueError(
            f"{n} {what} can't show {len(CLASSES)} classes on {families} families equally often; "
            f"choose a multiple of {share}, such as {max(round(n / share), 1) * share}"
        )


def _behind(families: Sequence[str], n: int, *, seed: int, part: str) -> tuple[Tensor, Tensor]:
    """(n, 3, side, side) backgrounds that change family after every ten, and their families."""
    turn = torch.arange(n) // len(CLASSES) % len(families)
    x = torch.empty(n, 3, SIDE, SIDE)
    for k, family in enumerate(families):
        here = turn == k
        x[here] = backgrounds(family, int(here.sum()), seed=seed, part=part)
    index = torch.tensor([list(FAMILIES).index(family) for family in families])
    return x, index[turn]


def _by_family(shown: Scenes, families: Sequence[str]) -> tuple[Domain, ...]:
    index = {family: list(FAMILIES).index(family) for family in families}
    return tuple(
        Domain(family, shown.batch.pick(shown.domain == index[family])) for family in families
    )
