"""Readings: what is kept of a layer's output, one row for each example.

Convolutions put their neurons on the second axis, linear maps on the last one, so most readings
exist twice.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Reading = Callable[[Tensor], Tensor]
"""A function of a layer's output that returns one row for each example."""

VALUES_AT_ONCE = 2**18
"""Values that `channel_moments` sums at a time in each thread, so that they stay in cache."""


def over_space(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch neurons"]:
    """Average over the positions of maps with channels first; vectors are returned unchanged.

    Returns:
        (batch, neurons) means, in the units of the activations.

    Raises:
        ValueError: the output has three axes, as a sequence of tokens has (neurons last).

    >>> over_space(torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])).tolist()
    [[2.0, 0.0]]
    """
    if maps.ndim == 3:
        raise ValueError(
            f"an output of shape {tuple(maps.shape)} looks like a sequence of tokens, neurons "
            "last; read it with over_tokens"
        )
    return maps.flatten(2).mean(dim=2) if maps.ndim > 2 else maps


def over_tokens(tokens: Float[Tensor, "batch ... neurons"]) -> Float[Tensor, "batch neurons"]:
    """Average over tokens, or over any positions of an output with neurons last.

    Returns:
        (batch, neurons) means, in the units of the activations.

    >>> over_tokens(torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])).tolist()
    [[2.0, 0.0]]
    """
    return tokens.flatten(1, -2).mean(dim=1) if tokens.ndim > 2 else tokens


def rate_over_space(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch neurons"]:
    """Share of positions at which a channel is positive, in [0, 1]; channels first.

    >>> rate_over_space(torch.tensor([[[[1.0, -3.0]], [[0.0, 0.0]]]])).tolist()
    [[0.5, 0.0]]
    """
    return over_space((maps > 0).float())


def rate_over_tokens(tokens: Float[Tensor, "batch ... neurons"]) -> Float[Tensor, "batch neurons"]:
    """Share of tokens at which a neuron is positive, in [0, 1]; neurons last.

    >>> rate_over_tokens(torch.tensor([[[1.0, 0.0], [-3.0, 0.0]]])).tolist()
    [[0.5, 0.0]]
    """
    return over_tokens((tokens > 0).float())


def flat(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch neurons"]:
    """Every position of every channel as a neuron of its own.

    >>> flat(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 48])
    """
    return values.flatten(1)


def channel_moments(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch 2 neurons"]:
    """Mean and positive rate over all axes but the first two, however many there are.

    The same as `over_space` and `rate_over_space`, and much faster: on a CPU most of their time
    goes into moving large maps through memory.

    Args:
        maps: activations with channels first.

    Returns:
        (batch, 2, neurons): mean first; in single precision or better, without gradients.

    Source: ours, one reading of the maps for App. F.2, App. F.3 and App. G.2.

    >>> channel_moments(torch.tensor([[[[1.0, -3.0]], [[0.0, 2.0]]]])).tolist()
    [[[-1.0, 1.0], [0.5, 0.5]]]
    """
    examples, neurons = maps.shape[:2]
    maps = maps.detach().flatten(2) if maps.ndim > 2 else maps.detach()[:, :, None]
    dtype = torch.promote_types(maps.dtype, torch.float32)
    moments = maps.new_empty(examples, 2, neurons, dtype=dtype)
    size = examples
    if maps.device.type == "cpu":
        size = VALUES_AT_ONCE * torch.get_num_threads() // max(1, maps[:1].numel())
    size = max(1, size)
    positive = torch.empty_like(maps[:size], dtype=dtype)
    for chunk, out in zip(maps.split(size), moments.split(size), strict=True):
        torch.sum(chunk, 2, dtype=dtype, out=out[:, 0])
        # Booleans written as floats add up several times as fast.
        torch.sum(torch.gt(chunk, 0, out=positive[: len(chunk)]), 2, out=out[:, 1])
    return moments.div_(maps.shape[2])
