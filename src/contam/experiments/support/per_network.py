"""Looking into every network of a lineup in the same way, with one part of a run for each."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Domain
from contam.experiment import Stage
from contam.experiments.support.model_zoo import (
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    ModelZoo,
    Networks,
    NetworkSpec,
)
from contam.measures.class_profiles import ClassProfiles, Profile
from contam.models.observe import observe
from contam.run import Run


class Config(BaseModel, frozen=True, extra="forbid"):
    """Whom the figures compare. Defaults are the paper's: CLIP's ResNet-50 and its student."""

    networks: Networks = Networks()
    seeds: PositiveInt = 1


PAPER = Config()
VIT = Config(networks=Networks(teacher="open_clip:ViT-B-16/openai", standard=None))
LAPTOP = Config(networks=SMALL_NETWORKS, seeds=3)
SMOKE = Config(networks=TINY_NETWORKS, seeds=2)

Look = Callable[[ModelZoo, NetworkSpec], tuple[list[dict[str, Any]], Mapping[str, Tensor]]]
"""Rows and arrays about one network."""

TRAINING = 0.9
"""Of the time, roughly; the rest is looking."""
BATCH = 64
"""Images at a time, such as all layers of a large network have room for."""


def specs(networks: Networks) -> tuple[NetworkSpec, ...]:
    """Whom the paper's figures compare; the untrained network is what to compare them with.

    Source: ours.
    """
    standard = (ERM,) if networks.standard is not None else ()
    return (TEACHER, STUDENT, *standard, UNTRAINED)


def look_into_each(run: Run, networks: Networks, seeds: int, look: Look) -> Iterator[Stage]:
    """Train the networks that are not there yet, and write what is seen in each of them.

    Parts that are written already are left alone. Every row says its `network` and `seed`.

    Source: ours.

    Raises:
        ValueError: data or weights are missing, with what to put where.
    """
    for seed in range(seeds):
        todo = {f"net/{each.name}/seed{seed}": each for each in specs(networks)}
        todo = {part: spec for part, spec in todo.items() if not run.has(part)}
        zoo = ModelZoo(networks, seed, run.folder.parent)
        for stage in zoo.train([*todo.values()]):
            yield Stage((seed + TRAINING * stage.done) / seeds, stage.doing)
        for index, (part, spec) in enumerate(todo.items()):
            done = TRAINING + (1 - TRAINING) * index / len(todo)
            yield Stage((seed + done) / seeds, f"seed {seed}: looking into {spec.name}")
            rows, arrays = look(zoo, spec)
            about = {"network": spec.name, "seed": seed}
            run.write(part, [about | row for row in rows], arrays)


def seen_in(run: Run) -> list[dict[str, Any]]:
    """The rows of all networks: those of one seed after the other, in the order of `specs`.

    Source: ours.
    """
    rows = [row for part in run.parts("net/") for row in run.read(part)]
    names = [spec.name for spec in (TEACHER, STUDENT, ERM, UNTRAINED)]
    return sorted(rows, key=lambda row: (row["seed"], names.index(row["network"])))


def names_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The networks that the rows are about, in their order.

    Source: ours.
    """
    return list(dict.fromkeys(row["network"] for row in rows))


def seeds_in(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The seeds that the rows are about.

    Source: ours.
    """
    return sorted({row["seed"] for row in rows})


def arrays_of(run: Run, network: str) -> list[Mapping[str, Tensor]]:
    """The arrays of a network, one mapping for each seed.

    Source: ours.
    """
    return [run.arrays(part) for part in run.parts(f"net/{network}/seed")]


def one_image(model: nn.Module, images: Domain) -> Tensor:
    """The first image, where the model is: enough to find its layers.

    Source: ours.
    """
    device = next(p.device for p in model.parameters())
    return next(iter(images.batches(1))).x.to(device)


def profiled(
    model: nn.Module,
    images: Domain,
    layers: Collection[str],
    countings: Sequence[Int[Tensor, " examples"]],
) -> list[dict[str, Profile]]:
    """What each layer does for each class, for several ways of counting, in one pass.

    A counting gives every example a class, from 0 on without a gap, or -1 to leave it out.

    Source: ours, what lets a pass serve comparisons among different classes.

    Raises:
        ValueError: no such layer, or a counting with a gap or without any example.
    """
    sums = [ClassProfiles(int(counting.max()) + 1) for counting in countings]
    start = 0
    for seen in observe(model, images.batches(BATCH), layers, "moments"):
        end = start + len(seen.batch.y)
        for each, counting in zip(sums, countings, strict=True):
            y = counting[start:end].to(seen.batch.y.device)
            kept = y >= 0
            if kept.any():
                some = seen.batch.pick(kept)._replace(y=y[kept])
                moments = {layer: found[kept] for layer, found in seen.layers.items()}
                each.update(seen._replace(batch=some, logits=seen.logits[kept], layers=moments))
        start = end
    return [each.compute().layers for each in sums]


def without_gaps(y: Int[Tensor, " examples"]) -> Int[Tensor, " examples"]:
    """The classes numbered among those that occur: tests of many classes may lack some.

    Source: ours.
    """
    return torch.unique(y, return_inverse=True)[1]
