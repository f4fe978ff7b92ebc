"""Prediction depth: the rule by hand, against the plain formula, and what can't be compared."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.neighbors import KNeighborsClassifier
from support.noise import noise
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.measures.accuracy import clopper_pearson
from contam.measures.depth import (
    UNCERTAIN,
    Depths,
    Rule,
    decide,
    decided_shares,
    depths,
    difference,
    draw_support,
    draw_unbalanced_support,
    model_depths,
    prediction_depth,
    share_over_draws,
)
from contam.measures.layerwise import Layer
from contam.measures.neighbors import Votes

SEEDS = st.integers(0, 10_000)


def votes(*counts: list[int]) -> Votes:
    table = torch.tensor(counts)
    top = table == table.amax(dim=1, keepdim=True)
    return Votes(table, table.argmax(dim=1), top.sum(dim=1) > 1)


def toy(queries: int = 60, probes: int = 4, seed: int = 0, n: int = 200):
    """Layers in which the class grows plainer, its support, and the queries' classes."""
    y, asked = torch.arange(n) % 2, torch.arange(queries) % 2
    layers = []
    for probe in range(probes):
        away = torch.tensor([[-1.0], [1.0]]) * 0.3 * probe
        layers.append(
            Layer(
                f"probe {probe}",
                away[y] + noise(n, 3, seed=seed + 10 * probe),
                away[asked] + noise(queries, 3, seed=seed + 10 * probe + 1),
            )
        )
    return layers, draw_support(y, n // 2), asked


def found_of(depth, like: Depths, probes: int | None = None) -> Depths:
    """Depths that are given, under the rule and support of others."""
    depth = torch.as_tensor(depth, dtype=torch.float64)
    names = like.probes if probes is None else tuple(map(str, range(probes)))
    decided = torch.zeros(len(depth), len(names), depth.shape[1], dtype=torch.int64)
    return replace(
        like, probes=names, depth=depth, decided=decided, tied=torch.zeros(len(names)).double()
    )


@pytest.mark.parametrize(
    ("agree", "depth"),
    [("1111", 0), ("0111", 1), ("1011", 2), ("0001", 3), ("1110", None), ("0000", None)],
)
def test_depth_by_hand(agree, depth):
    decided = torch.tensor([[int(one)] for one in agree])
    result = prediction_depth(decided, torch.tensor([1])).item()
    assert np.isnan(result) if depth is None else result == depth


@given(st.lists(st.lists(st.integers(-1, 2), min_size=5, max_size=5), min_size=1, max_size=6))
def test_depth_is_the_first_probe_from_which_all_agree(rows):
    decided, reference = torch.tensor(rows), torch.tensor([0, 1, 2, 0, 1])
    depth = prediction_depth(decided, reference)
    for q in range(5):
        suffixes = [
            all(row[q] == int(reference[q]) for row in rows[start:]) for start in range(len(rows))
        ]
        if any(suffixes):
            assert depth[q] == suffixes.index(True)
        else:
            assert depth[q].isnan()


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=6))
def test_a_probe_added_in_front_raises_depth_by_at_most_one(rows):
    decided, reference = torch.tensor(rows), torch.tensor([0, 1, 2, 0])
    before = prediction_depth(decided, reference)
    after = prediction_depth(torch.cat([decided[:1], decided]), reference)
    torch.testing.assert_close(after, before + (before > 0), equal_nan=True)


def test_uncertain_probes_agree_with_no_probe():
    decided = torch.tensor([[0, 0], [UNCERTAIN, 0], [0, UNCERTAIN]])
    depth = prediction_depth(decided, decided[-1])
    assert depth[0] == 2 and depth[1].isnan()


def test_the_margin_of_the_second_paper_makes_11_to_18_of_29_votes_uncertain():
    decisions = [decide(votes([29 - n, n]), margin=0.13).item() for n in range(30)]
    assert decisions == 11 * [0] + 8 * [UNCERTAIN] + 11 * [1]
    assert decide(votes([15, 15]), margin=0.0).item() == 0
    with pytest.raises(ValueError, match="for two classes"):
        decide(votes([1, 2, 3]), margin=0.1)
    with pytest.raises(ValueError, match=r"\[0, 1/2\)"):
        decide(votes([1, 2]), margin=0.5)


@pytest.mark.parametrize("reference", ["model", "label", "last probe"])
def test_predictions_agree_with_scikit_learn_at_each_layer(reference):
    layers, support, asked = toy()
    given_ = {"model": asked.roll(1), "label": asked, "last probe": None}[reference]
    result = depths(iter(layers), support, given_, rule=Rule(k=7, reference=reference))
    said = []
    for layer in layers:
        reader = KNeighborsClassifier(7, algorithm="brute")
        reader.fit(layer.support.numpy(), support.y[0].numpy())
        said.append(reader.predict(layer.queries.numpy()).tolist())
    assert result.decided[0].tolist() == said
    wanted = said[-1] if given_ is None else given_.tolist()
    for q in range(60):
        right = [row[q] == wanted[q] for row in said]
        if right[-1]:
            assert result.depth[0, q] == max([i + 1 for i in range(4) if not right[i]], default=0)
        else:
            assert result.depth[0, q].isnan()


@given(SEEDS)
def test_a_constant_added_to_features_changes_nothing(seed):
    layers, support, asked = toy(queries=10, seed=seed, n=40)
    rule = Rule(k=5, reference="label")
    moved = (Layer(name, a + 4, b + 4) for name, a, b in layers)
    first = depths(layers, support, asked, rule=rule)
    torch.testing.assert_close(
        first.depth, depths(moved, support, asked, rule=rule).depth, equal_nan=True
    )


def test_a_certain_end_needs_a_clear_vote_at_the_last_probe_but_one():
    """Layers of one feature: clear, then mixed (its votes are within the margin), then clear."""
    y = torch.arange(40) % 2
    clear, mixed = 1.0 * y[:, None], torch.zeros(40, 1)
    support = draw_support(y, per_class=20)
    layers = [Layer(str(i), x, x) for i, x in enumerate((clear, mixed, clear))]
    rule = Rule(k=5, margin=0.49, reference="label")
    plain = depths(layers, support, y, rule=rule)
    certain = depths(layers, support, y, rule=replace(rule, certain_end=True))
    assert torch.equal(plain.depth, torch.full((1, 40), 2.0).double())
    assert certain.depth.isnan().all()


def test_support_examples_are_not_their_own_neighbors():
    """With one neighbor, an example that saw itself would always be right."""
    y = torch.tensor([0, 1, 0, 1])
    features = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    support, rule = draw_support(y, 2), Rule(k=1, reference="label")
    layer = Layer("features", features, features)
    with_itself = depths([layer], support, y, rule=rule)
    unseen = depths([layer], support, y, rule=rule, itself=torch.arange(4))
    assert with_itself.depth.eq(0).all() and unseen.depth.isnan().all()


def test_self_exclusion_follows_the_draw():
    """Indices count in what was drawn from, not in the support."""
    y = torch.arange(40) % 2
    features = noise(40, 3)
    support = draw_support(y, 5, draws=3, seed=1)
    rule = Rule(k=1, reference="label")
    layer = Layer("features", features[support.rows], features)
    result = depths([layer], support, y, rule=rule, itself=torch.arange(40))
    for draw, (index, classes) in enumerate(zip(support.index, support.y, strict=True)):
        for q in range(40):
            apart = (features[index] - features[q]).norm(dim=1)
            apart[index == q] = torch.inf
            assert result.decided[draw, 0, q] == classes[apart.argmin()]


def test_the_support_is_balanced_and_each_draw_depends_only_on_its_seed():
    y = torch.tensor([0] * 30 + [1] * 10 + [4] * 12)
    support = draw_support(y, 9, draws=2, seed=3)
    for index, classes in zip(support.index, support.y, strict=True):
        assert index.unique().numel() == 27 and torch.equal(y[index], classes)
        assert torch.bincount(classes).tolist() == [9, 9, 0, 0, 9]
    assert support.classes == 5 and not torch.equal(*support.index)
    assert torch.equal(draw_support(y, 9, seed=3).index, support.index[:1])
    with pytest.raises(ValueError, match=r"too few examples: \{1: 10\}"):
        draw_support(y, 11)
    with pytest.raises(ValueError, match="two classes or more"):
        draw_support(torch.zeros(9, dtype=torch.int64), 2)


def test_undefined_depths_are_counted_and_excluded_from_the_mean():
    layers, support, asked = toy(probes=3)
    result = depths(layers, support, asked, rule=Rule(k=7, reference="label"))
    missing = result.depth.isnan()
    assert 0 < missing.double().mean() < 1
    assert result.undefined().value == pytest.approx(missing.double().mean().item())
    assert result.mean().value == pytest.approx(result.depth[~missing].mean().item())
    shares = [result.decided_by(probe).value for probe in range(3)]
    assert shares == sorted(shares)
    assert shares[-1] == 1  # Shares are among the defined depths.
    for estimate in (result.mean(), result.undefined(), result.decided_by(0)):
        assert estimate.low < estimate.value < estimate.high
    with pytest.raises(ValueError, match=r"must be in 0\.\.2"):
        result.decided_by(3)


@pytest.mark.parametrize("depth", [0.0, torch.nan])
def test_shares_of_0_and_1_have_exact_intervals(depth):
    layers, support, asked = toy(probes=2)
    base = depths(layers, support, asked, rule=Rule(k=7, reference="label"))
    result = found_of(torch.full((1, 10), depth), base)
    undefined = result.undefined()
    missing = 10 * int(undefined.value)
    assert (undefined.low, undefined.high) == clopper_pearson(missing, 10)
    if not missing:
        late = found_of(torch.ones(1, 10), base)
        for one, count in ((result.decided_by(0), 10), (late.decided_by(0), 0)):
            assert (one.value, one.low, one.high) == (count / 10, *clopper_pearson(count, 10))


def test_shares_are_among_defined_depths_with_their_exact_interval():
    events = torch.tensor([[1.0] * 3 + [0.0] * 4 + [torch.nan] * 5])
    share = share_over_draws(events)
    assert (share.value, share.low, share.high) == pytest.approx((3 / 7, *clopper_pearson(3, 7)))
    with pytest.raises(ValueError, match="at least one event"):
        share_over_draws(events[:, 7:])


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.3])
def test_shares_hold_the_true_rate_as_often_as_they_say(rate):
    """The intervals of n queries, by the probability of each count, and of several draws."""
    n, held = 10, 0.0
    for count in range(n + 1):
        share = share_over_draws((torch.arange(n)[None] < count).double())
        held += float(binom.pmf(count, n, rate)) * (share.low <= rate <= share.high)
    assert held >= 0.95
    repetitions, draws = 300, 4
    generator = torch.Generator().manual_seed(0)
    # A query keeps its event over draws with probability one half.
    common = torch.rand(repetitions, 1, 30, generator=generator).expand(-1, draws, -1)
    own = torch.rand(repetitions, draws, 30, generator=generator)
    kept = torch.rand(repetitions, draws, 30, generator=generator) < 0.5
    share = [share_over_draws(e) for e in (torch.where(kept, common, own) < rate).double()]
    held = sum(one.low <= rate <= one.high for one in share) / repetitions
    assert held > 0.95 - 3 * (0.95 * 0.05 / repetitions) ** 0.5


def test_several_draws_add_the_variance_of_the_support():
    y, asked = torch.arange(400) % 2, torch.arange(2000) % 2
    away = torch.tensor([[-1.0], [1.0]])
    pool, queries = away[y] + noise(400, 1), away[asked] + noise(2000, 1, seed=1)
    rule = Rule(k=1, reference="label")

    def width(draws: int) -> float:
        support = draw_support(y, 3, draws=draws)
        share = depths(
            [Layer("a", pool[support.rows], queries), Layer("b", pool[support.rows], queries)],
            support, asked, rule=rule,
        ).undefined()  # fmt: skip
        return share.high - share.low

    assert width(8) > 1.3 * width(1)


def test_depths_of_different_rules_or_supports_are_not_compared():
    layers, support, asked = toy()
    first = depths(layers, support, asked, rule=Rule(k=7, reference="label"))
    smaller = draw_support(torch.arange(200) % 2, 50)
    picked = [Layer(n, a[smaller.rows], b) for n, a, b in layers]
    other_support = depths(picked, smaller, asked, rule=first.rule)
    for second, what in (
        (other_support, "the support's per_class is 100 for the first and 50"),
        (replace(first, rule=replace(first.rule, k=9)), "k is 7"),
        (replace(first, rule=replace(first.rule, metric="l1")), "metric is 'l2'"),
        (replace(first, support=replace(support, seed=1)), "seed is 0"),
        (replace(first, reading="over_space"), "reading is"),
        (depths(layers[1:], support, asked, rule=first.rule), "number of probes is 4"),
        (found_of(first.depth.expand(2, -1), first), "draws is 1"),
    ):
        with pytest.raises(ValueError, match=what):
            difference(first, second)


def test_a_depth_difference_by_hand():
    layers, support, asked = toy(probes=2)
    first = depths(layers, support, asked, rule=Rule(k=7, reference="label"))
    first = found_of([[0.0, 1.0, torch.nan, 1.0]], first)
    second = found_of([[4.0, 2.0]], first, probes=5)
    relative = difference(first, second, relative=True)
    assert relative.value == pytest.approx(3 / 4 - 2 / 3)
    assert relative.low <= relative.value <= relative.high
    lifted = found_of(first.depth + 2, first)
    assert difference(first, lifted).value == pytest.approx(2)
    assert difference(lifted, first).value == pytest.approx(-2)


def test_mismatched_arguments_are_rejected():
    layers, support, asked = toy()
    with pytest.raises(ValueError, match="None for 'last probe'"):
        depths(layers, support, asked, rule=Rule(reference="last probe"))
    with pytest.raises(ValueError, match="the rule's reference is 'model'"):
        depths(layers, support, None)
    with pytest.raises(ValueError, match="at least one layer"):
        depths([], support, asked)
    with pytest.raises(ValueError, match="10 rows of support for 200"):
        depths([Layer("a", layers[0].support[:10], layers[0].queries)], support, asked)
    never = depths(layers, support, 5 + asked, rule=Rule(k=3))
    assert never.undefined().value == 1
    with pytest.raises(ValueError, match="no depth is defined"):
        never.mean()
    with pytest.raises(ValueError, match="no depth is defined"):
        difference(never, never)


class Late(nn.Module):
    """The class is the sign of a product: only the second layer has it on an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        product = self.mix(40 * x[:, :1] * x[:, 1:])
        return self.head(torch.cat([-product, product], dim=1))


def corners(n: int, noisy: float, seed: int) -> Domain:
    x = 2.0 * torch.randint(0, 2, (n, 2), generator=torch.Generator().manual_seed(seed)) - 1
    y = (x.prod(dim=1) > 0).long()
    return Domain("corners", Batch(x + noisy * noise(n, 2, seed=seed + 1), y, torch.zeros_like(y)))


def test_probes_run_from_the_input_to_the_softmax():
    pool, queries = corners(400, 0.1, seed=0), corners(80, 0.1, seed=2)
    early = model_depths(Late(), pool, queries, ["mix"], per_class=100, rule=Rule(k=9))
    assert early.probes == ("input", "mix", "softmax") and early.reading == "over_grid"
    assert early.depth.eq(0).all()  # four tight corners: neighbors know them from the start
    spread = model_depths(
        Late(), corners(400, 0.8, seed=0), corners(80, 0.8, seed=2), ["mix"], per_class=100,
        rule=Rule(k=9),
    )  # fmt: skip
    assert early.rule == spread.rule
    assert difference(early, spread).low > 0 and spread.decided_by(1).value > 0.9


def test_training_examples_are_excluded_from_their_own_neighbors():
    pool = corners(120, 0.8, seed=0)
    rule = Rule(k=1, reference="label")
    same = model_depths(Late(), pool, pool, ["mix"], per_class=50, rule=rule)
    copy = Domain("copy", pool.data)
    leaked = model_depths(Late(), pool, copy, ["mix"], per_class=50, rule=rule)
    excluded = model_depths(
        Late(), pool, copy, ["mix"], per_class=50, rule=rule, itself=torch.arange(120)
    )
    torch.testing.assert_close(same.depth, excluded.depth, equal_nan=True)
    assert leaked.decided_by(0).value > same.decided_by(0).value


def test_an_unbalanced_support_has_the_frequencies_of_the_pool():
    y = (torch.arange(1000) % 10 == 0).long()
    support = draw_unbalanced_support(y, 400)
    assert support.per_class is None and len(support.index.unique()) == 400
    assert abs(float(support.y.double().mean()) - 0.1) < 4 * (0.09 / 400) ** 0.5
    with pytest.raises(ValueError, match="cannot draw 1001 examples"):
        draw_unbalanced_support(y, 1001)
    with pytest.raises(ValueError, match="either the support examples of each class or a support"):
        model_depths(torch.nn.Identity(), (y[:, None], y), (y[:, None], y))


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.nan]), min_size=1, max_size=30))
def test_decided_shares_are_those_of_depths_with_their_undefined_share(values):
    depth = torch.tensor(values).double()
    shares = decided_shares(depth, probes=3)
    assert shares.undefined == sum(map(math.isnan, values)) / len(values)
    defined = [value for value in values if not math.isnan(value)]
    expected = [sum(value <= probe for value in defined) for probe in range(3) if defined]
    assert shares.by_probe == pytest.approx([count / len(defined) for count in expected])
