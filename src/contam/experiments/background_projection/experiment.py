"""Trains networks with projections, and projects the features of the one without."""

from collections.abc import Iterator
from functools import partial
from statistics import fmean

import torch
from torch import nn

from contam.batch import Domain
from contam.experiment import Experiment, Stage
from contam.experiments.background_projection.claims import claims
from contam.experiments.background_projection.config import (
    ARMS,
    FULL,
    LAPTOP,
    SMOKE,
    Config,
    null,
)
from contam.experiments.background_projection.directions import (
    Drawn,
    accuracy,
    drawn,
    environments,
    patch_directions,
    projected,
    restrict,
)
from contam.experiments.background_projection.figures import draw, summarize
from contam.experiments.support.untrained_controls import TRAINED, controls
from contam.models.projected_gradients import EnvironmentGradients, ProjectedGradients
from contam.models.small import resnet8
from contam.run import Run
from contam.training.changed_loss import changed_risk
from contam.training.changes import CHANGES
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import optimize

PURPOSE = "background projection"


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network for each projection and seed, and project the features of the plain one."""
    numbers: dict[str, tuple[int, ...]] = {
        "no_change": (0,), "gradients": config.gradients,
        "environment_gradients": config.environment_gradients, "patches": config.patches,
        "random_patches": config.patches,
    }  # fmt: skip
    todo = [
        (seed, arm, directions)
        for seed in range(config.seeds)
        for arm, counts in numbers.items()
        for directions in counts
    ]
    for index, (seed, arm, directions) in enumerate(todo):
        what = f"seed {seed}: {ARMS.get(arm, 'no change')}, {directions} directions"
        for done in _train(config, run, arm, directions, seed):
            yield Stage((index + done) / len(todo), what)


def _train(config: Config, run: Run, arm: str, directions: int, seed: int) -> Iterator[float]:
    """Train one network, unless the run has it, and yield the share that is done."""
    part = f"trained/{arm}/{directions}/seed{seed}"
    if run.has(part) and (arm != "no_change" or run.has(f"features/seed{seed}")):
        return
    images = drawn(config, seed)
    shown = images.scenes["train"]
    train = (Domain("train", shown.batch),)
    network = resnet8(width=config.width, seed=seed)
    model: nn.Module = network
    learner, change = model, None
    if arm == "gradients":
        learner, change = ProjectedGradients(network, directions), CHANGES["gradient projection"]
        model = learner.network
    elif arm == "environment_gradients":
        learner = EnvironmentGradients(network, *environments(shown), directions=directions)
        model = learner.network
    elif arm != "no_change":
        random = arm == "random_patches"
        restrict(model, patch_directions(model, images.pairs, directions, seed, random=random))
    loss = changed_risk(learner, change, masks=shown.mask, purpose=PURPOSE, seed=seed)
    training = partial(
        optimize, learner, TrainingExamples(train), loss, config.recipe, purpose=PURPOSE,
        seed=seed, report_every=max(1, config.recipe.length(len(shown.y)) // 20),
    )  # fmt: skip
    yield from checkpointed(run, part, training)
    model.eval()
    if arm == "no_change":
        untrained = resnet8(width=config.width, seed=seed).eval()
        networks = {TRAINED: network, **controls(untrained, train, seed)}
        rows = [
            {"state": state} | row
            for state, one in networks.items()
            for row in projected(config, one, images, seed)
        ]
        run.write(f"features/seed{seed}", rows)
    row = {"arm": arm, "directions": directions, "seed": seed}
    run.write(part, [row | _accuracies(model, images)])


@torch.no_grad()
def _accuracies(model: nn.Module, images: Drawn) -> dict[str, float]:
    """The accuracy on the ID test, and the mean over the OOD tests.

    Source: ours, one OOD accuracy for each network, so that networks can be compared.
    """
    own, *others = (
        accuracy(model(scenes.x), scenes.y) for scenes in (images.scenes["id_test"], *images.ood)
    )
    return {"id_accuracy": own, "ood_accuracy": fmean(others)}


EXPERIMENT = Experiment(
    name="background_projection",
    title="The background's span projected out of a network for images",
    about="In the paper's data model, gradients that are projected out of the span of "
    "counterfactual pairs learn no background. The same is tried on a convolutional network and "
    "images: in its features, in their gradients, and in the patches of its first layer.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the projection of Sec. 5 beyond its data model."""
