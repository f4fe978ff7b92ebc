"""Neighbors: those of the plain formula and of scikit-learn, also where distances are equal."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from support.noise import noise
from torch import Tensor

from contam.measures import neighbors
from contam.measures.neighbors import nearest, vote

SEEDS = st.integers(0, 10_000)


def whole(*shape: int, seed: int = 0, upto: int = 3) -> Tensor:
    """Features on a coarse grid, where distances are exact and often equal."""
    return torch.randint(upto, shape, generator=torch.Generator().manual_seed(seed)).float()


def plainly(support, y, queries, *, classes, k, metric="l2", itself=None):
    """Votes by the formula, one query and one neighbor after the other."""
    counts, winners = [], []
    for row, query in enumerate(queries.double()):
        apart = support.double() - query
        distance = (apart**2).sum(1) if metric == "l2" else apart.abs().sum(1)
        order = sorted(range(len(support)), key=lambda i: (float(distance[i]), i))
        if itself is not None:
            order = [i for i in order if i != int(itself[row])]
        chosen = order[:k]
        count = [sum(int(y[i]) == c for i in chosen) for c in range(classes)]
        tied = [c for c in range(classes) if count[c] == max(count)]
        counts.append(count)
        winners.append(min((float(distance[i]), int(y[i])) for i in chosen if int(y[i]) in tied)[1])
    return torch.tensor(counts), torch.tensor(winners)


def test_votes_by_hand():
    support, y = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([0, 1, 1, 0])
    assert nearest(support, torch.tensor([[0.9], [9.0]]), k=2).sort().values.tolist() == [
        [0, 1],
        [2, 3],
    ]
    votes = vote(support, y, torch.tensor([[0.9], [9.0]]), classes=3, k=2)
    assert votes.counts.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert votes.winner.tolist() == [1, 0] and votes.tied.tolist() == [True, True]


def test_ties_are_broken_by_distance_and_then_by_class_index():
    support = torch.tensor([[0.5], [2.0], [-2.0], [3.0], [-3.0]])
    query = torch.zeros(1, 1)
    lone_first = vote(support, torch.tensor([0, 2, 1, 1, 2]), query, classes=3, k=5)
    assert lone_first.winner.tolist() == [1]  # class 0 is nearest, but has one vote
    nearer = vote(support, torch.tensor([2, 1, 1, 2, 0]), query, classes=3, k=4)
    assert nearer.winner.tolist() == [2]


@given(
    SEEDS, st.integers(2, 30), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["l2", "l1"])
)
def test_ties_and_duplicates_agree_with_the_plain_formula(seed, n, neurons, classes, metric):
    support, queries = whole(n, neurons, seed=seed), whole(6, neurons, seed=seed + 1)
    y = whole(n, seed=seed + 2, upto=classes).long()
    k = 1 + seed % n
    votes = vote(support, y, queries, classes=classes, k=k, metric=metric)
    counts, winners = plainly(support, y, queries, classes=classes, k=k, metric=metric)
    assert torch.equal(votes.counts, counts) and torch.equal(votes.winner, winners)


@given(SEEDS, st.floats(-6, 6), st.sampled_from([torch.float32, torch.float64]))
def test_features_far_from_the_origin_agree_with_the_plain_formula(seed, exponent, dtype):
    """Squares of large common parts would leave nothing of small differences."""
    support = (noise(40, 7, seed=seed).double() + 10**exponent).to(dtype)
    queries = (noise(5, 7, seed=seed + 1).double() + 10**exponent).to(dtype)
    y = whole(40, seed=seed).long()
    votes = vote(support, y, queries, classes=3, k=5)
    assert torch.equal(votes.counts, plainly(support, y, queries, classes=3, k=5)[0])


@given(SEEDS)
def test_tight_clusters_agree_with_the_plain_formula(seed):
    """Single precision can't order them: what is in doubt is looked at again."""
    centers = 100 * noise(4, 6, seed=seed)
    y = torch.arange(80) % 4
    support = centers[y] + 1e-5 * noise(80, 6, seed=seed + 1)
    queries = centers + 1e-5 * noise(4, 6, seed=seed + 2)
    apart = (queries[:, None].double() - support.double()).square().sum(-1)
    expected = apart.sort(dim=1, stable=True).indices[:, :7].sort(dim=1).values
    assert torch.equal(nearest(support, queries, k=7).sort(dim=1).values, expected)


@given(SEEDS)
def test_self_exclusion_goes_by_index_and_keeps_duplicates(seed):
    support = whole(12, 2, seed=seed, upto=2)  # at most four different rows
    y = whole(12, seed=seed + 1).long()
    itself = torch.arange(12)
    index = nearest(support, support, k=3, itself=itself)
    assert not (index == itself[:, None]).any()
    votes = vote(support, y, support, classes=3, k=3, itself=itself)
    counts, winners = plainly(support, y, support, classes=3, k=3, itself=itself)
    assert torch.equal(votes.counts, counts) and torch.equal(votes.winner, winners)


def test_the_nearest_neighbor_without_itself_is_its_duplicate():
    support = torch.tensor([[1.0], [1.0], [5.0]])
    assert nearest(support, support[:2], k=1, itself=torch.tensor([0, 1])).tolist() == [[1], [0]]
    assert nearest(support, support[:2], k=1, itself=torch.tensor([0, -1])).tolist() == [[1], [0]]


@pytest.mark.parametrize("classes", [2, 10])
def test_votes_agree_with_scikit_learn(classes):
    support, queries = noise(3000, 33), noise(400, 33, seed=1)
    y = torch.arange(3000) % classes
    reference = KNeighborsClassifier(30, algorithm="brute").fit(support.numpy(), y.numpy())
    shares = torch.from_numpy(reference.predict_proba(queries.numpy()))
    votes = vote(support, y, queries, classes=classes)
    assert torch.equal(votes.counts, (30 * shares).round().long())
    alone = ~votes.tied
    predicted = torch.from_numpy(reference.predict(queries.numpy()))
    assert torch.equal(votes.winner[alone], predicted[alone]) and 0 < alone.double().mean() < 1


@pytest.mark.parametrize("metric", ["l2", "l1"])
@given(SEEDS)
def test_distances_agree_with_scikit_learn_even_for_duplicates(metric, seed):
    support = whole(60, 4, seed=seed)
    support[:, 1] = 7.0  # a constant feature
    queries = whole(9, 4, seed=seed + 1)
    order = {"l2": 2, "l1": 1}[metric]
    reference = NearestNeighbors(n_neighbors=8, algorithm="brute", p=order).fit(support.numpy())
    expected, _ = reference.kneighbors(queries.numpy())
    index = nearest(support, queries, k=8, metric=metric)
    apart = torch.cdist(queries.double(), support.double(), p=order).gather(1, index)
    np.testing.assert_allclose(apart.sort(dim=1).values.numpy(), expected, rtol=1e-6)


@given(SEEDS)
def test_results_are_invariant_to_order_and_translation(seed):
    support, queries = noise(50, 5, seed=seed), noise(8, 5, seed=seed + 1)
    y = whole(50, seed=seed).long()
    turned = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    votes = vote(support, y, queries, classes=3, k=6)
    for other in (
        vote(support[turned], y[turned], queries, classes=3, k=6),
        vote(support * 8, y, queries * 8, classes=3, k=6),
        vote(support.roll(2, dims=1), y, queries.roll(2, dims=1), classes=3, k=6),
        vote(support.double() + 3, y, queries.double() + 3, classes=3, k=6),
    ):
        assert torch.equal(votes.counts, other.counts) and torch.equal(votes.winner, other.winner)


def test_constant_features_select_the_first_members():
    support, queries = torch.full((40, 6), 0.1), torch.full((3, 6), 0.7)
    assert nearest(support, queries, k=4).sort(dim=1).values.tolist() == 3 * [[0, 1, 2, 3]]
    alive = torch.cat([support, noise(40, 2)], dim=1)
    asked = torch.cat([queries, noise(3, 2, seed=1)], dim=1)
    assert torch.equal(nearest(alive, asked, k=4), nearest(alive[:, 6:], asked[:, 6:], k=4))


def test_results_do_not_depend_on_the_block_size(monkeypatch):
    support, queries = whole(90, 5), whole(40, 5, seed=1)
    itself = torch.arange(40) - 20
    once = nearest(support, queries, k=6, itself=itself).sort(dim=1).values
    monkeypatch.setattr(neighbors, "SCORES", 200)
    again = nearest(support, queries, k=6, itself=itself).sort(dim=1).values
    assert torch.equal(once, again)


def test_global_matmul_precision_changes_nothing():
    support, queries = 5 + noise(500, 64), 5 + noise(50, 64, seed=1)
    exact = nearest(support, queries, k=20).sort(dim=1).values
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loose = nearest(support, queries, k=20).sort(dim=1).values
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact, loose)


def test_huge_features_are_distinguished():
    support = torch.tensor([[1e30, 0.0], [1e30, 1e25], [-1e30, 0.0], [0.0, 0.0]])
    assert nearest(support, support[:1], k=2).sort().values.tolist() == [[0, 1]]


def test_invalid_arguments_are_rejected():
    support, y = noise(5, 2), torch.tensor([0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="expected 1 to 4"):
        nearest(support, support, k=5, itself=torch.arange(5))
    with pytest.raises(ValueError, match="expected 1 to 5"):
        nearest(support, support, k=0)
    with pytest.raises(ValueError, match="0 queries"):
        nearest(support, support[:0], k=2)
    with pytest.raises(ValueError, match="not finite"):
        nearest(torch.full((5, 2), torch.nan), support, k=2)
    with pytest.raises(ValueError, match="not finite"):
        nearest(support, torch.full((5, 2), torch.inf), k=2)
    with pytest.raises(ValueError, match="'l2' or 'l1', got 'cosine'"):
        nearest(support, support, k=2, metric="cosine")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"classes 0\.\.1, expected 0\.\.0"):
        vote(support, y, support, classes=1, k=2)


def test_both_matrix_products_find_the_same_neighbors(monkeypatch):
    support, queries = 3 + noise(300, 20), 3 + noise(40, 20, seed=1)
    packed = nearest(support, queries, k=9).sort(dim=1).values
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert torch.equal(nearest(support, queries, k=9).sort(dim=1).values, packed)
