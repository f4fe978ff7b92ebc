"""The dictionary of features that inputs are made of, and weights in its coordinates."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor

from contam.rng import generator_for

LARGEST = 10**9
"""Largest whole number of a setting; computations with larger ones would not end."""


@dataclass(frozen=True)
class FeatureModel:
    """Unit feature vectors: the core ones first, then the background ones.

    Raises:
        ValueError: no dictionary has such sizes or such a coherence.

    Source: Sec. 3.1.

    >>> FeatureModel(core=8, background=4, dimension=64).size
    12
    """

    core: int = 32
    """Core features, which carry the label."""
    background: int = 32
    """Background features, which are independent of the label."""
    dimension: int = 256
    """Dimension of the input space; at least core + background."""
    dictionary: Literal["axes", "rotated", "coherent"] = "axes"
    """The vectors: the first coordinate axes, random orthonormal directions (rotated), or random
    directions of which every two have the inner product coherence (coherent)."""
    coherence: float = 0.0
    """Inner product of every two features of the dictionary "coherent", strictly between
    -1 / (core + background - 1) and 1."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.core < 1 or self.background < 0:
            raise ValueError(
                f"core={self.core} and background={self.background}: need at least one core "
                "feature and no negative number of background features"
            )
        if self.size > self.dimension:
            raise ValueError(
                f"core + background = {self.size} features do not fit in dimension="
                f"{self.dimension}; raise dimension to at least {self.size} or use fewer features"
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
        """Inner products of the features, G = M^T M.

        Args:
            dtype: type of the result.

        Returns:
            The Gram matrix, with ones on its diagonal.

        >>> FeatureModel(core=1, background=1, dictionary="coherent", coherence=0.5).gram().tolist()
        [[1.0, 0.5], [0.5, 1.0]]
        """
        gram = torch.full((self.size, self.size), self.coherence, dtype=dtype)
        return gram.fill_diagonal_(1.0)

    def gram_root(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d0 d0"]:
        """The symmetric square root of the Gram matrix.

        Its eigenvalues are known: one along the direction of all ones, one across it.

        Args:
            dtype: type of the result.

        Returns:
            A symmetric matrix whose square is the Gram matrix.

        >>> features = FeatureModel(core=1, background=1, dictionary="coherent", coherence=0.5)
        >>> torch.allclose(features.gram_root() @ features.gram_root(), features.gram())
        True
        """
        across, shared = self.gram_root_parts()
        root = torch.full((self.size, self.size), shared, dtype=dtype)
        return root.diagonal_scatter(root.diagonal() + across)

    def gram_root_parts(self) -> tuple[float, float]:
        """The square root of the Gram matrix as two numbers.

        Returns:
            What its diagonal has more than the other entries, and the value of these.

        >>> FeatureModel().gram_root_parts()
        (1.0, 0.0)
        """
        across = math.sqrt(1 - self.coherence)
        along = math.sqrt(1 + (self.size - 1) * self.coherence)
        return across, (along - across) / self.size

    def basis(self, seed: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d d0"]:
        """Orthonormal directions that span the features.

        Args:
            seed: names the random directions.
            dtype: type of the result.

        Returns:
            One direction in each column.

        >>> FeatureModel(core=1, background=1, dimension=2).basis(seed=0).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        if self.dictionary == "axes":
            return torch.eye(self.dimension, self.size, dtype=dtype)
        gaussian = torch.randn(
            self.dimension,
            self.size,
            generator=generator_for(seed, "dictionary"),
            dtype=torch.float64,
        )
        directions, triangle = torch.linalg.qr(gaussian)
        # The signs of R make the directions uniform over all orthonormal frames.
        return (directions * triangle.diagonal().sign()).to(dtype)

    def matrix(self, seed: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "d d0"]:
        """The dictionary M.

        Args:
            seed: names the random directions.
            dtype: type of the result.

        Returns:
            One feature in each column.

        >>> features = FeatureModel(dictionary="rotated")
        >>> M = features.matrix(seed=0)
        >>> torch.allclose(M.T @ M, features.gram(), atol=1e-5)
        True
        """
        if self.orthonormal:
            return self.basis(seed, dtype)
        return (self.basis(seed, torch.float64) @ self.gram_root(torch.float64)).to(dtype)


def decompose(
    W: Float[Tensor, "m d"], M: Float[Tensor, "d d0"]
) -> tuple[Float[Tensor, "m d0"], Float[Tensor, "m d"]]:
    """Split neurons into projections on the features and a residual orthogonal to all of them.

    The residual changes no output, because every input lies in the span of the features.

    Args:
        W: weights of m neurons in R^d.
        M: the dictionary, one feature a column.

    Returns:
        The projections u_kj = <w_k, m_j>, (m, d0), and the residual, (m, d).

    Source: Eq. 6, Eq. 10, Eq. 11.

    >>> W, M = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [0.0]])
    >>> [part.tolist() for part in decompose(W, M)]
    [[[3.0]], [[0.0, 4.0]]]
    """
    projections = W @ M
    weights = torch.linalg.solve(M.T @ M, projections.T)
    return projections, W - (M @ weights).T


def check_choices(record: Any) -> None:
    """Check the choices of a dataclass's `Literal` fields and the size of its whole numbers.

    Args:
        record: an instance of the dataclass.

    Raises:
        ValueError: a field holds something else, or a number above `LARGEST`.

    Source: ours, a typing error that Python does not report.

    >>> from dataclasses import make_dataclass
    >>> options = make_dataclass("Options", [("activation", Literal["relu", "identity"])])
    >>> check_choices(options("relu"))
    >>> check_choices(options("rleu"))
    Traceback (most recent call last):
    ValueError: no activation 'rleu'; choose one of relu, identity
    """
    for name, hint in get_type_hints(type(record)).items():
        if get_origin(hint) is Literal and getattr(record, name) not in get_args(hint):
            raise ValueError(
                f"no {name} {getattr(record, name)!r}; choose one of {', '.join(get_args(hint))}"
            )
        value = getattr(record, name)
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"{name} must be at most {LARGEST:,}")
