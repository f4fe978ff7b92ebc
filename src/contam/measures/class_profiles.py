"""What every layer does for each class, from one pass over the data.

Selectivity, activation rates and their asymmetry, density and between-class variance are all
functions of a layer's profile, so a pass that keeps profiles serves them all.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain
from contam.measures.accuracy import Accuracy, Hits
from contam.measures.class_means import ClassMeans
from contam.models.observe import Observation, observe


class Profile(NamedTuple):
    """What each neuron of a layer does for each class, in double precision."""

    means: Float[Tensor, "classes neurons"]
    """Mean activation, in the network's units."""
    rates: Float[Tensor, "classes neurons"]
    """Share of (example, position) at which the neuron is positive, in [0, 1]."""
    counts: Int[Tensor, " classes"]
    """Examples of each class."""

    @property
    def density(self) -> Float[Tensor, " neurons"]:
        """Mean activation over all examples, whatever their class: what App. G.2 draws."""
        return self.counts.double() @ self.means / self.counts.sum()


class Profiles(NamedTuple):
    """The profiles of a network on a domain."""

    layers: dict[str, Profile]
    """In the order in which the layers ran."""
    accuracy: Accuracy | None
    """None for an encoder, whose output is not one logit for each class."""


class ClassProfiles:
    """Sums for the profiles of all layers, over any number of batches read as `moments`.

    They take the same memory after one batch as after a million.

    Source: ours, the one table behind App. F.2, App. F.3 and App. G.2.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.tables: dict[str, ClassMeans] = {}
        self.hits: Hits | None = None

    def update(self, seen: Observation) -> "ClassProfiles":
        """Add what a batch did in each layer.

        Raises:
            ValueError: other layers or neurons than before, no moments, or a label that is not one
                of the classes.
        """
        if not self.tables:
            self.tables = {
                layer: ClassMeans(self.classes, moments[:1].numel())
                for layer, moments in seen.layers.items()
            }
        self._check(seen.layers.keys())
        for layer, moments in seen.layers.items():
            if moments.ndim != 3 or moments.shape[1] != 2:
                raise ValueError(
                    f"layer {layer!r}: want moments of shape (batch, 2, neurons), not "
                    f"{tuple(moments.shape)}; observe with reduce='moments'"
                )
            self.tables[layer].update(moments.flatten(1), seen.batch.y)
        if seen.logits.shape == (len(seen.batch.y), self.classes):
            self.hits = (self.hits or Hits()).update(seen.logits, seen.batch.y)
        return self

    def merge(self, other: "ClassProfiles") -> "ClassProfiles":
        """Add what another one saw.

        Raises:
            ValueError: the other one has other classes, layers or neurons.
        """
        if not self.tables:
            self.tables = {
                layer: ClassMeans(*table.sums.shape) for layer, table in other.tables.items()
            }
        if other.tables:
            self._check(other.tables.keys())
        for layer, table in other.tables.items():
            self.tables[layer].merge(table)
        if other.hits is not None:
            self.hits = (self.hits or Hits()).merge(other.hits)
        return self

    def compute(self) -> Profiles:
        """The profiles so far.

        Raises:
            ValueError: a class was never seen.
        """
        layers = {}
        for layer, table in self.tables.items():
            means, rates = table.compute().unflatten(1, (2, -1)).unbind(1)
            layers[layer] = Profile(means, rates, table.counts.clone())
        return Profiles(layers, None if self.hits is None else self.hits.compute())

    def _check(self, layers: Collection[str]) -> None:
        strange = sorted(self.tables.keys() ^ set(layers))
        if strange:
            raise ValueError(
                f"layer {strange[0]!r} is in some batches only; every batch has to run the same "
                "layers, or name those that you want"
            )


def class_profiles(
    model: nn.Module,
    domain: Domain,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    classes: int,
    batch_size: int = 64,
) -> Profiles:
    """What each layer does for each class of a domain, in one pass and in evaluation mode.

    `auto` takes every activation. Where a layer has its neurons is found out: convolutions put them
    first, linear maps last.

    Source: ours, one pass for what App. F.2, App. F.3 and App. G.2 draw.

    Raises:
        ValueError: no such layer, a class without examples, or a label that is not a class.
    """
    profiles = ClassProfiles(classes)
    for seen in observe(model, domain.batches(batch_size), layers, "moments"):
        profiles.update(seen)
    return profiles.compute()
