"""The network that a trial trains, with its weights before the training."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from contam.inputs.pixel_range import Transform
from contam.models.checkpoints import fill, read_weights
from contam.models.classifier import Classifier
from contam.models.find_network import WITH_HEAD, find_network
from contam.models.small import resnet8, small_cnn
from contam.models.sources import Source, called, imported, load
from contam.rng import seeded

SMALL = {"resnet8": resnet8, "small_cnn": small_cnn}
"""Networks for small images, by name."""


@dataclass(frozen=True)
class InitialNetwork:
    """A network before its training."""

    name: str
    make: Callable[[int, int], nn.Module]
    """From the number of classes and a seed to the network."""
    transform: Transform | None = None
    """From an image to the network's input; None takes pixels in [0, 1]."""


def initial_network(
    model: Any, weights: str | Path | None = None, transform: Transform | None = None
) -> InitialNetwork:
    """Return the network that is meant, before its training.

    Args:
        model: `resnet8` or `small_cnn`; a name such as `timm:resnet18`; `package.module:object`; a
            module, whose copies all seeds train; a class of modules; or a function that returns a
            module or a `Source`. A function with a parameter `classes` or `num_classes` gets the
            number of classes.
        weights: file or folder of pre-trained weights. A network of a library gets a new head.
        transform: function from an image to the network's input, in place of the network's own.

    Raises:
        ValueError: there is no such network, or the weights do not fit.

    >>> initial_network("resnet8").make(3, 0).head.out_features
    3
    """
    if isinstance(model, InitialNetwork):
        return model
    if isinstance(model, str) and model in SMALL:
        build = SMALL[model]
        return InitialNetwork(
            model, _filled(lambda classes, seed: build(classes, seed=seed), weights, model),
            transform,
        )  # fmt: skip
    if isinstance(model, str) and (model.partition(":")[0] in WITH_HEAD or ":" not in model):
        return _of_library(model, weights, transform)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    constructor = imported(model) if isinstance(model, str) else model
    if not callable(constructor):
        raise ValueError(
            f"{name} is a {type(constructor).__name__}; expected a network or a function"
        )
    made = _made(constructor, name, 2, 0)
    own = made.transform if isinstance(made, Source) else find_network(made).transform

    def make(classes: int, seed: int) -> nn.Module:
        made = _made(constructor, name, classes, seed)
        return _classifier(made, classes, seed) if isinstance(made, Source) else made

    return InitialNetwork(name, _filled(make, weights, name), transform or own)


def _of_library(
    name: str, weights: str | Path | None, transform: Transform | None
) -> InitialNetwork:
    first = load(name, weights=weights, seed=0 if weights is None else None)
    own: dict[int, Source] = {0: first}

    def make(classes: int, seed: int) -> nn.Module:
        source = first
        if weights is None:
            source = own.pop(seed, None) or load(name, seed=seed)
        return _classifier(source, classes, seed)

    return InitialNetwork(name, make, transform or first.transform)


def _classifier(source: Source, classes: int, seed: int) -> nn.Module:
    with seeded(seed, "trial/head"):
        return Classifier(copy.deepcopy(source.encoder), classes, source.width)


def _made(constructor: Any, name: str, classes: int, seed: int) -> nn.Module | Source:
    """Call a user's function or class, or copy a user's module."""
    if isinstance(constructor, nn.Module):
        return copy.deepcopy(constructor)
    try:
        parameters = inspect.signature(constructor).parameters
    except ValueError:
        parameters = {}
    given = {key: classes for key in ("classes", "num_classes") if key in parameters}
    with seeded(seed, f"trial/{name}"):
        made = called(lambda: constructor(**given), name)
    if not isinstance(made, nn.Module | Source):
        raise ValueError(f"{name} returned a {type(made).__name__}; expected a torch.nn.Module")
    return made


def _filled(
    make: Callable[[int, int], nn.Module], weights: str | Path | None, name: str
) -> Callable[[int, int], nn.Module]:
    """Load the weights into each network that is made."""
    if weights is None:
        return make
    checkpoint = read_weights(weights)

    def filled(classes: int, seed: int) -> nn.Module:
        model = make(classes, seed)
        fill(model, checkpoint, name)
        return model

    return filled
