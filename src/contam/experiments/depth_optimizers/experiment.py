"""Trains networks of several depths with several optimizers, and measures every block."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from contam.batch import Shift
from contam.data.shapes import shapes
from contam.experiment import Experiment, Stage
from contam.experiments.depth_optimizers.claims import claims
from contam.experiments.depth_optimizers.config import (
    FULL,
    IMAGE_KINDS,
    LAPTOP,
    SMOKE,
    Config,
    TrainedNetwork,
    networks,
    null,
)
from contam.experiments.depth_optimizers.figures import draw, summarize
from contam.experiments.support.altered_backgrounds import Altered, altered_images, effects_on
from contam.experiments.support.deep_perceptrons import layer_effects
from contam.experiments.support.untrained_controls import DRAWN, TRAINED, controls
from contam.measures.accuracy import accuracy
from contam.models.classifier import Classifier
from contam.models.deep import deep_resnet, deep_vit
from contam.models.observe import observe
from contam.models.readings import over_space, over_tokens
from contam.run import Run
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate
from contam.training.checkpointed import checkpointed
from contam.training.optimize import TrainingState
from contam.training.supervised import fit


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train every network from every seed, and measure its blocks before and after training."""
    todo = [(network, seed) for seed in range(config.seeds) for network in networks(config)]
    for index, (network, seed) in enumerate(todo):
        for done in _train(config, run, network, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {network.part(seed)}")


def _train(config: Config, run: Run, network: TrainedNetwork, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    part = network.part(seed)
    if run.has(part):
        return
    if network.kind in IMAGE_KINDS:
        rows = yield from _rows_of_images(config, run, network, seed)
    else:
        rows = _rows_of_perceptron(config, network, seed)
    run.write(part, [network._asdict() | {"seed": seed} | row for row in rows])


def perceptron(config: Config, network: TrainedNetwork) -> Setting:
    """The setting of an MLP.

    Args:
        config: the data, the sizes and the step sizes.
        network: its depth and its optimizer.

    Source: ours, the paper's data and networks of more layers.

    >>> setting = perceptron(Config(), TrainedNetwork("linear", 4, "adamw"))
    >>> setting.depth, setting.activation, setting.optimizer
    (4, 'identity', 'adamw')
    """
    step_sizes = {
        "sgd": config.mlp.step_size,
        "momentum": config.mlp_momentum_step_size,
        "adamw": config.mlp_adamw_step_size,
    }
    return replace(
        config.mlp,
        depth=network.blocks,
        activation="identity" if network.kind == "linear" else "relu",
        optimizer=network.optimizer,
        step_size=step_sizes[network.optimizer],
    )


def _rows_of_perceptron(config: Config, network: TrainedNetwork, seed: int) -> list[dict[str, Any]]:
    """Train an MLP; a row for each layer before and after."""
    setting = perceptron(config, network)
    return [
        {"state": TRAINED if state.step else DRAWN} | row
        for state in simulate(setting, seed, (0, setting.steps))
        for row in layer_effects(state, examples=config.examples, objects=config.objects)
    ]


def built(config: Config, network: TrainedNetwork, seed: int) -> Classifier:
    """Build an untrained network; its weights depend on the kind, the depth and the seed."""
    if network.kind == "resnet":
        return deep_resnet(blocks=network.blocks, width=config.resnet_width, seed=seed)
    return deep_vit(blocks=network.blocks, width=config.vit_width, seed=seed)


def _rows_of_images(
    config: Config, run: Run, network: TrainedNetwork, seed: int
) -> Generator[float, None, list[dict[str, Any]]]:
    """Train a network for images; a row for each block before and after."""
    shift = shapes(seed, train=config.train, id_val=40, id_test=config.id_test,
                   ood_test=config.ood_test)  # fmt: skip
    altered = altered_images(seed, images=config.images, objects=config.objects)
    model = built(config, network, seed)

    def rows(state: str, one: Classifier) -> list[dict[str, Any]]:
        return [{"state": state} | row for row in measured(one, network, shift, altered)]

    def before() -> list[dict[str, Any]]:
        untrained = controls(model, shift.train, seed).items()
        return [row for state, one in untrained for row in rows(state, one)]

    def measure(stage: TrainingState) -> list[dict[str, Any]]:
        return rows(TRAINED, model) if stage.step == stage.steps else []

    training = partial(
        fit, model, shift, step_size=getattr(config, f"{network.optimizer}_step_size"),
        weight_decay=0.05 if network.optimizer == "adamw" else 5e-4,
        momentum={"sgd": 0.0, "momentum": 0.9, "adamw": None}[network.optimizer],
        batch_size=config.batch_size, epochs=config.epochs * (2 if network.kind == "vit" else 1),
        seed=seed, report_every=config.train // config.batch_size,
    )  # fmt: skip
    _, records = yield from checkpointed(
        run, network.part(seed), training, measure=measure, before=before
    )
    return records


def measured(
    model: Classifier, network: TrainedNetwork, shift: Shift, altered: Altered
) -> Iterator[dict[str, Any]]:
    """Measure the accuracy of a network, and the effects of the background on every block.

    Args:
        model: the network.
        network: its kind and depth.
        shift: images for the accuracy.
        altered: objects on changed backgrounds.

    Yields:
        A row for each block: its depth, the attenuation of its class profile under changes of ID
        backgrounds, and the share of its class response that depends on the background.

    Source: ours, what is measured of every block, as rows.
    """
    scores = {
        "id_accuracy": accuracy(model, shift.id_test).share,
        "ood_accuracy": fmean(accuracy(model, domain).share for domain in shift.ood_tests),
    }
    layers = [f"encoder.block{k + 1}" for k in range(network.blocks)]
    reading = over_space if network.kind == "resnet" else over_tokens
    values: dict[int, dict[str, Tensor]] = {}
    for images in (altered.plain, *altered.changed.values(), *altered.before):
        observations = list(observe(model, images, layers, reading))
        values[id(images)] = {
            layer: torch.cat([batch.layers[layer] for batch in observations]) for layer in layers
        }
    for number, layer in enumerate(layers, start=1):
        effects = effects_on(
            lambda images, layer=layer: values[id(images)][layer], altered, len(shift.classes)
        )
        yield {
            "block": number, "depth": number / network.blocks, "attenuation": effects.attenuation,
            "interaction": effects.dependent,
        } | scores  # fmt: skip


EXPERIMENT = Experiment(
    name="depth_optimizers",
    title="Where in depth contamination arises, and with which optimizer",
    about="Perceptrons learn the paper's data, and residual networks and vision transformers of "
    "several depths learn ten shapes in front of four families of backgrounds, with SGD, SGD with "
    "momentum and AdamW. Each layer or block is then shown the same objects in front of other "
    "backgrounds.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the questions of Sec. 7 about depth and optimizers."""
