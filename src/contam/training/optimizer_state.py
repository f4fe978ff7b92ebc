"""The state of an optimizer as named tensors, for checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return copies of an optimizer's state, named `index of the parameter/name of the state`.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> optimizer_tensors(optimizer)
    {'0/momentum_buffer': tensor([1., 1.])}
    """
    return {
        f"{index}/{name}": cpu_copy(tensor)
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
        if tensor is not None
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replace an optimizer's state by what `optimizer_tensors` returned.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    >>> load_optimizer_tensors(optimizer, {"0/momentum_buffer": torch.tensor([1.0, 1.0])})
    >>> optimizer.state[weight]["momentum_buffer"]
    tensor([1., 1.])
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        # The optimizer's arithmetic is bit-identical only in the same memory layout.
        same = tensor.shape == parameter.shape and name != "step"
        state.setdefault(int(index), {})[name] = (
            torch.empty_like(parameter).copy_(tensor) if same else tensor.clone()
        )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def cpu_copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU without its graph.

    >>> cpu_copy(torch.ones(2, requires_grad=True))
    tensor([1., 1.])
    """
    return tensor.detach().to("cpu", copy=True).contiguous()
