"""Two ways to compute one training step of a network: in closed form, and by autograd."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contam.theory.distribution import Sample
from contam.theory.network import MLP


class Engine(ABC):
    """Trains one network in place, one minibatch at a time.

    Source: ours, so that `simulate` does not depend on how a step is computed.
    """

    @abstractmethod
    def step(self, sample: Sample) -> float:
        """Take one step on a minibatch.

        Args:
            sample: examples in feature coordinates.

        Returns:
            Mean loss before the step; if it is not finite, the network stays as it was.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the optimizer.

        Returns:
            Named tensors; empty for plain SGD.
        """

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a state of the optimizer.

        Args:
            tensors: what `tensors` returned.
        """


def hinge(h: Float[Tensor, "n *outputs"], sample: Sample) -> Float[Tensor, " n"]:
    """max(0, 1 - y h) per example; with several outputs, the margin to the best wrong class.

    Args:
        h: outputs.
        sample: examples with labels.

    Returns:
        One loss for each example.

    Source: ours, the multi-class margin; with one output it is the paper's loss.

    >>> sample = Sample(torch.zeros(2, 1), torch.tensor([1, -1]), torch.zeros(2, 1))
    >>> hinge(torch.tensor([0.5, 2.0]), sample).tolist()
    [0.5, 3.0]
    """
    if h.ndim == 1:
        return F.relu(1 - sample.y * h)
    own = h.gather(1, sample.y[:, None])[:, 0]
    others = h.scatter(1, sample.y[:, None], -math.inf).amax(dim=1)
    return F.relu(1 - own + others)


def logistic(h: Float[Tensor, "n *outputs"], sample: Sample) -> Float[Tensor, " n"]:
    """Log loss log(1 + exp(-y h)) of each example; with several outputs, the cross-entropy.

    Args:
        h: outputs.
        sample: examples with labels.

    Returns:
        One loss for each example, in nats.

    Source: ours, to compare with the hinge loss.

    >>> sample = Sample(torch.zeros(2, 1), torch.tensor([1, -1]), torch.zeros(2, 1))
    >>> [round(loss, 3) for loss in logistic(torch.tensor([0.0, 2.0]), sample).tolist()]
    [0.693, 2.127]
    """
    if h.ndim == 1:
        return F.softplus(-sample.y * h)
    return F.cross_entropy(h, sample.y, reduction="none")


def squared(h: Float[Tensor, "n outputs"], sample: Sample) -> Float[Tensor, " n"]:
    """Half the squared distance of the outputs to the core features, for each example.

    Args:
        h: outputs; one for each core feature.
        sample: examples with targets.

    Returns:
        One loss for each example.

    Source: ours, the loss of regression on the core features.

    >>> sample = Sample(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([[1.0, 0.0]]))
    >>> squared(torch.tensor([[0.0, 2.0]]), sample).tolist()
    [2.5]
    """
    return (h.reshape(sample.target.shape) - sample.target).square().sum(dim=1) / 2


LOSSES: dict[str, Callable[[Tensor, Sample], Tensor]] = {
    "hinge": hinge,
    "logistic": logistic,
    "squared": squared,
}


@final
class ClosedFormSGD(Engine):
    """SGD on the hinge loss of a two-layer network with a fixed head, by its closed-form gradient.

    Works in feature coordinates, where a non-orthonormal dictionary multiplies the gradient with
    its Gram matrix. All steps share one buffer for the activations.

    Args:
        network: the network to train, in place.
        step_size: learning rate.
        weight_decay: coefficient of the L2 term.
        momentum: heavy-ball momentum; 0 for plain SGD.
        gram: inner products of the features; None for orthonormal ones.

    Source: ours, the closed-form gradient of `hidden_gradient` with one buffer and less work.

    >>> from contam.rng import bit_generator_for
    >>> from contam.theory.initialization import initial_network
    >>> from contam.theory.setting import Setting
    >>> setting, bits = Setting(width=32), bit_generator_for(0, "example")
    >>> network = initial_network(setting, seed=0)
    >>> engine = ClosedFormSGD(network, step_size=0.5, weight_decay=0.0, momentum=0.0, gram=None)
    >>> losses = [engine.step(setting.data.sample(100, bits)) for _ in range(50)]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self,
        network: MLP,
        *,
        step_size: float,
        weight_decay: float,
        momentum: float,
        gram: Float[Tensor, "d0 d0"] | None,
    ) -> None:
        self.W = network.first.weight.detach()
        self.a = network.head.weight.detach()[0]
        self.linear = network.activation == "identity"
        self.step_size, self.weight_decay, self.momentum = step_size, weight_decay, momentum
        self.gram = gram
        self.buffer = self.W.new_empty(0)
        self.velocity = torch.zeros_like(self.W) if momentum else None

    @torch.no_grad()
    def step(self, sample: Sample) -> float:
        """Take a step; return the mean loss before it."""
        f, y = sample.f, sample.y.to(self.W.dtype)
        active = None if self.linear else self._activations(f)
        # A linear network is one vector, the weighted sum of its neurons.
        margin = y * (f @ (self.a @ self.W) if active is None else active @ self.a)
        loss = float(F.relu(1 - margin).mean())
        if not math.isfinite(loss):
            return loss
        n, inside = len(f), (margin <= 1).nonzero()[:, 0]
        if len(inside) < n:
            # Examples outside the hinge have no gradient.
            f, y = f.index_select(0, inside), y.index_select(0, inside)
        signed = f * y[:, None]
        if active is None:
            pull = signed.sum(dim=0, keepdim=True)
        else:
            if len(inside) < n:
                active = active.index_select(0, inside)
            pull = (signed.T @ active.gt_(0)).T
        self._move(pull if self.gram is None else pull @ self.gram, n)
        return loss

    def tensors(self) -> dict[str, Tensor]:
        """The state of the optimizer: its velocity, if it has momentum."""
        return {} if self.velocity is None else {"velocity": self.velocity}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a state that `tensors` returned."""
        if self.velocity is not None:
            self.velocity.copy_(tensors["velocity"])

    def _activations(self, f: Float[Tensor, "n d0"]) -> Float[Tensor, "n m"]:
        if self.buffer.shape[0] != len(f):
            self.buffer = self.W.new_empty(len(f), len(self.W))
        return torch.mm(f, self.W.T, out=self.buffer).relu_()

    def _move(self, pull: Float[Tensor, "#m d0"], n: int) -> None:
        """Apply weight decay, and step along the mean of a_k times the pull on neuron k."""
        a = self.a[:, None]
        if self.velocity is None:
            self.W.mul_(1 - self.step_size * self.weight_decay)
            self.W.addcmul_(pull, a, value=self.step_size / n)
        else:
            self.velocity.mul_(self.momentum).add_(self.W, alpha=self.weight_decay)
            self.velocity.addcmul_(pull, a, value=-1 / n)
            self.W.sub_(self.velocity, alpha=self.step_size)


@final
class Autograd(Engine):
    """Any network, loss and optimizer, by automatic differentiation.

    Args:
        network: the network to train, in place.
        loss: a name in `LOSSES`.
        optimizer: optimizer of the network's trained parameters.
        gram: inner products of the features; None for orthonormal ones and ambient weights.

    Source: ours, the settings that have no closed-form gradient.

    >>> from contam.rng import bit_generator_for
    >>> from contam.theory.initialization import initial_network
    >>> from contam.theory.setting import Setting
    >>> setting, bits = Setting(width=32, head="trained"), bit_generator_for(0, "example")
    >>> network = initial_network(setting, seed=0)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    >>> engine = Autograd(network, "logistic", optimizer, gram=None)
    >>> losses = [engine.step(setting.data.sample(100, bits)) for _ in range(50)]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self,
        network: MLP,
        loss: str,
        optimizer: torch.optim.Optimizer,
        gram: Float[Tensor, "d0 d0"] | None,
    ) -> None:
        self.network, self.loss, self.optimizer, self.gram = network, LOSSES[loss], optimizer, gram

    def step(self, sample: Sample) -> float:
        """Take a step; return the mean loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(self.network(sample.f), sample).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        loss.backward()
        if self.gram is not None:
            weight = self.network.first.weight
            assert weight.grad is not None
            weight.grad = weight.grad @ self.gram
        self.optimizer.step()
        return value

    def tensors(self) -> dict[str, Tensor]:
        """The state of the optimizer, by parameter."""
        return {
            f"{index}.{name}": value
            for index, memory in self.optimizer.state_dict()["state"].items()
            for name, value in memory.items()
            if isinstance(value, Tensor)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a state that `tensors` returned."""
        memory: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            memory.setdefault(int(index), {})[name] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory, "param_groups": groups})
