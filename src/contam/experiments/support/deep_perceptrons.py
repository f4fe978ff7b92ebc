"""What every layer of a perceptron learns of core and background features, which are known here."""

from typing import Any

import torch
from torch import Tensor

from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.measures.variance import variance_shares
from contam.rng import bit_generator_for
from contam.theory.distribution import Sample, Where
from contam.theory.projections import layer_sums
from contam.theory.risks import held_out, risk
from contam.theory.trajectory import State

BACKGROUNDS = 9
"""Backgrounds in distribution, and as many out of distribution, in which each object is shown."""


@torch.no_grad()
def layer_effects(state: State, *, examples: int, objects: int) -> list[dict[str, Any]]:
    """Measure each hidden layer of a perceptron, as the blocks of networks for images are measured.

    Args:
        state: a state of the training.
        examples: held-out examples of each distribution.
        objects: core parts of each class that are shown with every background.

    Returns:
        A row for each layer: U and V and their ratio, the attenuation of its class profile by OOD
        backgrounds behind the same core features, the share of its class response that depends on
        the background, and the accuracies and risks of the network.

    Source: ours.

    >>> from contam.theory.setting import Setting
    >>> from contam.theory.trajectory import simulate
    >>> (state,) = simulate(Setting(width=32, depth=2, steps=1), seed=0)
    >>> [row["block"] for row in layer_effects(state, examples=500, objects=5)]
    [1, 2]
    """
    data, network = state.setting.data, state.network
    core = data.features.core
    inside, outside = held_out(state, "id", examples), held_out(state, "ood", examples)
    shifted = Sample(torch.cat([inside.f[:, :core], outside.f[:, core:]], dim=1), *inside[1:])
    scores: dict[str, Any] = {}
    for where, sample in (("id", inside), ("ood", shifted)):
        loss, error = risk(state, sample)
        scores |= {f"{where}_risk": loss, f"{where}_accuracy": 1 - (error or 0.0)}
    crossed, classes = _crossed(state, objects)
    layers = zip(
        network.preactivations(inside.f),
        network.preactivations(shifted.f),
        network.preactivations(crossed.flatten(0, 1)),
        strict=True,
    )
    y, rows = data.class_index(inside.y), []
    for number, (own, new, grid) in enumerate(layers, start=1):
        u, v = layer_sums(own, inside, data)
        means = [
            ClassMeans(data.classes, z.shape[1]).update(network.activate(z), y) for z in (own, new)
        ]
        shares = variance_shares(network.activate(grid).view(*crossed.shape[:2], -1), classes)
        rows.append({
            "block": number, "depth": number / state.setting.depth,
            "U": u, "V": v, "contamination": v / u,
            "attenuation": class_profile_attenuation(*means, paired=True).value,
            "interaction": shares.of_interaction / (shares.of_class + shares.of_interaction),
        } | scores)  # fmt: skip
    return rows


def _crossed(state: State, objects: int) -> tuple[Tensor, Tensor]:
    """Every core part with every background, (objects, backgrounds, features), and the classes."""
    data = state.setting.data
    core = data.features.core

    def draw(count: int, where: Where, purpose: str) -> Sample:
        bits = bit_generator_for(state.seed, f"crossed {purpose}")
        return data.sample(count, bits, where, dtype=state.setting.dtype)

    # Enough draws that every class has its number of objects.
    drawn = draw(4 * objects * data.classes, "id", "objects")
    parts = [drawn.f[drawn.y == label][:objects, :core] for label in data.labels]
    backgrounds = torch.cat(
        [draw(BACKGROUNDS, where, where).f[:, core:] for where in ("id", "ood")]
    )
    cores = torch.cat(parts)
    crossed = torch.cat(
        [
            cores[:, None].expand(-1, len(backgrounds), -1),
            backgrounds[None].expand(len(cores), -1, -1),
        ],
        dim=2,
    )
    return crossed, torch.arange(data.classes).repeat_interleave(objects)
