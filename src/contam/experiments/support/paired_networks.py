"""Trains pairs of networks that differ only in whether contamination is blocked.

Both networks of a pair learn from identical images in the same order, from the same initial
weights. They lack the same backgrounds, so a difference in OOD accuracy is not due to coverage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import FAMILIES
from contam.data.objects import CORES, Core
from contam.data.shapes import TOO_LIGHT, Scenes, scenes
from contam.experiment import NULL_STEP_SIZE, Stage
from contam.experiments.support.model_zoo import STORE
from contam.experiments.support.untrained_controls import training_inputs
from contam.models.batch_statistics import calibrated
from contam.models.classifier import Classifier
from contam.models.normalization import with_centering, with_instance_norm
from contam.models.object_gradients import ObjectGradients
from contam.models.small import resnet8, small_cnn
from contam.rng import generator_for
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.optimize import Recipe
from contam.training.supervised import fit

Architecture = Literal["resnet8-8", "resnet8-12", "small_cnn-10"]
"""A small network, and the channels of its first stage."""
Way = Literal["centered", "instance", "masked", "leaky"]
"""A way to block contamination."""
Control = Literal["untrained", "calibrated"]
"""A network with random weights: as it is drawn, or with calibrated batch norms."""
Variant = Literal["plain"] | Control | Way
"""A network of a pair: the plain one, one of `BLOCKED`, or a control."""
BLOCKED: dict[str, str] = {
    "centered": "centered maps",
    "instance": "instance norm",
    "masked": "gradients of the object alone",
    "leaky": "leaky ReLU",
}
"""Ways to block contamination, and their names."""
SLOPE = 0.3
"""Slope of the leaky ReLU for negative inputs."""
NEW_FAMILIES = 4
"""Families of backgrounds in the OOD test."""
REPORT_EVERY = 50
"""Training steps between two progress reports."""


class PairSetting(NamedTuple):
    """What the networks of a pair share, apart from the seed."""

    core: Core
    architecture: Architecture
    families: int
    """Number of families of backgrounds in the training data."""

    @property
    def name(self) -> str:
        """The name in tables and parts.

        >>> PairSetting("shapes", "resnet8-8", 2).name
        'shapes_resnet8-8_2'
        """
        return "_".join(map(str, self))


class PairedNetworks(BaseModel, frozen=True, extra="forbid"):
    """Data and training of the pairs."""

    recipe: Recipe = Recipe(1e-2, 0.05, 32, epochs=8)
    examples: PositiveInt = 1800
    """Training images, a multiple of 10 times the number of families."""
    id_examples: PositiveInt = 600
    """Images of the ID test, a multiple of 10 times the number of families."""
    ood_examples: PositiveInt = 1200
    """Images of the OOD test, a multiple of 40."""


class PairData:
    """The images of a pair, drawn when they are first needed.

    The families are random, without overlap between ID and OOD. They depend on the setting alone,
    so another seed has other images and weights for the same shift.

    Args:
        networks: numbers of images.
        setting: objects and number of families.
        seed: random seed.

    Source: ours, both networks of a pair learn from the same images.

    >>> networks = PairedNetworks(examples=40, id_examples=40, ood_examples=40)
    >>> data = PairData(networks, PairSetting("digits", "resnet8-8", 2), seed=0)
    >>> len(data.id_families), len(data.ood_families), len(data.train.y)
    (2, 4, 40)
    """

    def __init__(self, networks: PairedNetworks, setting: PairSetting, seed: int) -> None:
        pool = [name for name in FAMILIES if setting.core != "digits" or name != TOO_LIGHT]
        draws = generator_for(0, f"pairs/{setting.name}")
        chosen = [pool[k] for k in torch.randperm(len(pool), generator=draws).tolist()]
        self.id_families = tuple(chosen[: setting.families])
        self.ood_families = tuple(chosen[setting.families :][:NEW_FAMILIES])
        self._networks = networks
        self._draw = partial(scenes, seed=seed, core=setting.core)

    @cached_property
    def train(self) -> Scenes:
        """The training images."""
        return self._draw(self.id_families, self._networks.examples, part="train")

    @cached_property
    def id_val(self) -> Scenes:
        """As many images of the same families as the ID test, for statistics and heads."""
        return self._draw(self.id_families, self._networks.id_examples, part="validation")

    @cached_property
    def id_test(self) -> Scenes:
        """Other objects on other backgrounds of the same families."""
        return self._draw(self.id_families, self._networks.id_examples)

    @cached_property
    def ood_test(self) -> Scenes:
        """The objects of the ID test on new families of backgrounds."""
        return self._draw(self.ood_families, self._networks.ood_examples)


def built(setting: PairSetting, variant: Variant, seed: int) -> Classifier:
    """Build a network of a pair; initial weights depend on the architecture and the seed alone.

    Args:
        setting: the architecture.
        variant: the network of the pair.
        seed: random seed.

    Source: ours, both networks of a pair start from the same weights.

    >>> setting = PairSetting("shapes", "resnet8-8", 1)
    >>> plain, leaky = (built(setting, variant, 0) for variant in ("plain", "leaky"))
    >>> torch.equal(plain.encoder.conv.weight, leaky.encoder.conv.weight)
    True
    """
    name, width = setting.architecture.split("-")
    model = (resnet8 if name == "resnet8" else small_cnn)(width=int(width), seed=seed)
    if variant == "centered":
        model = with_centering(model)
    elif variant == "instance":
        model = with_instance_norm(model)
    elif variant == "leaky":
        for module in list(model.modules()):
            for child, layer in module.named_children():
                if isinstance(layer, nn.ReLU):
                    setattr(module, child, nn.LeakyReLU(SLOPE, inplace=True))
    assert isinstance(model, Classifier)
    return model


class PairZoo:
    """The networks of one seed, stored below a folder of runs.

    Args:
        networks: data and training.
        seed: seed of the images, the initial weights and the order of examples.
        root: the folder of runs.
    """

    def __init__(self, networks: PairedNetworks, seed: int, root: Path) -> None:
        self.networks = networks
        self.seed = seed
        self.root = root / STORE

    @cached_property
    def _key(self) -> BaseModel:
        return _PairKey(
            recipe=self.networks.recipe, examples=self.networks.examples, seed=self.seed
        )

    def train(self, setting: PairSetting, variants: Sequence[Variant]) -> Iterator[Stage]:
        """Train the missing networks of a setting.

        Args:
            setting: what the networks share.
            variants: the networks; untrained ones are skipped.

        Yields:
            Progress over these networks.
        """
        data = PairData(self.networks, setting, self.seed)
        trained: list[Variant] = [v for v in variants if v not in get_args(Control)]
        with Run.start(self.root, "pairs", self._key, wait=True) as store:
            for index, variant in enumerate(trained):
                part = f"{setting.name}/{variant}"
                doing = f"seed {self.seed}: {setting.name}, {variant}"
                yield Stage(index / len(trained), doing)
                if store.has(part):
                    continue
                model = built(setting, variant, self.seed)
                learner: nn.Module = model
                images = data.train.batch
                if variant == "masked":
                    learner = ObjectGradients(model)
                    images = images._replace(x=torch.cat([images.x, data.train.mask], dim=1))
                training = partial(
                    fit, learner, _shift(images, setting.core), **vars(self.networks.recipe),
                    seed=self.seed, report_every=REPORT_EVERY,
                )  # fmt: skip
                for done in checkpointed(store, part, training):
                    yield Stage((index + done) / len(trained), doing)
                result = learner.network if isinstance(learner, ObjectGradients) else learner
                store.write(part, [{"variant": variant}], result.state_dict())

    def network(self, setting: PairSetting, variant: Variant) -> Classifier:
        """Load a network in eval mode.

        Args:
            setting: what the networks of the pair share.
            variant: the network.

        Raises:
            RunError: the network is not trained yet, or its file is damaged.
        """
        model = built(setting, variant, self.seed)
        if variant == "calibrated":
            images = PairData(self.networks, setting, self.seed).train.batch
            train = (Domain("train", images),)
            return calibrated(model, training_inputs(train, self.seed)).eval()
        if variant != "untrained":
            store = Run.find(self.root, "pairs", self._key)
            model.load_state_dict(store.arrays(f"{setting.name}/{variant}"))
        return model.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The accuracy on images, 400 at a time.

    Source: ours, accuracy in batches that fit in memory.

    >>> accuracy(torch.nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    with torch.no_grad():
        right = [
            model(a).argmax(dim=1) == b for a, b in zip(x.split(400), y.split(400), strict=True)
        ]
    return float(torch.cat(right).double().mean())


def without_learning(networks: PairedNetworks) -> PairedNetworks:
    """The same networks, trained with a step size at which nothing is learned.

    Source: ours, null runs have the same pairs with step sizes that change nothing.
    """
    recipe = replace(networks.recipe, step_size=NULL_STEP_SIZE)
    return networks.model_copy(update={"recipe": recipe})


def _shift(images: Batch, core: Core) -> Shift:
    """Training images as a shift, for `fit`, which uses nothing else of it."""
    train = Domain("train", images)
    return Shift(core, CORES[core], (train,), train, (train,))


class _PairKey(BaseModel, frozen=True):
    """The settings that determine the weights of the networks."""

    recipe: Recipe
    examples: int
    seed: int
