"""Separability of domains in a representation: as a picture and as an error."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from contam.rng import generator_for
from contam.training.probe import in_span, is_wide

MANY_NEURONS = 1024
"""Neurons above which their covariance is not computed, if there are fewer examples."""


class Plane(NamedTuple):
    """Representations in the plane of their first two principal components."""

    points: Tensor
    """(batch, 2) centered, in the features' units."""
    shares: tuple[float, float]
    """Share of the total variance along each axis."""


def principal_plane(features: Float[Tensor, "batch neurons"]) -> Plane:
    """Project representations on their first two principal components.

    Give all domains together, so that one picture shows them all. The signs of the axes are fixed
    by their largest entries, so the picture is not mirrored from run to run.

    Args:
        features: Representation of each example.

    Raises:
        ValueError: If there are fewer than two neurons or three examples, or all are equal.

    Source: App. G.1.

    >>> import torch
    >>> plane = principal_plane(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> [round(share, 6) for share in plane.shares]
    [1.0, 0.0]
    """
    if features.shape[0] < 3 or features.shape[1] < 2:
        raise ValueError(
            f"a plane needs at least 3 examples of 2 neurons, got shape {tuple(features.shape)}"
        )
    values = features.detach().cpu().double()
    if torch.equal(values.amax(dim=0), values.amin(dim=0)):
        raise ValueError(
            "all examples have the same features, so there are no principal components"
        )
    basis = None
    if values.shape[1] > max(MANY_NEURONS, len(values)):
        values, basis = in_span(values - values.mean(dim=0))
    # The randomized solver would draw from a global seed.
    pca = PCA(n_components=min(2, values.shape[1]), svd_solver="covariance_eigh")
    points = torch.from_numpy(pca.fit_transform(values.numpy()))
    shares = pca.explained_variance_ratio_.tolist()
    if basis is not None:
        axes = torch.from_numpy(pca.components_) @ basis
        points *= axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))[:, 0].sign()
    if len(shares) < 2:
        # All examples lie on a line.
        points, shares = torch.cat([points, 0 * points], dim=1), [*shares, 0.0]
    return Plane(points, (shares[0], shares[1]))


def held_out(
    domain: Int[Tensor, " batch"], *, share: float = 0.2, seed: int = 0
) -> Bool[Tensor, " batch"]:
    """Return a mask of test examples with the same share of each domain, at least one.

    If an object appears on several backgrounds, split by objects instead, so that no object is on
    both sides.

    Args:
        domain: Domain index of each example.
        share: Share of test examples.
        seed: Random seed.

    Raises:
        ValueError: If the share is outside (0, 1) or a domain has a single example.

    Source: ours, since the paper's split is not published.

    >>> import torch
    >>> int(held_out(torch.tensor([0] * 10 + [1] * 5), share=0.2).sum())
    3
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of test examples must lie in (0, 1), got {share}")
    mask = torch.zeros(len(domain), dtype=torch.bool)
    for index in domain.unique().tolist():
        members = (domain.cpu() == index).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(f"domain {index} has one example; it needs one to fit and one to test")
        order = torch.randperm(
            len(members), generator=generator_for(seed, f"held out of domain {index}")
        )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        mask[members[order[:count]]] = True
    return mask


def domain_error(
    features: Float[Tensor, "batch neurons"],
    domain: Int[Tensor, " batch"],
    test: Bool[Tensor, " batch"],
) -> float:
    """Return the error of a linear domain classifier on test examples, in [0, 1].

    With K domains of equal size, guessing gives 1 - 1 / K. The classifier is a logistic regression
    with scikit-learn's L2 penalty of 1 on standardized features. A small error means that the
    domains are linearly separable, not that predictions are robust to them.

    Args:
        features: Representation of each example.
        domain: Domain index of each example.
        test: Which examples are for testing; the classifier is fitted to the others.

    Raises:
        ValueError: If there is no test example or there are fewer than two domains to fit.

    Source: App. G.1.

    >>> import torch
    >>> domain = torch.arange(20) % 2
    >>> domain_error(4.0 * domain[:, None], domain, test=torch.arange(20) >= 10)
    0.0
    """
    values, domain, test = features.detach().cpu().double(), domain.cpu(), test.cpu()
    if not test.any() or len(domain[~test].unique()) < 2:
        raise ValueError(
            f"expected test examples and two domains to fit, got {int(test.sum())} test examples "
            f"and domains {domain[~test].unique().tolist()}"
        )
    scaler = StandardScaler().fit(values[~test].numpy())
    fitted, judged = (
        torch.from_numpy(scaler.transform(some.numpy())) for some in (values[~test], values[test])
    )
    if is_wide(fitted):
        fitted, basis = in_span(fitted)
        judged = judged @ basis.T
    classifier = LogisticRegression(max_iter=10_000).fit(fitted.numpy(), domain[~test].numpy())
    return 1 - float(classifier.score(judged.numpy(), domain[test].numpy()))
