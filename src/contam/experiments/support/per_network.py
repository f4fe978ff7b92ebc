"""Measures the networks of a zoo, and writes one part of a run for each."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from contam.batch import Domain
from contam.experiment import NotJudged, Stage
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    CALIBRATED,
    ERM,
    REFERENCE_NETWORKS,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
    without_learning,
)
from contam.measures.class_profiles import ClassProfiles, Profile
from contam.models.observe import observe
from contam.run import DataFrame, Run

TRAINING = 0.9
"""Approximate fraction of the time for training; the rest is for measuring."""
BATCH = 64
"""Batch size; the outputs of all layers of a large network must fit in memory."""

CONTROLS = (UNTRAINED, CALIBRATED)
"""Networks with random weights: as they are drawn, and with calibrated batch norms."""

Measure = Callable[[ModelZoo, NetworkSpec], tuple[list[dict[str, Any]], Mapping[str, Tensor]]]
"""Computes the rows and arrays of one network."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Networks and seeds. Defaults are the paper's: CLIP's ResNet-50 and its student."""

    networks: Networks = Networks()
    seeds: PositiveInt = 1


PAPER = Config()
VIT = Config(networks=Networks(teacher="open_clip:ViT-B-16/openai", standard=None))
LAPTOP = Config(networks=SMALL_NETWORKS, seeds=3)
REFERENCE = Config(networks=REFERENCE_NETWORKS)
SMOKE = Config(networks=TINY_NETWORKS, seeds=2)


GAIN = 0.1
"""ID accuracy above that of an untrained network with a fitted head that shows learning."""

Described = TypeVar("Described", bound=BaseModel)


def null(config: Described) -> Described:
    """A config with a field `networks`, without any learning but that of probes.

    Source: ours, null runs have the same networks with step sizes that change nothing.

    Raises:
        ValueError: a network's weights come from a file.
    """
    networks = without_learning(getattr(config, "networks"))  # noqa: B009
    return config.model_copy(update={"networks": networks})


def specs(networks: Networks) -> tuple[NetworkSpec, ...]:
    """The networks that the paper's figures compare, and untrained ones as controls.

    Source: ours, the networks that a config names, each once.

    >>> [spec.name for spec in specs(VIT.networks)]
    ['teacher', 'student', 'untrained', 'calibrated']
    """
    student = (STUDENT,) if networks.data != "shapes" or networks.student_recipe else ()
    standard = (ERM,) if networks.standard is not None else ()
    return (TEACHER, *student, *standard, *CONTROLS)


def measure_each(
    run: Run,
    networks: Networks,
    seeds: int,
    measure: Measure,
    *,
    chosen: Sequence[NetworkSpec] | None = None,
    name: Callable[[NetworkSpec], str] = lambda spec: spec.name,
) -> Iterator[Stage]:
    """Train the missing networks, measure every network, and write a part for each.

    Parts that are already written are skipped. The columns `network` and `seed` are added to rows.

    Args:
        run: the run to write.
        networks: the config of the zoo.
        seeds: number of seeds.
        measure: computes the rows and arrays of one network.
        chosen: the networks; None for `specs(networks)`.
        name: returns the name of a network in the names of parts, `net/<name>/seed<seed>`.

    Source: ours, a part for each network, so that interrupted runs resume.

    Raises:
        ValueError: files of data or weights are missing; the message lists them.
    """
    for seed in range(seeds):
        parts = {f"net/{name(spec)}/seed{seed}": spec for spec in chosen or specs(networks)}
        parts = {part: spec for part, spec in parts.items() if not run.has(part)}
        zoo = ModelZoo(networks, seed, run.folder.parent)
        for stage in zoo.train([*parts.values()]):
            yield Stage((seed + TRAINING * stage.done) / seeds, stage.doing)
        for index, (part, spec) in enumerate(parts.items()):
            done = TRAINING + (1 - TRAINING) * index / len(parts)
            yield Stage((seed + done) / seeds, f"seed {seed}: measuring {spec.name}")
            rows, arrays = measure(zoo, spec)
            key = {"network": spec.name, "seed": seed}
            run.write(part, [key | row for row in rows], arrays or None)


def network_table(run: Run, chosen: Sequence[NetworkSpec] | None = None) -> DataFrame:
    """Read the rows of all networks, sorted by seed and by the order of `chosen`.

    Args:
        run: the run to read.
        chosen: the networks in order; None for the order of `specs`.

    Source: ours, the rows of all networks as one table.
    """
    names = [spec.name for spec in chosen or (TEACHER, STUDENT, ERM, *CONTROLS)]
    table = run.table("net/")
    table["order"] = table.network.map(names.index)
    ordered = table.sort_values(["seed", "order"], kind="stable", ignore_index=True)
    return ordered.drop(columns="order")


def by_network(table: DataFrame, column: str) -> DataFrame:
    """Pivot a column into a table of seeds by networks; rows of the same network are averaged.

    Args:
        table: rows with the columns `network` and `seed`.
        column: the column of values.

    Source: ours, claims compare networks, with one number for each seed.

    >>> import pandas
    >>> rows = {"network": ["b", "a"], "seed": [0, 0], "mean": [1.0, 2.0]}
    >>> by_network(pandas.DataFrame(rows), "mean").loc[0].to_dict()
    {'b': 1.0, 'a': 2.0}
    """
    values = table.groupby(["seed", "network"], sort=False)[column].agg(fmean).unstack("network")
    return values[list(table.network.unique())].sort_index()


def compared(table: DataFrame, column: str, *networks: NetworkSpec) -> list[Any]:
    """Return a column of some networks.

    Args:
        table: rows with the columns `network` and `seed`.
        column: the column of values.
        networks: the networks.

    Returns:
        One Series over the seeds for each network.

    Source: ours, a claim reads one column of the networks that it compares.

    Raises:
        NotJudged: one of the networks is not in the table.

    >>> import pandas
    >>> name = CONTROLS[0].name
    >>> table = pandas.DataFrame({"network": name, "seed": [0, 1], "accuracy": [0.1, 0.2]})
    >>> [values.tolist() for values in compared(table, "accuracy", CONTROLS[0])]
    [[0.1, 0.2]]
    """
    values = by_network(table, column)
    for spec in networks:
        if spec.name not in values:
            raise NotJudged(f"there is no {spec.name} in this run")
    return [values[spec.name] for spec in networks]


def require_learning(table: DataFrame, column: str, names: Sequence[str] = ()) -> None:
    """Require that networks recognize more ID images than untrained ones with a fitted head.

    Args:
        table: rows of the networks; a run without untrained networks meets the condition.
        column: the ID accuracy.
        names: the networks; none stands for all trained ones.

    Source: ours; what networks do not do is claimed of those that learned.

    Raises:
        NotJudged: a network did not learn.
    """
    accuracy = by_network(table, column)
    if not controls_in(accuracy):
        return
    control = largest_control(accuracy)
    for name in names or trained(table):
        if name in accuracy and (gain := (accuracy[name] - control).min()) < GAIN:
            raise NotJudged(
                f"{name} did not learn: its ID accuracy is {gain:+.2f} from an untrained network's"
            )


def trained(table: DataFrame) -> list[str]:
    """Return the names of the trained networks, in the order of the table.

    Source: ours, the networks that learned from data, without controls.

    >>> import pandas
    >>> trained(pandas.DataFrame({"network": ["ERM", CONTROLS[0].name, "ERM"]}))
    ['ERM']
    """
    controls = {spec.name for spec in CONTROLS}
    return [name for name in table.network.unique() if name not in controls]


def largest_control(values: DataFrame) -> Any:
    """The largest value of the untrained networks that a table of `by_network` has, by seed.

    Source: ours; what training adds is measured against both controls.

    >>> import pandas
    >>> first, second = (spec.name for spec in CONTROLS)
    >>> largest_control(pandas.DataFrame({"ERM": [0.9], first: [0.1], second: [0.3]})).tolist()
    [0.3]
    """
    return values[controls_in(values)].max(axis=1)


def smallest_control(values: DataFrame) -> Any:
    """The smallest value of the untrained networks that a table of `by_network` has, by seed.

    Source: ours; what training takes away is measured against both controls.

    >>> import pandas
    >>> first, second = (spec.name for spec in CONTROLS)
    >>> smallest_control(pandas.DataFrame({"ERM": [0.9], first: [0.1], second: [0.3]})).tolist()
    [0.1]
    """
    return values[controls_in(values)].min(axis=1)


def controls_in(values: DataFrame) -> list[str]:
    """The names of the untrained networks that are columns of a table.

    Source: ours.

    >>> import pandas
    >>> name = CONTROLS[0].name
    >>> controls_in(pandas.DataFrame({"ERM": [0.9], name: [0.1]})) == [name]
    True
    """
    return [spec.name for spec in CONTROLS if spec.name in values]


def arrays_of(run: Run, network: str) -> list[Mapping[str, Tensor]]:
    """Read the arrays of a network, one mapping for each seed.

    Source: ours, arrays are read only where a figure needs them.
    """
    return [run.arrays(part) for part in run.parts(f"net/{network}/seed")]


def one_image(model: nn.Module, images: Domain) -> Tensor:
    """Return the first image as a batch on the model's device, to find the layers of the model.

    Source: ours, a batch of one, for functions that take batches.

    >>> from contam.batch import Batch
    >>> zeros = torch.zeros(4).long()
    >>> one_image(nn.Linear(2, 2), Domain("meadow", Batch(torch.zeros(4, 2), zeros, zeros))).shape
    torch.Size([1, 2])
    """
    device = next(p.device for p in model.parameters())
    return next(iter(images.batches(1))).x.to(device)


def profiled(
    model: nn.Module,
    images: Domain,
    layers: Collection[str],
    labelings: Sequence[Int[Tensor, " examples"]],
) -> list[dict[str, Profile]]:
    """Compute class profiles of layers under several labelings of the same images, in one pass.

    Args:
        model: the network.
        images: the images.
        layers: names of layers.
        labelings: for each labeling, the class of every image: contiguous integers from 0, or -1
            to leave an image out.

    Returns:
        For each labeling, the profile of each layer.

    Source: ours, to compare sets of classes in one pass.

    Raises:
        ValueError: a layer does not exist, or a labeling has gaps or leaves out every image.
    """
    profiles = [ClassProfiles(int(labels.max()) + 1) for labels in labelings]
    start = 0
    for observation in observe(model, images.batches(BATCH), layers, "moments"):
        batch = observation.batch
        end = start + len(batch.y)
        for profile, labels in zip(profiles, labelings, strict=True):
            y = labels[start:end].to(batch.y.device)
            kept = y >= 0
            if kept.any():
                profile.update(
                    observation._replace(
                        batch=batch.pick(kept)._replace(y=y[kept]),
                        logits=observation.logits[kept],
                        layers={name: values[kept] for name, values in observation.layers.items()},
                    )
                )
        start = end
    return [profile.compute().layers for profile in profiles]


def contiguous(y: Int[Tensor, " examples"]) -> Int[Tensor, " examples"]:
    """Renumber labels from 0 without gaps, since a test may lack some classes.

    Source: ours, measures need labels without gaps.

    >>> contiguous(torch.tensor([7, 2, 7])).tolist()
    [1, 0, 1]
    """
    return torch.unique(y, return_inverse=True)[1]
