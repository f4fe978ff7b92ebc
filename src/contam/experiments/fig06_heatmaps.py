"""Heat maps while the background shifts: on ID images, on OOD images, and between."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import OOD
from contam.data.images import FolderDomain
from contam.data.shapes import CLASSES, Scenes, blended, splits, stylized
from contam.data.style_transfer import restyled
from contam.experiment import Claim, Experiment, NotJudged, Stage, Statement, judge_all
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    CALIBRATED,
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)
from contam.experiments.support.per_network import (
    CONTROLS,
    by_network,
    measure_each,
    network_table,
    null,
    one_image,
    require_learning,
    smallest_control,
)
from contam.measures.class_means import ClassMeans
from contam.measures.gradcam import (
    grad_cam,
    grad_cam_plus_plus,
    heat_maps,
    heat_on_object,
    heat_share,
)
from contam.measures.selectivity import selectivity
from contam.models.blocks import blocks_of
from contam.models.observe import observe
from contam.models.preparation import Preparation
from contam.plots import Figure, Panel, Tile, bars, lines, over_seeds, share_axes
from contam.plots import heat_maps as heat_sheet
from contam.rng import generator_for
from contam.run import DataFrame, Run

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the OOD background in the controlled shift."""
PLUS, PLAIN = "Grad-CAM++", "Grad-CAM"
"""The paper cites Grad-CAM++, which counts only evidence for a class; Grad-CAM counts both."""
SHOWN = 4
"""ID images, and OOD images, in the figure of natural shifts."""
KEPT = 40
"""Objects of the controlled shift whose heat is stored, to choose one for a figure."""
BATCH, SMALL_BATCH = 200, 32
"""Images in a batch; those from folders are larger, and their gradients need more memory."""


class ControlledShift(NamedTuple):
    """A shift of the embedded benchmark with a strength."""

    draw: Callable[..., Scenes]
    """From a seed, a strength and a number of objects."""
    axis: str
    title: str
    about: str


SHIFTS = {
    "shift": ControlledShift(
        blended, "share of the OOD background", "while its background changes",
        "The object does not change, and its background turns from an ID one into an OOD one.",
    ),
    "style": ControlledShift(
        stylized, "strength of the style transfer", "in the style of an OOD background",
        "The image takes the colors, the contrast and the strength of details of an OOD "
        "background, by matching the mean and standard deviation of filter responses. The object "
        "changes its colors too.",
    ),
}  # fmt: skip
"""The exchange of backgrounds, and style transfer."""
OTHERS = {"ERM": ERM, "untrained": UNTRAINED, "calibrated": CALIBRATED}
PHRASES = {"teacher": "the teacher", "student": "the student", "ERM": "the standard network"}
NO_MASKS = "the data has neither masks of its objects nor a controlled shift of the background"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (Sec. 5) unless a field says otherwise."""

    networks: Networks = Networks(data="domainnet", standard=None)
    others: tuple[Literal["ERM", "untrained", "calibrated"], ...] = ("untrained", "calibrated")
    """Ours: networks to compare with the teacher and the student; two have random weights."""
    images: PositiveInt = 200
    """Ours: images of each OOD test; the ID test has as many as all OOD tests together. Of a
    published benchmark, as many ID images are restyled."""
    objects: PositiveInt = 600
    """Ours: objects under the controlled shifts of the embedded benchmark."""
    seeds: PositiveInt = 1

    @property
    def specs(self) -> list[NetworkSpec]:
        """The networks that are compared."""
        return [TEACHER, STUDENT, *(OTHERS[name] for name in dict.fromkeys(self.others))]


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={"networks": SMALL_NETWORKS, "others": ("ERM", "untrained", "calibrated"), "seeds": 3}
)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "images": 40, "objects": 200, "seeds": 2}
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and compute the heat maps of each."""
    yield from measure_each(
        run, config.networks, config.seeds, partial(_measure, config), chosen=config.specs
    )


def _measure(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Heat on natural tests, and under the controlled shift where the data has one."""
    rows, arrays = _natural(config, zoo, spec)
    for shift in _shifts(config):
        changed = _drawn_shift if config.networks.masked else _restyled
        more_rows, more_arrays = _shifted(zoo, spec, shift, changed(config, zoo, spec, shift))
        rows, arrays = rows + more_rows, arrays | more_arrays
    return rows, arrays


def _natural(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Predictions and heat on the ID test and on every OOD test, with a few images of them."""
    rows: list[dict[str, Any]] = []
    pictures, heat = [], []
    layers: dict[str, str] = {}
    tests = embedded_tests(config, zoo) if config.networks.masked else _read(config, zoo, spec)
    for index, test in enumerate(tests):
        model = ScoredNetwork(zoo.network(spec), test.scores)
        layers = layers or {"last": heat_layers(model, test.images)["last"]}
        observed = observe_heat(model, test.images, layers)
        where = {"set": "natural", "role": test.role, "test": test.images.name}
        rows += [where | row for row in [observed.answers, *observed.heated(test.mask)]]
        which = pictured(index, len(tests) - 1, config.images) % len(test.images)
        if len(which):
            few = _pick(test.images, which)
            shown = observe_heat(model, few, layers)
            for y, predicted in zip(shown.y.tolist(), shown.predicted.tolist(), strict=True):
                answer = {"class": test.classes[y], "predicted": test.classes[predicted]}
                rows.append(where | {"what": "shown"} | answer)
            pictures += [eight_bits(x) for x in few.data.x]
            heat.append(shown.heat["last", PLUS])
    return rows, {"pictures": torch.stack(pictures), "heat": torch.cat(heat)}


def pictured(index: int, ood: int, images: int) -> Tensor:
    """Return the indices of the images of a test that a figure shows.

    The OOD tests take turns, and the ID test shows the same objects.

    Args:
        index: index of the test; 0 is the ID test.
        ood: number of OOD tests.
        images: images of each OOD test.

    Source: ours, a figure shows the same objects in all tests.

    >>> pictured(1, 2, 40).tolist()
    [0, 2]
    """
    turns = range(SHOWN)
    if index == 0:
        places = [k % ood * images + k for k in turns]
    else:
        places = [k for k in turns if k % ood == index - 1]
    return torch.tensor(places, dtype=torch.int64)


class ChangedImages(NamedTuple):
    """The same objects while the image changes."""

    at: Callable[[float], Batch]
    """The images at a strength."""
    mask: Tensor | None
    """(n, height, width) True on the object."""
    classes: Sequence[str]


def _drawn_shift(config: Config, zoo: ModelZoo, spec: NetworkSpec, shift: str) -> ChangedImages:
    """A controlled shift of the embedded benchmark."""

    def at(strength: float) -> Batch:
        return SHIFTS[shift].draw(zoo.seed, strength, n=config.objects).batch

    mask = SHIFTS[shift].draw(zoo.seed, 0.0, n=config.objects).mask[:, 0] > 0.5
    return ChangedImages(at, mask, CLASSES)


def _restyled(config: Config, zoo: ModelZoo, spec: NetworkSpec, shift: str) -> ChangedImages:
    """ID images of a published benchmark in the style of OOD images."""
    own, *others = _read(config, zoo, spec)
    images = _whole(_pick(own.images, torch.arange(min(config.images, len(own.images)))))
    styles = torch.cat([_whole(test.images).x for test in others])
    order = torch.randperm(len(styles), generator=generator_for(zoo.seed, "heat/styles"))
    styles = styles[order[torch.arange(len(images.y)) % len(styles)]]
    transform = own.images.transform if isinstance(own.images, FolderDomain) else None
    colors = (transform.mean, transform.std) if isinstance(transform, Preparation) else (0.0, 1.0)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in colors)

    def at(strength: float) -> Batch:
        # The statistics are those of pixels in [0, 1], not of normalized colors.
        content, style = ((x * std + mean).clamp(0, 1) for x in (images.x, styles))
        return images._replace(x=(restyled(content, style, strength) - mean) / std)

    return ChangedImages(at, None, own.classes)


def _whole(domain: Domain) -> Batch:
    """All examples of a domain in one batch."""
    batches = [*domain.batches(SMALL_BATCH)]
    x, y, origin = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return Batch(x, y, origin)


def _shifted(
    zoo: ModelZoo, spec: NetworkSpec, shift: str, changed: ChangedImages
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Predictions, selectivity and heat on the same objects while the image changes."""
    model = ScoredNetwork(zoo.network(spec), unchanged)
    rows: list[dict[str, Any]] = [{"set": shift, "what": "names", "names": list(changed.classes)}]
    heat, predicted, pictures = [], [], []
    layers: dict[str, str] = {}
    size = SMALL_BATCH if changed.mask is None else BATCH
    for strength in STRENGTHS:
        batch = changed.at(strength)
        images = Domain(f"{shift} of {strength}", batch)
        layers = layers or heat_layers(model, images)
        observed = observe_heat(model, images, layers, size)
        y = observed.y.unique(return_inverse=True)[1]
        means = ClassMeans(int(y.max()) + 1, observed.features.shape[1]).update(
            observed.features, y
        )
        prefers = {"selectivity": float(selectivity(means.compute()).mean())}
        where = {"set": shift, "strength": strength}
        few = [observed.answers | prefers, *observed.heated(changed.mask)]
        rows += [where | row for row in few]
        heat.append(observed.heat["last", PLUS][:KEPT])
        predicted.append(observed.predicted[:KEPT])
        pictures.append(torch.stack([eight_bits(x) for x in batch.x[:KEPT]]))
    arrays = {"heat": torch.stack(heat), "predicted": torch.stack(predicted)}
    if spec == TEACHER:
        arrays |= {"pictures": torch.stack(pictures), "y": batch.y[:KEPT]}
    return rows, {f"{shift}_{name}": values for name, values in arrays.items()}


class HeatmapTest(NamedTuple):
    """Images of a natural test, with their classes and masks."""

    role: str
    images: Domain
    classes: Sequence[str]
    scores: Callable[[Tensor], Tensor]
    mask: Tensor | None
    """(n, height, width) True on the object."""


def _shifts(config: Config) -> list[str]:
    """The controlled shifts of the data: images without masks are only restyled."""
    return [*SHIFTS] if config.networks.masked else ["style"]


def embedded_tests(config: Config, zoo: ModelZoo) -> list[HeatmapTest]:
    """The embedded benchmark's ID test, and its OOD tests with the same objects in the same order.

    Source: ours, the same objects in all tests, so that only backgrounds differ.
    """
    # Nothing is trained on these images, so the training and validation splits are minimal.
    scenes = splits(
        zoo.seed, train=40, id_val=40, id_test=len(OOD) * config.images, ood_test=config.images
    )
    tests = []
    for key, name in [("id_test", "ID"), *((f"ood/{name}", name) for name in OOD)]:
        role, mask = "id" if name == "ID" else "ood", scenes[key].mask[:, 0] > 0.5
        tests.append(HeatmapTest(role, Domain(name, scenes[key].batch), CLASSES, unchanged, mask))
    return tests


def _read(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> list[HeatmapTest]:
    """Images of a published benchmark, drawn from its tests."""
    benchmark = zoo.benchmark(spec)
    own, ood = benchmark.shift.id_test, benchmark.shift.ood_tests
    names = benchmark.shift.classes
    tests = []
    for test in (own, *ood):
        count = config.images * (len(ood) if test is own else 1)
        order = torch.randperm(len(test), generator=generator_for(zoo.seed, f"heat/{test.name}"))
        # Tests of some of the classes number them differently.
        classes = [str(k) for k in range(len(names))] if test.name in benchmark.scorings else names
        role, images = "id" if test is own else "ood", _pick(test, order[:count])
        tests.append(HeatmapTest(role, images, classes, partial(benchmark.scores, test), None))
    return tests


def unchanged(logits: Tensor) -> Tensor:
    return logits


def _pick(domain: Domain, which: Tensor) -> Domain:
    if isinstance(domain, FolderDomain):
        return domain.pick(which)
    return Domain(domain.name, domain.data.pick(which))


def eight_bits(x: Tensor) -> Tensor:
    """Convert a network's input to eight bits; values outside [0, 1] stretch the scale.

    Source: ours, pictures are stored as bytes, because a run has many.

    >>> eight_bits(torch.tensor([-1.0, 0.0, 3.0])).tolist()
    [0, 64, 255]
    """
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1.0)
    return ((x - low) / (high - low) * 255).round().to(torch.uint8)


class ScoredNetwork(nn.Module):
    """A network with the scoring of a test applied to its logits."""

    def __init__(self, network: nn.Module, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.network(x))


def heat_layers(model: nn.Module, images: Domain) -> dict[str, str]:
    """The last residual block, and the last one before it with finer maps.

    Source: ours, heat at two resolutions, because maps of the last block are coarse.

    Raises:
        ValueError: the network has no residual blocks.
    """
    x = one_image(model, images)
    names = [block.name for block in blocks_of(model, x)]
    rows = {name: heat_maps(model, x, name, formula=grad_cam).shape[1] for name in names}
    finer = [name for name in names if rows[name] > rows[names[-1]]]
    return {"last": names[-1], "fine": finer[-1] if finer else names[-1]}


@dataclass(frozen=True)
class Heat:
    """Predictions, features and heat of some images."""

    y: Tensor
    predicted: Tensor
    features: Tensor
    heat: dict[tuple[str, str], Tensor]
    """(n, rows, columns) for the true class, by map ("last" or "fine") and formula."""

    @property
    def answers(self) -> dict[str, Any]:
        correct, count = int((self.predicted == self.y).sum()), len(self.y)
        return {"what": "answers", "correct": correct, "count": count, "accuracy": correct / count}

    def heated(self, mask: Tensor | None) -> Iterator[dict[str, Any]]:
        """Mean heat of the image and of the object, and the object's share of it, for each map."""
        for (where, formula), heat in self.heat.items():
            row = {"what": "heat", "map": where, "side": heat.shape[1], "formula": formula}
            row |= {"picture": float(heat.mean())}
            if mask is not None:
                row |= {"object": float(heat_on_object(heat, mask).mean())}
                row |= {"share": float(heat_share(heat, mask).nanmean())}
                row |= {"area": float(mask.float().mean())}
            yield row


def observe_heat(
    model: nn.Module, images: Domain, layers: dict[str, str], size: int | None = None
) -> Heat:
    """Predictions, features, and the heat of the true class.

    Args:
        model: the network.
        images: the images.
        layers: layers of the heat, by name.
        size: images in a batch; None for many, or for few from folders, which are larger.

    Source: Fig. 6.
    """
    y, predicted, features = [], [], []
    heat: dict[tuple[str, str], list[Tensor]] = {}
    size = size or (SMALL_BATCH if isinstance(images, FolderDomain) else BATCH)
    for observation in observe(model, images.batches(size), ["network.encoder"]):
        y.append(observation.batch.y.cpu())
        predicted.append(observation.logits.argmax(dim=1).cpu())
        features.append(observation.layers["network.encoder"].cpu())
        for where, layer in layers.items():
            for formula, maps in _both(model, observation.batch, layer).items():
                heat.setdefault((where, formula), []).append(maps.cpu())
    whole = {key: torch.cat(maps) for key, maps in heat.items()}
    return Heat(torch.cat(y), torch.cat(predicted), torch.cat(features), whole)


def _both(model: nn.Module, batch: Batch, layer: str) -> dict[str, Tensor]:
    """Heat by both formulas, from one pass."""
    plain: dict[str, Tensor] = {}

    def formula(maps: Tensor, gradients: Tensor) -> Tensor:
        plain[PLAIN] = grad_cam(maps, gradients)
        return grad_cam_plus_plus(maps, gradients)

    return {PLUS: heat_maps(model, batch.x, layer, batch.y, formula=formula)} | plain


def _where(table: DataFrame, **values: Any) -> DataFrame:
    """The rows that have these values."""
    for column, value in values.items():
        table = table[table[column] == value] if column in table else table[:0]
    return table


def _ratio(table: DataFrame, over: DataFrame, column: str) -> DataFrame:
    """A column over that of other rows, seeds by networks; NaN over zero."""
    if column not in table or table[column].isna().all():
        raise NotJudged(NO_MASKS)
    whole = by_network(over, column)
    return (by_network(table, column) / whole).where(whole != 0)


def under_shift(table: DataFrame, column: str, *, shift: str = "shift", **which: Any) -> DataFrame:
    """A quantity under a whole controlled shift, over that without it; seeds by networks.

    Args:
        table: the rows of all networks.
        column: the quantity.
        shift: a name of `SHIFTS`.
        which: values of other columns that choose rows.

    Source: Fig. 6.

    Raises:
        NotJudged: the data has no controlled shift.
    """
    start, end = (_where(table, set=shift, strength=STRENGTHS[k], **which) for k in (0, -1))
    return _ratio(end, start, column)


def under_natural_shift(table: DataFrame, column: str, **which: Any) -> DataFrame:
    """A quantity on the OOD tests, their mean, over that on the ID test; seeds by networks.

    Source: Fig. 6.

    Raises:
        NotJudged: the quantity needs masks, and the data has none.
    """
    id_, ood = (_where(table, set="natural", role=role, **which) for role in ("id", "ood"))
    return _ratio(ood, id_, column)


def _require_learning(table: DataFrame, *names: str) -> None:
    """Require that networks learned, by their accuracy on the natural ID test."""
    require_learning(_where(table, set="natural", role="id", what="answers"), "accuracy", names)


def _compared(
    better: str, worse: str, of: str, column: str, source: str, **which: Any
) -> Statement:
    """A claim that one network keeps more of a quantity than another on the natural tests."""

    def measure(table: DataFrame) -> list[float]:
        ratios = under_natural_shift(table, column, **which)
        _require_learning(table, better, worse)
        return (ratios[better] - ratios[worse]).tolist()

    return Statement(
        f"On the natural tests {PHRASES[better]} keeps more {of} than {PHRASES[worse]}", source,
        f"{of}, OOD over ID: {better} minus {worse}", measure, low=0.0, every_seed=True,
    )  # fmt: skip


def _falling(
    trained: list[str], of: str, column: str, source: str, **which: Any
) -> list[Statement]:
    """Claims that the controlled shift lowers a quantity in all networks, in the teacher least."""

    def largest(table: DataFrame) -> list[float]:
        ratios = under_shift(table, column, **which)
        _require_learning(table, *trained)
        return ratios[trained].max(axis=1, skipna=False).tolist()

    def advantage(table: DataFrame) -> list[float]:
        ratios = under_shift(table, column, **which)
        _require_learning(table, *trained)
        return (ratios.teacher - ratios[trained[1:]].max(axis=1, skipna=False)).tolist()

    return [
        Statement(f"The controlled shift lowers {of} in every trained network", source,
                  f"{of} after the shift over before, the largest", largest, high=1.0,
                  every_seed=True),
        Statement(f"The teacher loses the least {of} under the controlled shift", source,
                  f"{of} after the shift over before, teacher minus the best of the others",
                  advantage, low=0.0, every_seed=True),
    ]  # fmt: skip


def _style(worse: str, of: str, column: str, **which: Any) -> Statement:
    """A claim that style transfer takes more of a quantity from a network than from the teacher."""

    def measure(table: DataFrame) -> list[float]:
        ratios = under_shift(table, column, shift="style", **which)
        _require_learning(table, "teacher", worse)
        return (ratios.teacher - ratios[worse]).tolist()

    return Statement(
        f"Under style transfer the teacher keeps more {of} than {PHRASES[worse]}", "Fig. 6",
        f"{of} after style transfer over before: teacher minus {worse}", measure, low=0.0,
        every_seed=True,
    )  # fmt: skip


def _share_falls(where: str, name: str) -> Statement:
    which = {"what": "heat", "map": where, "formula": PLAIN}

    def share(table: DataFrame) -> list[float]:
        ratios = under_shift(table, "share", **which)
        _require_learning(table, "student")
        return ratios.student.tolist()

    return Statement(
        f"On the {name} maps, the share of the student's heat on the object falls with the shift",
        "ours", f"share of heat ({PLAIN}) after the shift over before, {name} maps",
        share, high=0.9, every_seed=True,
    )  # fmt: skip


def statements(config: Config) -> list[Statement]:
    """The table of claims on the networks of a config.

    Source: Fig. 6.
    """
    trained = [spec.name for spec in config.specs if spec not in CONTROLS]
    heat: dict[str, Any] = {"what": "heat", "map": "last"}
    on_object = {formula: f"heat on the object ({formula})" for formula in (PLUS, PLAIN)}
    table = [
        _compared("teacher", "student", "accuracy", "accuracy", "Sec. 2", what="answers"),
        _compared("teacher", "student", f"heat of the picture ({PLUS})", "picture", "Fig. 6",
                  formula=PLUS, **heat),
        *(_compared(better, worse, of, "object", "Fig. 6", formula=formula, **heat)
          for formula, of in on_object.items() for better, worse in pairwise(trained)),
        *_falling(trained, "accuracy", "accuracy", "ours", what="answers"),
        *_falling(trained, "selectivity (Eq. 61)", "selectivity", "Fig. 5", what="answers"),
        *(statement for formula, of in on_object.items()
          for statement in _falling(trained, of, "object", "Fig. 6", formula=formula, **heat)),
    ]  # fmt: skip
    table += [
        _style("student", "accuracy", "accuracy", what="answers"),
        _style("student", f"heat of the picture ({PLAIN})", "picture", formula=PLAIN, **heat),
        _style("student", f"heat on the object ({PLAIN})", "object", formula=PLAIN, **heat),
    ]
    if any(spec in CONTROLS for spec in config.specs):
        table.append(
            Statement(
                "The fall is learned: untrained networks keep their heat", "ours",
                f"heat on the object ({PLUS}) after the shift over before, the smallest of the "
                "untrained networks",
                lambda table: smallest_control(
                    under_shift(table, "object", formula=PLUS, **heat)
                ).tolist(),
                low=0.95, about_learning=False,
            )
        )  # fmt: skip
    return [*table, _share_falls("fine", "finer"), _share_falls("last", "last")]


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether accuracy and heat fall with the shift, and least in the teacher."""
    config = Config.model_validate(run.config)
    return judge_all(statements(config), network_table(run, config.specs))


def draw(run: Run) -> Sequence[Figure]:
    """Heat maps as in the paper, then their numbers over many images."""
    config = Config.model_validate(run.config)
    table = network_table(run, config.specs)
    figures = [_sheet(config, run, table)]
    figures += [_object(config, run, table, shift) for shift in _shifts(config)]
    figures += [_curves(config, table, shift) for shift in _shifts(config)]
    if config.networks.masked:
        figures.append(_shares(table))
    return [*figures, _natural_tests(config, table)]


def _sheet(config: Config, run: Run, table: DataFrame) -> Figure:
    """Figure 6a, with ID images on the left and OOD images on the right."""
    pictures = [_shown(x) for x in run.arrays("net/teacher/seed0")["pictures"]]
    shown = _where(table, what="shown", seed=0)
    tiles: list[Tile] = []
    for name, rows in shown.groupby("network", sort=False):
        heads = [
            f"{'ID' if role == 'id' else 'OOD'} {i % SHOWN + 1}: {thing}"
            for i, (role, thing) in enumerate(zip(rows.role, rows["class"], strict=True))
        ]
        tiles = tiles or [Tile(head, "picture", x) for head, x in zip(heads, pictures, strict=True)]
        maps = run.arrays(f"net/{name}/seed0")["heat"].numpy()
        notes = [_note(p, right=p == y) for p, y in zip(rows.predicted, rows["class"], strict=True)]
        columns = zip(heads, pictures, maps, notes, strict=True)
        tiles += [Tile(head, name, picture, heat, note) for head, picture, heat, note in columns]
    panel = heat_sheet(
        tiles,
        title="Heat for the true class, ID on the left and OOD on the right",
        x="image",
        y="network",
        heat="heat",
    )
    same = " The same objects are on both sides." if config.networks.masked else ""
    return Figure(
        "Heat on natural images",
        f"{PLUS} at the last maps of the first seed's networks, not normalized: within a row, "
        f"brighter is more. Below each tile is the network's prediction.{same} The images are the "
        "first of the tests, not selected.",
        "Fig. 6",
        (panel,),
    )


def _object(config: Config, run: Run, table: DataFrame, shift: str) -> Figure:
    """Figure 6b: one object under a growing shift."""
    chosen_shift = SHIFTS[shift]
    predicted = run.arrays("net/student/seed0")[f"{shift}_predicted"]
    shown = run.arrays("net/teacher/seed0")
    names = _where(table, set=shift, what="names").names.iloc[0]
    y = shown[f"{shift}_y"]
    lost = (predicted[0] == y) & (predicted[-1] != y)
    chosen = int(lost.nonzero()[0]) if lost.any() else 0
    heads = [f"{strength:.0%}" for strength in STRENGTHS]
    pictures = [_shown(images[chosen]) for images in shown[f"{shift}_pictures"]]
    tiles = [Tile(head, "picture", x) for head, x in zip(heads, pictures, strict=True)]
    for spec in config.specs:
        arrays = run.arrays(f"net/{spec.name}/seed0")
        for k, head in enumerate(heads):
            answer = int(arrays[f"{shift}_predicted"][k, chosen])
            note = _note(names[answer], right=answer == int(y[chosen]))
            heat = arrays[f"{shift}_heat"][k, chosen].numpy()
            tiles.append(Tile(head, spec.name, pictures[k], heat, note))
    panel = heat_sheet(
        tiles,
        title=f"{names[int(y[chosen])]} {chosen_shift.title}",
        x=chosen_shift.axis,
        y="network",
        heat="heat",
    )
    return Figure(
        f"One object {chosen_shift.title}",
        f"{chosen_shift.about} {PLUS} for the true class at the last maps, not normalized. It is "
        "the first object that the first seed's student recognizes before the shift and not after "
        "it, if there is one.",
        "Fig. 6",
        (panel,),
    )


def _note(predicted: str, *, right: bool) -> str:
    return f"{'✓' if right else '✗'} {predicted}"


def _shown(picture: Tensor) -> np.ndarray:
    """(height, width, 3) in [0, 1]."""
    return picture.permute(1, 2, 0).float().div(255).numpy()


def _curves(config: Config, table: DataFrame, shift: str) -> Figure:
    """The numbers of a controlled shift."""
    answers, heat = _where(table, what="answers"), _where(table, what="heat", map="last")
    masked = config.networks.masked
    column, of, whose = ("object", "the object", "its pixels") if masked else (
        "picture", "the picture", "all pixels"
    )  # fmt: skip
    count = config.objects if masked else config.images
    curves = [
        _along(answers, "accuracy", "Accuracy", "accuracy", shift),
        _along(answers, "selectivity", "Selectivity", "mean selectivity of the features (Eq. 61)",
               shift),
        _along(_where(heat, formula=PLUS), column, f"Heat on {of}, {PLUS}",
               f"mean heat of {whose}", shift),
        _along(_where(heat, formula=PLAIN), column, f"Heat on {of}, {PLAIN}",
               f"mean heat of {whose}, in units of the logit", shift),
    ]  # fmt: skip
    return Figure(
        f"{count} objects {SHIFTS[shift].title}, in numbers",
        f"{SHIFTS[shift].about} The objects are the same at every strength. Mean over seeds; "
        "bands: all seeds. Heat is of the true class, at the last "
        f"maps, and not normalized. {PLUS} sums only the evidence for the class, so its size can't "
        f"be compared between networks; {PLAIN} subtracts the evidence against it.",
        "Fig. 6",
        tuple(panel for panel, _ in curves),
        tuple(row for _, rows in curves for row in rows),
    )


def _shares(table: DataFrame) -> Figure:
    """The share of the heat on the object, and why the last maps don't show the shift."""
    heat = _where(table, what="heat", set="shift")
    panels, rows = [], []
    for (formula, side), some in sorted(heat.groupby(["formula", "side"]), key=_formula_and_size):
        title = f"{formula}, maps of {side} x {side}"
        panel, curves = _along(some, "share", title, "share of the heat on the object")
        panels.append(panel)
        rows += curves
    return Figure(
        "Share of the heat on the object",
        "On the last maps the share hardly changes: a position covers much of the image, and its "
        "heat is spread over all of it, so the share stays near that of even heat (the object's "
        "share of the area) even where the heat itself falls. The finer maps of an earlier block "
        "show more. Images without any heat are left out.",
        "ours",
        share_axes(panels, "y"),
        tuple(rows),
    )


def _formula_and_size(group: tuple[Any, DataFrame]) -> tuple[str, int]:
    (formula, side), _ = group
    return formula, -side


def _along(
    table: DataFrame, column: str, title: str, axis: str, shift: str = "shift"
) -> tuple[Panel, list[dict[str, Any]]]:
    """A curve for each network along a controlled shift, and its rows."""
    table = _where(table, set=shift)
    rows = over_seeds(table, ["network", "strength"], column)
    if column == "share":
        even = over_seeds(_where(table, network="teacher"), ["strength"], "area")
        rows += [row | {"network": "even heat", "share": row["area"]} for row in even]
    rows.sort(key=lambda row: [*table.network.unique(), "even heat"].index(row["network"]))
    rows = [row | {"quantity": title} for row in rows]
    panel = lines(
        rows,
        title=title,
        x=("strength", SHIFTS[shift].axis),
        y=(column, axis),
        series=("network", ""),
        points=True,
    )
    return panel, rows


def _natural_tests(config: Config, table: DataFrame) -> Figure:
    """Accuracy and heat on each natural test."""
    place, name = ("object", "the object") if config.networks.masked else ("picture", "the picture")
    heat = _where(table, what="heat", map="last")
    chosen = [("accuracy", "Accuracy", _where(table, what="answers"))]
    chosen += [(place, f"Heat on {name}, {formula}", _where(heat, formula=formula))
               for formula in (PLUS, PLAIN)]  # fmt: skip
    panels, rows = [], []
    for column, title, some in chosen:
        own = _where(some, set="natural", role="id")[["network", "seed", column]]
        ood = _where(some, set="natural", role="ood").merge(
            own, on=["network", "seed"], suffixes=("", "_id")
        )
        ratio = (ood[column] / ood[f"{column}_id"]).where(ood[f"{column}_id"] != 0)
        means = over_seeds(ood.assign(**{"OOD over ID": ratio}), ["test", "network"], "OOD over ID")
        tests = [*ood.test.unique()]
        means.sort(key=lambda row: tests.index(row["test"]))
        panels.append(
            bars(
                means,
                title=title,
                x=("test", "OOD test"),
                y=("OOD over ID", "on the OOD test, over that on the ID test"),
                series=("network", ""),
                wide=True,
            )
        )
        rows += [row | {"quantity": title} for row in means]
    return Figure(
        "Accuracy and heat on natural tests",
        "Accuracy and heat of the true class on each OOD test, relative to the ID test. Mean over "
        "seeds; whiskers: all seeds.",
        "Fig. 6",
        tuple(panels),
        tuple(rows),
    )


def summarize(run: Run) -> str:
    """The heat and the accuracy that remain on OOD data, in a sentence."""
    config = Config.model_validate(run.config)
    table = network_table(run, config.specs)
    column, name = (
        ("object", "on the object") if config.networks.masked else ("picture", "of the picture")
    )
    heat = under_natural_shift(table, column, what="heat", map="last", formula=PLAIN)
    accuracy = under_natural_shift(table, "accuracy", what="answers")
    values = ", ".join(
        f"{PHRASES[spec.name]} {fmean(heat[spec.name]):.0%} and {fmean(accuracy[spec.name]):.0%}"
        for spec in config.specs
        if spec not in CONTROLS
    )
    return f"Heat {name} ({PLAIN}) and accuracy on OOD data, relative to ID data: {values}."


EXPERIMENT = Experiment(
    name="fig06_heatmaps",
    title="Heat maps: the object's heat falls when the background shifts",
    about="A heat map shows how much each position of an image supports its class. Heat maps are "
    "drawn for a teacher, its student and a standard network: on natural shifts, and on objects "
    "that do not change while their background does, or in the style of an OOD background, with "
    "masks of the objects. The third part of the figure is `fig13_padded_cifar`.",
    reproduces=("Fig. 6",),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 6."""
