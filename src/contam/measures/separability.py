"""How plainly a representation tells the domains apart: in a picture, and as an error."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from contam.rng import generator_for


class Plane(NamedTuple):
    """Representations in the two directions in which they vary most."""

    points: Tensor
    """(batch, 2) in the features' units, centered; the first axis varies most."""
    shares: tuple[float, float]
    """The share of the whole variance that each axis shows."""


def principal_plane(features: Float[Tensor, "batch neurons"]) -> Plane:
    """What to draw, colored by domain and by class, to see how the representation sorts them.

    Give all domains together, so that one picture shows them all. The axes' signs are fixed by
    their largest entries, so the picture does not turn over from run to run.

    Source: App. G.1.

    Raises:
        ValueError: fewer than two neurons or three examples, or features that never vary.
    """
    if features.shape[0] < 3 or features.shape[1] < 2:
        raise ValueError(
            f"a plane needs at least 3 examples of 2 neurons, not {tuple(features.shape)}"
        )
    values = features.detach().cpu().double()
    if torch.equal(values.amax(dim=0), values.amin(dim=0)):
        raise ValueError("all examples have the same features, so there is nothing to draw")
    # The randomized solver would draw from a global seed.
    found = PCA(n_components=2, svd_solver="covariance_eigh").fit(values.numpy())
    first, second = found.explained_variance_ratio_.tolist()
    return Plane(torch.from_numpy(found.transform(values.numpy())), (first, second))


def held_out(
    domain: Int[Tensor, " batch"], *, share: float = 0.2, seed: int = 0
) -> Bool[Tensor, " batch"]:
    """A mask of examples to test on: the same share of each domain, at least one.

    Where an object is shown on several backgrounds, split by objects instead, so that none is on
    both sides.

    Source: ours, since the published split is not.

    Raises:
        ValueError: a share outside (0, 1), or a domain with one example.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out lies in (0, 1), not at {share}")
    mask = torch.zeros(len(domain), dtype=torch.bool)
    for each in domain.unique().tolist():
        members = (domain.cpu() == each).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(f"domain {each} has one example; want one to fit and one to test")
        order = torch.randperm(
            len(members), generator=generator_for(seed, f"held out of domain {each}")
        )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        mask[members[order[:count]]] = True
    return mask


def domain_error(
    features: Float[Tensor, "batch neurons"],
    domain: Int[Tensor, " batch"],
    test: Bool[Tensor, " batch"],
) -> float:
    """How often a linear classifier mistakes the domain of examples that it was not fitted to.

    In [0, 1]; with K domains of one size, guessing gives 1 - 1 / K. The classifier is a logistic
    regression with scikit-learn's L2 penalty of 1 on standardized features, fitted to the examples
    outside `test`. A small error says that the domains are linearly separable, not that the class
    is robust to them.

    Source: App. G.1.

    Raises:
        ValueError: nothing to test on, or fewer than two domains to fit to.
    """
    values, domain, test = features.detach().cpu().double(), domain.cpu(), test.cpu()
    if not test.any() or len(domain[~test].unique()) < 2:
        raise ValueError(
            f"want examples to test on and two domains to fit to; got {int(test.sum())} examples "
            f"and domains {domain[~test].unique().tolist()}"
        )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    classifier.fit(values[~test].numpy(), domain[~test].numpy())
    return 1 - float(classifier.score(values[test].numpy(), domain[test].numpy()))
