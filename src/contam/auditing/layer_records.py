"""What becomes known of each layer during an audit, until the records are written."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from contam.auditing.records import Interval, LayerRecord
from contam.auditing.single_pass import Look
from contam.measures.activation import activation_asymmetry, class_rates
from contam.measures.class_profiles import Profile

LISTED = 100
"""Classes whose rates are listed one by one."""


class Notes:
    """Numbers of layers by field and key, and sentences about what is left out."""

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.chance: dict[str, list[str]] = {}
        """Layers by what could not be told from chance in them."""

    def put(self, layer: str, field: str, key: str, value: Any) -> None:
        """Note a number, unless there is none."""
        if value is not None and layer in self.layers:
            self.layers[layer].setdefault(field, {})[key] = value

    def put_alone(self, layer: str, field: str, value: float | Interval) -> None:
        """Note a number that has no key."""
        if layer in self.layers:
            self.layers[layer][field] = value

    def describe(self, look: Look, layer: str, key: str) -> None:
        """Note what a layer does for each class.

        Source: ours; App. F.2, App. F.3 and App. G.2 as single numbers.
        """
        table = look.tables[layer]
        total = table.means.counts
        self.layers.setdefault(layer, {"name": layer, "neurons": table.neurons})
        there = total > 0
        counts = total[there]
        rates = (table.fires[there] / counts[:, None]).clamp(0, 1)
        profile = Profile(table.means.sums[there] / counts[:, None], rates, counts)
        if len(counts) > 1:
            self.put(layer, "selectivity", key, float(table.selectivity.mean()))
            self.put(layer, "asymmetry", key, float(activation_asymmetry(rates).mean()))
        self.put(layer, "rate", key, float(table.rate.mean()))
        self.put(layer, "density", key, float(profile.density.mean()))
        if len(there) <= LISTED:
            listed = torch.full((len(there),), torch.nan, dtype=torch.float64)
            listed[there] = class_rates(rates)
            told = (None if math.isnan(value) else round(value, 4) for value in listed.tolist())
            self.put(layer, "class_rates", key, tuple(told))

    def missing(self, what: str, layer: str) -> None:
        """Note that a number can't be told from chance in a layer."""
        layers = self.chance.setdefault(what, [])
        if layer not in layers:
            layers.append(layer)

    def say_chance(self) -> None:
        """Say which numbers are absent because class means differ by chance alone."""
        for what, layers in self.chance.items():
            more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
            self.left_out.append(
                f"No {what} is given for {', '.join(layers[:3])}{more}: class means differ by "
                "hardly more than chance there. More ID examples of each class might tell."
            )

    def records(self, order: Iterable[str]) -> tuple[LayerRecord, ...]:
        """What is known of these layers."""
        return tuple(
            LayerRecord.model_validate(self.layers[name]) for name in order if name in self.layers
        )

    def name_missing_classes(self, look: Look, name: str, classes: tuple[str, ...]) -> None:
        """Say which classes a data set has no example of."""
        absent = [
            classes[k] for k in (look.counts.sum(dim=(0, 1)) == 0).nonzero().flatten().tolist()
        ]
        if absent:
            told = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            self.left_out.append(
                f"{name} has no example of {len(absent)} of the {len(classes)} classes ({told}); "
                "measures that compare classes use the others."
            )
