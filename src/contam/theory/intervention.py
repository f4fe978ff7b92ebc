"""Changes of the training of two-layer networks that reduce contamination.

Directions are in feature coordinates, core features first; P is the matrix that multiplies the
gradient of each neuron.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel, Sample
from contam.theory.features import check_choices

SECOND_SCALE = 0.5
"""Scale of the background weights in the second environment."""


@dataclass(frozen=True)
class Intervention:
    """What is different from plain training; the defaults change nothing.

    Raises:
        ValueError: a field is out of range.

    Source: Sec. 5.

    >>> Intervention(project="pairs", directions=8).changes
    ['project=pairs']
    """

    project: Literal[
        "none", "core", "mean", "pairs", "environment_means", "environments", "within_class"
    ] = "none"
    """Space of the gradient. "core" is an oracle. The others remove directions that are estimated
    without knowing the features: the mean input; differences of counterfactual pairs, which have
    the same core; the difference of the means of two environments, the second of which has half
    the background; the leading directions in which their covariances within classes differ; the
    leading principal components within classes."""
    directions: int = 32
    """Counterfactual pairs, or leading directions of "environments" and "within_class"."""
    estimated_from: int = 1000
    """Examples that means and moments are estimated from, in each environment."""
    inputs: Literal["raw", "core", "centered", "batch_norm"] = "raw"
    """"core" sets the background to 0 and is an oracle, "centered" subtracts the mean of the class
    means, "batch_norm" standardizes each feature."""
    hidden: Literal["none", "batch_norm"] = "none"
    """Batch norm of pre-activations, without scale and shift."""
    gain: float = 1.0
    """Factor of a fixed head's weights; pre-activations of batch norm are smaller by about 4."""
    augment: Literal["none", "flip", "erase", "swap"] = "none"
    """Change of the background in training: its sign is flipped, it is set to 0, or it is swapped
    with that of another example."""
    augmented: float = 0.5
    """Share of the examples that are augmented."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.directions < 1 or self.estimated_from < 2:
            raise ValueError(
                f"directions={self.directions} and estimated_from={self.estimated_from}: need at "
                "least 1 direction and 2 examples"
            )
        if not self.gain > 0:
            raise ValueError(f"gain={self.gain} must be positive")
        if not 0 <= self.augmented <= 1:
            raise ValueError(f"augmented={self.augmented} must lie between 0 and 1")

    @property
    def changes(self) -> list[str]:
        """The fields that change the training, as 'name=value'."""
        plain = {"project": "none", "inputs": "raw", "hidden": "none", "gain": 1.0,
                 "augment": "none"}  # fmt: skip
        return [f"{name}={getattr(self, name)}" for name in plain
                if getattr(self, name) != plain[name]]  # fmt: skip

    @property
    def normalizes(self) -> bool:
        """Whether the network has modules that a plain one lacks."""
        return self.inputs != "raw" or self.hidden != "none"


class Centering(nn.Module):
    """Subtract a fixed vector.

    Args:
        mean: the vector.

    Source: ours, centering as part of the network, so that it is applied to all distributions.

    >>> Centering(torch.tensor([1.0, 2.0]))(torch.tensor([[1.0, 1.0]])).tolist()
    [[0.0, -1.0]]
    """

    def __init__(self, mean: Float[Tensor, " d0"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.mean: Tensor

    def forward(self, f: Float[Tensor, "n d0"]) -> Float[Tensor, "n d0"]:
        """Subtract the vector from each example."""
        return f - self.mean


class CoreInputs(nn.Module):
    """Set the background features to 0.

    Args:
        core: number of core features.

    Source: ours, the projection of Sec. 5 on inputs instead of gradients.

    >>> CoreInputs(1)(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 0.0, 0.0]]
    """

    def __init__(self, core: int) -> None:
        super().__init__()
        self.core = core

    def forward(self, f: Float[Tensor, "n d0"]) -> Float[Tensor, "n d0"]:
        """Keep the core features of each example."""
        return torch.cat([f[:, : self.core], torch.zeros_like(f[:, self.core :])], dim=1)


def projection(
    intervention: Intervention, data: DataModel, seed: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "d0 d0"] | None:
    """The matrix that projects gradients; None where they are not projected.

    Args:
        intervention: the intervention.
        data: the data model, with orthonormal features.
        seed: names the examples that directions are estimated from.
        dtype: type of the matrix.

    Returns:
        A symmetric projection.

    Source: Sec. 5, App. A.1.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=1, background=1, dimension=2))
    >>> projection(Intervention(project="core"), data, seed=0).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    >>> P = projection(Intervention(project="pairs", directions=1), data, seed=0)
    >>> torch.allclose(P, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), atol=1e-6)
    True
    """
    core, size, n = data.features.core, data.features.size, intervention.estimated_from
    if intervention.project == "none":
        return None
    if intervention.project == "core":
        return torch.diag((torch.arange(size) < core).to(dtype))

    def draw(count: int, purpose: str) -> Sample:
        bits = bit_generator_for(seed, f"intervention {intervention.project}, {purpose}")
        return data.sample(count, bits, dtype=torch.float64)

    if intervention.project == "mean":
        removed = _mean(draw(n, "examples"))[:, None]
    elif intervention.project == "pairs":
        first, second = (draw(intervention.directions, which).f for which in ("first", "second"))
        second[:, :core] = first[:, :core]
        removed = (first - second).T
    elif intervention.project == "within_class":
        removed = _leading(_within_classes(draw(n, "examples")), intervention.directions)
    else:
        first, second = (draw(n, which) for which in ("first", "second"))
        second.f[:, core:] *= SECOND_SCALE
        if intervention.project == "environment_means":
            removed = (_mean(first) - _mean(second))[:, None]
        else:
            # Within classes: the core's difference of classes would dominate the sampling noise.
            difference = _within_classes(first) - _within_classes(second)
            removed = _leading(difference, intervention.directions)
    # The left singular vectors span what is removed, also where the columns are dependent.
    basis, lengths, _ = torch.linalg.svd(removed, full_matrices=False)
    basis = basis[:, lengths > 1e-9 * lengths[0]]
    return (torch.eye(size, dtype=torch.float64) - basis @ basis.T).to(dtype)


def input_module(
    intervention: Intervention, data: DataModel, seed: int, dtype: torch.dtype = torch.float32
) -> nn.Module | None:
    """The module that an intervention puts before the first layer; None for raw inputs.

    Args:
        intervention: the intervention.
        data: the data model.
        seed: names the examples that the mean is estimated from.
        dtype: type of its buffers.

    Returns:
        The module.

    Source: ours, oracle inputs, centering and input batch norm.

    >>> input_module(Intervention(inputs="centered"), DataModel(), seed=0).mean.shape
    torch.Size([64])
    """
    if intervention.inputs == "core":
        return CoreInputs(data.features.core)
    if intervention.inputs == "centered":
        bits = bit_generator_for(seed, "intervention centered, examples")
        return Centering(_mean(data.sample(intervention.estimated_from, bits, dtype=dtype)))
    if intervention.inputs == "batch_norm":
        return nn.BatchNorm1d(data.features.size, affine=False, dtype=dtype)
    return None


def augmented(
    intervention: Intervention, sample: Sample, core: int, bits: np.random.SFC64
) -> Sample:
    """Change the background of a share of the examples.

    Args:
        intervention: the intervention.
        sample: examples, changed in place.
        core: number of core features.
        bits: source of random bits.

    Returns:
        The examples.

    Source: ours, augmentations that a user knows for images.

    >>> bits, sample = np.random.SFC64(0), DataModel().sample(4, np.random.SFC64(1))
    >>> erased = augmented(Intervention(augment="erase", augmented=1.0), sample, 32, bits)
    >>> erased.f[:, 32:].unique()
    tensor([0.])
    """
    if intervention.augment == "none":
        return sample
    coins = bits.random_raw(len(sample.y)) >> np.uint64(11)
    chosen = torch.from_numpy(coins.astype(np.float64) / 2**53) < intervention.augmented
    background = sample.f[:, core:]
    if intervention.augment == "swap":
        # The next example's background is independent of this one's label.
        changed = background.roll(1, dims=0)
    else:
        changed = -background if intervention.augment == "flip" else torch.zeros_like(background)
    sample.f[:, core:] = torch.where(chosen[:, None], changed, background)
    return sample


def _mean(sample: Sample) -> Float[Tensor, " d0"]:
    """Mean of the class means, which does not depend on how often each class was drawn."""
    return torch.stack([sample.f[sample.y == y].mean(dim=0) for y in sample.y.unique()]).mean(dim=0)


def _leading(symmetric: Float[Tensor, "d0 d0"], count: int) -> Float[Tensor, "d0 count"]:
    """Eigenvectors of the eigenvalues that are largest in size."""
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors[:, values.abs().argsort(descending=True)[:count]]


def _within_classes(sample: Sample) -> Float[Tensor, "d0 d0"]:
    """Covariance within classes."""
    deviations = [f - f.mean(dim=0) for f in (sample.f[sample.y == y] for y in sample.y.unique())]
    f = torch.cat(deviations)
    return f.T @ f / len(f)
