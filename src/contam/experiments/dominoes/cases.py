"""Dominoes that networks learn from: features alone, over the core feature, and controls."""

import re
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.batch import Batch, Domain, Shift
from contam.data import small_images
from contam.data.dominoes import (
    CORE,
    DOSES,
    EASY,
    SIDE,
    STRENGTH,
    Half,
    Patch,
    background_patterns,
    dominoes,
    pictures,
)
from contam.experiments.support.small_image_files import check_readable
from contam.measures.depth import Rule
from contam.rng import generator_for

SCANNED = {half.name: half for half in (CORE, EASY, *DOSES)}
"""Halves that need no files, by name."""
SQUARE = "square"
"""A white square on noise, for use with pictures from files."""
PATCH = "-patch"
"""Ending of a data set's name: its pictures of class 1 have a white square in the corner."""
CORNER = 5
"""Side in pixels of that square, as published."""
REVERSED = "backgrounds reversed"
CONTRAST = 0.25
"""Standard deviation of a background's pixels at strength 1."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the sizes of Murali et al. (2023); what a field calls ours differs from them."""

    folder: Path | None = Path("data")
    """Folder with a folder for each data set, such as data/kmnist; None uses embedded halves."""
    core: str = "kmnist"
    """Core feature, in the lower half: a data set's name, as in `spurious`, or an embedded half."""
    spurious: Annotated[tuple[str, ...], Field(min_length=2)] = (
        SQUARE, "mnist", "fashion-mnist", "svhn", "cifar10",
    )  # fmt: skip
    """Spurious features, in the upper half, from easy to hard; the square is ours.

    A data set shows its labels 0 and 1, or others after a colon: fashion-mnist:24 has pullovers as
    class 0 and coats as class 1."""
    agreement: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Ours: share of training examples whose halves agree, in the cases with counter-examples."""
    resize: bool = False
    """Whether images of 28 x 28 pixels are resized to 32 x 32, as published, instead of padded."""
    network: str = "torchvision:resnet18"
    """A name that `contam.models.sources.load` knows, resnet18_cifar (published), or resnet8."""
    width: PositiveInt = 12
    """Channels of the first stage of resnet8 (ours) or resnet18_cifar (64 published)."""
    outputs: Annotated[int, Field(ge=2)] = 2
    """Number of logits; 10 were published, for two classes."""
    epochs: PositiveInt = 50
    batch_size: PositiveInt = 256
    step_size: PositiveFloat = 1e-3
    """Ours: maximum step size of AdamW; SGD with 0.1 was published."""
    weight_decay: NonNegativeFloat = 0.05
    """Ours, for AdamW."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Momentum of SGD; None is AdamW."""
    schedule_epochs: PositiveInt | None = None
    """Epochs in which the cosine reaches 0; None is a warm-up and a cosine over the training."""
    train: PositiveInt = 7000
    test: PositiveInt = 1600
    per_class: PositiveInt = 1000
    """Training pictures of each class in the support of prediction depth."""
    support: PositiveInt | None = None
    """Size of a support without balanced classes, as published, instead of `per_class`."""
    queries: PositiveInt | None = None
    """Test pictures whose depth is measured; None for all."""
    probes: Literal["activations", "convolutions"] = "activations"
    """Probes of prediction depth: input, pooled activations and softmax (ours), or, as published,
    the first normalization and all 3 x 3 convolutions behind it, at full resolution."""
    rule: Rule = Rule()
    """Ours: Baldock's rule, which has an input, a softmax and a matrix product."""
    seeds: PositiveInt = 3
    """Ours: one was published."""


class Case(NamedTuple):
    """Training data of a network."""

    kind: Literal["alone", "over", "as core", "background"]
    """A feature alone; over the core; in the place of the core; or the core on backgrounds."""
    feature: str
    agreement: float = 1.0
    """Share of training examples in which a feature over the core shows the class."""

    @property
    def name(self) -> str:
        """A unique name that can be part of a file name."""
        share = "" if self.agreement == 1 else f"-{self.agreement:g}"
        return f"{self.kind.replace(' ', '-')}-{self.feature.replace(':', '-')}{share}"

    def part(self, seed: int) -> str:
        """The part of a run that holds its rows."""
        return f"net/{self.name}/seed{seed}"


def cases(config: Config) -> list[Case]:
    """The cases of a seed: features alone, over the core, with counter-examples, and controls.

    >>> [case.kind for case in cases(Config())][-2:]
    ['as core', 'background']
    """
    ends = dict.fromkeys((config.spurious[0], config.spurious[-1]))
    return [
        *(Case("alone", feature) for feature in (config.core, *config.spurious)),
        *(Case("over", feature) for feature in config.spurious),
        *(Case("over", feature, config.agreement) for feature in ends),
        Case("as core", config.spurious[0]),
        Case("background", config.core),
    ]


def pictured(config: Config) -> dict[Case, str]:
    """The cases whose pictures are shown, and their names in figures.

    >>> list(pictured(Config()).values())[-1]
    'kmnist on backgrounds'
    """
    shown = {Case("over", feature): f"{feature} over {config.core}" for feature in config.spurious}
    return shown | {Case("background", config.core): f"{config.core} on backgrounds"}


def profiled(config: Config) -> dict[Case, str]:
    """The cases whose usable information is measured, and their names in figures.

    >>> list(profiled(Config()).values())[-1]
    'kmnist on backgrounds'
    """
    easy, hard = config.spurious[0], config.spurious[-1]
    return {
        Case("over", easy): f"{easy} over {config.core}",
        Case("over", easy, config.agreement): f"the same, {config.agreement:.0%} agreeing",
        Case("over", hard): f"{hard} over {config.core}",
        Case("background", config.core): f"{config.core} on backgrounds",
    }


@cache
def half_of(name: str, folder: Path | None, resize: bool = False) -> Half:
    """Return a half by name, from scikit-learn's digits or from the files of a data set.

    Source: ours; the halves of Murali et al. (2023).

    Raises:
        ValueError: there is no such half, or its files are missing or malformed.

    >>> half_of("square", None)
    Traceback (most recent call last):
    ValueError: no half 'square' without files; choose from ...
    """
    if folder is None:
        if name not in SCANNED:
            raise ValueError(f"no half {name!r} without files; choose from {', '.join(SCANNED)}")
        return SCANNED[name]
    if name == SQUARE:
        return Patch(SQUARE, size=5, side=small_images.SIDE)
    kind, _, labels = name.partition(":")
    patched = kind.endswith(PATCH)
    kind = kind.removesuffix(PATCH)
    if kind not in small_images.READERS:
        known = ", ".join((SQUARE, *small_images.READERS))
        raise ValueError(f"no half {name!r} from files; choose from {known}")
    if not re.fullmatch("[0-9]{2}", labels or "01"):
        raise ValueError(f"expected two digits after the colon, such as {kind}:24, got {name!r}")
    zero, one = map(int, labels or "01")
    return pictures(
        kind, folder / kind, zero=zero, one=one, resize=resize, corner=CORNER if patched else 0
    )


def check_halves(config: Config) -> None:
    """Read the halves of a config, so that all that is missing is reported at once.

    Raises:
        ValueError: at least one half is unknown, or its files are missing or malformed.
    """
    check_readable(
        partial(half_of, feature, config.folder, config.resize)
        for feature in (config.core, *config.spurious)
    )


def shift_of(config: Config, case: Case, seed: int, agreement: float | None = None) -> Shift:
    """Return the dominoes of a case; `agreement` replaces the agreement of the case.

    Source: ours; Murali et al. (2023).

    Raises:
        ValueError: as `half_of` and `dominoes`.
    """
    core = half_of(config.core, config.folder, config.resize)
    feature = half_of(case.feature, config.folder, config.resize)
    noise = Patch("noise", size=0, side=SIDE if config.folder is None else small_images.SIDE)
    top, bottom = {
        "alone": (noise, core) if case.feature == config.core else (feature, noise),
        "over": (feature, core),
        "as core": (noise, feature),
        "background": (noise, core),
    }[case.kind]
    shift = dominoes(
        top,
        bottom,
        agreement=case.agreement if agreement is None else agreement,
        train=config.train,
        validation=0,
        test=config.test,
        seed=seed,
    )
    if case.kind != "background":
        return shift
    return Shift(
        f"{shift.name}, on backgrounds",
        shift.classes,
        (on_background(shift.train[0], seed),),
        on_background(shift.id_test, seed),
        (on_background(shift.id_test, seed, sign=-1, name=REVERSED),),
    )


def on_background(domain: Domain, seed: int, *, sign: float = 1.0, name: str = "") -> Domain:
    """Add one of two patterns, independent of the class, to each picture.

    The patterns depend on the seed. `Batch.domain` is the index of the pattern; its strength is
    uniform in `STRENGTH`. With `sign=-1` the pattern is subtracted, like the backgrounds of the
    OOD data of feature contamination.

    Source: ours, the background of Def. 3.1 on pictures.
    """
    x = domain.data.x
    patterns = CONTRAST * background_patterns(x.shape[2], x.shape[3], seed)
    draws = generator_for(seed, f"dominoes/{domain.name} backgrounds")
    which = torch.randint(2, (len(x),), generator=draws)
    low, high = STRENGTH
    strength = low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=draws)
    shown = x + sign * strength * patterns[which]
    return Domain(name or domain.name, Batch(shown, domain.y, which))
