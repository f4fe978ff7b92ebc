"""Which groups of examples are hard: known ones, discovered ones, and ones that are to be found."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from torch import Tensor

from contam.measures.example_difficulty import Difficulty
from contam.rng import generator_for


@dataclass(frozen=True)
class GroupDifficulty:
    """How hard a group of examples was, on average."""

    group: int
    count: int
    learned: float
    """The share that is right at the last look."""
    learn_time: float
    """The lower median; infinite if half of the group or more was not learned."""
    early_error: float
    """The share that was wrong at the early look."""
    early_loss: float
    el2n: float
    forgotten: float
    """Mean number of times."""
    aum: float
    confidence: float
    variability: float


def by_group(found: Difficulty, group: Int[Tensor, " n"]) -> tuple[GroupDifficulty, ...]:
    """The difficulty of each group, in the order of their numbers.

    A group may be a class, a class with a background, or a cluster that `early_clusters` found.

    Source: ours, means and medians.
    """
    learned = found.learn_time.isfinite()
    told: list[GroupDifficulty] = []
    for each in group.unique().tolist():
        here = group == each
        means = {
            field.name: float(getattr(found, field.name)[here].double().mean())
            for field in fields(GroupDifficulty)[4:]
        }
        told.append(
            GroupDifficulty(
                each,
                int(here.sum()),
                float(learned[here].double().mean()),
                float(found.learn_time[here].median()),
                **means,
            )
        )
    return tuple(told)


def early_clusters(found: Difficulty, *, clusters: int = 2, seed: int = 0) -> Int[Tensor, " n"]:
    """Groups within each class that the network treats differently at the early look.

    k-means on the logits, centered for each example, class by class. Cluster `clusters * y` is
    the largest one of class y, the next numbers are smaller ones. A class always falls into as many
    clusters as its distinct outputs allow, also where nothing separates them: a small cluster is
    a question, and no answer.

    Source: Yang et al. (2023).

    Raises:
        ValueError: fewer than one cluster.
    """
    if clusters < 1:
        raise ValueError(f"a class has at least 1 cluster, not {clusters}")
    outputs = found.early_logits - found.early_logits.mean(dim=1, keepdim=True)
    state = int(torch.randint(2**31, (), generator=generator_for(seed, "early clusters")))
    cluster = torch.empty_like(found.y)
    for label in found.y.unique().tolist():
        here = found.y == label
        points = outputs[here]
        # In single precision: k-means does not tell apart what differs by rounding alone.
        k = min(clusters, len(points.float().unique(dim=0)))
        # Ten starts: a single one often ends in a poor division.
        means = KMeans(k, n_init=10, random_state=state)  # pyright: ignore[reportArgumentType]
        drawn = means.fit_predict(points.numpy())
        sizes = np.bincount(drawn, minlength=k)
        rank = np.argsort(np.argsort(-sizes, kind="stable"))
        cluster[here] = clusters * label + torch.from_numpy(rank[drawn])
    return cluster


def rarity(cluster: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The share of its class that lies outside of an example's cluster, in [0, 1).

    A score for `auc`: where clusters find what a class has few of, it is near 1 there.

    Source: ours, the inverse of the weights of Yang et al. (2023).
    """
    _, inside, size = cluster.unique(return_inverse=True, return_counts=True)
    _, label, whole = y.unique(return_inverse=True, return_counts=True)
    return 1 - size[inside].double() / whole[label]


def auc(score: Float[Tensor, " n"], found: Bool[Tensor, " n"]) -> float:
    """How often an example that is to be found has the higher score, of two drawn at random.

    In [0, 1]; 0.5 is chance. Ties count one half, and infinite scores are the highest. It is the
    area under the curve of true against false positives.

    Source: ours, the statistic of Mann and Whitney (1947).

    Raises:
        ValueError: a score is no number, or all examples or none are to be found.
    """
    positives, n = int(found.sum()), len(found)
    if not 0 < positives < n or bool(score.isnan().any()):
        raise ValueError(
            f"want numbers, and examples to find and others; got {positives} to find out of {n}, "
            f"and {int(score.isnan().sum())} scores that are no number"
        )
    ranks = rankdata(score.double().cpu().numpy())[found.cpu().numpy()].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (n - positives)))
