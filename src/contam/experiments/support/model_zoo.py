"""The networks that the image experiments compare: a teacher, its student, and standard ones.

They are trained when they are first asked for and kept in a hidden folder beside the runs, so that
all experiments look at the same ones. A network follows from the config, the seed and its `Member`
alone, whichever experiment trained it and however often that was interrupted.

One pipeline serves the embedded benchmark and the published problems; the config says which.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import ID, OOD
from contam.data.benchmarks import Benchmark, Kind, on_disk
from contam.data.images import FolderDomain, Transform, cropped_and_flipped
from contam.data.shapes import pretraining, shapes
from contam.data.wilds import macro_f1
from contam.experiment import Stage
from contam.experiments.support.feature_cache import features, features_in_parts
from contam.measures.accuracy import Hits
from contam.models.classifier import Classifier
from contam.models.observe import observe
from contam.models.preparation import Preparation
from contam.models.small import NORMALIZATIONS, resnet8
from contam.models.sources import load, what_to_fetch, with_blocks
from contam.rng import seeded
from contam.run import Run, RunError
from contam.training.checkpointed import Training, checkpointed
from contam.training.distill import PUBLISHED as DISTILLED
from contam.training.distill import Distillation, distill, features_alone
from contam.training.optimize import Recipe
from contam.training.optimize import Stage as Trained
from contam.training.precision import PLAIN, ComputeConfig
from contam.training.probe import PUBLISHED as PROBED
from contam.training.probe import FullBatch, Minibatches, fit_probe, top1_accuracy
from contam.training.supervised import fit

STORE = ".networks"
"""The folder beside the runs in which networks are kept; it can be deleted at any time."""
FEATURES = ".features"
"""The same for the features that probes are fitted to."""
TRAINING = 0.95
"""How much of a network's time its training takes; the rest is its probe's."""
REPORT_EVERY = 20
"""Steps between two looks at the clock."""
SMALL = "resnet8"
"""The network that the embedded benchmark is for; it is always trained here."""

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
Found = TypeVar("Found")


class Networks(BaseModel, frozen=True, extra="forbid"):
    """What is learned by which networks. Defaults are App. E.1's unless a field says otherwise."""

    data: Kind = "imagenet"
    folder: Path = Path("data")
    """Where the files of a published benchmark lie; the embedded benchmark needs none."""
    weights: Path = Path("weights")
    """Where weights lie that are not learned here, in files named after their networks."""
    teacher: str = "open_clip:RN50/openai"
    """As `contam.models.sources.load` knows it, or resnet8; its student is of the same kind."""
    standard: str | None = "torchvision:resnet50"
    """A network of ID data alone, to compare with teacher and student; None compares with none."""
    teacher_recipe: Recipe | None = None
    """Ours: how a teacher without weights learns from the embedded benchmark's pre-training."""
    student_recipe: Distillation | None = None
    """None is what was published for this teacher and this data."""
    standard_recipe: Recipe | None = None
    """How a standard network is trained here; None takes its weights from a file."""
    probe: FullBatch | Minibatches | None = None
    """None is what was published for this data."""
    machine: ComputeConfig = PLAIN
    """Ours: precision, accumulation and memory layout; the published numbers are in float32."""
    width: PositiveInt = 16
    """Ours: channels of the first stage of resnet8."""
    examples: PositiveInt = 4000
    """Ours: training images of the embedded benchmark."""
    teacher_examples: PositiveInt = 9000
    """Ours: pre-training images of the embedded benchmark."""
    id_examples: PositiveInt = 2000
    """Ours: images of the embedded benchmark's ID test."""
    ood_examples: PositiveInt = 400
    """Ours: images of each of the embedded benchmark's five OOD tests."""


SMALL_NETWORKS = Networks(
    data="shapes",
    teacher=SMALL,
    standard=SMALL,
    teacher_recipe=Recipe(3e-3, 0.05, 128, epochs=12),
    student_recipe=Distillation(3e-3, 0.05, 128, epochs=24),
    standard_recipe=Recipe(3e-3, 0.05, 128, epochs=12),
    probe=FullBatch(penalties=(1e-1, 1e-2, 1e-3, 1e-4)),
)
"""The embedded benchmark: a seed of teacher, student and standard network takes a minute."""
TINY_NETWORKS = SMALL_NETWORKS.model_copy(
    update={
        "teacher_recipe": Recipe(3e-3, 0.05, 50, epochs=2),
        "student_recipe": Distillation(3e-3, 0.05, 40, epochs=2),
        "standard_recipe": Recipe(3e-3, 0.05, 40, epochs=2),
        "width": 4,
        "examples": 200,
        "teacher_examples": 250,
        "id_examples": 200,
        "ood_examples": 40,
    }
)
"""Seconds, for tests: networks that have hardly begun to learn."""


class NetworkSpec(NamedTuple):
    """One network of a lineup: what it learns from, and what sets it apart."""

    name: str
    """For people."""
    learns: Literal["nothing", "labels", "features", "pretraining", "captions"]
    """Labels of the training data, the teacher's features there, or a teacher's own data.

    Captions name the background, too, and are those of images on ID and on OOD families.
    """
    examples: int | None = None
    """The first training images alone; None is all of them."""
    epochs: int | None = None
    """None is what the recipe says."""
    width: int | None = None
    """Of resnet8; None is what the config says."""
    normalization: Literal["batch", "centered", "instance"] = "batch"

    @property
    def part(self) -> str:
        """Where it is kept: a name that says everything but what people call it."""
        fields = self._asdict() | {"name": None, "learns": None}
        told = [f"{key}={value}" for key, value in fields.items() if value not in (None, "batch")]
        return "+".join([self.learns, *told])


UNTRAINED = NetworkSpec("untrained", "nothing")
TEACHER = NetworkSpec("teacher", "pretraining")
CAPTIONED = NetworkSpec("captioned teacher", "captions")
"""Of the embedded benchmark: it has seen the OOD families, and learned to tell them apart."""
STUDENT = NetworkSpec("student", "features")
ERM = NetworkSpec("ERM", "labels")
CENTERED = NetworkSpec("ERM, centered maps", "labels", normalization="centered")
INSTANCE = NetworkSpec("ERM, instance norm", "labels", normalization="instance")
SWEEP = (
    NetworkSpec("ERM, 2000 images", "labels", examples=2000, epochs=12),
    NetworkSpec("ERM, 1000 images", "labels", examples=1000, epochs=20),
    NetworkSpec("ERM, 3 epochs", "labels", epochs=3),
    NetworkSpec("ERM, 6 epochs", "labels", epochs=6),
    NetworkSpec("ERM, half the width", "labels", width=8),
    NetworkSpec("ERM, a quarter of the width", "labels", width=4),
)
"""Standard networks of the embedded benchmark: they lie on a line with `ERM`."""


class ModelZoo:
    """The networks of one config and seed below a folder of runs.

    `train` makes those that are not there yet; `network` gives one that is.
    """

    def __init__(self, config: Networks, seed: int, root: Path) -> None:
        self.config = config
        self.seed = seed
        self.root = root / STORE
        self.features = root / FEATURES
        self._networks: dict[str, Classifier] = {}
        self._problems: dict[Transform, Benchmark] = {}
        self._transforms: dict[str, Transform] = {}

    def train(self, specs: Sequence[NetworkSpec]) -> Iterator[Stage]:
        """Make every network that is not there yet, one after the other.

        A teacher is made before its students. Another process that makes the same ones is waited
        for.

        Raises:
            ValueError: data or weights are missing, with what to put where; or a recipe does not
                fit.
        """
        wanted = list(dict.fromkeys(specs))
        if TEACHER not in wanted and any(spec.learns == "features" for spec in wanted):
            wanted.insert(0, TEACHER)
        wanted.sort(key=lambda spec: spec != TEACHER)
        self._refuse_what_lacks(wanted)
        for index, spec in enumerate(wanted):
            doing = f"seed {self.seed}: {spec.name}"
            yield Stage(index / len(wanted), doing)
            if self._kept(spec):
                continue
            with Run.start(self.root, self.config.data, self._key, wait=True) as store:
                if store.has(spec.part):
                    continue
                for done in self._make(spec, store):
                    yield Stage((index + done) / len(wanted), doing)

    def network(self, spec: NetworkSpec) -> Classifier:
        """An encoder with a linear head for the benchmark's classes, trained before.

        Raises:
            RunError: it was not trained, or its file is damaged.
        """
        if not self._kept(spec):
            raise RunError(f"{self.root}: holds no {spec.name} of seed {self.seed}; train it first")
        if spec.part not in self._networks:
            store = Run.find(self.root, self.config.data, self._key)
            model, _ = self._built(spec, self.benchmark(spec), from_file=False)
            model.load_state_dict(store.arrays(spec.part))
            self._networks[spec.part] = model.eval()
        return self._networks[spec.part]

    def benchmark(self, spec: NetworkSpec) -> Benchmark:
        """The benchmark, with its images as this network sees them."""
        if self.config.data == "shapes":
            return self._shapes
        return self._on_disk(self._transform(self._architecture_of(spec)))

    def judge(self, spec: NetworkSpec) -> list[dict[str, Any]]:
        """The network's score on the ID test and on every OOD test, in records.

        `score` is the benchmark's measure, in [0, 1]; `correct` of `count` images were right.
        """
        benchmark, model = self.benchmark(spec), self.network(spec)
        told = {"network": spec.name, "seed": self.seed}
        rows = []
        tests = [("id", benchmark.shift.id_test)]
        for role, test in tests + [("ood", test) for test in benchmark.shift.ood_tests]:
            hits, predicted = Hits(), []
            for seen in observe(model, test.batches(256), layers=()):
                scores = benchmark.scores(test, seen.logits)
                hits.update(scores, seen.batch.y)
                predicted.append(scores.argmax(dim=1).cpu())
            found = hits.compute()
            score = found.share
            if benchmark.metric == "macro F1":
                score = macro_f1(torch.cat(predicted), test.y)
            rows.append(
                told
                | {"role": role, "test": test.name, "score": score}
                | {"correct": found.correct, "count": found.count}
            )
        return rows

    @cached_property
    def _key(self) -> BaseModel:
        return _Key(networks=self.config, seed=self.seed)

    @cached_property
    def _shapes(self) -> Benchmark:
        shift = shapes(
            self.seed,
            train=self.config.examples,
            id_test=self.config.id_examples,
            ood_test=self.config.ood_examples,
        )
        assert shift.id_val is not None
        return Benchmark(shift, shift.id_val)

    def _on_disk(self, transform: Transform) -> Benchmark:
        if transform not in self._problems:
            self._problems[transform] = on_disk(
                self.config.data, self.config.folder, transform, seed=self.seed
            )
        return self._problems[transform]

    def _kept(self, spec: NetworkSpec) -> bool:
        """Whether the network is on disk, without a lock."""
        if spec.part in self._networks:
            return True
        folder = Run.place(self.root, self.config.data, self._key)
        return (folder / "run.json").exists() and Run.load(folder).has(spec.part)

    def _refuse_what_lacks(self, specs: Sequence[NetworkSpec]) -> None:
        """Say at once what of data and weights is missing, and not one thing after the other."""
        if self.config.data == "shapes":
            return
        faults = []
        for spec in specs:
            if self._kept(spec):
                continue
            name = self._architecture_of(spec)
            if not self._is_trained(spec):
                faults += _refused(lambda name=name: _weights(self.config.weights, name))
            faults += _refused(lambda spec=spec: self.benchmark(spec))
        if faults:
            raise ValueError(". Also: ".join(dict.fromkeys(faults)))

    def _make(self, spec: NetworkSpec, store: Run) -> Iterator[float]:
        """Train one network, keep it, and yield the share that is done."""
        benchmark = self.benchmark(spec)
        model, own_head = self._built(spec, benchmark, from_file=not self._is_trained(spec))
        training = self._training(spec, model, benchmark)
        if training is not None:
            yield from (TRAINING * done for done in checkpointed(store, spec.part, training))
        if spec.learns != "labels":
            for done in self._probe(spec, model, benchmark):
                yield TRAINING + (1 - TRAINING) * done
        elif own_head is not None:
            model.head = own_head
        store.write(spec.part, [{"network": spec.name}], model.state_dict())
        self._networks[spec.part] = model.eval()

    def _architecture_of(self, spec: NetworkSpec) -> str:
        if spec.learns != "labels":
            return self.config.teacher
        if self.config.standard is None:
            raise ValueError(f"there is no {spec.name}: the config names no standard network")
        return self.config.standard

    def _is_trained(self, spec: NetworkSpec) -> bool:
        """Whether the network begins with drawn weights; otherwise they come from a file."""
        if spec.learns == "labels":
            return self.config.standard_recipe is not None
        return spec.learns != "pretraining" or self.config.teacher_recipe is not None

    def _built(
        self, spec: NetworkSpec, benchmark: Benchmark, *, from_file: bool
    ) -> tuple[Classifier, nn.Linear | None]:
        """The network before training, and the head that came with its weights."""
        classes, name = len(benchmark.shift.classes), self._architecture_of(spec)
        if name == SMALL:
            model = resnet8(
                classes,
                width=spec.width or self.config.width,
                normalization=spec.normalization,
                seed=self.seed,
            )
            return model.to(_device()), None
        if from_file:
            source = load(name, weights=_weights(self.config.weights, name))
        else:
            source = load(name, seed=self.seed)
        if source.head is not None and source.classes != classes:
            raise ValueError(
                f"{name} came with a head of {source.classes} classes, and {self.config.data} has "
                f"{classes}; give weights that were trained on it"
            )
        encoder = NORMALIZATIONS[spec.normalization](source.encoder)
        with seeded(self.seed, "lineup/head"):
            model = Classifier(encoder, classes, source.width)
        return model.to(_device()), source.head

    def _transform(self, name: str) -> Transform:
        if name not in self._transforms:
            self._transforms[name] = load(name, seed=0).transform
        return self._transforms[name]

    def _training(
        self, spec: NetworkSpec, model: Classifier, benchmark: Benchmark
    ) -> Training[Trained] | None:
        """How the network is trained, from a check-point on; None if it is not."""
        config, seed = self.config, self.seed
        if spec.learns == "features":
            known = DISTILLED.get((config.data, _plain(config.teacher)))
            taught = _for(_known(config.student_recipe or known, "student_recipe", config), spec)
            teacher = self.network(TEACHER).encoder
            shift = _augmented(_first(benchmark.shift, spec.examples))
            return partial(
                distill, model.encoder, teacher, shift, taught, seed=seed,
                report_every=REPORT_EVERY, compute=config.machine,
                read=with_blocks if taught.blocks else features_alone,
            )  # fmt: skip
        if spec.learns == "nothing" or not self._is_trained(spec):
            return None
        learner: nn.Module = model
        if spec.learns == "labels":
            recipe, shift = config.standard_recipe, _first(benchmark.shift, spec.examples)
        elif spec.learns == "captions":
            recipe, shift = config.teacher_recipe, self._captions(benchmark.shift)
            with seeded(seed, "lineup/captions"):
                learner = _Captioner(model, len(shift.train)).to(_device())
        else:
            recipe, shift = config.teacher_recipe, self._pretraining(benchmark.shift)
        assert recipe is not None
        taken = _for(recipe, spec)
        return partial(
            fit, learner, shift, **asdict(taken), seed=seed, report_every=REPORT_EVERY,
            compute=config.machine,
        )  # fmt: skip

    def _pretraining(self, shift: Shift) -> Shift:
        """What a small teacher learns from: other images, on more families of backgrounds."""
        if self.config.data != "shapes":
            raise ValueError(
                f"there is no pre-training for {self.config.data}: leave out teacher_recipe, and "
                "the teacher's weights are taken from a file"
            )
        seen = pretraining(self.seed, n=self.config.teacher_examples)
        return Shift("pre-training", shift.classes, seen, shift.id_test, ())

    def _captions(self, shift: Shift) -> Shift:
        """Images on all families, in a class for each pair of an object and a background."""
        if self.config.data != "shapes":
            raise ValueError(f"there are no captions of {self.config.data}, only of shapes")
        pairs = len(shift.classes) * len(ID + OOD)
        count = max(self.config.teacher_examples // pairs, 1) * pairs
        seen = pretraining(self.seed, "all", n=count)
        named = tuple(
            Domain(each.name, Batch(each.data.x, len(seen) * each.y + k, each.data.domain))
            for k, each in enumerate(seen)
        )
        both = tuple(f"{thing} on {each.name}" for thing in shift.classes for each in seen)
        return Shift("captions", both, named, shift.id_test, ())

    def _probe(self, spec: NetworkSpec, model: Classifier, benchmark: Benchmark) -> Iterator[float]:
        """Put a linear probe of the ID training data in the place of the network's head."""
        config = self.config
        role = "student" if spec.learns == "features" else "teacher"
        recipe = _known(config.probe or PROBED.get((config.data, role)), "probe", config)
        learned = _first(benchmark.shift, spec.examples).train
        examples = sum(map(len, learned))
        parts: list[Tensor] = []
        for domain in learned:
            for part in features_in_parts(model.encoder, domain, folder=self.features):
                parts.append(part)
                yield sum(map(len, parts)) / examples
        known = features(model.encoder, benchmark.chosen_on, folder=self.features)
        probe = fit_probe(
            torch.cat(parts),
            torch.cat([domain.y for domain in learned]),
            recipe,
            classes=len(benchmark.shift.classes),
            validation=(known, benchmark.chosen_on.y),
            score=_macro_f1 if benchmark.metric == "macro F1" else top1_accuracy,
            seed=self.seed,
        )
        weight = probe.weight / probe.scale
        with torch.no_grad():
            model.head.weight.copy_(weight)
            model.head.bias.copy_(probe.bias - weight @ probe.mean)


class _Captioner(nn.Module):
    """Scores of pairs of an object and a background, each the sum of a score of either.

    So their cross-entropy is the objects' plus the backgrounds', and the encoder is asked for both
    at once, but not for one feature for each pair.
    """

    def __init__(self, model: Classifier, backgrounds: int) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.things = nn.Linear(model.head.in_features, model.head.out_features)
        self.backgrounds = nn.Linear(model.head.in_features, backgrounds)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return (self.things(features)[:, :, None] + self.backgrounds(features)[:, None]).flatten(1)


class _Key(BaseModel, frozen=True):
    """What decides the weights of a lineup's networks."""

    networks: Networks
    seed: int


def _first(shift: Shift, examples: int | None) -> Shift:
    """The shift with that many training examples, the first of each domain."""
    if examples is None:
        return shift
    share, more = divmod(examples, len(shift.train))
    counts = [share + (index < more) for index in range(len(shift.train))]
    if short := [d.name for d, n in zip(shift.train, counts, strict=True) if len(d) < n]:
        raise ValueError(
            f"{examples} training examples were asked for, and {short[0]!r} has too few; "
            f"there are {sum(map(len, shift.train))} in all"
        )
    pairs = zip(shift.train, counts, strict=True)
    return replace(shift, train=tuple(_begin(domain, count) for domain, count in pairs))


def _augmented(shift: Shift) -> Shift:
    """The shift with its training images changed at random, where they are read from files."""
    return replace(
        shift,
        train=tuple(
            domain.augmented(cropped_and_flipped(domain.transform.crop))
            if isinstance(domain, FolderDomain) and isinstance(domain.transform, Preparation)
            else domain
            for domain in shift.train
        ),
    )


def _begin(domain: Domain, count: int) -> Domain:
    if isinstance(domain, FolderDomain):
        return domain.pick(torch.arange(count))
    return Domain(domain.name, domain.data.pick(slice(count)))


def _for(recipe: AnyRecipe, spec: NetworkSpec) -> AnyRecipe:
    """The recipe, with the spec's own epochs if it has any."""
    return recipe if spec.epochs is None else replace(recipe, epochs=spec.epochs, steps=None)


def _known(found: Found | None, field: str, config: Networks) -> Found:
    if found is None:
        raise ValueError(
            f"nothing was published for {config.teacher} on {config.data}: give {field}"
        )
    return found


def _plain(name: str) -> str:
    """The architecture in a network's name: RN50 of open_clip:RN50/openai."""
    return name.partition(":")[2].partition("/")[0]


def _weights(folder: Path, name: str) -> Path:
    """The file that holds a network's weights."""
    stem = re.sub(r"[^\w.-]+", "-", name)
    places = [folder / f"{stem}{suffix}" for suffix in (".safetensors", ".pt", ".pth", ".bin")]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(
        f"no weights of {name}: nothing is downloaded, so put {what_to_fetch(name)} at {places[0]} "
        "(a state dict of torch.save may end in .pt) and run the same command again"
    )


def _refused(act: Callable[[], object]) -> list[str]:
    """What an act says is wrong, if anything."""
    try:
        act()
    except ValueError as error:
        return [str(error)]
    return []


def _macro_f1(logits: Tensor, y: Tensor) -> float:
    return macro_f1(logits.argmax(dim=1), y)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
