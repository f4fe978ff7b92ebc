"""Networks with two classes, whose dense blocks can be read at the published probes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.classifier import Classifier
from contam.models.observe import layers_of
from contam.models.small import resnet8
from contam.models.sources import load
from contam.rng import seeded
from contam.training.precision import available_device


class DenseBlock(nn.Module):
    """A dense block whose concatenated features can be read behind every second layer.

    torchvision's dense layers return only their new features. The published probes are the first,
    third, ... dense layer of each block with all features up to them.

    Args:
        layers: the dense layers, by name.
    """

    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = list(layers)
        for place, (name, layer) in enumerate(layers.items()):
            self.add_module(name, layer)
            if place % 2 == 0:
                self.add_module(f"probe{place + 1}", nn.Identity())

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        features = [x]
        for place, name in enumerate(self.layers):
            features.append(self.get_submodule(name)(features))
            if place % 2 == 0:
                self.get_submodule(f"probe{place + 1}")(torch.cat(features, 1))
        return torch.cat(features, 1)


def network(name: str, seed: int) -> Classifier:
    """Return a network with two classes and random weights; dense blocks become `DenseBlock`.

    Source: ours; DenseNet-121 of Murali et al. (2023), Fig. 8.
    """
    if name == "resnet8":
        model = resnet8(2, width=12, seed=seed)
    else:
        source = load(name, seed=seed)
        for path, module in list(source.encoder.named_modules()):
            if type(module).__name__ == "_DenseBlock":
                parent, _, child = path.rpartition(".")
                block = DenseBlock(nn.ModuleDict(dict(module.named_children())))
                setattr(source.encoder.get_submodule(parent), child, block)
        with seeded(seed, "chest X-rays/head"):
            model = Classifier(source.encoder, 2, source.width)
    return model.to(available_device())


def probes(model: nn.Module, x: Float[Tensor, "1 ..."]) -> list[str]:
    """Return the probes: every second dense layer, or all activations of another network."""
    dense = [name for name, _ in model.named_modules() if ".probe" in name]
    return dense or layers_of(model, x.to(next(model.parameters()).device))
