"""What an algorithm of domain generalization is: settings, a step, and a state.

An algorithm trains a classifier with one minibatch from every training domain. Every module,
optimizer and tensor that is an attribute of an algorithm belongs to its state, so that an
interrupted training resumes bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.rng import generator_for, seeded
from contam.training.algorithms.search_space import LogUniform, OneOf, SearchDistribution
from contam.training.optimizer_state import cpu_copy, load_optimizer_tensors, optimizer_tensors


class AlgorithmSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings that all algorithms share, each with its distribution in a random search.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021), whose defaults and ranges these are.

    >>> AlgorithmSettings().batch_size
    32
    >>> AlgorithmSettings.draw(trial=0, draw=0) == AlgorithmSettings()
    True
    """

    step_size: Annotated[PositiveFloat, LogUniform(-5, -3.5)] = 5e-5
    weight_decay: Annotated[NonNegativeFloat, LogUniform(-6, -2)] = 0.0
    batch_size: Annotated[PositiveInt, LogUniform(3, 5.5, base=2, whole=True)] = 32
    """Examples from every training domain in a step."""
    dropout: Annotated[float, Field(ge=0, lt=1), OneOf((0.0, 0.1, 0.5))] = 0.0
    """Probability with which a feature is dropped between the encoder and the head."""

    @classmethod
    def search_space(cls) -> dict[str, SearchDistribution]:
        """Return the distribution of each setting that a random search varies."""
        return {
            name: part
            for name, field in cls.model_fields.items()
            for part in field.metadata
            if isinstance(part, SearchDistribution)
        }

    @classmethod
    def draw(
        cls,
        *,
        trial: int,
        draw: int,
        instead: Mapping[str, SearchDistribution] | None = None,
    ) -> Self:
        """Draw settings of a random search.

        The value of a setting depends on the trial, the draw and its name only.

        Args:
            trial: repetition of the search, as a random seed.
            draw: draw of the trial; draw 0 has the defaults.
            instead: distributions that replace those of some settings; settings that the search
                does not vary keep their defaults.

        Source: App. E.4, random search as in DomainBed.
        """
        if draw == 0:
            return cls()
        spaces = cls.search_space()
        spaces |= {name: space for name, space in (instead or {}).items() if name in spaces}
        drawn: dict[str, Any] = {
            name: space.sample(generator_for(trial, f"search/draw {draw}/{name}"))
            for name, space in spaces.items()
        }
        return cls(**drawn)


class Algorithm(ABC):
    """Trains a classifier, in place, with one minibatch from every training domain.

    A subclass has a name, its settings and `step`. It creates further modules, optimizers and
    tensors in `build` and keeps each as an attribute of its own; other attributes are not part of
    the state.

    Args:
        network: the classifier to train.
        domains: number of training domains.
        classes: number of classes.
        settings: settings of this algorithm; its defaults without them.
        seed: random seed of the weights of further modules.

    Raises:
        ValueError: there are fewer domains than the algorithm needs.

    Source: App. E.4.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[AlgorithmSettings]] = AlgorithmSettings
    needs_domains: ClassVar[int] = 1
    """Smallest number of training domains."""

    settings: AlgorithmSettings
    done: int
    """Number of completed steps; `step` increases it."""

    def __init__(
        self,
        network: Classifier,
        *,
        domains: int,
        classes: int,
        settings: AlgorithmSettings | None = None,
        seed: int,
    ) -> None:
        if domains < self.needs_domains:
            raise ValueError(
                f"{self.name} compares training domains and needs at least {self.needs_domains} "
                f"of them, got {domains}; use ERM or add a domain"
            )
        self.network = network
        self.domains = domains
        self.classes = classes
        self.settings = self.Settings() if settings is None else settings
        self.seed = seed
        self.done = 0
        with seeded(seed, f"algorithm/{self.name}/weights"):
            self.build()
        for module in self._modules():
            module.to(self.device)

    def build(self) -> None:  # noqa: B027
        """Create further modules, optimizers and tensors; the random state is seeded."""

    @abstractmethod
    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one training step and return its named losses.

        Args:
            batches: one minibatch for each training domain; their sizes may differ.
        """

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate."""
        return self.network

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def features(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch width"]:
        """Return the encoder's features, some of them dropped in training mode."""
        features = self.network.encoder(x)
        if not self.settings.dropout:
            return features
        return F.dropout(features, self.settings.dropout, training=self.network.training)

    def logits(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Return the head's logits."""
        return self.network.head(features)

    def adam(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        step_size: float | None = None,
        weight_decay: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> Adam:
        """Return Adam on the parameters that require gradients.

        Args:
            parameters: the parameters.
            step_size: step size; that of the settings if None.
            weight_decay: weight decay; that of the settings if None.
            betas: decay rates of the two moments.
        """
        common = self.settings
        return Adam(
            [p for p in parameters if p.requires_grad],
            common.step_size if step_size is None else step_size,
            betas=betas,
            weight_decay=common.weight_decay if weight_decay is None else weight_decay,
        )

    def train(self) -> None:
        """Set all modules to training mode."""
        for module in self._modules():
            module.train()

    def scale_step_sizes(self, factor: float) -> None:
        """Set the step size of every optimizer to a multiple of its initial one.

        Args:
            factor: factor of a schedule, such as `warmup_cosine`.
        """
        for part in vars(self).values():
            if isinstance(part, Optimizer):
                for group in part.param_groups:
                    group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def state_tensors(self) -> dict[str, Tensor]:
        """Return copies of everything that changes in a training: modules, optimizers, tensors."""
        tensors = {"done": torch.tensor(self.done)}
        for name, part in vars(self).items():
            if isinstance(part, Optimizer):
                parts = optimizer_tensors(part)
                tensors |= {f"{name}/{key}": tensor for key, tensor in parts.items()}
            elif isinstance(part, nn.Module):
                tensors |= {f"{name}/{key}": cpu_copy(t) for key, t in part.state_dict().items()}
            elif isinstance(part, Tensor):
                tensors[name] = cpu_copy(part)
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_tensors` returned.

        Raises:
            ValueError: the tensors belong to another network or algorithm.
        """
        try:
            self.done = int(tensors["done"])
            for name, part in vars(self).items():
                own = {
                    key.removeprefix(f"{name}/"): tensor
                    for key, tensor in tensors.items()
                    if key.startswith(f"{name}/")
                }
                if isinstance(part, Optimizer):
                    load_optimizer_tensors(part, own)
                elif isinstance(part, nn.Module):
                    part.load_state_dict(own)
                elif isinstance(part, Tensor):
                    setattr(self, name, tensors[name].to(part, copy=True))
        except (KeyError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"the checkpoint belongs to another network or algorithm than this {self.name}: "
                f"{error}"
            ) from error

    def _modules(self) -> list[nn.Module]:
        return [part for part in vars(self).values() if isinstance(part, nn.Module)]


class Objective(Algorithm):
    """An algorithm that minimizes a loss: one Adam step on the sum of its terms.

    A subclass has a name and `losses`. Adam trains the network and the modules that `build`
    creates.

    >>> class Confident(Objective):
    ...     name = "Confident"
    ...     def losses(self, batches):
    ...         x, y, _ = pooled(batches)
    ...         logits = self.logits(self.features(x))
    ...         entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    ...         return {"risk": F.cross_entropy(logits, y), "entropy": 0.1 * entropy}
    >>> network = Classifier(nn.Flatten(), classes=2, width=2)
    >>> algorithm = Confident(network, domains=2, classes=2, seed=0)
    >>> y = torch.tensor([0, 1])
    >>> list(algorithm.step([Batch(torch.eye(2), y, y)] * 2))
    ['risk', 'entropy']
    """

    optimizer: Adam

    def __init__(
        self,
        network: Classifier,
        *,
        domains: int,
        classes: int,
        settings: AlgorithmSettings | None = None,
        seed: int,
    ) -> None:
        super().__init__(network, domains=domains, classes=classes, settings=settings, seed=seed)
        self.optimizer = self.adam(p for module in self._modules() for p in module.parameters())

    @abstractmethod
    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the named terms of the loss.

        Args:
            batches: one minibatch for each training domain; their sizes may differ.
        """

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one step of Adam on the sum of the terms, and return them."""
        terms = self.losses(batches)
        if not isinstance(terms, dict) or not terms:
            raise TypeError(f"losses(batches) returned {terms!r:.40}; expected a dict of losses")
        self.optimizer.zero_grad()
        cast(Tensor, sum(terms.values())).backward()
        self.optimizer.step()
        self.done += 1
        return {name: term.item() for name, term in terms.items()}


def pooled(batches: Sequence[Batch]) -> Batch:
    """Return the examples of all domains as one batch, in the order of the domains.

    >>> y = torch.tensor([0, 1])
    >>> len(pooled([Batch(torch.eye(2), y, y)] * 3).y)
    6
    """
    return batches[0] if len(batches) == 1 else Batch(*map(torch.cat, zip(*batches, strict=True)))


def by_domain(values: Float[Tensor, "batch ..."], batches: Sequence[Batch]) -> tuple[Tensor, ...]:
    """Split values of the pooled examples by domain.

    >>> y = torch.tensor([0, 1])
    >>> [part.tolist() for part in by_domain(torch.arange(4.0), [Batch(torch.eye(2), y, y)] * 2)]
    [[0.0, 1.0], [2.0, 3.0]]
    """
    return values.split([len(batch.y) for batch in batches])


def risks(
    logits: Float[Tensor, "batch classes"], batches: Sequence[Batch]
) -> Float[Tensor, " domains"]:
    """Return the cross-entropy of each domain.

    Args:
        logits: logits of the pooled examples.
        batches: one minibatch for each training domain.

    >>> y = torch.tensor([0, 1])
    >>> risks(torch.zeros(4, 2), [Batch(torch.eye(2), y, y)] * 2)
    tensor([0.6931, 0.6931])
    """
    parts = by_domain(logits, batches)
    return torch.stack([F.cross_entropy(p, b.y) for p, b in zip(parts, batches, strict=True)])
