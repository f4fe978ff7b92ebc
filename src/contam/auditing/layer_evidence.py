"""What the look inside a network is bounded by, and what it finds."""

from dataclasses import dataclass, field

import torch

from contam.auditing.audit_inputs import Sample
from contam.auditing.records import LayerRecord, NeuronTable, Plane
from contam.auditing.single_pass import Look


@dataclass(frozen=True)
class Bounds:
    """How much an audit looks at beside its one pass over each data set."""

    fitted: int = 1200
    """ID examples that probes and neighbors are fitted to."""
    queries: int = 400
    """Examples of each data set that these are judged on."""
    per_class: int = 30
    """Neighbors of each class, for prediction depth and usable information."""
    control: int = 600
    """Examples of each data set that the untrained network sees."""
    altered: int = 200
    """ID examples whose backgrounds or styles are changed."""
    read: int = 16
    """Layers that are read by probes and neighbors, evenly spaced and with the last."""
    neurons: int = 100_000
    """Rows of the table of neurons."""
    numbers: int = 2**26
    """Features that are kept at a time; fewer examples are read where neurons are many."""


BOUNDS = Bounds()


@dataclass
class LayerEvidence:
    """The evidence from inside a network, and what pictures are chosen from."""

    layers: tuple[LayerRecord, ...] = ()
    neurons: NeuronTable | None = None
    plane: Plane | None = None
    looks: dict[str, Look] = field(default_factory=dict)
    """The pass over each data set: answers, losses, and features of the layers that are read."""
    altered: dict[str, Look] = field(default_factory=dict)
    """The same under each change at full strength."""
    shown: Sample | None = None
    """The ID pictures that were changed."""
    picked: torch.Tensor | None = None
    """Which of the ID examples they are."""
    left_out: tuple[str, ...] = ()
