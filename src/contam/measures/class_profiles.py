"""Class profiles: the mean activation of every neuron for each class, from one pass over data.

Selectivity, activation rates and their asymmetry, density and between-class variance are all
functions of a layer's profile, so a pass that keeps profiles serves them all.
"""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.measures.accuracy import Accuracy, Hits
from contam.measures.class_means import ClassMeans
from contam.models.observe import Observation, observe
from contam.rng import preserve_rng

MOST_MEANS = 2**32
"""Maximum number of class means and rates of all layers, which fill 32 GiB."""


class Profile(NamedTuple):
    """Means and rates of a layer's neurons for each class, in double precision."""

    means: Float[Tensor, "classes neurons"]
    """Mean activation, in the network's units."""
    rates: Float[Tensor, "classes neurons"]
    """Share of (example, position) at which the neuron is positive, in [0, 1]."""
    counts: Int[Tensor, " classes"]
    """Examples of each class."""

    @property
    def density(self) -> Float[Tensor, " neurons"]:
        """(neurons,) mean activation over all examples of all classes, as App. G.2 plots it."""
        return self.counts.double() @ self.means / self.counts.sum()


class Profiles(NamedTuple):
    """The class profiles of a network on a data set."""

    layers: dict[str, Profile]
    """In the order in which the layers ran."""
    accuracy: Accuracy | None
    """None for an encoder, whose output is not one logit for each class."""
    left_out: tuple[str, ...] = ()
    """Sentences about activations that can't be observed."""


class ClassProfiles:
    """Accumulates the profiles of all layers over any number of batches observed as `moments`.

    Its memory does not grow with the number of batches.

    Args:
        classes: the number of classes.

    Source: ours, the one table behind App. F.2, App. F.3 and App. G.2.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.tables: dict[str, ClassMeans] = {}
        self.hits: Hits | None = None

    def update(self, observation: Observation) -> "ClassProfiles":
        """Add a batch.

        Raises:
            ValueError: other layers or neurons than before, no moments, a label that is not one of
                the classes, or too many classes and neurons.
        """
        if not self.tables:
            values = sum(moments[:1].numel() for moments in observation.layers.values())
            if self.classes * values > MOST_MEANS:
                raise ValueError(
                    f"{self.classes} classes and {values // 2} neurons are too many for one table; "
                    f"give fewer layers, or at most {MOST_MEANS // values} classes"
                )
            self.tables = {
                layer: ClassMeans(self.classes, moments[:1].numel())
                for layer, moments in observation.layers.items()
            }
        self._check(observation.layers.keys())
        for layer, moments in observation.layers.items():
            if moments.ndim != 3 or moments.shape[1] != 2:
                raise ValueError(
                    f"layer {layer!r}: expected moments of shape (batch, 2, neurons), not "
                    f"{tuple(moments.shape)}; observe with reduce='moments'"
                )
            self.tables[layer].update(moments.flatten(1), observation.batch.y)
        if observation.logits.shape == (len(observation.batch.y), self.classes):
            hits = self.hits or Hits()
            self.hits = hits.update(observation.logits, observation.batch.y)
        return self

    def merge(self, other: "ClassProfiles") -> "ClassProfiles":
        """Add the sums of another object.

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
            ValueError: a class has no example.
        """
        layers = {}
        for layer, table in self.tables.items():
            means, rates = table.compute().unflatten(1, (2, -1)).unbind(1)
            layers[layer] = Profile(means, rates, table.counts.clone())
        return Profiles(layers, None if self.hits is None else self.hits.compute())

    def _check(self, layers: Collection[str]) -> None:
        unknown = sorted(self.tables.keys() ^ set(layers))
        if unknown:
            raise ValueError(
                f"layer {unknown[0]!r} is in some batches only; every batch has to run the same "
                "layers, or name those that you want"
            )


def class_profiles(
    model: nn.Module,
    data: Any,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    classes: int,
    batch_size: int = 64,
) -> Profiles:
    """The class profiles of each layer, from one pass in evaluation mode.

    The axis of a layer's neurons is found automatically: convolutions put them second, linear maps
    last.

    Args:
        model: the network; it stays as it was.
        data: data of any form of `contam.inputs`.
        layers: names of layers, or `auto` for every activation.
        classes: the number of classes.
        batch_size: examples that are shown at a time.

    Returns:
        The profiles by layer, and the accuracy.

    Source: ours, one pass for what App. F.2, App. F.3 and App. G.2 draw.

    Raises:
        ValueError: no such layer, a class without examples, or a label that is not a class.

    >>> import torch
    >>> data = torch.tensor([[2.0], [-1.0]]), [0, 1]
    >>> class_profiles(nn.Sequential(nn.ReLU()), data, classes=2).layers["0"].means.tolist()
    [[2.0], [0.0]]
    """
    profiles = ClassProfiles(classes)
    left_out: tuple[str, ...] = ()
    with preserve_rng(data):
        for observation in observe(model, data, layers, "moments", batch_size=batch_size):
            profiles.update(observation)
            left_out = observation.left_out
    return profiles.compute()._replace(left_out=left_out)
