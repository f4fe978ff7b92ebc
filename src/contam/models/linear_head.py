"""The linear head of a network: its weights, and a copy of the network with other ones."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.hooks import forward_once
from contam.models.logits_adapter import LogitsAdapter

LOWEST_BIAS = -1e4
"""Bias of a class without examples, which is low but finite, so that its loss is finite."""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier of features.

    >>> LinearHead(torch.eye(2), torch.zeros(2))(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]

    def __call__(self, features: Float[Tensor, "n width"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        return features @ self.weight.T + self.bias


def find_head(network: LogitsAdapter, x: Float[Tensor, "batch ..."]) -> str:
    """Return the name of the module whose output the logits are.

    Args:
        network: the network.
        x: some inputs, on the network's device.

    Source: ours, since a head can be replaced only where it is a module with weights of its own.

    Raises:
        ValueError: the logits are not the output of such a module.

    >>> find_head(LogitsAdapter(nn.Sequential(nn.ReLU(), nn.Linear(2, 3))), torch.zeros(1, 2))
    '1'
    """
    entered: dict[str, Tensor] = {}

    def note(name: str, module: Any) -> Any:
        def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
            entered.pop(name, None)
            if len(inputs) == 1 and output[0].numel() == len(module.weight):
                entered[name] = inputs[0].flatten(1).clone()

        return module.register_forward_hook(hook)

    hooks = [note(name, module) for name, module in network.named_modules() if _replaceable(module)]
    try:
        _, recorder = forward_once(network, x, (), "moments", head=True)
    finally:
        for hook in hooks:
            hook.remove()
    features = recorder.head
    if features is None:
        raise ValueError("the logits are not the output of a linear layer")
    names = [name for name, rows in entered.items() if rows.equal(features)]
    if not names:
        raise ValueError("the last linear layer is not an nn.Linear with weights of its own")
    return names[-1]


def head_of(network: LogitsAdapter, name: str) -> LinearHead:
    """Return the weights of a head, one row for each logit of the adapter.

    Args:
        network: the network. Of a single logit, the result has a row of zeros for the first class.
        name: the head, as `find_head` names it.

    Source: ours, repairs and probes read the input of the last linear layer.

    >>> head_of(LogitsAdapter(nn.Sequential(nn.Linear(2, 1))), "0").weight.shape
    torch.Size([2, 2])
    """
    module: Any = network.get_submodule(name)
    weight = module.weight.detach().flatten(1).float().cpu()
    bias = weight.new_zeros(len(weight))
    if module.bias is not None:
        bias = module.bias.detach().float().cpu()
    if len(weight) == 1:
        weight = torch.cat([torch.zeros_like(weight), weight])
        bias = torch.cat([torch.zeros_like(bias), bias])
    if network.classes is not None:
        weight, bias = weight[network.classes], bias[network.classes]
    return LinearHead(weight, bias)


def with_head(network: LogitsAdapter, name: str, head: LinearHead) -> LogitsAdapter:
    """Copy a network with other weights in its head.

    Args:
        network: the network; it stays as it was.
        name: its head, as `find_head` names it.
        head: a row for each logit of the adapter. Logits that the adapter leaves out keep theirs.

    Source: ours, a repaired head in a network that is left as it was.

    Raises:
        ValueError: the network can't be copied.

    >>> network = LogitsAdapter(nn.Sequential(nn.Linear(2, 2)))
    >>> copied = with_head(network, "0", LinearHead(torch.eye(2), torch.zeros(2)))
    >>> copied(torch.tensor([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """
    copied = copy_network(network)
    module: Any = copied.get_submodule(name)
    old = module.weight.detach()
    weight, bias = head.weight, head.bias
    if len(old) == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    new_weight = old.flatten(1).clone()
    new_bias = old.new_zeros(len(old)) if module.bias is None else module.bias.detach().clone()
    rows = torch.arange(len(old)) if copied.classes is None or len(old) == 1 else copied.classes
    rows = rows.to(old.device)
    new_weight[rows] = weight.to(old)
    new_bias[rows] = bias.to(old)
    wants_gradient = module.weight.requires_grad
    module.weight = nn.Parameter(new_weight.view_as(old), requires_grad=wants_gradient)
    module.bias = nn.Parameter(new_bias, requires_grad=wants_gradient)
    return copied


def copy_network(network: LogitsAdapter) -> LogitsAdapter:
    """Copy a network.

    Args:
        network: the network.

    Source: ours, a repair never changes the user's network.

    Raises:
        ValueError: the network can't be copied.

    >>> network = LogitsAdapter(nn.Linear(2, 2))
    >>> copy_network(network) is network
    False
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:  # a user's network may refuse to be copied in its own way
        message = " ".join(str(error).split())[:120]
        raise ValueError(f"the network can't be copied ({message})") from error


def _replaceable(module: nn.Module) -> bool:
    """Whether a module is a linear map of one position that holds its own weights."""
    forward = getattr(type(module), "forward", None)
    linear = forward is nn.Linear.forward
    conv = forward is nn.Conv2d.forward and getattr(module, "kernel_size", None) == (1, 1)
    conv = conv and getattr(module, "groups", 1) == 1
    # Weight norm and similar methods compute the weights from other parameters.
    return (linear or conv) and isinstance(module._parameters.get("weight"), nn.Parameter)
