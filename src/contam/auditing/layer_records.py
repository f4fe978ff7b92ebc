"""What becomes known of each layer during the passes, until the records are written."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.layer_tables import LISTED, LayerTable
from contam.auditing.neurons import NeuronColumns, neuron_columns
from contam.auditing.records import Interval, LayerRecord
from contam.auditing.single_pass import PassResult
from contam.measures.activation import activation_asymmetry, class_rates
from contam.measures.attenuation import attenuation_across_domains, class_profile_attenuation
from contam.measures.intervals import Estimate

UNTRAINED = "untrained"
"""Key of the untrained network in tables by data set."""
ACROSS = "across domains"
"""Key of the untrained network's attenuation from one ID domain to the others."""


class LayerRecordBuilder:
    """Collects the numbers of all layers, pass by pass.

    Args:
        inputs: the network and its data.

    Source: ours; App. F.2, App. F.3 and App. G.2 as single numbers by layer.
    """

    def __init__(self, inputs: AuditInputs) -> None:
        self.inputs = inputs
        self.fields: dict[str, dict[str, Any]] = {}
        """Fields of the record of each layer."""
        self.neurons: list[NeuronColumns] = []
        self.left_out: list[str] = []
        self._own: Mapping[str, LayerTable] = {}
        self._rows: Tensor | None = None
        """The row of each class in the tables; None if rows are classes."""
        self._control: Mapping[str, LayerTable] = {}
        self._shifted: dict[str, LayerTable] = {}
        """All OOD sets together, or all changes where there is no OOD set."""
        self._plain: Mapping[str, LayerTable] = {}
        """The ID images that were changed, before the change."""
        self._noise: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
        """By network, the layers without an attenuation, and the data where it is missing."""

    def set(self, layer: str, field: str, value: Any, key: str | None = None) -> None:
        """Set a field of a layer, or the entry of a table; None and unknown layers are ignored."""
        if value is None or layer not in self.fields:
            return
        if key is None:
            self.fields[layer][field] = value
        else:
            self.fields[layer].setdefault(field, {})[key] = value

    def add_id_set(self, name: str, result: PassResult) -> None:
        """Add the pass over the ID set."""
        self._own, self._rows = dict(result.tables), result.rows
        self._name_missing_classes(name, result)
        for layer, table in self._own.items():
            self._describe(layer, table, name)
            if len(table.means.cell_counts) > 1:
                lost = attenuation_across_domains(table.means)
                self.set(layer, "across_domains", self._interval(layer, lost, "ID domains"))

    def add_ood_set(self, name: str, result: PassResult) -> None:
        """Add the pass over an OOD set, and drop its tables one by one."""
        self._name_missing_classes(name, result)
        for layer in [*result.tables]:
            table = result.tables.pop(layer)
            self._describe(layer, table, name)
            if layer in self._own:
                lost = class_profile_attenuation(self._own[layer].means, table.means)
                self.set(layer, "attenuation", self._interval(layer, lost, name), name)
            self._shifted[layer] = table.merged(self._shifted.get(layer))

    def add_control(self, name: str, result: PassResult, *, own: bool) -> None:
        """Add the untrained network's pass over a sample of a set."""
        if own:
            self._control = dict(result.tables)
        for layer, table in result.tables.items():
            key, lost = name, None
            if own:
                if layer in self.fields:
                    self._describe(layer, table, UNTRAINED)
                if len(table.means.cell_counts) > 1:
                    key, lost = ACROSS, attenuation_across_domains(table.means)
            elif layer in self._control:
                lost = class_profile_attenuation(self._control[layer].means, table.means)
            if lost is not None:
                what = "ID domains" if own else name
                interval = self._interval(layer, lost, what, control=True)
                self.set(layer, "untrained_attenuation", interval, key)

    def add_change(
        self,
        change: str,
        plain: Mapping[str, LayerTable],
        result: PassResult,
        *,
        control: bool,
        ranks: bool,
    ) -> None:
        """Add a pass over changed ID images.

        Args:
            change: name of the change.
            plain: class means of the same images before the change.
            result: the pass over the changed images.
            control: whether the network is the untrained one.
            ranks: whether the changes rank the neurons, for lack of an OOD set.
        """
        for layer, table in result.tables.items():
            if layer not in plain:
                continue
            lost = class_profile_attenuation(plain[layer].means, table.means, paired=True)
            interval = self._interval(layer, lost, "changed images", control=control)
            self.set(
                layer, "untrained_attenuation" if control else "counterfactual", interval, change
            )
            if ranks and not control:
                self._shifted[layer] = table.merged(self._shifted.get(layer))
        if ranks and not control:
            self._plain = dict(plain)

    def finish(self) -> None:
        """Rank the neurons, and drop the class means."""
        for layer, table in self._own.items():
            self.neurons.append(
                neuron_columns(
                    layer,
                    table,
                    self._shifted.get(layer),
                    unchanged=self._plain.get(layer),
                    rows=self._rows,
                )
            )
        self._own, self._control, self._plain, self._shifted = {}, {}, {}, {}
        for whose, (layers, data) in self._noise.items():
            first = list(layers)[:3]
            more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
            self.left_out.append(
                f"Class-profile attenuation is missing for some layers of {whose} "
                f"({', '.join(first)}{more}; on {', '.join(data)}): the class means differ by "
                "little more than noise there. More ID examples of each class would help."
            )

    def records(self, order: Iterable[str]) -> tuple[LayerRecord, ...]:
        """Return the records of these layers."""
        return tuple(
            LayerRecord.model_validate(self.fields[name]) for name in order if name in self.fields
        )

    def _describe(self, layer: str, table: LayerTable, key: str) -> None:
        """Set the numbers that need one data set."""
        self.fields.setdefault(layer, {"name": layer, "neurons": table.neurons})
        profile = table.profile
        if len(profile.counts) > 1:
            self.set(layer, "selectivity", float(table.selectivity.mean()), key)
            self.set(layer, "asymmetry", float(activation_asymmetry(profile.rates).mean()), key)
        self.set(layer, "rate", float(table.rate.mean()), key)
        self.set(layer, "density", float(profile.density.mean()), key)
        present = table.means.counts > 0
        if len(self.inputs.classes) <= LISTED:
            listed = torch.full((len(present),), torch.nan, dtype=torch.float64)
            listed[present] = class_rates(profile.rates)
            values = (None if math.isnan(value) else round(value, 4) for value in listed.tolist())
            self.set(layer, "class_rates", tuple(values), key)

    def _interval(
        self, layer: str, estimate: Estimate, what: str, *, control: bool = False
    ) -> Interval | None:
        """The estimate as a record; None where there is hardly more than noise."""
        if math.isfinite(estimate.value + estimate.high - estimate.low):
            return Interval(value=estimate.value, low=estimate.low, high=estimate.high)
        whose = "the untrained network" if control else "the network"
        layers, data = self._noise.setdefault(whose, ({}, {}))
        layers[layer], data[what] = None, None
        return None

    def _name_missing_classes(self, name: str, result: PassResult) -> None:
        """Say which classes a data set has no example of."""
        classes = self.inputs.classes
        present = set(result.y.unique().tolist())
        absent = [label for k, label in enumerate(classes) if k not in present]
        if absent:
            listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            self.left_out.append(
                f"{name} has no example of {len(absent)} of the {len(classes)} classes ({listed}); "
                "measures that compare classes use the others."
            )
