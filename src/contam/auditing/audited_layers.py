"""Which layers an audit reads: those that run, their neurons, and those that give maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contam.inputs.input_set import InputSet
from contam.models.hooks import forward_once
from contam.models.observe import Observer, layers_of


def count_neurons(model: nn.Module, sample: InputSet, layers: Sequence[str]) -> int:
    """Return the number of neurons of these layers together; 0 if a layer can't be observed.

    Args:
        model: the network.
        sample: the data set, of which the first example is shown.
        layers: names of the layers.

    >>> from contam.batch import Batch, Domain
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> zeros = torch.zeros(1).long()
    >>> data = InputSet("meadow", Domain("meadow", Batch(torch.ones(1, 2), zeros, zeros)))
    >>> count_neurons(model, data, ["1"])
    4
    """
    batch = next(iter(sample.domain.batches(1)))
    try:
        observation = Observer(model, layers, "moments")(batch)
    except ValueError:
        return 0
    return sum(moments.shape[2] for moments in observation.layers.values())


def running_layers(model: nn.Module, sample: InputSet) -> tuple[str, ...]:
    """Return all activations of a network in the order in which they run on the first example.

    Args:
        model: the network.
        sample: the data set.

    >>> from contam.batch import Batch, Domain
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> zeros = torch.zeros(1).long()
    >>> data = InputSet("meadow", Domain("meadow", Batch(torch.ones(1, 2), zeros, zeros)))
    >>> running_layers(model, data)
    ('1',)
    """
    first = next(iter(sample.domain.batches(1))).x
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(layers_of(model, first.to(device)))


def layers_with_positions(model: nn.Module, x: Tensor, layers: Sequence[str]) -> list[str]:
    """Return the layers that give maps (batch, channels, height, width) of several positions.

    Args:
        model: the network.
        x: one example as a batch.
        layers: names of layers that run.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    >>> layers_with_positions(model, torch.rand(1, 3, 8, 8), ["1", "2"])
    ['1']
    """

    def shape_of(output: Tensor) -> Tensor:
        return torch.tensor([[*output.shape[1:]]])

    _, recorder = forward_once(model, x, list(layers), shape_of)
    shapes = {name: shape[0].tolist() for name, shape in recorder.outputs.items()}
    return [name for name in layers if len(shapes[name]) == 3 and max(shapes[name][1:]) > 1]
