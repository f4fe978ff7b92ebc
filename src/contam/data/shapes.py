"""The embedded benchmark: objects on backgrounds that are independent of them.

Training uses four families of backgrounds, and the OOD tests use five others. Objects and
backgrounds are drawn independently, so an object can be on any background, and two images of an
object differ only in the background. All images are generated within seconds.

The objects, the `core` of an image, are ten shapes or ten handwritten digits.
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
from contam.data.style_transfer import restyled
from contam.rng import generator_for

TOO_LIGHT = "paper"
"""A family without digits, because they are light and have no rim."""


@dataclass(frozen=True)
class Scenes:
    """Images with masks of their objects."""

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
        """The images as a batch."""
        return Batch(self.x, self.y, self.domain)


def placed(
    shown: Objects,
    behind: Float[Tensor, "#n 3 side side"],
    domain: Int[Tensor, " n"],
    *,
    noisy: bool = True,
) -> Scenes:
    """Place objects on backgrounds.

    Args:
        shown: the objects.
        behind: a background for each object, or one for all.
        domain: domain index of each image.
        noisy: whether to add the objects' noise.

    Source: ours, an image is an object and a background.

    >>> shown = objects(10)
    >>> placed(shown, torch.zeros(1, 3, SIDE, SIDE), torch.zeros(10).long()).x.shape
    torch.Size([10, 3, 32, 32])
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
    """Return objects on backgrounds of some families, in turn.

    Ten objects, one of each class, are on the first family, the next ten on the second, and so on.
    Each class therefore appears equally often on each family.

    Args:
        families: names of `FAMILIES`.
        n: number of images, a multiple of the classes times the families.
        seed: random seed.
        part: part of the data: train, validation, test or pretraining.
        first: index of the first object.
        core: `shapes` or `digits`.

    Raises:
        ValueError: `n` is not a positive multiple of the classes times the families; a family,
            the part or the core is unknown; or digits are on `paper`.

    Source: ours, the background is independent of the class by construction.

    >>> scenes(("stripes", "photo"), 20).x.shape
    torch.Size([20, 3, 32, 32])
    """
    _whole(n, len(families), "pictures")
    if core == "digits" and TOO_LIGHT in families:
        raise ValueError(f"digits are invisible on the family {TOO_LIGHT!r}; leave it out")
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
    """Return the images of `shapes` with masks: train, id_val, id_test and ood/<family>.

    Args:
        seed: as for `shapes`.
        train: as for `shapes`.
        id_val: as for `shapes`.
        id_test: as for `shapes`.
        ood_test: as for `shapes`.
        core: as for `shapes`.

    Raises:
        ValueError: as for `shapes`.

    Source: ours, the phenomenon at laptop size.

    >>> drawn = splits(train=40, id_val=40, id_test=40, ood_test=10)
    >>> len(drawn["train"].y), len(drawn["ood/checker"].y)
    (40, 10)
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
    """Return ten shapes on four families of backgrounds in training and five others in OOD tests.

    Each training domain and each OOD test is a family. Together, the OOD tests have the objects of
    the ID test, including their noise, and differ from it only in the background.

    With digits, training uses 900 scans, validation 100, pre-training 400 and the tests 397,
    without overlap. Larger parts use a scan several times, on other backgrounds and with other
    attributes.

    Args:
        seed: random seed.
        train: number of training images, a multiple of 40.
        id_val: number of validation images, a multiple of 40.
        id_test: number of ID test images, a multiple of 40.
        ood_test: number of images of each OOD test, a multiple of 10.
        core: `shapes` or `digits`.

    Returns:
        A `Shift` of images (3, 32, 32) in [0, 1].

    Raises:
        ValueError: a number is not such a multiple, so classes and families would not be balanced,
            or the core is unknown.

    Source: ours, the phenomenon at laptop size.

    >>> shift = shapes(train=40, id_val=40, id_test=40, ood_test=10)
    >>> [domain.name for domain in shift.ood_tests]
    ['checker', 'speckle', 'plaid', 'strokes', 'blobs']
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


def mild(seed: int = 0, *, per_family: int = 400, core: Core = "shapes") -> tuple[Domain, ...]:
    """Return new families that most models classify well, with the first objects of the ID test.

    They are not part of the shift, because its size would then depend on their number. There are
    no digits on `paper`, where they are invisible.

    Args:
        seed: random seed.
        per_family: number of images per family, a multiple of 10.
        core: `shapes` or `digits`.

    Raises:
        ValueError: `per_family` is not a positive multiple of 10, or the core is unknown.

    Source: ours, an easy shift.

    >>> [domain.name for domain in mild(per_family=10)]
    ['paper', 'cool']
    """
    families = [family for family in MILD if core != "digits" or family != TOO_LIGHT]
    return tuple(
        Domain(family, scenes((family,), per_family, seed=seed, core=core).batch)
        for family in families
    )


def pretraining(
    seed: int = 0,
    kind: Literal["diverse", "all"] = "diverse",
    *,
    n: int = 9000,
    core: Core = "shapes",
) -> tuple[Domain, ...]:
    """Return pre-training data of a teacher: other objects on more families, one domain each.

    Args:
        seed: random seed.
        kind: `diverse` has the textures of the training data in all colors, and no family of the
            OOD tests. `all` has the ID and the OOD families.
        n: number of images, a multiple of 50 (`diverse`) or 90 (`all`).
        core: `shapes` or `digits`.

    Raises:
        ValueError: the kind or the core is unknown, or `n` is not such a multiple.

    Source: ours, pre-training in miniature.

    >>> [len(domain) for domain in pretraining(n=50)]
    [10, 10, 10, 10, 10]
    """
    kinds = {"diverse": DIVERSE, "all": ID + OOD}
    if kind not in kinds:
        raise ValueError(f"unknown pre-training {kind!r}; choose from {list(kinds)}")
    families = kinds[kind]
    shown = scenes(families, n, seed=seed, part="pretraining", core=core)
    return _by_family(shown, families)


def diverse_pretraining(
    seed: int, families: int, *, n: int = 9000, core: Core = "shapes"
) -> tuple[Domain, ...]:
    """Return pre-training data whose diversity is a dose: the number of families of backgrounds.

    The families are the first ones of a random order of all families but those of the OOD tests.
    The order depends on the seed alone, so a larger number adds families. The objects are those of
    `pretraining`, and the same for every number.

    Args:
        seed: random seed, also of the order of the families.
        families: number of families.
        n: number of images, rounded down to a multiple of 10 times the families.
        core: `shapes` or `digits`.

    Returns:
        One domain for each family.

    Raises:
        ValueError: there are not that many families, there are too few images for them, or the
            core is unknown.

    Source: Sec. 6.1, "a sufficiently diverse dataset".

    >>> one, three = (diverse_pretraining(0, families, n=60) for families in (1, 3))
    >>> one[0].name == three[0].name, [len(domain) for domain in three]
    (True, [20, 20, 20])
    """
    pool = [name for name in FAMILIES if name not in OOD]
    if core == "digits":
        pool.remove(TOO_LIGHT)
    if not 1 <= families <= len(pool):
        raise ValueError(f"expected 1 to {len(pool)} families, got {families}")
    share = len(CLASSES) * families
    order = torch.randperm(len(pool), generator=generator_for(seed, "shapes/pretraining families"))
    chosen = [pool[k] for k in order[:families].tolist()]
    shown = scenes(chosen, n // share * share, seed=seed, part="pretraining", core=core)
    return _by_family(shown, chosen)


def blended(seed: int, strength: float, *, n: int = 600, core: Core = "shapes") -> Scenes:
    """Return objects of the ID test on mixtures of an ID and an OOD background, without noise.

    Objects and both backgrounds are the same at every strength. A mixture has less contrast than
    either background. The domain index is that of the OOD family.

    Args:
        seed: random seed.
        strength: share of the OOD background, in [0, 1].
        n: number of images, a multiple of 200.
        core: `shapes` or `digits`.

    Raises:
        ValueError: the strength is outside [0, 1], `n` is not a positive multiple of 200, or the
            core is unknown.

    Source: ours, a shift of adjustable size.

    >>> blended(0, strength=0.5, n=200).x.shape
    torch.Size([200, 3, 32, 32])
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    _whole(n, len(ID) * len(OOD), "pictures")
    familiar, _ = _behind(ID, n, seed=seed, part="test")
    new, domain = _behind(OOD, n, seed=seed, part="test")
    behind = torch.lerp(familiar, new, strength)
    return placed(objects(n, seed=seed, core=core), behind, domain, noisy=False)


def stylized(seed: int, strength: float, *, n: int = 600, core: Core = "shapes") -> Scenes:
    """Return images of the ID test in the style of OOD backgrounds, without noise.

    The whole image is restyled, the object included, as by style transfer of photos: its shape
    stays, and its colors change with those of the background. At strength 0 the images are those
    of `blended`, and the style images are its OOD backgrounds.

    Args:
        seed: random seed.
        strength: share of the transfer, in [0, 1].
        n: number of images, a multiple of 200.
        core: `shapes` or `digits`.

    Raises:
        ValueError: the strength is outside [0, 1], `n` is not a positive multiple of 200, or the
            core is unknown.

    Source: Fig. 6, with statistics of fixed filters in place of a trained network's.

    >>> stylized(0, strength=0.5, n=200).x.shape
    torch.Size([200, 3, 32, 32])
    """
    own = blended(seed, 0.0, n=n, core=core)
    styles, domain = _behind(OOD, n, seed=seed, part="test")
    return Scenes(restyled(own.x, styles, strength), own.y, domain, own.mask)


def factorial(
    seed: int = 0, *, n: int = 200, per_family: int = 2, core: Core = "shapes"
) -> tuple[Scenes, ...]:
    """Return objects of the ID test on every background of a list, without noise.

    Args:
        seed: random seed.
        n: number of objects, a multiple of 10.
        per_family: number of backgrounds per family.
        core: `shapes` or `digits`.

    Returns:
        One record per background, with all objects on it: `per_family` of every ID family, then
        `per_family` of every OOD family.

    Raises:
        ValueError: `n` is not a positive multiple of 10, `per_family` is below 1, or the core is
            unknown.

    Source: ours, the design of a two-way analysis of variance of neurons.

    >>> len(factorial(n=10, per_family=1)), len(ID + OOD)
    (9, 9)
    """
    _whole(n, 1, "objects")
    if per_family < 1:
        raise ValueError(f"expected at least 1 background per family, got {per_family}")
    shown = objects(n, seed=seed, core=core)
    records = []
    for family in ID + OOD:
        domain = torch.full((n,), list(FAMILIES).index(family))
        for behind in backgrounds(family, per_family, seed=seed, part="test"):
            records.append(placed(shown, behind[None], domain, noisy=False))
    return tuple(records)


def _whole(n: int, families: int, what: str) -> None:
    share = len(CLASSES) * families
    if n < 1 or n % share:
        raise ValueError(
            f"{n} {what} cannot balance {len(CLASSES)} classes on {families} families; "
            f"choose a multiple of {share}, such as {max(round(n / share), 1) * share}"
        )


def _behind(families: Sequence[str], n: int, *, seed: int, part: str) -> tuple[Tensor, Tensor]:
    """Return backgrounds that change family after every ten, and their domain indices."""
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
