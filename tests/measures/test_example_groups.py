"""Groups of examples: means by hand, clusters of what is separate, and scores that find."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from support.noise import noise
from torch import Tensor

from contam.measures.example_difficulty import Difficulty, DifficultyLog
from contam.measures.example_groups import auc, by_group, early_clusters, rarity


def looked(*history: Tensor, y: Tensor) -> Difficulty:
    """The record of looks at all examples at the times 1, 2 and so on."""
    log = DifficultyLog(len(y), history[0].shape[1])
    for time, logits in enumerate(history, start=1):
        log.update(time, logits, y, torch.arange(len(y)))
    return log.compute()


def test_the_area_by_hand():
    score = torch.tensor([1.0, 2.0, 2.0, 3.0])
    assert auc(score, torch.tensor([False, False, False, True])) == 1
    assert auc(score, torch.tensor([True, False, False, False])) == 0
    assert auc(score, torch.tensor([False, True, False, False])) == 0.5
    assert auc(torch.tensor([0.0, math.inf, math.inf]), torch.tensor([False, True, False])) == 0.75


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_scikit_learn_s_and_turns_with_the_score(pairs):
    score = torch.tensor([float(s) for s, _ in pairs])
    found = torch.tensor([f for _, f in pairs])
    if found.all() or not found.any():
        with pytest.raises(ValueError, match="want numbers, and examples to find and others"):
            auc(score, found)
        return
    assert auc(score, found) == pytest.approx(roc_auc_score(found, score))
    assert auc(-score, found) == pytest.approx(1 - auc(score, found))
    assert auc(score.exp(), found) == pytest.approx(auc(score, found))
    with pytest.raises(ValueError, match="1 scores that are no number"):
        auc(score.index_fill(0, torch.tensor([0]), torch.nan), found)


def test_groups_by_hand():
    y = torch.zeros(4, dtype=torch.int64)
    right, wrong = [0.0, -1.0], [0.0, 1.0]
    found = looked(
        torch.tensor([right, wrong, wrong, wrong]), torch.tensor([right, right, wrong, wrong]), y=y
    )
    easy, hard = by_group(found, torch.tensor([3, 3, 7, 7]))
    assert (easy.group, easy.count, hard.group, hard.count) == (3, 2, 7, 2)
    assert (easy.learned, hard.learned) == (1, 0)
    assert (easy.learn_time, hard.learn_time) == (1, math.inf)
    assert (easy.early_error, hard.early_error) == (0.5, 1)
    assert (easy.aum, hard.aum) == (0.5, -1)
    assert hard.early_loss == pytest.approx(math.log(1 + math.e))


@given(st.integers(0, 99), st.integers(1, 6))
def test_groups_average_to_the_whole(seed, groups):
    y = torch.arange(30) % 3
    found = looked(noise(30, 3, seed=seed), noise(30, 3, seed=seed + 1), y=y)
    parts = by_group(found, (noise(30, seed=seed).abs() * 9).long() % groups)
    (whole,) = by_group(found, torch.full((30,), 5))
    assert sum(part.count for part in parts) == 30
    for name in ("learned", "early_error", "early_loss", "el2n", "forgotten", "aum",
                 "confidence", "variability"):  # fmt: skip
        mean = sum(part.count * getattr(part, name) for part in parts) / 30
        assert mean == pytest.approx(getattr(whole, name)), name


def separate(seed: int = 0) -> tuple[Difficulty, Tensor]:
    """Two classes of 50; five of each are treated as the other class is."""
    y = torch.arange(100) % 2
    odd = torch.arange(100) >= 90
    seen = torch.where(odd, 1 - y, y)
    logits = 4 * torch.nn.functional.one_hot(seen) + 0.3 * noise(100, 2, seed=seed)
    return looked(logits, y=y), odd


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_what_is_separate_the_largest_first(seed):
    found, odd = separate(seed)
    cluster = early_clusters(found, seed=seed)
    assert torch.equal(cluster, 2 * found.y + odd.long())
    assert auc(rarity(cluster, found.y), odd) == 1


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 4))
def test_clusters_lie_within_classes_and_do_not_see_a_constant(seed, clusters):
    y = torch.arange(40) % 3
    # Eighths of four classes are centered without rounding.
    logits = (8 * noise(40, 4, seed=seed)).round() / 8
    cluster = early_clusters(looked(logits, y=y), clusters=clusters, seed=seed)
    assert torch.equal(cluster // clusters, y)
    for label in range(3):
        sizes = cluster[y == label].bincount()[clusters * label :].tolist()
        assert len(sizes) == clusters and sizes == sorted(sizes, reverse=True)
    moved = looked(logits + noise(40, 1, seed=seed + 1).round(), y=y)
    assert torch.equal(cluster, early_clusters(moved, clusters=clusters, seed=seed))


def test_a_class_with_few_distinct_outputs_has_fewer_clusters():
    y = torch.tensor([0, 0, 0, 1])
    found = looked(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]), y=y)
    assert early_clusters(found, clusters=3).tolist() == [0, 0, 0, 3]
    tiny = 1e-13 * torch.arange(40, dtype=torch.float64)[:, None]
    found = looked(torch.cat([30 + tiny, -tiny], dim=1), y=torch.zeros(40, dtype=torch.int64))
    assert not early_clusters(found).any()
    with pytest.raises(ValueError, match="at least 1 cluster, not 0"):
        early_clusters(found, clusters=0)


def test_clustering_moves_no_global_seed():
    found, _ = separate()
    before = torch.get_rng_state()
    first, again = early_clusters(found), early_clusters(found)
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(first, again)


def test_rarity_by_hand():
    cluster, y = torch.tensor([0, 0, 0, 1, 4]), torch.tensor([0, 0, 0, 0, 2])
    assert rarity(cluster, y).tolist() == [0.25, 0.25, 0.25, 0.75, 0]


@given(st.integers(0, 99), st.integers(1, 5))
def test_rarity_is_within_its_range_and_one_cluster_is_not_rare(seed, clusters):
    y = torch.arange(30) % 3
    cluster = clusters * y + (noise(30, seed=seed).abs() * 9).long() % clusters
    found = rarity(cluster, y)
    assert 0 <= float(found.min()) <= float(found.max()) < 1
    assert torch.equal(rarity(y, y), torch.zeros(30, dtype=torch.float64))
    for k in cluster.unique().tolist():
        share = (cluster == k).sum() / (y == k // clusters).sum()
        assert found[cluster == k].unique().tolist() == pytest.approx([1 - float(share)])
