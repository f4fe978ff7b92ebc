"""Trains, stores and evaluates the networks that the image experiments compare.

Networks are trained when an experiment first needs them and stored in a hidden folder beside the
runs, so that all experiments use the same ones. The weights are determined by the config, the seed
and the `NetworkSpec`, not by the experiment that trained the network or by interruptions.

The embedded benchmark and the published ones use the same code; the config selects the data.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import ID, OOD
from contam.data.benchmarks import PROTOCOLS, Benchmark, Protocol, on_disk
from contam.data.images import FolderDomain, Transform
from contam.data.shapes import diverse_pretraining, pretraining, shapes
from contam.data.wilds import macro_f1
from contam.experiment import Stage
from contam.experiments.support.networks import SMALL, TEACHER, Networks, NetworkSpec
from contam.experiments.support.untrained_controls import training_inputs
from contam.inputs.pixel_range import pixel_range_of
from contam.measures.accuracy import Hits
from contam.models import efficientnet_lite
from contam.models.batch_statistics import calibrate
from contam.models.classifier import Classifier
from contam.models.logits_adapter import PixelEncoder
from contam.models.observe import observe
from contam.models.preparation import Preparation
from contam.models.small import NORMALIZATIONS, resnet8
from contam.models.sources import load, what_to_fetch, with_blocks
from contam.rng import seeded
from contam.run import Run, RunError
from contam.training.checkpointed import Training, checkpointed
from contam.training.distill import PUBLISHED as DISTILLED
from contam.training.distill import SCRIPTS, distill, features_alone
from contam.training.optimize import Recipe, TrainingState
from contam.training.precision import available_device
from contam.training.probe import PUBLISHED as PROBED
from contam.training.probe import SCRIPTS as SCRIPTED_PROBES
from contam.training.probe import (
    Minibatches,
    SelectedHead,
    extract,
    fit_probe,
    probe_images,
    top1_accuracy,
)
from contam.training.supervised import fit

STORE = ".networks"
"""Folder of the networks beside the runs; it can be deleted at any time."""
TRAINING = 0.95
"""Fraction of the progress that is training; the rest is the linear probe."""
REPORT_EVERY = 20
"""Training steps between two progress reports."""
FEATURES_PER_CHECKPOINT = 4096
"""Examples per checkpoint of features; a multiple of the batch size of `extract`."""

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
Published = TypeVar("Published")


class ModelZoo:
    """The networks of one config and seed, stored below a folder of runs.

    `train` trains the missing networks, `network` loads one, and `judge` evaluates it.

    Args:
        config: the data and the networks.
        seed: seed of the initial weights, the data and the order of examples.
        root: the folder of runs.
    """

    def __init__(self, config: Networks, seed: int, root: Path) -> None:
        self.config = config
        self.seed = seed
        self.root = root / STORE
        self._networks: dict[str, Classifier] = {}
        self._benchmarks: dict[Transform, Benchmark] = {}
        self._transforms: dict[str, Transform] = {}

    def train(self, specs: Sequence[NetworkSpec]) -> Iterator[Stage]:
        """Train the missing networks, one after the other.

        The teacher is trained before its students. If another process trains the same networks,
        wait for it.

        Args:
            specs: the networks; a teacher is added if a student needs it, and so are networks
                from which others start.

        Yields:
            Progress over all networks.

        Raises:
            ValueError: files of data or weights are missing (the message lists them), or a recipe
                does not fit the data.
        """
        ordered = list(dict.fromkeys(specs))
        parts = {spec.part for spec in ordered}
        starts = (spec.before for spec in specs if spec.before is not None)
        ordered += [start for start in dict.fromkeys(starts) if start.part not in parts]
        if TEACHER not in ordered and any(spec.learns == "features" for spec in ordered):
            ordered.insert(0, TEACHER)
        ordered.sort(key=lambda spec: (spec != TEACHER, spec.before is not None))
        require_files(self.missing_files(ordered))
        for index, spec in enumerate(ordered):
            doing = f"seed {self.seed}: {spec.name}"
            yield Stage(index / len(ordered), doing)
            if self._kept(spec):
                continue
            with Run.start(self.root, self.config.data, self._key, wait=True) as store:
                if store.has(spec.part):
                    continue
                for done in self._make(spec, store):
                    yield Stage((index + done) / len(ordered), doing)

    def network(self, spec: NetworkSpec) -> Classifier:
        """Load a trained network in eval mode: an encoder and a linear head.

        Args:
            spec: the network.

        Raises:
            RunError: the network is not trained yet, or its file is damaged.
        """
        if not self._kept(spec):
            raise RunError(f"{self.root}: holds no {spec.name} of seed {self.seed}; train it first")
        if spec.part not in self._networks:
            store = Run.find(self.root, self.config.data, self._key)
            model, _ = self._built(spec, self.benchmark(spec), None)
            model.load_state_dict(store.arrays(spec.part))
            self._networks[spec.part] = model.eval()
        return self._networks[spec.part]

    def benchmark(self, spec: NetworkSpec) -> Benchmark:
        """Return the benchmark with the preprocessing of a network."""
        if self.config.data == "shapes":
            return self._shapes
        return self._on_disk(self._transform(self._architecture_of(spec)))

    def judge(self, spec: NetworkSpec) -> list[dict[str, Any]]:
        """Evaluate a network on the ID test and on every OOD test.

        Args:
            spec: the network.

        Returns:
            A row for each test: `network`, `seed`, `role` ("id" or "ood"), `test`, `score` (the
            benchmark's measure, in [0, 1]), and `correct` of `count` images.
        """
        benchmark, model = self.benchmark(spec), self.network(spec)
        rows = []
        tests = [("id", benchmark.shift.id_test)]
        for role, test in tests + [("ood", test) for test in benchmark.shift.ood_tests]:
            hits, predicted = Hits(), []
            for observation in observe(model, test.batches(256), layers=()):
                scores = benchmark.scores(test, observation.logits)
                hits.update(scores, observation.batch.y)
                predicted.append(scores.argmax(dim=1).cpu())
            accuracy = hits.compute()
            score = accuracy.share
            if benchmark.metric == "macro F1":
                score = macro_f1(torch.cat(predicted), test.y)
            rows.append(
                {"network": spec.name, "seed": self.seed}
                | {"role": role, "test": test.name, "score": score}
                | {"correct": accuracy.correct, "count": accuracy.count}
            )
        return rows

    @cached_property
    def _key(self) -> BaseModel:
        return _ZooKey(networks=self.config, seed=self.seed)

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
        if transform not in self._benchmarks:
            self._benchmarks[transform] = on_disk(
                self.config.data, self.config.folder, transform, seed=self.seed
            )
        return self._benchmarks[transform]

    def _kept(self, spec: NetworkSpec) -> bool:
        """Whether the network is in memory or on disk; no lock is needed."""
        if spec.part in self._networks:
            return True
        folder = Run.place(self.root, self.config.data, self._key)
        return (folder / "run.json").exists() and Run.load(folder).has(spec.part)

    def missing_files(self, specs: Sequence[NetworkSpec]) -> list[str]:
        """Return a message for each file or folder that untrained networks lack.

        Args:
            specs: the networks.
        """
        missing = []
        for spec in specs:
            if self._kept(spec):
                continue
            missing += _error_message(lambda spec=spec: self._file(spec))
            missing += _error_message(lambda spec=spec: self.benchmark(spec))
        return list(dict.fromkeys(missing))

    def _make(self, spec: NetworkSpec, store: Run) -> Iterator[float]:
        """Train one network, write it, and yield the share done."""
        benchmark = self.benchmark(spec)
        model, own_head = self._built(spec, benchmark, self._file(spec))
        if spec.before is not None:
            model.encoder.load_state_dict(self.network(spec.before).encoder.state_dict())
        if spec.learns == "statistics":
            calibrate(model, training_inputs(benchmark.shift.train, self.seed))
        training = self._training(spec, model, benchmark)
        # The trained encoder is saved before its probe is fitted, so that all features come from
        # the same weights: on a GPU, resumed training need not reproduce every bit.
        trained = store.checkpoint(f"{spec.part}/trained")
        if trained is not None:
            model.load_state_dict(trained[0])
        elif training is not None:
            yield from (TRAINING * done for done in checkpointed(store, spec.part, training))
        if spec.learns != "labels":
            if trained is None and training is not None:
                store.save_checkpoint(f"{spec.part}/trained", model.state_dict())
            for done in self._probe(spec, model, benchmark, store):
                yield TRAINING + (1 - TRAINING) * done
        elif own_head is not None:
            model.head = own_head
        store.write(spec.part, [{"network": spec.name}], model.state_dict())
        self._networks[spec.part] = model.eval()

    def _architecture_of(self, spec: NetworkSpec) -> str:
        if spec.learns != "labels":
            return self.config.teacher
        if self.config.standard is None:
            raise ValueError(f"no {spec.name}: the config has no standard network; set 'standard'")
        return self.config.standard

    def _is_trained(self, spec: NetworkSpec) -> bool:
        """Whether the network is trained here; otherwise its weights come from a file."""
        if spec.learns == "labels":
            return self.config.standard_recipe is not None
        return spec.learns != "pretraining" or self.config.teacher_recipe is not None

    def _file(self, spec: NetworkSpec) -> Path | None:
        """The file of the network's (initial) weights; None for random weights.

        Raises:
            ValueError: the file is missing; the message names it.
        """
        config, data, name = self.config, self.config.data, self._architecture_of(spec)
        if not self._is_trained(spec):
            use = f", trained on {data}" if spec.learns == "labels" else ""
            if data == "iwildcam" and not use:
                use = ", fine-tuned on iwildcam (or set teacher_recipe to fine-tune it here)"
            return _weights(config.weights, name, f"{what_to_fetch(name)}{use}")
        start = {"labels": config.standard_start_from, "pretraining": config.teacher_start_from}
        name = start.get(spec.learns)
        if name is None:
            return None
        pretrained = f"{what_to_fetch(name)}, which is fine-tuned on {data} here,"
        return _weights(config.weights, name, pretrained)

    def _built(
        self, spec: NetworkSpec, benchmark: Benchmark, file: Path | None
    ) -> tuple[Classifier, nn.Linear | None]:
        """The network before training, and the head in its file of weights, if any."""
        classes, name = len(benchmark.shift.classes), self._architecture_of(spec)
        if name == SMALL:
            model = resnet8(
                classes,
                width=spec.width or self.config.width,
                normalization=spec.normalization,
                seed=self.seed,
            )
            return model.to(available_device()), None
        source = load(name, weights=file, seed=self.seed if file is None else None)
        if self.config.data == "shapes":
            pixels = pixel_range_of(source.transform)
            enlarged = PixelEncoder(source.encoder, pixels, self.config.side)
            source = replace(source, encoder=enlarged)
        # A head is used only if the network is neither trained nor probed here.
        used = spec.learns == "labels" and not self._is_trained(spec)
        if used and source.head is not None and source.classes != classes:
            raise ValueError(
                f"the weights of {name} have a head of {source.classes} classes, but "
                f"{self.config.data} has {classes}; provide weights that were trained on it, or "
                "set standard_recipe and standard_start_from to fine-tune these"
            )
        encoder = NORMALIZATIONS[spec.normalization](source.encoder)
        with seeded(self.seed, "lineup/head"):
            model = Classifier(encoder, classes, source.width)
        return model.to(available_device()), source.head

    def _transform(self, name: str) -> Transform:
        if name not in self._transforms:
            own = load(name, seed=0).transform
            self._transforms[name] = _shown(own, PROTOCOLS[self.config.data], self.config.side)
        return self._transforms[name]

    def _training(
        self, spec: NetworkSpec, model: Classifier, benchmark: Benchmark
    ) -> Training[TrainingState] | None:
        """The training of a network; None if it is not trained."""
        config, seed = self.config, self.seed
        if spec.learns == "features":
            recipes = DISTILLED if config.published == "text" else SCRIPTS
            published = recipes.get((config.data, _plain(config.teacher)))
            recipe = _for(
                _required(config.student_recipe or published, "student_recipe", config), spec
            )
            teacher = self.network(TEACHER).encoder
            shift = self._augmented(_first(benchmark.shift, spec.examples))
            return partial(
                distill, model.encoder, teacher, shift, recipe, seed=seed,
                report_every=REPORT_EVERY, compute=config.compute,
                read=with_blocks if recipe.blocks else features_alone,
            )  # fmt: skip
        if spec.learns in ("nothing", "statistics") or not self._is_trained(spec):
            return None
        learner: nn.Module = model
        if spec.learns == "labels":
            recipe = config.standard_recipe
            shift = self._augmented(_first(benchmark.shift, spec.examples))
        elif spec.learns == "captions":
            recipe, shift = config.teacher_recipe, self.captions(benchmark.shift, spec.families)
            with seeded(seed, "lineup/captions"):
                learner = Captioner(model, len(shift.train)).to(available_device())
        else:
            recipe, shift = config.teacher_recipe, self._of_teacher(benchmark.shift, spec.families)
        assert recipe is not None
        recipe = _for(recipe, spec)
        return partial(
            fit, learner, shift, **asdict(recipe), seed=seed, report_every=REPORT_EVERY,
            compute=config.compute,
        )  # fmt: skip

    def _augmented(self, shift: Shift) -> Shift:
        """The shift with the benchmark's augmentation of training images that are files."""
        augmentation = PROTOCOLS[self.config.data].augmentation
        if augmentation is None:
            return shift
        return replace(
            shift,
            train=tuple(
                domain.augmented(augmentation(domain.transform.crop))
                if isinstance(domain, FolderDomain) and isinstance(domain.transform, Preparation)
                else domain
                for domain in shift.train
            ),
        )

    def _of_teacher(self, shift: Shift, number: int | None) -> Shift:
        """The training data of a teacher.

        On the embedded benchmark it is pre-trained on other images, with more families of
        backgrounds. With published weights it is fine-tuned on the benchmark.
        """
        if number is not None:
            families = self._diverse(number)
            return Shift("pre-training", shift.classes, families, shift.id_test, ())
        if self.config.data != "shapes":
            if self.config.teacher_start_from is None:
                raise ValueError(
                    f"{self.config.data} has no pre-training data: set teacher_start_from to "
                    "fine-tune weights from a file, or leave out teacher_recipe to use them as "
                    "they are"
                )
            return self._augmented(shift)
        families = pretraining(self.seed, n=self.config.teacher_examples)
        return Shift("pre-training", shift.classes, families, shift.id_test, ())

    def _diverse(self, number: int) -> tuple[Domain, ...]:
        if self.config.data != "shapes":
            raise ValueError(
                f"{self.config.data} has no families of backgrounds for pre-training; use shapes"
            )
        return diverse_pretraining(self.seed, number, n=self.config.teacher_examples)

    def captions(self, shift: Shift, number: int | None = None) -> Shift:
        """Return pre-training images, with a class for each pair of object and background.

        Args:
            shift: the embedded benchmark; its classes and its ID test are kept.
            number: number of families without those of the OOD tests; None for all ID and OOD
                families.

        Raises:
            ValueError: the data is not the embedded benchmark.
        """
        if self.config.data != "shapes":
            raise ValueError(f"captions exist only for shapes, not for {self.config.data}")
        if number is None:
            pairs = len(shift.classes) * len(ID + OOD)
            count = max(self.config.teacher_examples // pairs, 1) * pairs
            families = pretraining(self.seed, "all", n=count)
        else:
            families = self._diverse(number)
        captioned = tuple(
            Domain(
                family.name, Batch(family.data.x, len(families) * family.y + k, family.data.domain)
            )
            for k, family in enumerate(families)
        )
        names = tuple(f"{thing} on {family.name}" for thing in shift.classes for family in families)
        return Shift("captions", names, captioned, shift.id_test, ())

    def _probe(
        self, spec: NetworkSpec, model: Classifier, benchmark: Benchmark, store: Run
    ) -> Iterator[float]:
        """Fit the head as a linear probe on the ID training data."""
        config = self.config
        role = "student" if spec.learns == "features" else "teacher"
        probes = PROBED if config.published == "text" else SCRIPTED_PROBES
        recipe = _required(config.probe or probes.get((config.data, role)), "probe", config)
        own = _first(benchmark.shift, spec.examples)
        score = _macro_f1 if benchmark.metric == "macro F1" else top1_accuracy
        values = _features(
            model.encoder, benchmark.chosen_on, store, f"{spec.part}/features/validation"
        )
        validation = torch.cat([*values]), benchmark.chosen_on.y
        if PROTOCOLS[config.data].augmented_probes and isinstance(recipe, Minibatches):
            head = SelectedHead(
                model.head.in_features, len(own.classes), seed=self.seed
            ).to(available_device())  # fmt: skip
            yield from checkpointed(
                store,
                f"{spec.part}/probe",
                partial(
                    probe_images, head, model.encoder, self._augmented(own), recipe,
                    validation=validation, score=score, seed=self.seed,
                    report_every=REPORT_EVERY, compute=config.compute,
                ),
            )  # fmt: skip
            with torch.no_grad():
                model.head.weight.copy_(head.best_weight)
                model.head.bias.copy_(head.best_bias)
            return
        examples = sum(map(len, own.train))
        parts: list[Tensor] = []
        for index, domain in enumerate(own.train):
            for part in _features(model.encoder, domain, store, f"{spec.part}/features/{index}"):
                parts.append(part)
                yield sum(map(len, parts)) / examples
        probe = fit_probe(
            torch.cat(parts),
            torch.cat([domain.y for domain in own.train]),
            recipe,
            classes=len(benchmark.shift.classes),
            validation=validation,
            score=score,
            seed=self.seed,
        )
        weight = probe.weight / probe.scale
        with torch.no_grad():
            model.head.weight.copy_(weight)
            model.head.bias.copy_(probe.bias - weight @ probe.mean)


def require_files(missing: Sequence[str]) -> None:
    """Raise one error that names all missing data and weights.

    Args:
        missing: messages of `ModelZoo.missing_files`, of one zoo or several.

    Raises:
        ValueError: there is one.
    """
    if missing:
        raise ValueError(". Also: ".join(dict.fromkeys(missing)))


class Captioner(nn.Module):
    """Logits of pairs of object and background: the sum of an object and a background logit.

    The cross-entropy of a pair is the sum of the two cross-entropies, so the encoder learns both
    factors.

    Args:
        model: the encoder, and the number of objects in its head.
        backgrounds: number of backgrounds.
    """

    def __init__(self, model: Classifier, backgrounds: int) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.things = nn.Linear(model.head.in_features, model.head.out_features)
        self.backgrounds = nn.Linear(model.head.in_features, backgrounds)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return (self.things(features)[:, :, None] + self.backgrounds(features)[:, None]).flatten(1)


class _ZooKey(BaseModel, frozen=True):
    """The settings that determine the weights of the networks."""

    networks: Networks
    seed: int


def _features(encoder: nn.Module, domain: Domain, store: Run, part: str) -> Iterator[Tensor]:
    """Extract the features of a domain in order, with checkpoints below `part` in the store.

    The checkpoints are deleted when the network is written.
    """
    for start in range(0, len(domain), FEATURES_PER_CHECKPOINT):
        kept = store.checkpoint(f"{part}/{start}")
        if kept is not None:
            yield kept[0]["features"]
            continue
        values = extract(encoder, _span(domain, start, start + FEATURES_PER_CHECKPOINT))
        store.save_checkpoint(f"{part}/{start}", {"features": values})
        yield values


def _first(shift: Shift, examples: int | None) -> Shift:
    """Keep `examples` training examples in total, the first ones of each domain."""
    if examples is None:
        return shift
    share, more = divmod(examples, len(shift.train))
    counts = [share + (index < more) for index in range(len(shift.train))]
    if short := [d.name for d, n in zip(shift.train, counts, strict=True) if len(d) < n]:
        raise ValueError(
            f"can't take {examples} training examples: {short[0]!r} has too few, and all "
            f"domains have {sum(map(len, shift.train))}"
        )
    pairs = zip(shift.train, counts, strict=True)
    return replace(shift, train=tuple(_span(domain, 0, count) for domain, count in pairs))


def _shown(own: Transform, protocol: Protocol, side: int | None) -> Transform:
    """The preprocessing of a network with the side and the resizing of a benchmark."""
    if not isinstance(own, Preparation):  # a user's function is not changed
        return own
    side = side or protocol.side or own.crop
    if protocol.squash:
        return replace(own, resize=side, crop=side, squash=True, interpolation="bilinear")
    return replace(own, resize=round(own.resize * side / own.crop), crop=side)


def _span(domain: Domain, start: int, stop: int) -> Domain:
    """The examples from `start` up to `stop` or the end."""
    if isinstance(domain, FolderDomain):
        return domain.pick(torch.arange(start, min(stop, len(domain))))
    return Domain(domain.name, domain.data.pick(slice(start, stop)))


def _for(recipe: AnyRecipe, spec: NetworkSpec) -> AnyRecipe:
    """The recipe with the epochs of the spec, if it has any."""
    return recipe if spec.epochs is None else replace(recipe, epochs=spec.epochs, steps=None)


def _required(recipe: Published | None, field: str, config: Networks) -> Published:
    """Return the recipe, or raise an error that names the field to set."""
    if recipe is None:
        raise ValueError(
            f"no recipe was published for {config.teacher} on {config.data}; set {field}"
        )
    return recipe


def _plain(name: str) -> str:
    """The architecture in the name of a network: RN50 in open_clip:RN50/openai."""
    return name.partition(":")[2].partition("/")[0]


def _weights(folder: Path, name: str, what: str) -> Path:
    """The file of a network's weights.

    Raises:
        ValueError: the file is missing; the message describes it with `what`.
    """
    if name == efficientnet_lite.NAME and (installed := efficientnet_lite.weights_file()):
        return installed
    stem = re.sub(r"[^\w.-]+", "-", name)
    places = [folder / f"{stem}{suffix}" for suffix in (".safetensors", ".pt", ".pth", ".bin")]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(
        f"no weights of {name}: nothing is downloaded, so put {what} at {places[0]} "
        "(a state dict of torch.save may end in .pt) and run the same command again"
    )


def _error_message(call: Callable[[], object]) -> list[str]:
    """The message of the ValueError that a call raises, or no message."""
    try:
        call()
    except ValueError as error:
        return [str(error)]
    return []


def _macro_f1(logits: Tensor, y: Tensor) -> float:
    return macro_f1(logits.argmax(dim=1), y)
