"""The evidence from inside a network: records of its layers and neurons, from finished passes."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch

from contam.auditing.layer_probes import (
    ProbeExamples,
    domain_labels,
    majority_error,
    probe_classes,
    probe_domain,
    projection,
    split,
)
from contam.auditing.layer_records import UNTRAINED, LayerRecordBuilder
from contam.auditing.neurons import neuron_table
from contam.auditing.passes import BUDGET, Budget, Passes
from contam.auditing.records import LayerRecord, NeuronTable, Projection
from contam.experiment import Stage


@dataclass(frozen=True)
class LayerEvidence:
    """The evidence from inside a network."""

    layers: tuple[LayerRecord, ...] = ()
    neurons: NeuronTable | None = None
    projection: Projection | None = None
    left_out: tuple[str, ...] = ()
    """What could not be measured and why, one sentence each."""


def layer_evidence(
    passes: Passes, order: Sequence[str], budget: Budget = BUDGET
) -> Generator[Stage, None, LayerEvidence]:
    """Probe the layers, and write the records of layers and neurons.

    Args:
        passes: results of `run_passes`.
        order: names of the layers in the order in which they run.
        budget: numbers of examples.

    Yields:
        The share of the work that is done.

    Returns:
        The records of all layers and neurons, and what could not be measured.

    Source: ours, the measures of both papers on a user's network.
    """
    inputs, builder = passes.inputs, passes.layers
    left_out: list[str] = []
    if not order and any(inputs.model.children()):
        left_out.append(
            "No layer is examined: the network has no activation that can be observed; name layers "
            "with layers=."
        )
    own = {name: ProbeExamples.of(result) for name, result in passes.sets.items()}
    control = {name: ProbeExamples.of(result) for name, result in passes.controls.items()}
    for begin, data, is_control in ((0.0, own, False), (0.5, control, True)):
        if inputs.id.name not in data:
            continue
        fitted, judged = split(data[inputs.id.name], budget.queries, seed=inputs.seed)
        others = {name: part for name, part in data.items() if name != inputs.id.name}
        targets = {UNTRAINED: judged} if is_control else {inputs.id.name: judged} | others
        work = probe_classes(
            fitted, targets, classes=len(inputs.classes), per_class=budget.per_class,
            seed=inputs.seed,
        )  # fmt: skip
        while True:
            try:
                yield Stage(begin + 0.4 * next(work), "probes of the layers")
            except StopIteration as end:
                probes = end.value
                break
        left_out += [] if is_control else probes.left_out
        for field in ("probe", "decided", "undefined", "information"):
            for layer, values in getattr(probes, field).items():
                for key, value in values.items():
                    builder.set(layer, field, value, key)
        _probe_domains(builder, data, inputs.seed, is_control=is_control)
    shared = _in_all(own)
    plane = None
    if shared:
        plane = projection(shared[-1], own, inputs.classes, inputs.domains)
    yield Stage(1.0, "probes of the layers")
    return LayerEvidence(
        layers=builder.records(order),
        neurons=neuron_table(builder.neurons, inputs.classes),
        projection=plane,
        left_out=tuple(dict.fromkeys([*passes.left_out, *builder.left_out, *left_out])),
    )


def _probe_domains(
    builder: LayerRecordBuilder,
    data: Mapping[str, ProbeExamples],
    seed: int,
    *,
    is_control: bool,
) -> None:
    domain = domain_labels(data)
    if domain is None:
        return
    for layer in _in_all(data):
        values = torch.cat([part.features[layer] for part in data.values()])
        error = probe_domain(values, domain, seed=seed)
        builder.set(layer, "untrained_domain_error" if is_control else "domain_error", error)
        builder.set(layer, "domain_chance", majority_error(domain))


def _in_all(data: Mapping[str, ProbeExamples]) -> list[str]:
    """The layers whose features are there for all data sets, in their order."""
    first, *others = data.values()
    return [layer for layer in first.features if all(layer in part.features for part in others)]
