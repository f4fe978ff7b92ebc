"""The residual blocks of a network, and the activation that stands for each."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.hooks import forward_once


class Block(NamedTuple):
    """A residual block, and the activations inside it by the names of `observe`."""

    name: str
    activations: tuple[str, ...]
    """In the order in which they run."""
    last: str
    """The last one that is no gate of whole channels, such as squeeze-and-excitation."""


def blocks_of(model: nn.Module, x: Float[Tensor, "batch ..."]) -> list[Block]:
    """The residual blocks that run when the model gets `x`, in order.

    A block is the innermost module that adds two tensors of one shape, or a module of the same
    class, with an activation inside. So the `last` activation is the final ReLU in the blocks of a
    ResNet and the GELU of the MLP in those of a vision transformer, in any library. Only the first
    example of `x` is used.

    Source: App. F.2.

    Raises:
        ValueError: there is no such module, as in a plain network or an exported program.

    >>> from contam.models.small import resnet8
    >>> [block.last for block in blocks_of(resnet8(width=4), torch.zeros(1, 3, 32, 32))]
    ['encoder.stage1.relu2', 'encoder.stage2.relu2', 'encoder.stage3.relu2']
    """
    # The same example twice, since parameters of shape (1, ...) are added to single ones.
    pair = torch.cat([x[:1], x[:1]])
    _, recorder = forward_once(model, pair, "auto", _positions)
    modules = dict(model.named_modules())
    # Additions inside attention or a normalization belong to no block of their own.
    active = {name for stack in recorder.enclosing.values() for name in stack}
    kinds = {type(modules[name]) for name in _innermost(recorder.adders & active)}
    within: dict[str, list[str]] = {}
    for layer, stack in recorder.enclosing.items():
        around = [name for name in stack if type(modules[name]) in kinds]
        if around:
            within.setdefault(around[-1], []).append(layer)
    _, blocks_outputs = forward_once(model, pair, list(within), _positions)
    blocks = []
    for name, layers in within.items():
        maps = [
            layer
            for layer in layers
            if recorder.outputs[layer].all() or not blocks_outputs.outputs[name].all()
        ]
        blocks.append(Block(name, tuple(layers), (maps or layers)[-1]))
    if not blocks or len(blocks[0].activations) == len(recorder.enclosing):
        raise ValueError(
            f"no residual blocks in this {type(model).__name__}; give names of layers, such "
            f"as {list(recorder.enclosing)[:3]}"
        )
    return blocks


def _positions(output: Tensor) -> Tensor:
    """Whether an output has more than one position, for every example."""
    several = sum(size > 1 for size in output.shape[1:]) > 1
    return torch.full((len(output),), several)


def _innermost(names: set[str]) -> set[str]:
    """The modules among these that hold no other of them."""
    return {
        name
        for name in names
        if not any(other.startswith(f"{name}." if name else "") for other in names - {name})
    }
