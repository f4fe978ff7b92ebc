"""The embedded benchmark: objects to be told apart, on backgrounds that say nothing about them.

What is learned on four families of backgrounds is judged on five others. Objects and backgrounds
are drawn independently of each other, so the same objects can stand on any background, and two
pictures of an object differ in the background alone. Everything is painted within seconds.

The objects, or the `core` of a picture, are ten shapes or the ten digits as people wrote them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import DIVERSE, FAMILIES, ID, MILD, OOD, SIDE, backgrounds
from contam.data.objects import CLASSES, CORES, Core, Objects, objects

TOO_LIGHT = "paper"
"""The family that digits are left out of: they are light, and have no rim."""


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
    families: Sequence[str],
    n: int,
    *,
    seed: int = 0,
    part: str = "test",
    first: int = 0,
    core: Core = "shapes",
) -> Scenes:
    """`n` objects of a part, from the one with number `first` on, on every family in turn.

    Ten objects, one of each class, stand on the first family, the next ten on the second, and so
    on. So every class appears equally often on every family.

    Source: ours, the background is independent of the class by construction.

    Raises:
        ValueError: `n` is not a positive multiple of the classes times the families, there is no
            such family, part or core, or digits are to stand on `paper`.
    """
    _whole(n, len(families), "pictures")
    if core == "digits" and TOO_LIGHT in families:
        raise ValueError(f"digits are too light to be seen on {TOO_LIGHT!r}; leave it out")
    shown = objects(first + n, seed=seed, part=part, core=core).pick(slice(first, None))
    return placed(shown, *_behind(families, n, seed=seed, part=part))


def splits(
    seed: int = 0,
    *,
    train: int = 4000,
    id_val: int = 800,
    id_test: int = 2000,
    ood_test: int = 400,
    core: Core = "shapes",
) -> dict[str, Scenes]:
    """The pictures of `shapes` with their masks: train, id_val, id_test and ood/<family>.

    Source: ours, the phenomenon at the size of a laptop.

    Raises:
        ValueError: as for `shapes`.
    """
    for n, families in ((train, ID), (id_val, ID), (id_test, ID), (ood_test, OOD[:1])):
        _whole(n, len(families), "pictures")
    learned = scenes(ID, train, seed=seed, part="train", core=core)
    shown = objects(max(id_test, len(OOD) * ood_test), seed=seed, part="test", core=core)

    def test(families: Sequence[str], first: int, n: int) -> Scenes:
        behind = _behind(families, n, seed=seed, part="test")
        return placed(shown.pick(slice(first, first + n)), *behind)

    return {
        "train": learned,
        "id_val": scenes(ID, id_val, seed=seed, part="validation", core=core),
        "id_test": test(ID, 0, id_test),
    } | {f"ood/{name}": test((name,), k * ood_test, ood_test) for k, name in enumerate(OOD)}


def shapes(
    seed: int = 0,
    *,
    train: int = 4000,
    id_val: int = 800,
    id_test: int = 2000,
    ood_test: int = 400,
    core: Core = "shapes",
) -> Shift:
    """Ten shapes on four families of backgrounds, to be recognized on five other families.

    Every training domain is a family. Each OOD test is a family with `ood_test` pictures; its
    objects are the next ones of the ID test, down to their noise, so that by default the OOD tests
    together show the objects of the ID test and differ from it in the background alone.

    With `core="digits"` the objects are real digits. Training shows 900 of them, validation 100,
    pre-training 400 and the tests 397, and no part those of another; larger parts show a digit
    several times, each time on another background and with another color, size, place and tilt.

    Source: ours, the phenomenon at the size of a laptop.

    Raises:
        ValueError: a number of ID pictures is not a positive multiple of 40, or that of an OOD
            test not one of 10, so that classes and families would not balance, or there is no
            such core.
    """
    drawn = splits(seed, train=train, id_val=id_val, id_test=id_test, ood_test=ood_test, core=core)
    return Shift(
        name=core,
        classes=CORES[core],
        train=_by_family(drawn["train"], ID),
        id_val=Domain("ID validation", drawn["id_val"].batch),
        id_test=Domain("ID test", drawn["id_test"].batch),
        ood_tests=tuple(Domain(family, drawn[f"ood/{family}"].batch) for family in OOD),
    )


def mild(seed: int = 0, *, each: int = 400, core: Core = "shapes") -> tuple[Domain, ...]:
    """New families that most models master, with the first objects of the ID test.

    They are no part of the shift, because they would make its size a matter of how many there are.
    Digits are left out of `paper`, on which nobody could read them.

    Source: ours, a shift that is no test.

    Raises:
        ValueError: `each` is not a positive multiple of 10, or there is no such core.
    """
    families = [family for family in MILD if core != "digits" or family != TOO_LIGHT]
    return tuple(
        Domain(family, scenes((family,), each, seed=seed, core=core).batch) for family in families
    )


def pretraining(
    seed: int = 0,
    kind: Literal["diverse", "all"] = "diverse",
    *,
    n: int = 9000,
    core: Core = "shapes",
) -> tuple[Domain, ...]:
    """What a teacher learns from: other objects on more families of backgrounds, a domain each.

    `diverse` shows textures like those of the training in all colors, and no family of the OOD
    tests. `all` shows the ID and the OOD families: a teacher that has seen what its student is
    judged on.

    Source: ours, pre-training in miniature.

    Raises:
        ValueError: there is no such kind or core, or `n` is not a positive multiple of the classes
            times the families, of which there are 5 or 9.
    """
    kinds = {"diverse": DIVERSE, "all": ID + OOD}
    if kind not in kinds:
        raise ValueError(f"no pre-training {kind!r}; choose from {list(kinds)}")
    families = kinds[kind]
    shown = scenes(families, n, seed=seed, part="pretraining", core=core)
    return _by_family(shown, families)


def blended(seed: int, strength: float, *, n: int = 600, core: Core = "shapes") -> Scenes:
    """The first objects of the ID test before a mixture of an ID and an OOD background, no noise.

    `strength` in [0, 1] is the share of the OOD background, from whose family the domain's index
    is. Objects and both backgrounds are the same at every strength. A mixture of both has less
    contrast than either.

    Source: ours, a shift whose size can be chosen.

    Raises:
        ValueError: the strength lies outside [0, 1], `n` is not a positive multiple of 200, or
            there is no such core.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of a shift lies between 0 and 1; got {strength}")
    _whole(n, len(ID) * len(OOD), "pictures")
    familiar, _ = _behind(ID, n, seed=seed, part="test")
    new, domain = _behind(OOD, n, seed=seed, part="test")
    behind = torch.lerp(familiar, new, strength)
    return placed(objects(n, seed=seed, core=core), behind, domain, noisy=False)


def factorial(
    seed: int = 0, *, n: int = 200, each: int = 2, core: Core = "shapes"
) -> tuple[Scenes, ...]:
    """The first `n` objects of the ID test before every background of a list, without noise.

    One record for each background: `each` of every ID family, then `each` of every OOD family. In
    one record all objects stand before the same background.

    Source: ours, what a two-way analysis of variance of neurons needs.

    Raises:
        ValueError: `n` is not a positive multiple of 10, `each` is below 1, or there is no such
            core.
    """
    _whole(n, 1, "objects")
    if each < 1:
        raise ValueError(f"want at least 1 background of each family, not {each}")
    shown = objects(n, seed=seed, core=core)
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
