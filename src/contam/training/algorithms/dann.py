"""DANN: a discriminator can't tell the domains of features apart."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Adam

from contam.batch import Batch
from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings, pooled
from contam.training.algorithms.search_space import LogUniform, OneOf

DECAY_OF_SQUARES = 0.9
"""Adam's decay rate of the second moment, for both optimizers."""
SMALLEST_DEPTH = 2
"""Linear layers of the discriminator, at least."""


class DANNSettings(AlgorithmSettings, frozen=True):
    """Settings of DANN; `step_size` and `weight_decay` are those of the classifier."""

    domain_weight: Annotated[NonNegativeFloat, LogUniform(-2, 2)] = 1.0
    """Weight of the domain's cross-entropy that the classifier maximizes; the paper's lambda."""
    discriminator_step_size: Annotated[PositiveFloat, LogUniform(-5, -3.5)] = 5e-5
    discriminator_weight_decay: Annotated[NonNegativeFloat, LogUniform(-6, -2)] = 0.0
    discriminator_steps: Annotated[int, Field(ge=0), LogUniform(0, 3, base=2, whole=True)] = 1
    """Steps of the discriminator before each step of the classifier."""
    gradient_penalty: Annotated[NonNegativeFloat, LogUniform(-2, 1)] = 0.0
    """Weight of the gradient penalty of the discriminator."""
    beta1: Annotated[float, Field(ge=0, lt=1), OneOf((0.0, 0.5))] = 0.5
    """Adam's decay rate of the first moment, for both optimizers."""
    width: Annotated[PositiveInt, LogUniform(6, 10, base=2, whole=True)] = 256
    """Width of the discriminator's hidden layers."""
    depth: Annotated[int, Field(ge=SMALLEST_DEPTH), OneOf((3, 4, 5))] = 3
    """Number of the discriminator's linear layers."""
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1), OneOf((0.0, 0.1, 0.5))] = 0.0


@final
class DANN(Algorithm):
    """Domain-adversarial training: features that don't reveal the domain.

    A discriminator minimizes the cross-entropy of the domain; the classifier minimizes that of the
    class minus a multiple of that of the domain. Each step trains one of the two: in turn, the
    discriminator for `discriminator_steps` steps, and the classifier for one.

    Source: App. E.4; Ganin et al. (2016).
    """

    name = "DANN"
    Settings = DANNSettings
    needs_domains = 2
    settings: DANNSettings
    discriminator: nn.Sequential
    optimizer: Adam
    discriminator_optimizer: Adam

    def build(self) -> None:
        """Create the discriminator and both optimizers."""
        own = self.settings
        self.discriminator = discriminator(
            self.network.head.in_features, self.domains, width=own.width, depth=own.depth,
            dropout=own.discriminator_dropout,
        )  # fmt: skip
        betas = (own.beta1, DECAY_OF_SQUARES)
        self.optimizer = self.adam(self.network.parameters(), betas=betas)
        self.discriminator_optimizer = self.adam(
            self.discriminator.parameters(), step_size=own.discriminator_step_size,
            weight_decay=own.discriminator_weight_decay, betas=betas,
        )  # fmt: skip

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Train the discriminator or the classifier.

        Returns:
            `risk` and `domain risk`: cross-entropies of the class and of the domain.
        """
        x, y, _ = pooled(batches)
        sizes = torch.tensor([len(batch.y) for batch in batches], device=y.device)
        domain = torch.arange(len(batches), device=y.device).repeat_interleave(sizes)
        cycle = 1 + self.settings.discriminator_steps
        if self.done % cycle < self.settings.discriminator_steps:
            risk, domain_risk = self._train_discriminator(x, y, domain)
        else:
            features = self.features(x)
            risk = F.cross_entropy(self.logits(features), y)
            domain_risk = F.cross_entropy(self.discriminator(features), domain)
            self.optimizer.zero_grad()
            loss = risk - self.settings.domain_weight * domain_risk
            loss.backward(inputs=[p for p in self.network.parameters() if p.requires_grad])
            self.optimizer.step()
        self.done += 1
        return {"risk": risk.item(), "domain risk": domain_risk.item()}

    def _train_discriminator(self, x: Tensor, y: Tensor, domain: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features = self.features(x)
            risk = F.cross_entropy(self.logits(features), y)
        penalized = self.settings.gradient_penalty > 0
        features.requires_grad_(penalized)
        outputs = self.discriminator(features)
        domain_risk = F.cross_entropy(outputs, domain)
        loss = domain_risk
        if penalized:
            penalty = gradient_penalty(outputs, features, domain)
            loss = domain_risk + self.settings.gradient_penalty * penalty
        self.discriminator_optimizer.zero_grad()
        loss.backward(inputs=list(self.discriminator.parameters()))
        self.discriminator_optimizer.step()
        return risk, domain_risk


def discriminator(
    inputs: int, domains: int, *, width: int, depth: int, dropout: float
) -> nn.Sequential:
    """Return a multilayer perceptron from features to logits of domains.

    Args:
        inputs: number of features.
        domains: number of domains.
        width: width of the hidden layers.
        depth: number of linear layers, at least 2.
        dropout: probability with which a hidden neuron is dropped.

    Source: ours; DomainBed (Gulrajani & Lopez-Paz 2021).

    >>> network = discriminator(4, 3, width=8, depth=3, dropout=0.0)
    >>> [layer.out_features for layer in network if isinstance(layer, nn.Linear)]
    [8, 8, 3]
    """
    layers: list[nn.Module] = []
    for size in (inputs, *[width] * (depth - SMALLEST_DEPTH)):
        layers += [nn.Linear(size, width), nn.Dropout(dropout), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, domains))


def gradient_penalty(
    outputs: Float[Tensor, "batch domains"],
    features: Float[Tensor, "batch width"],
    domain: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the squared gradient norm of the domain's cross-entropy, averaged over examples.

    Args:
        outputs: logits of the domains.
        features: the features that they were computed from; they require gradients.
        domain: index of each example's domain.

    Source: ours; DomainBed (Gulrajani & Lopez-Paz 2021).

    >>> features = torch.zeros(1, 2, requires_grad=True)
    >>> gradient_penalty(features, features, torch.tensor([0])).item()  # gradient (-1/2, 1/2)
    0.5
    """
    total = F.cross_entropy(outputs, domain, reduction="sum")
    (gradient,) = torch.autograd.grad(total, features, create_graph=True)
    return gradient.square().sum(dim=1).mean()
