"""The dictionary of features that inputs are made of, and weights seen in its coordinates."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contam.rng import generator_for


@dataclass(frozen=True)
class FeatureModel:
    """Unit features in `dimension` dimensions, the core ones first, then the background ones.

    Dictionaries: "axes" are the first coordinate axes; "rotated" are orthonormal directions drawn
    from a seed; "coherent" are drawn too, and every two of them have inner product `coherence`,
    which lies strictly between -1 / (core + background - 1) and 1.

    Raises:
        ValueError: sizes or a coherence that no dictionary can have.

    Source: Sec. 3.1.
    """

    core: int = 32
    background: int = 32
    dimension: int = 256
    dictionary: Literal["axes", "rotated", "coherent"] = "axes"
    coherence: float = 0.0

    def __post_init__(self) -> None:
        if self.core < 1 or self.background < 0:
            raise ValueError(
                f"core={self.core} and background={self.background}: wanted at least one core "
                "feature and no negative number of background features"
            )
        if self.size > self.dimension:
            raise ValueError(
                f"core + background = {self.size} features do not fit in dimension="
                f"{self.dimension}; raise dimension to at least {self.size} or use fewer features"
            )
        if self.dictionary not in ("axes", "rotated", "coherent"):
            raise ValueError(
                f"no dictionary {self.dictionary!r}; choose 'axes', 'rotated' or 'coherent'"
            )
        if self.dictionary != "coherent" and self.coherence != 0:
            raise ValueError(
                f"coherence={self.coherence} needs dictionary='coherent'; the features of "
                f"{self.dictionary!r} are orthogonal"
            )
        lowest = -1 / (self.size - 1) if self.size > 1 else -1.0
        if not lowest < self.coherence < 1:
            raise ValueError(
                f"coherence={self.coherence}: {self.size} unit features can only have pairwise "
                f"inner products strictly between {lowest:.4g} and 1"
            )

    @property
    def size(self) -> int:
        """Number of features, core and background: d0."""
        return self.core + self.background

    @property
    def orthonormal(self) -> bool:
        """Whether the Gram matrix is the identity."""
        return self.coherence == 0

    def gram(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d0 d0"]:
        """Inner products of the features, G = M^T M."""
        gram = torch.full((self.size, self.size), self.coherence, dtype=dtype)
        return gram.fill_diagonal_(1.0)

    def gram_root(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d0 d0"]:
        """The symmetric square root of the Gram matrix.

        Its eigenvalues are known: one along the direction of all ones, one across it.
        """
        across = math.sqrt(1 - self.coherence)
        along = math.sqrt(1 + (self.size - 1) * self.coherence)
        root = torch.full((self.size, self.size), (along - across) / self.size, dtype=dtype)
        return root.diagonal_scatter(root.diagonal() + across)

    def basis(self, seed: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d d0"]:
        """Orthonormal directions that span the features."""
        if self.dictionary == "axes":
            return torch.eye(self.dimension, self.size, dtype=dtype)
        drawn = torch.randn(
            self.dimension,
            self.size,
            generator=generator_for(seed, "dictionary"),
            dtype=torch.float64,
        )
        directions, triangle = torch.linalg.qr(drawn)
        # The signs of R make the directions uniform over all orthonormal frames.
        return (directions * triangle.diagonal().sign()).to(dtype)

    def matrix(self, seed: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d d0"]:
        """The dictionary M, one feature a column."""
        if self.orthonormal:
            return self.basis(seed, dtype)
        return (self.basis(seed, torch.float64) @ self.gram_root(torch.float64)).to(dtype)


def decompose(
    W: Float[Tensor, "m d"], M: Float[Tensor, "d d0"]
) -> tuple[Float[Tensor, "m d0"], Float[Tensor, "m d"]]:
    """Projections u_kj = <w_k, m_j>, and the residual of W that is orthogonal to every feature.

    No input sees the residual, because every input lies in the span of the features.

    Source: Eq. 6, Eq. 10, Eq. 11.
    """
    projections = W @ M
    weights = torch.linalg.solve(M.T @ M, projections.T)
    return projections, W - (M @ weights).T
