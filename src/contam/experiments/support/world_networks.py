"""Trains the networks of a world, one for each remedy that changes the training, and repairs them.

Within a seed, all networks start from the same weights, except those that are fine-tuned, and see
the same images in the same order, except those that learn from other images.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Domain
from contam.data.shapes import Scenes, pretraining
from contam.data.worlds import World, world
from contam.experiment import NULL_STEP_SIZE
from contam.models.classifier import Classifier
from contam.models.logits_adapter import LogitsAdapter
from contam.models.small import resnet8
from contam.remedies import REPAIRS, Repair, WeightInterpolation, cross_fit
from contam.remedies.repair import predict
from contam.run import Run
from contam.training.changed_loss import changed_risk
from contam.training.changes import CHANGES, TrainingChange
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe, optimize

REPORT_EVERY = 50
"""Training steps between two progress reports."""
Kind = Literal["baseline", "change", "data", "repair"]
KINDS: dict[str, str] = {
    "change": "change of the training",
    "data": "other training data",
    "repair": "repair of the trained network",
}
"""Kinds of remedies, and their names."""


class WorldNetworks(BaseModel, frozen=True, extra="forbid"):
    """Data and training of the networks."""

    recipe: Recipe = Recipe(1e-2, 0.05, 32, epochs=8)
    fine_tuning_recipe: Recipe = Recipe(2e-3, 0.05, 32, epochs=2)
    """Training of the pre-trained network on the images of a world."""
    width: PositiveInt = 8
    """Channels of the first stage of resnet8."""
    train: PositiveInt = 1800
    """Training images, about."""
    pretraining: PositiveInt = 3000
    """Images of other objects on diverse backgrounds, a multiple of 50."""
    test: PositiveInt = 800
    """Images of each test, about."""


class WorldArm(NamedTuple):
    """A training."""

    name: str
    kind: Kind
    change: TrainingChange | None = None
    images: Literal["train", "shifted", "more", "pretraining"] = "train"
    """The images of `World` that it learns from, or those of the pre-training."""
    fine_tuned: bool = False
    """Whether it starts from the pre-trained network."""

    @property
    def part(self) -> str:
        """The end of its part's name."""
        return self.name.replace(" ", "_")


BASELINE = WorldArm("no remedy", "baseline")
PRETRAINED = WorldArm("pre-trained network", "data", images="pretraining")
FINE_TUNED = WorldArm("pre-training on diverse backgrounds", "data", fine_tuned=True)
ARMS = (
    BASELINE,
    *(WorldArm(name, "change", change) for name, change in CHANGES.items() if name != "no change"),
    WorldArm("training images of the shift", "data", images="shifted"),
    WorldArm("more training images", "data", images="more"),
    FINE_TUNED,
)
"""The trainings of a world. The change that changes nothing has no effect by construction."""


class WorldZoo:
    """The networks of one world and seed; their weights and scores are parts of a run.

    Args:
        networks: data and training.
        name: name of the world.
        seed: seed of the images, of the initial weights and of the order of the images.
        run: the run.
    """

    def __init__(self, networks: WorldNetworks, name: str, seed: int, run: Run) -> None:
        self.networks, self.name, self.seed, self.run = networks, name, seed, run

    @cached_property
    def world(self) -> World:
        """The images of the world."""
        size = self.networks
        return world(self.name, self.seed, train=size.train, test=size.test)

    def part(self, arm: WorldArm) -> str:
        """Name of an arm's part; the pre-trained network is the same in all worlds."""
        if arm is PRETRAINED:
            return f"pretrained/seed{self.seed}"
        return f"world/{self.name}/seed{self.seed}/{arm.part}"

    @property
    def repairs_part(self) -> str:
        """Name of the part with the effects of repairs."""
        return f"world/{self.name}/seed{self.seed}/repairs"

    def train(self, arm: WorldArm) -> Iterator[float]:
        """Train an arm, if the run has no such part, and yield the share that is done.

        An arm without images of its own in this world, or whose change does not fit, is written
        as a part without rows.
        """
        part = self.part(arm)
        if self.run.has(part):
            return
        images = self._images(arm)
        if images is None or self._misfit(arm, images):
            self.run.write(part, [])
            return
        network = yield from self._trained(arm, images, part)
        rows: list[dict[str, Any]] = []
        if arm is not PRETRAINED:
            labels = len(images.y) // 2 if arm.images == "shifted" else 0
            rows = [self._row(arm.name, arm.kind, labels) | self._scores(network)]
        kept = arm in (BASELINE, PRETRAINED, FINE_TUNED)
        self.run.write(part, rows, network.state_dict() if kept else None)

    def repair(self) -> None:
        """Measure every repair that fits; weights are interpolated with the pre-trained ones."""
        if self.run.has(self.repairs_part):
            return
        cases: list[tuple[Repair, WorldArm]] = [(repair, BASELINE) for repair in REPAIRS]
        base = WeightInterpolation(self.network(PRETRAINED))
        rows = []
        for repair, arm in [*cases, (base, FINE_TUNED)]:
            adapter = LogitsAdapter(self.network(arm))
            own, other = self.world.id_test.batch, self.world.ood_test.batch
            if repair.applies(adapter, own, other):
                continue
            same = None
            if self.world.paired:
                same = torch.arange(min(len(own.y), len(other.y)))[:, None].expand(-1, 2)
            effect = cross_fit(repair, adapter, own, other, same=same, seed=self.seed)
            rows.append(
                self._row(repair.title, "repair", effect.labels)
                | {"id": _share(effect.id_after), "ood": _share(effect.ood_after)}
                | {"id_before": _share(effect.id_before), "ood_before": _share(effect.ood_before)}
            )
        self.run.write(self.repairs_part, rows)

    def network(self, arm: WorldArm) -> Classifier:
        """Load the baseline, the pre-trained or the fine-tuned network in eval mode."""
        model = self._new()
        model.load_state_dict(self.run.arrays(self.part(arm)))
        return model.eval()

    def _new(self) -> Classifier:
        return resnet8(width=self.networks.width, seed=self.seed)

    def _images(self, arm: WorldArm) -> Scenes | None:
        if arm.images == "pretraining":
            domains = pretraining(self.seed, n=self.networks.pretraining)
            parts = [batch for domain in domains for batch in domain.batches(len(domain))]
            x, y, domain = (torch.cat(part) for part in zip(*parts, strict=True))
            return Scenes(x, y, domain, x[:, :1])
        return getattr(self.world, arm.images)

    def _misfit(self, arm: WorldArm, images: Scenes) -> str:
        change = arm.change
        return "" if change is None else change.misfit(self._new(), images.x[:2], masks=True)

    def _trained(
        self, arm: WorldArm, images: Scenes, part: str
    ) -> Generator[float, None, nn.Module]:
        model = self._initial(arm)
        wrap = None if arm.change is None else arm.change.wrap
        learner = model if wrap is None else wrap(model)
        loss = changed_risk(
            learner, arm.change, masks=images.mask, purpose=f"worlds/{self.name}", seed=self.seed
        )
        recipe = self.networks.fine_tuning_recipe if arm.fine_tuned else self.networks.recipe
        training = partial(
            optimize, learner, TrainingExamples((Domain("train", images.batch),)), loss, recipe,
            purpose="worlds", seed=self.seed, report_every=REPORT_EVERY,
        )  # fmt: skip
        yield from checkpointed(self.run, part, training)
        if wrap is not None:
            # A learner leaves hooks in its copy of the network.
            model.load_state_dict(learner.network.state_dict())  # pyright: ignore
        return model.eval()

    def _initial(self, arm: WorldArm) -> nn.Module:
        """A network before its training."""
        model: nn.Module = self.network(PRETRAINED) if arm.fine_tuned else self._new()
        return model if arm.change is None else arm.change.network(model)

    def _row(self, remedy: str, kind: str, labels: int) -> dict[str, Any]:
        return {"world": self.name, "seed": self.seed, "remedy": remedy, "kind": kind} | {
            "labels": labels
        }

    def _scores(self, network: nn.Module) -> dict[str, float]:
        adapter = LogitsAdapter(network)
        return {
            key: _share(predict(adapter, test.x, batch_size=200) == test.y)
            for key, test in (("id", self.world.id_test), ("ood", self.world.ood_test))
        }


def without_learning(networks: WorldNetworks) -> WorldNetworks:
    """The same networks, trained with step sizes at which nothing is learned.

    Source: ours, null runs have the same networks with step sizes that change nothing.

    >>> without_learning(WorldNetworks()).recipe.step_size
    1e-09
    """
    recipes = {
        name: replace(getattr(networks, name), step_size=NULL_STEP_SIZE)
        for name in ("recipe", "fine_tuning_recipe")
    }
    return networks.model_copy(update=recipes)


def _share(right: Tensor) -> float:
    return float(right.double().mean())
