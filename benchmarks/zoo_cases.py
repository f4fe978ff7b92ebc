"""Cases of known cause: a network, an ID set, and an OOD set that is shifted in a known way.

A shift acts on objects, backgrounds, images, inputs, labels, or on the choice of images, at one of
several levels. Its effect is measured on validation images with the same network, so a level that
costs nothing makes a healthy case, and each other case has a known loss. A mixed case has two
shifts; images with neither, one or both of them give the true share of each.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
import zoo_networks
from torch import Generator, Tensor
from zoo_networks import (
    CLASSES,
    CONTENTS,
    FILES,
    MEAN,
    SHARE,
    STD,
    FromInputs,
    Group,
    ImageSpec,
    Networks,
    Scenes,
    jpeg,
    new_style,
    posed,
    scenes,
)

from contam.data.backgrounds import OOD, SIDE, backgrounds
from contam.data.objects import Objects
from contam.models.classifier import Classifier
from contam.rng import generator_for
from contam.training.probe import fit_probe

HEALTHY = "healthy"
CAUSES = (
    HEALTHY, "measurement", "input mismatch", "label mismatch", "label noise", "label shift",
    "undertrained", "head", "corruption", "geometry", "new subtypes", "information missing",
    "background shortcut", "color shortcut", "size shortcut", "compression shortcut",
    "tag shortcut", "new backgrounds",
)  # fmt: skip
"""The built-in causes."""
PLUMBING = ("measurement", "input mismatch", "label mismatch", "label noise", "label shift")
"""Causes that no training repairs."""
NEED_REFERENCE = ("information missing", "new subtypes")
"""Causes that no audit can show without a reference encoder; textures have none here."""
NOTHING_LOST, LOST = 0.06, 0.28
"""Shares of the above-chance accuracy: a shift that costs less makes a healthy case, one that costs
more a case of its cause, and one between the two no case."""
LEARNED = 0.5
"""Least share of the way from chance to perfect on ID images, for a network of other cases than of
undertrained ones."""
STRENGTHS = {"mild": (LOST, 0.45), "medium": (0.45, 0.7), "strong": (0.7, 2.0)}
"""Range of the lost share."""
REFERENCE_PLAIN, REFERENCE_IMAGES = 8, 180
"""Parts of the reference's training images without a shift, and images of each part."""
JUDGED_ON = 300
"""Validation images that a loss is measured on."""
Stage = Literal["link", "artifact", "background", "objects", "images", "inputs", "labels", "choice"]


class Kind(NamedTuple):
    """A kind of shift."""

    cause: str
    stage: Stage
    levels: tuple[float, ...]
    """From mild to strong; what a level is depends on the kind."""
    apply: Callable[..., Any]
    network: str = "all"
    """The network that it acts on."""
    only: tuple[str, ...] = tuple(CONTENTS)
    """The contents that it fits."""
    common: tuple[tuple[str, float], ...] = ()
    """Shifts of both sets."""


NOISY = (7, 8, 9)
"""Classes that have wrong labels in both sets in some cases."""
WITH_OBJECTS = tuple(name for name, content in CONTENTS.items() if content.masks)
WRITTEN = ("digits", "mnist", "letters")
SHARES = (0.3, 0.55, 0.8, 1.0)


def _some(n: int, share: float, draws: Generator) -> Tensor:
    """(n, 1, 1, 1) whether an example is among a share of them."""
    return (torch.rand(n, generator=draws) < share)[:, None, None, None]


def _new_families(behind: Tensor, level: float, draws: Generator, seed: int) -> Tensor:
    new = torch.empty_like(behind)
    turn = torch.arange(len(behind)) // CLASSES % len(OOD)
    for k, family in enumerate(OOD):
        here = turn == k
        new[here] = backgrounds(family, int(here.sum()), seed=seed, part="test")
    return torch.where(_some(len(behind), level, draws), new, behind)


def _blended(behind: Tensor, level: float, draws: Generator, seed: int) -> Tensor:
    return torch.lerp(behind, _new_families(behind, 1.0, draws, seed), level)


def _flat(behind: Tensor, level: float, draws: Generator, seed: int) -> Tensor:
    """Backgrounds of one color for all: a purple, which is the same in BGR."""
    purple = torch.tensor([0.6, 0.1, 0.6])[None, :, None, None].expand_as(behind)
    return torch.where(_some(len(behind), level, draws), purple, behind)


def _rotated(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    spread = torch.rand(len(shown.y), generator=draws) - 0.5
    return posed(shown, angle=math.radians(level) * (1 + 0.3 * spread))


def _scaled(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    return posed(shown, scale=level)


def _mirrored(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    flipped = posed(shown, mirrored=True)
    some = _some(len(shown.y), level, draws)
    return shown._replace(mask=torch.where(some, flipped.mask, shown.mask),
                          color=torch.where(some, flipped.color, shown.color))  # fmt: skip


def _of_classes(changed: Objects, shown: Objects, level: float) -> Objects:
    """The changed objects of the last classes, as many as the level says."""
    some = (shown.y >= CLASSES - level)[:, None, None, None]
    return shown._replace(mask=torch.where(some, changed.mask, shown.mask),
                          color=torch.where(some, changed.color, shown.color))  # fmt: skip


def _restyled(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    return _of_classes(new_style(shown, content, draws.initial_seed() % 1000), shown, level)


def _striped(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    """Objects with dark stripes."""
    phase = 6.28 * torch.rand(len(shown.y), 1, 1, generator=draws)
    wave = (torch.arange(SIDE)[None, :, None] * 6.28 / 4.5 + phase).sin().expand(-1, -1, SIDE)
    dark = shown.color * (0.55 + 0.45 * wave[:, None]).clamp(0, 1)
    return _of_classes(shown._replace(color=dark), shown, level)


def _two_scales(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
    """Textures of half their period, mirrored so that each class looks new."""
    return _of_classes(posed(shown, scale=0.5), shown, level)


def _hidden(how: str) -> Callable[[Objects, float, Generator, str], Objects]:
    def hide(shown: Objects, level: float, draws: Generator, content: str) -> Objects:
        color = shown.color.amax(dim=(2, 3), keepdim=True).expand_as(shown.color)
        if how == "faint":
            mask = 0.05 * shown.mask
        elif how == "tiny":
            mask = torch.zeros_like(shown.mask)
            mask[..., 14:18, 14:18] = F.interpolate(shown.mask, size=(4, 4), mode="area")
        else:
            at = torch.arange(SIDE) - (SIDE - 1) / 2
            mask = (at[:, None] ** 2 + at**2 < 14**2).float().expand_as(shown.mask)
        some = _some(len(shown.y), level, draws)
        return shown._replace(mask=torch.where(some, mask, shown.mask),
                              color=torch.where(some, color, shown.color))  # fmt: skip

    return hide


def _blurred_out(x: Tensor, level: float, draws: Generator) -> Tensor:
    out = x
    for _ in range(2):
        out = F.avg_pool2d(F.pad(out, (7,) * 4, mode="reflect"), 15, stride=1)
    return torch.where(_some(len(x), level, draws), out, x)


def _noise(x: Tensor, level: float, draws: Generator) -> Tensor:
    return (x + level * torch.randn(x.shape, generator=draws)).clamp(0, 1)


def _gaussian_blur(x: Tensor, level: float, draws: Generator) -> Tensor:
    at = torch.arange(-6, 7)
    weight = torch.exp(-(at**2) / (2 * level**2))
    weight = (weight / weight.sum()).expand(3, 1, -1)
    padded = F.pad(x, (6,) * 4, mode="reflect")
    across = F.conv2d(padded, weight[:, :, None, :], groups=3)
    return F.conv2d(across, weight[:, :, :, None], groups=3)


def _jpeg(x: Tensor, level: float, draws: Generator) -> Tensor:
    return jpeg(x, int(level))


def _cropped(x: Tensor, level: float, draws: Generator) -> Tensor:
    """The middle of the image, enlarged."""
    side = int(level)
    begin = (SIDE - side) // 2
    middle = x[:, :, begin : begin + side, begin : begin + side]
    return F.interpolate(middle, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def _letterboxed(x: Tensor, level: float, draws: Generator) -> Tensor:
    """Squeezed to fewer rows, between black bars."""
    rows = int(level)
    squeezed = F.interpolate(x, size=(rows, SIDE), mode="bilinear", antialias=True)
    above = (SIDE - rows) // 2
    return F.pad(squeezed, (0, 0, above, SIDE - rows - above))


def _other_normalization(x: Tensor, group: Group) -> Tensor:
    """None where the network takes normalized inputs, and one where it takes pixels."""
    return x if group.seed % 2 else (x - MEAN[:, None, None]) / STD[:, None, None]


def _twice(x: Tensor, group: Group) -> Tensor:
    return (group.inputs(x) - MEAN[:, None, None]) / STD[:, None, None]


def _shifted(y: Tensor, level: float, draws: Generator) -> Tensor:
    return (y + 1) % CLASSES


def _swapped(y: Tensor, level: float, draws: Generator) -> Tensor:
    """Neighboring pairs of classes exchanged, so many classes in all."""
    return torch.where(y < level, y ^ 1, y)


def _permuted(y: Tensor, level: float, draws: Generator) -> Tensor:
    return torch.randperm(CLASSES, generator=draws)[y]


def _relabeled(y: Tensor, level: float, draws: Generator) -> Tensor:
    other = (y + torch.randint(1, CLASSES, y.shape, generator=draws)) % CLASSES
    return torch.where(torch.rand(len(y), generator=draws) < level, other, y)


def _relabeled_hard(y: Tensor, level: float, draws: Generator) -> Tensor:
    """Wrong labels among the last three classes only."""
    other = NOISY[0] + (y - NOISY[0] + torch.randint(1, 3, y.shape, generator=draws)) % len(NOISY)
    wrong = (y >= NOISY[0]) & (torch.rand(len(y), generator=draws) < level)
    return torch.where(wrong, other, y)


def _same(*values: Any) -> Any:
    return values[0]


SHIFTS: dict[str, Kind] = {
    "new families": Kind("new backgrounds", "background", SHARES, _new_families, "plain",
                         WITH_OBJECTS),
    "blended families": Kind("new backgrounds", "background", (0.3, 0.45, 0.6, 0.8), _blended,
                             "plain", WITH_OBJECTS),
    "one color behind": Kind("new backgrounds", "background", SHARES, _flat, "plain",
                             WITH_OBJECTS),
    "link broken": Kind("", "link", SHARES, _same, "linked"),
    "other tags": Kind("tag shortcut", "link", SHARES, _same, "marked"),
    "no compression": Kind("compression shortcut", "artifact", SHARES, _same, "marked"),
    "one size": Kind("size shortcut", "artifact", SHARES, _same, "marked"),
    "noise": Kind("corruption", "images", (0.05, 0.1, 0.15, 0.2, 0.3), _noise),
    "soft": Kind("corruption", "images", (0.6, 0.9, 1.3, 1.7), _gaussian_blur, "plain"),
    "low contrast": Kind("corruption", "images", (0.5, 0.3, 0.2, 0.12),
                         lambda x, level, draws: 0.5 + level * (x - 0.5)),
    "dark": Kind("corruption", "images", (0.6, 0.4, 0.25, 0.15),
                 lambda x, level, draws: level * x, "plain"),
    "bright": Kind("corruption", "images", (0.2, 0.35, 0.5, 0.65),
                   lambda x, level, draws: (x + level).clamp(0, 1)),
    "color cast": Kind(
        "corruption", "images", (0.3, 0.5, 0.7, 0.9),
        lambda x, level, draws: x * (1 - level * torch.tensor([0.0, 0.5, 1.0])[:, None, None]),
        "plain",
    ),
    "JPEG": Kind("corruption", "images", (30, 15, 8, 4, 2), _jpeg),
    "BGR": Kind("input mismatch", "images", (1,), lambda x, level, draws: x.flip(1), "plain"),
    "other normalization": Kind("input mismatch", "inputs", (1,), _other_normalization),
    "inverted": Kind("input mismatch", "images", (1,), lambda x, level, draws: 1 - x, "plain"),
    "times 255": Kind("input mismatch", "inputs", (1,), lambda x, group: group.inputs(255 * x)),
    "normalized twice": Kind("input mismatch", "inputs", (1,), _twice),
    "over 255": Kind("input mismatch", "inputs", (1,), lambda x, group: group.inputs(x / 255)),
    "gray": Kind("input mismatch", "images", (1,),
                 lambda x, level, draws: x.mean(1, keepdim=True).expand_as(x), "plain"),
    "cropped": Kind("input mismatch", "images", (27, 23, 19), _cropped),
    "letterboxed": Kind("input mismatch", "images", (24, 18, 13), _letterboxed),
    "order shifted by one": Kind("label mismatch", "labels", (1,), _shifted),
    "swapped classes": Kind("label mismatch", "labels", (4, 6, 2), _swapped, "plain"),
    "permuted labels": Kind("label mismatch", "labels", (1,), _permuted, "plain"),
    "wrong labels": Kind("label noise", "labels", (0.25, 0.4, 0.6), _relabeled),
    "more hard classes": Kind("label shift", "choice", (0.4, 0.6, 0.8, 0.95), _same, "plain"),
    "more noisy classes": Kind("label shift", "choice", (0.6, 0.8, 0.95), _same, "plain",
                               common=(("noisy classes", 0.6),)),
    "noisy classes": Kind("none", "labels", (0.6,), _relabeled_hard),
    "rotated": Kind("geometry", "objects", (20, 35, 50, 75, 110), _rotated, only=WITH_OBJECTS),
    "smaller": Kind("geometry", "objects", (0.8, 0.65, 0.55, 0.45), _scaled, "plain",
                    WITH_OBJECTS),
    "mirrored": Kind("geometry", "objects", SHARES, _mirrored, only=(*WRITTEN, "fashion")),
    "larger": Kind("geometry", "objects", (1.25, 1.5, 1.8, 2.2), _scaled, only=WITH_OBJECTS),
    "another style": Kind("new subtypes", "objects", (3, 4, 5), _restyled, only=WITH_OBJECTS),
    "striped": Kind("new subtypes", "objects", (3, 4, 5), _striped, "plain",
                    ("shapes", "fashion", "letters", "mnist")),
    "finer": Kind("new subtypes", "objects", (3, 4, 5), _two_scales, only=("textures",)),
    "covered": Kind("information missing", "objects", SHARES, _hidden("covered"),
                    only=WITH_OBJECTS),
    "faint": Kind("information missing", "objects", SHARES, _hidden("faint"), only=WITH_OBJECTS),
    "tiny": Kind("information missing", "objects", SHARES, _hidden("tiny"), "plain", WITH_OBJECTS),
    "blurred out": Kind("information missing", "images", SHARES, _blurred_out),
}  # fmt: skip
ALSO_RIGHT = {
    "cropped": ("geometry",), "letterboxed": ("geometry",), "blurred out": ("corruption",),
}  # fmt: skip
"""Other answers that are right for a shift."""
COUNTS = {
    "new backgrounds": 2, "corruption": 3, "input mismatch": 2, "label mismatch": 2,
    "label noise": 1, "label shift": 1, "geometry": 2, "new subtypes": 2,
    "information missing": 2, "": 2,
}  # fmt: skip
"""Cases of each cause that a group has; the empty name is the group's own shortcut."""
MIXED = (
    ("new families", "wrong labels"), ("new families", "noise"), ("swapped classes", "dark"),
    ("one color behind", "rotated"), ("low contrast", "order shifted by one"),
    ("another style", "wrong labels"), ("new families", "covered"), ("noise", "wrong labels"),
    ("rotated", "color cast"), ("new families", "smaller"), ("tiny", "swapped classes"),
)  # fmt: skip
"""Pairs of shifts that mixed cases have."""
HEADS: dict[str, tuple[float, ...]] = {
    "few labels": (30, 20, 15, 10), "biased": (2, 4, 8), "noisy labels": (0.5, 0.65, 0.8),
    "rare classes": (0.05, 0.0),
}  # fmt: skip
"""Bad heads and their levels."""


PLAIN = ImageSpec()
"""Images of the ID families."""


@dataclass(frozen=True)
class Plan:
    """A case before its data are made."""

    name: str
    cause: str
    strength: str
    """`mild`, `medium`, `strong`, `mixed`, or `none` for healthy cases."""
    network: str
    shifts: tuple[tuple[str, float], ...] = ()
    common: tuple[tuple[str, float], ...] = ()
    """Shifts of both sets."""
    head: tuple[str, float] | None = None
    inside: ImageSpec = PLAIN
    images: tuple[int, int] = (400, 400)
    """Numbers of ID and OOD images."""
    masks: bool = True
    reference: bool = True
    paired: bool = False
    """Whether the OOD set shows the objects of the ID set."""
    source: Literal["", "training images", "same images"] = ""
    """Where the sets of a wrong measurement come from."""
    accepted: tuple[str, ...] = ()
    """Other answers that are right, too."""
    others: tuple[str, ...] = ()
    """The smaller causes of a mixed case."""
    shares: tuple[tuple[str, float], ...] = ()
    """True points of each cause of a mixed case, on its OOD images."""

    @property
    def right(self) -> tuple[str, ...]:
        """The answers that count as right."""
        return (self.cause, *self.accepted)


class Images(NamedTuple):
    """A data set of a case."""

    x: Tensor
    y: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Case:
    """A network of known cause with the data of its audit."""

    group: Group
    plan: Plan
    model: Classifier
    id: Images
    ood: Images
    reference: torch.nn.Module | None

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.group.name}: {self.plan.name}"

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """The masks that the audit gets."""
        return {"id": self.id.masks, "OOD": self.ood.masks} if self.plan.masks else None


def images(
    group: Group,
    spec: ImageSpec,
    shifts: Sequence[tuple[str, float]],
    n: int,
    *,
    part: str = "test",
    first: int = 0,
    hard: Sequence[int] = (),
) -> Images:
    """Images with shifts.

    Args:
        group: the group whose content and inputs they have.
        spec: what they are like without shifts.
        shifts: names of `SHIFTS` with their levels.
        n: their number.
        part: part of the data.
        first: index of the first object.
        hard: the classes that a shift of the choice has more of.
    """
    kinds = [(name, SHIFTS[name], level) for name, level in shifts]
    drawn = {
        name: generator_for(group.seed + first, f"zoo/{part} shift {name}") for name, _, _ in kinds
    }
    for _, kind, level in kinds:
        if kind.stage == "link":
            spec = replace(spec, share=spec.share * (1 - level))
        if kind.stage == "artifact":
            spec = replace(spec, without=level)
    chosen = next((level for _, kind, level in kinds if kind.stage == "choice"), 0.0)
    more = 5 if chosen else 1
    shown = scenes(spec, group.content, more * n, seed=group.seed, part=part, first=first)
    if chosen:
        shown = _pick(shown, _more_of(shown.objects.y, hard, chosen, n))
    for name, kind, level in kinds:
        draws = drawn[name]
        if kind.stage == "objects":
            shown = shown._replace(objects=kind.apply(shown.objects, level, draws, group.content))
        if kind.stage == "background":
            behind = kind.apply(shown.behind, level, draws, group.seed + first)
            shown = shown._replace(behind=behind)
    x, y = shown.x, shown.objects.y
    for name, kind, level in kinds:
        if kind.stage == "images":
            x = kind.apply(x, level, drawn[name])
        if kind.stage == "labels":
            y = kind.apply(y, level, drawn[name])
    inputs = [kind for _, kind, _ in kinds if kind.stage == "inputs"]
    x = inputs[0].apply(x, group) if inputs else group.inputs(x)
    return Images(x.contiguous(), y, shown.objects.mask)


def _pick(shown: Scenes, which: Tensor) -> Scenes:
    return Scenes(shown.objects.pick(which), shown.behind[which], shown.sign[which], shown.link)


def _more_of(y: Tensor, hard: Sequence[int], share: float, n: int) -> Tensor:
    """So many positions, a share of them of the hard classes."""
    is_hard = torch.isin(y, torch.tensor(hard))
    count = min(round(share * n), int(is_hard.sum()))
    first, second = is_hard.nonzero().flatten(), (~is_hard).nonzero().flatten()
    return torch.cat([first[:count], second[: n - count]]).sort().values


def correct(model: torch.nn.Module, made: Images) -> Tensor:
    """Which images the network classifies correctly."""
    with torch.no_grad():
        return torch.cat([model(x) for x in made.x.split(200)]).argmax(1) == made.y


def accuracy(model: torch.nn.Module, made: Images) -> float:
    """The share of images that the network classifies correctly."""
    return float(correct(model, made).float().mean())


def with_bad_head(kind: str, level: float, model: Classifier, group: Group) -> Classifier:
    """The network with a bad head instead of its own; the encoder is the same."""
    model = copy.deepcopy(model)
    if kind == "biased":
        with torch.no_grad():
            model.head.bias[::2] += level
        return model
    wanted, wrong = {"few labels": (int(level), 0.0), "noisy labels": (200, level)}.get(
        kind, (200, 0.0)
    )
    data = images(group, zoo_networks.BOTH, (), 900, part="validation")
    draws = generator_for(group.seed, f"zoo/head {kind}")
    keep = torch.rand(len(data.y), generator=draws)
    if kind == "rare classes":
        keep = torch.where(data.y % 2 == 0, level * keep, keep)
    which = keep.topk(wanted).indices
    x, y = data.x[which], data.y[which]
    drawn = torch.randint(CLASSES, (wanted,), generator=draws)
    y = torch.where(torch.rand(wanted, generator=draws) < wrong, drawn, y)
    with torch.no_grad():
        probe = fit_probe(model.encoder(x), y, classes=CLASSES)
        weight = probe.weight / probe.scale
        model.head.weight.copy_(weight)
        model.head.bias.copy_(probe.bias - weight @ probe.mean)
    return model


class Planner:
    """Chooses the cases of a group, with losses as measured on validation images.

    Args:
        group: the group.
        networks: its networks.
        turn: its number, which decides what strengths and pairs it has.
        only: names of the networks that cases may have; all by default.
    """

    def __init__(
        self, group: Group, networks: Networks, turn: int, only: Sequence[str] = ()
    ) -> None:
        self.group, self.networks, self.turn = group, networks, turn
        self.only = tuple(only) or (*zoo_networks.NETWORKS, "linked", "marked")
        self.plans: list[Plan] = []
        self.harmless: list[Plan] = []
        self._plain: dict[str, float] = {}
        self._hard: dict[str, tuple[int, ...]] = {}
        self._learned: dict[str, bool] = {}

    def spec(self, network: str) -> ImageSpec:
        """The ID images of a network's cases."""
        link = {"linked": self.group.linked, "marked": self.group.marked}.get(network)
        return ImageSpec(link=link, share=SHARE) if link else PLAIN

    def learned(self, network: str) -> bool:
        """Whether a network solves its ID images; otherwise it is undertrained in every case."""
        if network not in self._learned:
            made = images(self.group, self.spec(network), (), JUDGED_ON, part="validation")
            above = accuracy(self.networks.get(network), made) - 1 / CLASSES
            self._learned[network] = above > LEARNED * (1 - 1 / CLASSES)
        return self._learned[network]

    def hard(self, network: str) -> tuple[int, ...]:
        """The two classes that a network classifies worst."""
        if network not in self._hard:
            made = images(self.group, self.spec(network), (), JUDGED_ON, part="validation")
            right = correct(self.networks.get(network), made).float()
            by_class = torch.stack([right[made.y == k].mean() for k in range(CLASSES)])
            self._hard[network] = tuple(by_class.argsort()[:2].tolist())
        return self._hard[network]

    def loss(
        self,
        network: str,
        shifts: Sequence[tuple[str, float]],
        common: tuple[tuple[str, float], ...] = (),
    ) -> float:
        """The share of the above-chance accuracy that shifts cost."""
        model, spec, chance = self.networks.get(network), self.spec(network), 1 / CLASSES
        key = f"{network} {common}"
        if key not in self._plain:
            made = images(self.group, spec, common, JUDGED_ON, part="validation")
            self._plain[key] = accuracy(model, made)
        hard = NOISY if common else self.hard(network)
        both = (*common, *shifts)
        made = images(self.group, spec, both, JUDGED_ON, part="validation", hard=hard)
        commonest = float(made.y.bincount().max()) / len(made.y)
        left = (accuracy(model, made) - commonest) / (1 - commonest)
        return 1 - left * (1 - chance) / max(0.01, self._plain[key] - chance)

    def add(self, plan: Plan, to: list[Plan] | None = None) -> None:
        """Add a case; every second has a reference, and two of three have masks."""
        if plan.network not in self.only or plan.name in [other.name for other in self.plans]:
            return
        if plan.cause not in ("undertrained", "measurement") and not self.learned(plan.network):
            return
        k = len(self.plans) + len(self.harmless) + self.turn
        has_masks = CONTENTS[self.group.content].masks
        known = plan.cause in NEED_REFERENCE
        if known and not has_masks:
            plan = replace(plan, accepted=(*plan.accepted, "unexplained shift"))
        plan = replace(
            plan, images=((300, 400, 600)[k % 3], (300, 400, 500)[k // 2 % 3]),
            masks=has_masks and k % 3 != 0, reference=known or k % 2 == 0,
        )  # fmt: skip
        (self.plans if to is None else to).append(plan)

    def run(self) -> list[Plan]:
        """All cases of the group."""
        for cause, count in COUNTS.items():
            names = [name for name, kind in SHIFTS.items()
                     if kind.cause == cause and self.group.content in kind.only]  # fmt: skip
            start = count * self.turn % max(1, len(names))
            names = (names[start:] + names[:start]) if cause else names * count
            count_of_cases = 0
            for place, name in enumerate(names):
                if count_of_cases < count:
                    count_of_cases += self._shifted(name, place + self.turn)
        self._heads()
        self._measurement()
        self._undertrained()
        self._mixed()
        self._healthy()
        self._artifacts()
        return [*self.plans, *self.harmless]

    def _shifted(self, name: str, turn: int) -> int:
        """Add a case of one shift, of the strength whose turn it is if there is one."""
        kind, group = SHIFTS[name], self.group
        network, cause = kind.network, kind.cause
        if network not in self.only:
            return 0
        if not cause:
            cause = "color shortcut" if "tint" in group.linked else "background shortcut"
        losses = {level: self.loss(network, [(name, level)], kind.common) for level in kind.levels}
        spec, level = self.spec(network), self._level(losses, turn)
        if level is not None:
            accepted = ALSO_RIGHT.get(name, ())
            paired = turn % 4 == 0 and kind.stage not in ("link", "artifact", "choice")
            self.add(Plan(
                f"{name} {level:g}", cause, _strength(losses[level]), network, ((name, level),),
                inside=spec, paired=paired, accepted=accepted, common=kind.common,
            ))  # fmt: skip
            return 1
        harmless = [level for level, loss in losses.items() if loss < NOTHING_LOST]
        if harmless and len(self.harmless) < 4:
            self.add(Plan(
                f"{name} {harmless[-1]:g}, harmless", HEALTHY, "none", network,
                ((name, harmless[-1]),), inside=spec, common=kind.common,
            ), self.harmless)  # fmt: skip
        return 0

    @staticmethod
    def _level(losses: dict[float, float], turn: int) -> float | None:
        """The level of the strength whose turn it is, or of another one; None if none costs."""
        by_strength = {_strength(loss): level for level, loss in losses.items()}
        wanted = [list(STRENGTHS)[(turn + k) % 3] for k in range(3)]
        return next((by_strength[w] for w in wanted if w in by_strength), None)

    def _heads(self) -> None:
        """Two bad heads on a good encoder that cost something on ID and on OOD images alike."""
        model, made_so_far = self.networks.get("all"), 0
        made = images(self.group, PLAIN, (), JUDGED_ON, part="validation")
        own, chance = accuracy(model, made), 1 / CLASSES
        kinds = list(HEADS)
        for k in range(len(kinds)):
            kind = kinds[(2 * self.turn + k) % len(kinds)]
            losses = {
                level: (own - accuracy(with_bad_head(kind, level, model, self.group), made))
                / (own - chance)
                for level in HEADS[kind]
            }
            level = self._level(losses, self.turn + k)
            if level is not None and made_so_far < 2:
                made_so_far += 1
                self.add(Plan(f"head, {kind} {level:g}", "head", _strength(losses[level]), "all",
                              head=(kind, level)))  # fmt: skip

    def _measurement(self) -> None:
        """ID sets of training images, and OOD sets of ID images, which lose nothing."""
        few = self.networks.get("few")
        x, y = self.networks.training_images("few")
        known, new = accuracy(few, Images(x, y, y)), self._accuracy("few")
        lost = (known - new) / (known - 1 / CLASSES) > LOST
        self.add(Plan(
            "ID set of training images", "measurement", "strong" if lost else "mild", "few",
            inside=zoo_networks.BOTH, source="training images", accepted=() if lost else (HEALTHY,),
        ))  # fmt: skip
        if self.turn % 2:
            self.add(Plan("OOD set of ID images", "measurement", "mild", "plain",
                          source="same images", accepted=(HEALTHY,)))  # fmt: skip

    def _accuracy(self, network: str) -> float:
        """The accuracy on new images of all families."""
        made = images(self.group, zoo_networks.BOTH, (), JUDGED_ON, part="validation")
        return accuracy(self.networks.get(network), made)

    def _undertrained(self) -> None:
        """Networks that miss a part of the accuracy that more training gives."""
        best, chance = self._accuracy("all"), 1 / CLASSES
        for network in ("few", "short"):
            strength = ""
            if network in self.only:
                strength = _strength(1 - (self._accuracy(network) - chance) / (best - chance))
            if strength in ("medium", "strong"):
                self.add(Plan(f"{network}, same families", "undertrained", strength, network,
                              inside=zoo_networks.BOTH))  # fmt: skip

    def _mixed(self) -> None:
        """Two pairs of shifts, each of which costs something alone."""
        made_so_far = 0
        for k in range(len(MIXED)):
            pair = MIXED[(3 * self.turn + k) % len(MIXED)]
            kinds = [SHIFTS[name] for name in pair]
            if made_so_far == 2 or any(self.group.content not in kind.only for kind in kinds):
                continue
            network = "plain" if any(kind.stage == "background" for kind in kinds) else "all"
            levels = []
            for name, kind in zip(pair, kinds, strict=True):
                fit = [v for v in kind.levels if 0.15 < self.loss(network, [(name, v)]) < 0.75]
                levels += fit[(self.turn + k) % len(fit) :][:1] if fit else []
            if len(levels) == 2:
                made_so_far += 1
                shifts = tuple(zip(pair, levels, strict=True))
                self.add(self._with_shares(Plan(
                    " and ".join(f"{name} {level:g}" for name, level in shifts), "", "mixed",
                    network, shifts, inside=self.spec(network),
                )))  # fmt: skip

    def _with_shares(self, plan: Plan) -> Plan:
        """The plan with the points of each cause: Shapley values of the two shifts."""
        model, spec = self.networks.get(plan.network), plan.inside
        first, second = plan.shifts

        def points(*shifts: tuple[str, float]) -> float:
            return accuracy(model, images(self.group, spec, shifts, 600, first=600))

        neither, a, b, both = points(), points(first), points(second), points(*plan.shifts)
        shares = {
            SHIFTS[first[0]].cause: (neither - a + b - both) / 2,
            SHIFTS[second[0]].cause: (neither - b + a - both) / 2,
        }
        main = max(shares, key=lambda cause: shares[cause])
        others = tuple(cause for cause in shares if cause != main)
        close = abs(shares[main] - shares[others[0]]) < 0.25 * (neither - both)
        return replace(plan, cause=main, others=others, shares=tuple(shares.items()),
                       accepted=others if close else ())  # fmt: skip

    def _healthy(self) -> None:
        masks = CONTENTS[self.group.content].masks
        self.add(Plan("new images", HEALTHY, "none", "plain"))
        spec = self.spec("linked")
        self.add(Plan("reliance without loss", HEALTHY, "none", "linked", inside=spec))
        if self.turn % 3 == 0:
            self.add(Plan("noisy labels everywhere", HEALTHY, "none", "noisy",
                          common=(("wrong labels", 0.3),), inside=zoo_networks.BOTH))  # fmt: skip
        self.add(Plan("new images, all", HEALTHY, "none", "all", inside=zoo_networks.BOTH))
        self.add(Plan("new images, again", HEALTHY, "none", "plain", paired=False))
        self.plans[-1] = replace(self.plans[-1], images=(600, 500), masks=False, reference=False)
        for name in ("more hard classes", "swapped classes", "noise", "bright", "mirrored"):
            kind = SHIFTS[name]
            if name == "swapped classes" or self.group.content not in kind.only:
                continue
            level = kind.levels[0]
            if len(self.harmless) < 4 and self.loss("all", [(name, level)]) < NOTHING_LOST:
                self.add(Plan(f"{name} {level:g}, harmless", HEALTHY, "none", "all",
                              ((name, level),)), self.harmless)  # fmt: skip
        if masks:
            for name in ("new families", "one color behind"):
                if self.loss("all", [(name, 1.0)]) < NOTHING_LOST:
                    self.add(Plan(f"{name}, trained on them", HEALTHY, "none", "all",
                                  ((name, 1.0),)))  # fmt: skip

    def _artifacts(self) -> None:
        """Two losses of a network that relies on a tag, a JPEG quality or a size, and none."""
        wanted = f"{self.group.marked} shortcut"
        name = next(name for name, kind in SHIFTS.items() if kind.cause == wanted)
        for turn in range(2):
            self._shifted(name, self.turn + turn)
        self.add(Plan("reliance on an artifact without loss", HEALTHY, "none", "marked",
                      inside=self.spec("marked")))  # fmt: skip


def _strength(loss: float) -> str:
    """The strength of a loss, or an empty string."""
    return next((name for name, (low, high) in STRENGTHS.items() if low < loss <= high), "")


def reference(networks: Networks) -> torch.nn.Module | None:
    """An encoder of a group's inputs that was trained on shifts of all kinds; None for textures.

    It stands for a network that was trained on much more varied data. No training image lacks the
    information about its class.
    """
    content = networks.group.content
    if not CONTENTS[content].masks:
        return None
    group = Group(content, "resnet8", 12, 1000)
    kinds = [
        name for name, kind in SHIFTS.items()
        if kind.stage in ("objects", "images") and content in kind.only
        and kind.cause != "information missing"
    ]  # fmt: skip

    def make() -> tuple[Tensor, Tensor]:
        parts = []
        for k, name in enumerate([*[""] * REFERENCE_PLAIN, *kinds]):
            levels = SHIFTS[name].levels[-3:] if name else ()
            shifts = ((name, levels[k % len(levels)]),) if name else ()
            made = images(
                group, zoo_networks.BOTH, shifts, REFERENCE_IMAGES, part="train",
                first=REFERENCE_IMAGES * k,
            )  # fmt: skip
            parts.append((made.x, made.y))
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        order = torch.randperm(len(y), generator=generator_for(group.seed, "zoo/reference"))
        return x[order], y[order]

    model = Networks(group, networks.folder.parent).get("reference", make)
    return FromInputs(model.encoder, networks.group)


def available(groups: Sequence[Group]) -> list[Group]:
    """The groups whose files are there."""
    return [g for g in groups if g.content not in FILES or FILES[g.content].is_dir()]


def plans(planner: Planner) -> list[Plan]:
    """The cases of a group; they are kept on disk, since choosing them takes seconds."""
    sources = [Path(__file__).read_bytes(), Path(zoo_networks.__file__).read_bytes()]
    choice = f"{planner.turn} {planner.only}".encode()
    code = hashlib.sha256(b"".join([choice, *sources])).hexdigest()[:8]
    path = planner.networks.folder / f"plans-{code}.json"
    if not path.exists():
        made = planner.run()
        path.write_text(json.dumps([asdict(plan) for plan in made]))
    return [_plan(row) for row in json.loads(path.read_text())]


def _plan(row: dict[str, Any]) -> Plan:
    row["inside"] = ImageSpec(**{**row["inside"], "families": tuple(row["inside"]["families"])})
    for key in ("shifts", "common", "shares"):
        row[key] = tuple((name, value) for name, value in row[key])
    for key in ("head", "images", "accepted", "others"):
        row[key] = None if row[key] is None else tuple(row[key])
    return Plan(**row)


def case(plan: Plan, planner: Planner) -> Case:
    """A case with its data."""
    group, networks = planner.group, planner.networks
    model = networks.get(plan.network)
    if plan.head is not None:
        model = with_bad_head(*plan.head, model, group)
    n, m = plan.images
    own = images(group, plan.inside, plan.common, n)
    if plan.source == "training images":
        x, y = networks.training_images(plan.network)
        own = Images(x[:n], y[:n], scenes(
            plan.inside, group.content, len(x), seed=group.seed, part="train"
        ).objects.mask[:n])  # fmt: skip
    if plan.source == "same images":
        other = Images(*(part[: min(m, n)] for part in own))
    else:
        first = 0 if plan.paired else n
        hard = NOISY if ("noisy classes", 0.6) in plan.common else planner.hard(plan.network)
        shifts = (*plan.common, *plan.shifts)
        other = images(group, plan.inside, shifts, m, first=first, hard=hard)
    encoder = reference(networks) if plan.reference else None
    return Case(group, plan, model, own, other, encoder)
