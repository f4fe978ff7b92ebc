"""Trains, stores and evaluates the networks that the image experiments compare.

Networks are trained when an experiment first needs them and stored in a hidden folder beside the
runs, so that all experiments use the same ones. The weights are determined by the config, the seed
and the `NetworkSpec`, not by the experiment that trained the network or by interruptions.

The embedded benchmark and the published ones use the same code; the config selects the data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from contam.data.benchmarks import Benchmark, on_disk
from contam.data.images import Transform
from contam.data.shapes import shapes
from contam.data.wilds import macro_f1
from contam.experiment import Stage
from contam.experiments.support.networks import (
    TEACHER,
    Networks,
    NetworkSpec,
    student_recipe,
    with_epochs,
)
from contam.experiments.support.untrained_controls import training_inputs
from contam.experiments.support.zoo_images import Captioner, preprocessing, training_images
from contam.experiments.support.zoo_probe import fit_head
from contam.experiments.support.zoo_weights import (
    architecture_of,
    initial_network,
    is_trained,
    weights_path,
)
from contam.measures.accuracy import Hits
from contam.models.batch_statistics import calibrate
from contam.models.classifier import Classifier
from contam.models.observe import observe
from contam.models.sources import transform_of, with_blocks
from contam.rng import seeded
from contam.run import Run, RunError
from contam.training.checkpointed import Training, checkpointed
from contam.training.distill import distill, features_alone
from contam.training.optimize import TrainingState
from contam.training.precision import available_device
from contam.training.supervised import fit

STORE = ".networks"
"""Folder of the networks beside the runs; it can be deleted at any time."""
TRAINING = 0.95
"""Fraction of the progress that is training; the rest is the linear probe."""
REPORT_EVERY = 20
"""Training steps between two progress reports."""


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
            model, _ = initial_network(self.config, spec, self.benchmark(spec), seed=self.seed)
            model.load_state_dict(store.arrays(spec.part))
            self._networks[spec.part] = model.eval()
        return self._networks[spec.part]

    def benchmark(self, spec: NetworkSpec) -> Benchmark:
        """Return the benchmark with the preprocessing of a network."""
        if self.config.data == "shapes":
            return self._shapes
        return self._on_disk(self._transform(architecture_of(self.config, spec)))

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
            missing += _error_message(lambda spec=spec: weights_path(self.config, spec))
            missing += _error_message(lambda spec=spec: self.benchmark(spec))
        return list(dict.fromkeys(missing))

    def _make(self, spec: NetworkSpec, store: Run) -> Iterator[float]:
        """Train one network, write it, and yield the share done."""
        benchmark = self.benchmark(spec)
        model, own_head = initial_network(
            self.config, spec, benchmark, weights_path(self.config, spec), seed=self.seed
        )
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
            for done in fit_head(
                model, benchmark, store, config=self.config, spec=spec, seed=self.seed,
                report_every=REPORT_EVERY,
            ):  # fmt: skip
                yield TRAINING + (1 - TRAINING) * done
        elif own_head is not None:
            model.head = own_head
        store.write(spec.part, [{"network": spec.name}], model.state_dict())
        self._networks[spec.part] = model.eval()

    def _transform(self, name: str) -> Transform:
        if name not in self._transforms:
            self._transforms[name] = preprocessing(transform_of(name), self.config)
        return self._transforms[name]

    def _training(
        self, spec: NetworkSpec, model: Classifier, benchmark: Benchmark
    ) -> Training[TrainingState] | None:
        """The training of a network; None if it is not trained."""
        config, seed = self.config, self.seed
        if spec.learns == "features":
            recipe = with_epochs(student_recipe(config), spec)
            teacher = self.network(TEACHER).encoder
            images = training_images(config, spec, benchmark.shift, seed=seed)
            return partial(
                distill, model.encoder, teacher, images, recipe, seed=seed,
                report_every=REPORT_EVERY, compute=config.compute,
                read=with_blocks if recipe.blocks else features_alone,
            )  # fmt: skip
        if spec.learns in ("nothing", "statistics") or not is_trained(config, spec):
            return None
        learner: nn.Module = model
        recipe = config.standard_recipe if spec.learns == "labels" else config.teacher_recipe
        images = training_images(config, spec, benchmark.shift, seed=seed)
        if spec.learns == "captions":
            with seeded(seed, "lineup/captions"):
                learner = Captioner(model, len(images.train)).to(available_device())
        assert recipe is not None
        recipe = with_epochs(recipe, spec)
        return partial(
            fit, learner, images, **asdict(recipe), seed=seed, report_every=REPORT_EVERY,
            compute=config.compute,
        )  # fmt: skip


def require_files(missing: Sequence[str]) -> None:
    """Raise one error that names all missing data and weights.

    Args:
        missing: messages of `ModelZoo.missing_files`, of one zoo or several.

    Raises:
        ValueError: there is one.
    """
    if missing:
        raise ValueError(". Also: ".join(dict.fromkeys(missing)))


class _ZooKey(BaseModel, frozen=True):
    """The settings that determine the weights of the networks."""

    networks: Networks
    seed: int


def _error_message(call: Callable[[], object]) -> list[str]:
    """The message of the ValueError that a call raises, or no message."""
    try:
        call()
    except ValueError as error:
        return [str(error)]
    return []
