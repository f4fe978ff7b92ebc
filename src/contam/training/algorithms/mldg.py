"""MLDG: a step on some domains should also reduce the risk on others."""

import itertools
from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.optim import Adam

from contam.batch import Batch
from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings
from contam.training.algorithms.search_space import LogUniform, OneOf


class MLDGSettings(AlgorithmSettings, frozen=True):
    """Settings of MLDG."""

    beta: Annotated[NonNegativeFloat, LogUniform(-1, 1)] = 1.0
    """Weight of the risk on the meta-test domain."""
    meta_test_domains: Annotated[PositiveInt, OneOf((1, 2))] = 2
    """Number of meta-test domains; at least one domain is left for the inner step."""


@final
class MLDG(Algorithm):
    """Meta-learning domain generalization, first order.

    The domains are split at random into meta-training and meta-test domains, which are paired. Each
    pair contributes the gradient of the risk on its first domain, and that of the risk on its
    second domain at the weights after one step of a new Adam on the first. As that optimizer is new
    for each pair, it has no state to keep.

    Source: App. E.4; Li et al. (2018, "Learning to generalize").
    """

    name = "MLDG"
    Settings = MLDGSettings
    needs_domains = 2
    settings: MLDGSettings
    optimizer: Adam

    def build(self) -> None:
        """Create the optimizer."""
        self.optimizer = self.adam(self.network.parameters())

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one Adam step on the gradients of all pairs, divided by the number of domains.

        Returns:
            `risk` and `meta-test risk`: mean cross-entropies of the pairs' domains.
        """
        (group,) = self.optimizer.param_groups
        parameters, size, decay = group["params"], group["lr"], group["weight_decay"]
        order = torch.randperm(len(batches), device="cpu").tolist()
        pairs = meta_pairs(order, self.settings.meta_test_domains)
        start = [p.detach().clone() for p in parameters]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        risks, meta_risks = [], []
        for train, test in pairs:
            risk = self._risk(batches[train])
            gradients = torch.autograd.grad(risk, parameters, materialize_grads=True)
            with torch.no_grad():
                for p, gradient in zip(parameters, gradients, strict=True):
                    p.sub_(first_adam_step(p, gradient, step_size=size, weight_decay=decay))
                    p.grad.add_(gradient, alpha=1 / len(batches))
            meta_risk = self._risk(batches[test])
            gradients = torch.autograd.grad(meta_risk, parameters, materialize_grads=True)
            with torch.no_grad():
                for p, gradient, value in zip(parameters, gradients, start, strict=True):
                    p.copy_(value)
                    p.grad.add_(gradient, alpha=self.settings.beta / len(batches))
            risks.append(risk.detach())
            meta_risks.append(meta_risk.detach())
        self.optimizer.step()
        self.done += 1
        return {
            "risk": torch.stack(risks).mean().item(),
            "meta-test risk": torch.stack(meta_risks).mean().item(),
        }

    def _risk(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.logits(self.features(batch.x)), batch.y)


def meta_pairs(order: Sequence[int], meta_test: int) -> list[tuple[int, int]]:
    """Pair meta-training domains with meta-test domains.

    The shorter list repeats, so that no domain is dropped.

    Args:
        order: indices of the domains in random order, at least two.
        meta_test: number of meta-test domains; at most all but one are.

    Source: ours. The published code drops meta-test domains that exceed the meta-training domains.

    >>> meta_pairs([2, 0, 1], 2), meta_pairs([2, 0, 1], 1), meta_pairs([1, 0], 2)
    ([(2, 0), (2, 1)], [(2, 1), (0, 1)], [(1, 0)])
    """
    cut = max(1, len(order) - meta_test)
    train, test = order[:cut], order[cut:]
    pairs = zip(itertools.cycle(train), itertools.cycle(test), strict=True)
    return list(itertools.islice(pairs, max(len(train), len(test))))


def first_adam_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    *,
    step_size: float,
    weight_decay: float,
    stability: float = 1e-8,
) -> Float[Tensor, "*shape"]:
    """Return what the first step of a new Adam subtracts from a weight.

    At the first step, the corrected moments are the gradient and its square.

    Args:
        weight: the weight.
        gradient: gradient of the loss.
        step_size: step size.
        weight_decay: weight decay.
        stability: added to the denominator.

    Source: ours; Kingma & Ba (2015), Algorithm 1 at t = 1.

    >>> zero = torch.zeros(2)
    >>> first_adam_step(zero, torch.tensor([3.0, -4.0]), step_size=0.1, weight_decay=0.0)
    tensor([ 0.1000, -0.1000])
    """
    gradient = gradient + weight_decay * weight
    return step_size * gradient / (gradient.abs() + stability)
