"""Training written out in NumPy: losses, their derivatives, and Adam."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from contam.batch import Batch
from contam.training.algorithms import Algorithm

Arrays = dict[str, np.ndarray]
Loss = Callable[[Arrays], complex]

TINY = 1e-20
"""Length of a complex step. Nothing is subtracted, so the derivative has no rounding error."""


def gradient(loss: Loss, at: Arrays, names: Collection[str] = ()) -> Arrays:
    """The gradient of an analytic loss by complex steps.

    Args:
        loss: the loss of named arrays, which may be complex.
        at: where the gradient is taken.
        names: arrays with respect to which it is taken; all of them without names.
    """
    slopes = {name: np.empty_like(at[name]) for name in names or at}
    for name, slope in slopes.items():
        moved = at[name].astype(complex)
        for index in np.ndindex(slope.shape):
            moved[index] += TINY * 1j
            slope[index] = np.imag(loss({**at, name: moved})) / TINY
            moved[index] = at[name][index]
    return slopes


class PlainAdam:
    """Adam on named arrays; those without a gradient keep their moments and their count."""

    def __init__(self, step_size: float) -> None:
        self.step_size = step_size
        self.moments: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}

    def step(self, values: Arrays, gradients: Mapping[str, ArrayLike]) -> None:
        """Replace values by those after a step."""
        for name, given in gradients.items():
            slope = np.asarray(given)
            zero = np.zeros_like(slope)
            count, first, second = self.moments.get(name, (0, zero, zero))
            count += 1
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            self.moments[name] = count, first, second
            root = np.sqrt(second / (1 - 0.999**count))
            values[name] = values[name] - self.step_size * first / (1 - 0.9**count) / (root + 1e-8)


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> complex:
    """The mean cross-entropy."""
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


def relu(z: np.ndarray) -> np.ndarray:
    """The positive part."""
    return np.where(np.real(z) > 0, z, 0)


def batch_norm(
    z: np.ndarray, weight: np.ndarray, bias: np.ndarray, axes: tuple[int, ...] = (0,)
) -> np.ndarray:
    """Batch normalization in training mode; `weight` and `bias` broadcast with `z`."""
    centered = z - z.mean(axes, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axes, keepdims=True) + 1e-5) * weight + bias


def arrays_of(module: nn.Module) -> Arrays:
    """Copies of the parameters by their names."""
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def assert_equal_arrays(module: nn.Module, values: Arrays) -> None:
    """Assert that the parameters of a module have these values, up to rounding.

    A bias before batch norm has a gradient of 0, and Adam enlarges its rounding errors.
    """
    arrays = arrays_of(module)
    assert arrays.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def assert_minimizes(
    algorithm: Algorithm,
    trained: nn.Module,
    loss: Callable[[Arrays], Loss],
    batches: Sequence[Batch],
    *,
    steps: int = 4,
) -> None:
    """Assert that steps of an algorithm are steps of Adam on a loss.

    Args:
        algorithm: the algorithm.
        trained: a module that holds all parameters that are trained, in double precision.
        loss: from the parameters before a step to the loss that is differentiated in it; random
            numbers are drawn here, in the order of the algorithm.
        batches: the minibatches of every step.
        steps: number of steps.
    """
    values, adam = arrays_of(trained), PlainAdam(algorithm.settings.step_size)
    for step in range(steps):
        torch.manual_seed(step)
        objective = loss(values)
        torch.manual_seed(step)
        losses = algorithm.step(batches)
        np.testing.assert_allclose(sum(losses.values()), np.real(objective(values)), rtol=1e-9)
        adam.step(values, gradient(objective, values))
        assert_equal_arrays(trained, values)
