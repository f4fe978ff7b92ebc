"""Where networks look while the background shifts: heat on ID images, on OOD ones and between."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import OOD
from contam.data.images import FolderDomain
from contam.data.shapes import CLASSES, blended, splits
from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)
from contam.experiments.support.per_network import one_image
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
from contam.plots import Figure, Panel, Tile, bars, lines, on_same_axes, over_seeds
from contam.plots import heat_maps as heat_sheet
from contam.rng import generator_for
from contam.run import Run

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the OOD background in the controlled shift."""
PLUS, PLAIN = "Grad-CAM++", "Grad-CAM"
"""The paper cites the first, which counts what speaks for a class; the second counts both."""
SHOWN = 4
"""Images of each kind in the picture of natural shifts."""
KEPT = 40
"""Objects of the controlled shift whose heat is kept, to choose one for the picture."""
BATCH, SMALL_BATCH = 200, 32
"""Images at a time, and those of folders, which are larger and whose gradients need the memory."""
TRAINING = 0.8
"""Of an experiment's time, roughly."""
OTHERS = {"ERM": ERM, "untrained": UNTRAINED}
SAID = {"teacher": "the teacher", "student": "the student", "ERM": "the standard network"}
NO_MASKS = "the data has neither masks of its objects nor a controlled shift"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (Sec. 5) unless a field says otherwise."""

    networks: Networks = Networks(data="domainnet", standard=None)
    others: tuple[Literal["ERM", "untrained"], ...] = ("untrained",)
    """Ours: networks beside the teacher and the student."""
    images: PositiveInt = 200
    """Ours: images of each OOD test, and for each of them as many of the ID test."""
    objects: PositiveInt = 600
    """Ours: objects under the controlled shift, which the embedded benchmark alone has."""
    seeds: PositiveInt = 1

    @property
    def specs(self) -> list[NetworkSpec]:
        """The networks that are compared."""
        return [TEACHER, STUDENT, *(OTHERS[name] for name in dict.fromkeys(self.others))]


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={"networks": SMALL_NETWORKS, "others": ("ERM", "untrained"), "seeds": 3}
)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "images": 40, "objects": 200, "seeds": 2}
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and look at the heat in each of them."""
    for seed in range(config.seeds):
        todo = {f"net/{each.name}/seed{seed}": each for each in config.specs}
        todo = {part: spec for part, spec in todo.items() if not run.has(part)}
        zoo = ModelZoo(config.networks, seed, run.folder.parent)
        for stage in zoo.train([*todo.values()]):
            yield Stage((seed + TRAINING * stage.done) / config.seeds, stage.doing)
        for index, (part, spec) in enumerate(todo.items()):
            done = TRAINING + (1 - TRAINING) * index / len(todo)
            yield Stage((seed + done) / config.seeds, f"seed {seed}: heat of {spec.name}")
            rows, arrays = _natural(config, zoo, spec)
            if _masked(config):
                more_rows, more_arrays = _shifted(config, zoo, spec)
                rows, arrays = rows + more_rows, arrays | more_arrays
            about = {"network": spec.name, "seed": seed}
            run.write(part, [about | row for row in rows], arrays)


def _natural(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Answers and heat on the ID test and on every OOD test, with a few pictures of them."""
    rows: list[dict[str, Any]] = []
    pictures, heat = [], []
    layers: dict[str, str] = {}
    tests = _drawn(config, zoo) if _masked(config) else _read(config, zoo, spec)
    for index, test in enumerate(tests):
        model = _Judged(zoo.network(spec), test.scores)
        layers = layers or {"last": _layers(model, test.images)["last"]}
        seen = _look(model, test.images, layers)
        told = {"set": "natural", "role": test.role, "test": test.images.name}
        rows += [told | row for row in [seen.answers, *seen.heated(test.mask)]]
        which = _pictured(index, len(tests) - 1, config.images) % len(test.images)
        if len(which):
            few = _picked(test.images, which)
            shown = _look(model, few, layers)
            for y, predicted in zip(shown.y.tolist(), shown.predicted.tolist(), strict=True):
                answer = {"class": test.classes[y], "predicted": test.classes[predicted]}
                rows.append(told | {"what": "shown"} | answer)
            pictures += [_as_picture(x) for x in few.data.x]
            heat.append(shown.heat["last", PLUS])
    return rows, {"pictures": torch.stack(pictures), "heat": torch.cat(heat)}


def _pictured(index: int, ood: int, images: int) -> Tensor:
    """Which images of a test have a picture: OOD tests take turns, and ID shows their objects."""
    turns = range(SHOWN)
    if index == 0:
        places = [k % ood * images + k for k in turns]
    else:
        places = [k for k in turns if k % ood == index - 1]
    return torch.tensor(places, dtype=torch.int64)


def _shifted(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Answers, selectivity and heat on the same objects before backgrounds that change."""
    model = _Judged(zoo.network(spec), _as_it_is)
    rows: list[dict[str, Any]] = []
    heat, predicted = [], []
    layers: dict[str, str] = {}
    for strength in STRENGTHS:
        shown = blended(zoo.seed, strength, n=config.objects)
        images = Domain(f"shift of {strength}", shown.batch)
        layers = layers or _layers(model, images)
        seen = _look(model, images, layers)
        means = ClassMeans(len(CLASSES), seen.features.shape[1]).update(seen.features, seen.y)
        prefers = {"selectivity": float(selectivity(means.compute()).mean())}
        told = {"set": "shift", "strength": strength}
        mask = shown.mask[:, 0] > 0.5
        rows += [told | row for row in [seen.answers | prefers, *seen.heated(mask)]]
        heat.append(seen.heat["last", PLUS][:KEPT])
        predicted.append(seen.predicted[:KEPT])
    return rows, {"shift_heat": torch.stack(heat), "shift_predicted": torch.stack(predicted)}


class _Test(NamedTuple):
    """Some images of a natural test, and what is known of them."""

    role: str
    images: Domain
    classes: Sequence[str]
    scores: Callable[[Tensor], Tensor]
    mask: Tensor | None
    """(n, height, width) where the object is."""


def _masked(config: Config) -> bool:
    """Whether the data has masks, and backgrounds that can be changed step by step."""
    return config.networks.data == "shapes"


def _drawn(config: Config, zoo: ModelZoo) -> list[_Test]:
    """The embedded benchmark's ID test, and its OOD tests with the same objects in their order."""
    # Nothing learns from these images, so there are as few for learning as there can be.
    found = splits(
        zoo.seed, train=40, id_val=40, id_test=len(OOD) * config.images, ood_test=config.images
    )
    tests = []
    for key, name in [("id_test", "ID"), *((f"ood/{name}", name) for name in OOD)]:
        role, mask = "id" if name == "ID" else "ood", found[key].mask[:, 0] > 0.5
        tests.append(_Test(role, Domain(name, found[key].batch), CLASSES, _as_it_is, mask))
    return tests


def _read(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> list[_Test]:
    """Images of a published benchmark, drawn from its tests."""
    benchmark = zoo.benchmark(spec)
    own, ood = benchmark.shift.id_test, benchmark.shift.ood_tests
    names = benchmark.shift.classes
    tests = []
    for test in (own, *ood):
        wanted = config.images * (len(ood) if test is own else 1)
        order = torch.randperm(len(test), generator=generator_for(zoo.seed, f"heat/{test.name}"))
        # Tests that know some of the classes alone number them in a way of their own.
        known = [str(k) for k in range(len(names))] if test.name in benchmark.scorings else names
        role, images = "id" if test is own else "ood", _picked(test, order[:wanted])
        tests.append(_Test(role, images, known, partial(benchmark.scores, test), None))
    return tests


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


def _picked(domain: Domain, which: Tensor) -> Domain:
    if isinstance(domain, FolderDomain):
        return domain.pick(which)
    return Domain(domain.name, domain.data.pick(which))


def _as_picture(x: Tensor) -> Tensor:
    """An image as a network sees it in eight bits; colors that leave [0, 1] are stretched to it."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1.0)
    return ((x - low) / (high - low) * 255).round().to(torch.uint8)


class _Judged(nn.Module):
    """A network that answers with the scores that a test asks for."""

    def __init__(self, network: nn.Module, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.network(x))


def _layers(model: nn.Module, images: Domain) -> dict[str, str]:
    """The output of the last residual block, and of the last one with finer maps than that."""
    x = one_image(model, images)
    names = [block.name for block in blocks_of(model, x)]
    rows = {name: heat_maps(model, x, name, formula=grad_cam).shape[1] for name in names}
    finer = [name for name in names if rows[name] > rows[names[-1]]]
    return {"last": names[-1], "fine": finer[-1] if finer else names[-1]}


@dataclass(frozen=True)
class _Seen:
    """What a network made of some images."""

    y: Tensor
    predicted: Tensor
    features: Tensor
    heat: dict[tuple[str, str], Tensor]
    """(n, rows, columns) for the true class by map, last or fine, and formula."""

    @property
    def answers(self) -> dict[str, Any]:
        correct, count = int((self.predicted == self.y).sum()), len(self.y)
        told = {"correct": correct, "count": count, "accuracy": correct / count}
        return {"what": "answers"} | told

    def heated(self, mask: Tensor | None) -> Iterator[dict[str, Any]]:
        """Mean heat of the picture, of the object, and the object's share of it, for each map."""
        for (where, formula), heat in self.heat.items():
            row = {"what": "heat", "map": where, "side": heat.shape[1], "formula": formula}
            row |= {"picture": float(heat.mean())}
            if mask is not None:
                row |= {"object": float(heat_on_object(heat, mask).mean())}
                row |= {"share": float(heat_share(heat, mask).nanmean())}
                row |= {"area": float(mask.float().mean())}
            yield row


def _look(model: nn.Module, images: Domain, layers: dict[str, str]) -> _Seen:
    """Answers, features and the heat of the true class."""
    y, predicted, features = [], [], []
    heat: dict[tuple[str, str], list[Tensor]] = {}
    size = SMALL_BATCH if isinstance(images, FolderDomain) else BATCH
    for seen in observe(model, images.batches(size), ["network.encoder"]):
        y.append(seen.batch.y.cpu())
        predicted.append(seen.logits.argmax(dim=1).cpu())
        features.append(seen.layers["network.encoder"].cpu())
        for where, layer in layers.items():
            for formula, found in _both(model, seen.batch, layer).items():
                heat.setdefault((where, formula), []).append(found.cpu())
    whole = {key: torch.cat(maps) for key, maps in heat.items()}
    return _Seen(torch.cat(y), torch.cat(predicted), torch.cat(features), whole)


def _both(model: nn.Module, batch: Batch, layer: str) -> dict[str, Tensor]:
    """Heat by both formulas, from one pass."""
    found: dict[str, Tensor] = {}

    def formula(maps: Tensor, gradients: Tensor) -> Tensor:
        found[PLAIN] = grad_cam(maps, gradients)
        return grad_cam_plus_plus(maps, gradients)

    return {PLUS: heat_maps(model, batch.x, layer, batch.y, formula=formula)} | found


def claims(run: Run) -> Sequence[Claim]:
    """Accuracy and heat fall with the shift, least for the teacher; and what does not show it."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    trained = [each.name for each in config.specs if each is not UNTRAINED]

    def all_fall(of: str, key: str, source: str, **which: Any) -> list[Claim]:
        """Under the controlled shift, every trained network loses some of it; the teacher least."""
        left = {name: _left(rows, name, key, **which) for name in trained}
        most = [max(left[name][seed] for name in trained) for seed in left["teacher"]]
        rivals = {seed: max(left[name][seed] for name in trained[1:]) for seed in left["teacher"]}
        return [
            judge(
                f"The controlled shift lowers {of} in every trained network",
                most,
                source=source,
                quantity=f"what the shift leaves of {of}, where it leaves most",
                high=1.0,
                every_seed=True,
            ),
            judge(
                f"The teacher loses the least {of} under the controlled shift",
                _differences(left["teacher"], rivals),
                source=source,
                quantity=f"what the shift leaves of {of}, teacher minus the best of the others",
                low=0.0,
                every_seed=True,
            ),
        ]

    def order(better: str, worse: str, of: str, key: str, source: str, **which: Any) -> Claim:
        """On the natural tests, one network keeps more of it than the other."""
        kept = (_kept(rows, name, key, **which) for name in (better, worse))
        return judge(
            f"On the natural tests {SAID[better]} keeps more {of} than {SAID[worse]}",
            _differences(*kept),
            source=source,
            quantity=f"{of}, OOD over ID: {better} minus {worse}",
            low=0.0,
            every_seed=True,
        )

    heat: dict[str, Any] = {"what": "heat", "map": "last"}
    found = [order("teacher", "student", "accuracy", "accuracy", "Sec. 2", what="answers")]
    found.append(
        order("teacher", "student", f"heat of the picture ({PLUS})", "picture", "Fig. 6",
              formula=PLUS, **heat)
    )  # fmt: skip
    for formula in (PLUS, PLAIN):
        what = f"heat on the object ({formula})"
        for better, worse in pairwise(trained):
            found.append(order(better, worse, what, "object", "Fig. 6", formula=formula, **heat))
    found += all_fall("accuracy", "accuracy", "ours", what="answers")
    found += all_fall("selectivity (Eq. 61)", "selectivity", "Fig. 5", what="answers")
    for formula in (PLUS, PLAIN):
        what = f"heat on the object ({formula})"
        found += all_fall(what, "object", "Fig. 6", formula=formula, **heat)
    if UNTRAINED in config.specs:
        left = _left(rows, "untrained", "object", formula=PLUS, **heat)
        found.append(
            judge(
                "The fall is learned: an untrained network keeps its heat",
                [*left.values()],
                source="ours",
                quantity=f"what the shift leaves of heat on the object ({PLUS}), untrained",
                low=0.95,
            )
        )
    for where, side in (("fine", "finer"), ("last", "last")):
        left = _left(rows, "student", "share", what="heat", map=where, formula=PLAIN)
        found.append(
            judge(
                f"On the {side} maps, the share of the student's heat on the object tells of the "
                "shift",
                [*left.values()],
                source="ours",
                quantity=f"what the shift leaves of the share of heat ({PLAIN}), {side} maps",
                high=0.9,
                every_seed=True,
            )
        )
    if not _masked(config):
        found = [replace(each, not_judged=NO_MASKS) if each.not_judged else each for each in found]
    return found


def _left(rows: Sequence[dict[str, Any]], network: str, key: str, **which: Any) -> dict[int, float]:
    """For each seed, what there is under the whole controlled shift over what there is without."""
    begun, ended = (
        {r["seed"]: r[key] for r in _chosen(rows, network=network, strength=strength, **which)}
        for strength in (STRENGTHS[0], STRENGTHS[-1])
    )
    return {seed: _ratio(ended[seed], begun[seed]) for seed in begun}


def _kept(rows: Sequence[dict[str, Any]], network: str, key: str, **which: Any) -> dict[int, float]:
    """For each seed, the mean over the natural OOD tests over what there is on the ID test."""
    which |= {"set": "natural", "network": network}
    own = {r["seed"]: r[key] for r in _chosen(rows, role="id", **which) if key in r}
    ood = _chosen(rows, role="ood", **which)
    return {
        seed: _ratio(statistics.fmean(r[key] for r in ood if r["seed"] == seed), value)
        for seed, value in own.items()
    }


def _ratio(value: float | None, whole: float | None) -> float:
    return value / whole if value is not None and whole else math.nan


def _differences(one: dict[int, float], other: dict[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in one]


def draw(run: Run) -> Sequence[Figure]:
    """Heat on pictures as in the paper, then what it comes to over many of them."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    figures = [_sheet(config, run, rows)]
    if _masked(config):
        figures += [_object(config, run), _curves(config, rows), _places(config, rows)]
    return [*figures, _tests_apart(config, rows)]


def _sheet(config: Config, run: Run, rows: list[dict[str, Any]]) -> Figure:
    """Figure 6a, with ID images on the left and OOD images on the right."""
    pictures = [_shown(x) for x in run.arrays("net/teacher/seed0")["pictures"]]
    tiles, told = [], []
    for spec in config.specs:
        shown = _chosen(rows, what="shown", network=spec.name, seed=0)
        heads = [
            f"{'ID' if row['role'] == 'id' else 'OOD'} {i % SHOWN + 1}: {row['class']}"
            for i, row in enumerate(shown)
        ]
        if not tiles:
            tiles = [Tile(*each) for each in zip(heads, repeat("picture"), pictures, strict=False)]
        maps = run.arrays(f"net/{spec.name}/seed0")["heat"].numpy()
        for head, picture, heat, row in zip(heads, pictures, maps, shown, strict=True):
            right = row["predicted"] == row["class"]
            note = _note(row["predicted"], right=right)
            tiles.append(Tile(head, spec.name, picture, heat, note))
            told.append(f"{spec.name}, {head}: mean heat {heat.mean():.2g}, {note}")
    same = " The same objects stand on both sides." if _masked(config) else ""
    panel = heat_sheet(
        tiles,
        title="Heat for the true class, ID on the left and OOD on the right",
        x="image",
        y="network",
        heat="heat",
    )
    return Figure(
        "Where the networks look",
        f"{PLUS} at the last maps of the first seed's networks, not normalized: in a row, brighter "
        f"is more. Below each tile stands what the network answers.{same} The images are the first "
        "of the tests, not chosen.",
        "Fig. 6",
        (panel,),
    )


def _object(config: Config, run: Run) -> Figure:
    """Figure 6b: one object while its background changes."""
    answers = run.arrays("net/student/seed0")["shift_predicted"]
    scenes = [blended(0, strength, n=config.objects) for strength in STRENGTHS]
    y = scenes[0].y[: answers.shape[1]]
    lost = (answers[0] == y) & (answers[-1] != y)
    chosen = int(lost.nonzero()[0]) if lost.any() else 0
    heads = [f"{strength:.0%}" for strength in STRENGTHS]
    pictures = [_shown(255 * scene.x[chosen]) for scene in scenes]
    tiles = [Tile(head, "picture", each) for head, each in zip(heads, pictures, strict=True)]
    told = []
    for spec in config.specs:
        found = run.arrays(f"net/{spec.name}/seed0")
        for k, head in enumerate(heads):
            predicted = int(found["shift_predicted"][k, chosen])
            note = _note(CLASSES[predicted], right=predicted == int(y[chosen]))
            heat = found["shift_heat"][k, chosen].numpy()
            tiles.append(Tile(head, spec.name, pictures[k], heat, note))
            told.append(f"{spec.name} at {head}: mean heat {heat.mean():.2g}, {note}")
    panel = heat_sheet(
        tiles,
        title=f"A {CLASSES[int(y[chosen])]} while its background changes",
        x="share of the OOD background",
        y="network",
        heat="heat",
    )
    return Figure(
        "One object under a growing shift",
        "The object stays as it is, and its background turns from an ID one into an OOD one. "
        f"{PLUS} for the true class at the last maps, not normalized. It is the first object that "
        "the first seed's student recognizes before the shift and not after it, if there is one.",
        "Fig. 6",
        (panel,),
    )


def _note(predicted: str, *, right: bool) -> str:
    return f"{'✓' if right else '✗'} {predicted}"


def _shown(picture: Tensor) -> np.ndarray:
    """(height, width, 3) in [0, 1]."""
    return picture.permute(1, 2, 0).float().div(255).numpy()


def _curves(config: Config, rows: list[dict[str, Any]]) -> Figure:
    """What the controlled shift does, in numbers."""
    heat: dict[str, Any] = {"what": "heat", "map": "last"}
    panels = [
        _along(config, rows, "accuracy", "Accuracy", "accuracy", what="answers"),
        _along(config, rows, "selectivity", "Selectivity", "mean selectivity of the features "
               "(Eq. 61)", what="answers"),
        _along(config, rows, "object", f"Heat on the object, {PLUS}", "mean heat of its pixels",
               formula=PLUS, **heat),
        _along(config, rows, "object", f"Heat on the object, {PLAIN}",
               "mean heat of its pixels, in units of the logit", formula=PLAIN, **heat),
    ]  # fmt: skip
    return Figure(
        "A growing shift in numbers",
        f"{config.objects} objects, the same at every strength, before mixtures of an ID and an "
        "OOD background. Mean over seeds; bands: all seeds. Heat is of the true class, at the last "
        f"maps, and not normalized. {PLUS} adds up what speaks for the class alone, so its size "
        f"says little beside another network's; {PLAIN} subtracts what speaks against it.",
        "Fig. 6",
        tuple(panel for panel, _ in panels),
        tuple(row for _, found in panels for row in found),
    )


def _places(config: Config, rows: list[dict[str, Any]]) -> Figure:
    """How much of the heat lies on the object, and why the last maps can't tell."""
    begun = _chosen(rows, network="teacher", seed=0, strength=0.0, what="heat")
    panels = []
    for row in sorted(begun, key=lambda row: (row["formula"], -row["side"])):
        which = {key: row[key] for key in ("what", "map", "formula")}
        title = f"{row['formula']}, maps of {row['side']} x {row['side']}"
        panels.append(
            _along(config, rows, "share", title, "share of the heat on the object", **which)
        )
    return Figure(
        "How much of the heat lies on the object",
        "On the last maps the share says little: a position covers much of the picture, and its "
        "heat is spread over all of that, so the share stays near that of even heat (the object's "
        "share of the area) also where the heat itself falls. The finer maps of an earlier block "
        "tell more. Images without any heat are left out.",
        "ours",
        on_same_axes([panel for panel, _ in panels], "y"),
        tuple(row for _, found in panels for row in found),
    )


def _along(
    config: Config, rows: list[dict[str, Any]], key: str, title: str, axis: str, **which: Any
) -> tuple[Panel, list[dict[str, Any]]]:
    """A curve of each network along the controlled shift, and the rows drawn."""
    found = [
        row | {"quantity": title}
        for spec in config.specs
        for row in over_seeds(
            _chosen(rows, set="shift", network=spec.name, **which), ["network", "strength"], key
        )
    ]
    if key == "share":
        found += [
            row | {"network": "even heat", "share": row["area"], "quantity": title}
            for row in over_seeds(
                _chosen(rows, set="shift", network="teacher", **which), ["strength"], "area"
            )
        ]
    panel = lines(
        found,
        title=title,
        x=("strength", "share of the OOD background"),
        y=(key, axis),
        series=("network", ""),
        points=True,
    )
    return panel, found


def _tests_apart(config: Config, rows: list[dict[str, Any]]) -> Figure:
    """Accuracy and heat on each natural test."""
    natural = _chosen(rows, set="natural")
    tests = list(dict.fromkeys(row["test"] for row in natural if row["role"] == "ood"))
    shown = [("accuracy", "Accuracy", {"what": "answers"})]
    place, of = ("object", "the object") if _masked(config) else ("picture", "the picture")
    shown += [
        (place, f"Heat on {of}, {formula}", {"what": "heat", "map": "last", "formula": formula})
        for formula in (PLUS, PLAIN)
    ]
    panels, told = [], []
    for key, title, which in shown:
        own = {
            (row["network"], row["seed"]): row[key] for row in _chosen(natural, role="id", **which)
        }
        kept = [
            row | {"OOD over ID": _ratio(row[key], own[row["network"], row["seed"]])}
            for row in _chosen(natural, role="ood", **which)
        ]
        found = [
            row | {"quantity": title}
            for spec in config.specs
            for row in over_seeds(
                _chosen(kept, network=spec.name), ["network", "test"], "OOD over ID"
            )
        ]
        found.sort(key=lambda row: tests.index(row["test"]))
        panels.append(
            bars(
                found,
                title=title,
                x=("test", "OOD test"),
                y=("OOD over ID", "on the OOD test, over that on the ID test"),
                series=("network", ""),
                wide=True,
            )
        )
        told += found
    return Figure(
        "What is left on natural tests",
        "Accuracy and heat of the true class on each OOD test, as a share of what there is on the "
        "ID test. Mean over seeds; whiskers: all seeds.",
        "Fig. 6",
        tuple(panels),
        tuple(told),
    )


def summarize(run: Run) -> str:
    """What happened, in a sentence."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    key, of = ("object", "on the object") if _masked(config) else ("picture", "of the picture")
    heat: dict[str, Any] = {"what": "heat", "map": "last", "formula": PLAIN}

    def mean(network: str, key: str, **which: Any) -> str:
        return f"{statistics.fmean(_kept(rows, network, key, **which).values()):.0%}"

    left = [
        f"{SAID[each.name]} {mean(each.name, key, **heat)} and "
        f"{mean(each.name, 'accuracy', what='answers')}"
        for each in config.specs
        if each is not UNTRAINED
    ]
    return (
        f"Out of distribution, this is left of the heat {of} ({PLAIN}) and of the accuracy: "
        f"{', '.join(left)}."
    )


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for part in run.parts("net/") for row in run.read(part)]


def _chosen(rows: Sequence[dict[str, Any]], **which: Any) -> list[dict[str, Any]]:
    """The rows that have these values, in the order of their seeds."""
    found = [row for row in rows if all(row.get(key) == value for key, value in which.items())]
    return sorted(found, key=lambda row: row["seed"])


EXPERIMENT = Experiment(
    name="fig06_heatmaps",
    title="Heat maps: the object's weight falls when the background shifts",
    about="Heat maps show how much each place of an image speaks for its class. They are drawn for "
    "a teacher, its student and standard training on natural shifts, and on objects that stay the "
    "same while their background changes step by step, with masks that say where the object is. "
    "Pictures of features, the third part of the figure, are not part of it.",
    reproduces=("Fig. 6",),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 6."""
