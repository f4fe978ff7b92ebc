"""Shares of variance, against scikit-learn's F test and SciPy's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway
from sklearn.feature_selection import f_classif

from contam.measures.class_means import ClassMeans
from contam.measures.variance import between_class_variance, explained_share


def example(seed: int, n: int = 50, groups: int = 4, neurons: int = 3, effect: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (n,), generator=generator)
    means = effect * torch.randn(groups, neurons, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, neurons, generator=generator, dtype=torch.float64)
    return means[group] + noise, group


def test_by_hand():
    # Group means 1 and 5, grand mean 3: 2 * 4 + 2 * 4 of 16 + 4 squares are between the groups.
    values = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    groups = torch.tensor([7, 7, 2, 2])
    assert explained_share(values, groups).tolist() == pytest.approx([16 / 20])
    assert between_class_variance(torch.tensor([[1.0], [5.0]])).tolist() == [4.0]


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_share_is_the_f_statistic_in_another_form(seed, groups):
    values, group = example(seed, groups=groups)
    k, n = len(group.unique()), len(group)
    f, _ = f_classif(values.numpy(), group.numpy())
    expected = f * (k - 1) / (f * (k - 1) + n - k)
    np.testing.assert_allclose(explained_share(values, group), expected, rtol=1e-9, atol=1e-15)
    f = f_oneway(*(values[group == g, 0].numpy() for g in group.unique())).statistic
    assert explained_share(values, group)[0].item() == pytest.approx(
        f * (k - 1) / (f * (k - 1) + n - k)
    )


@given(st.integers(0, 1000))
def test_names_units_and_offsets_do_not_matter(seed):
    values, group = example(seed)
    share = explained_share(values, group)
    assert torch.all((share >= 0) & (share <= 1))
    torch.testing.assert_close(explained_share(3 - 7 * values, 10 - 2 * group), share)
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(explained_share(values[order], group[order]), share)


def test_the_ends_of_the_range():
    group = torch.tensor([0, 1, 2, 0, 1, 2])
    own = torch.nn.functional.one_hot(group, 3).double()
    torch.testing.assert_close(explained_share(own, group), torch.ones(3, dtype=torch.float64))
    unrelated = torch.tensor([[1.0], [1.0], [1.0], [-1.0], [-1.0], [-1.0]])
    assert explained_share(unrelated, group).tolist() == [0.0]


def test_noise_explains_what_the_docstring_says():
    values, group = example(0, n=2000, groups=5, neurons=200, effect=0.0)
    assert explained_share(values, group).mean().item() == pytest.approx(4 / 1999, rel=0.2)


def test_a_large_offset_costs_no_digits():
    values, group = example(0)
    torch.testing.assert_close(
        explained_share(values + 1e6, group), explained_share(values, group), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_a_constant_neuron_has_nothing_to_explain(constant):
    values, group = example(0)
    values[:, 1] = constant
    share = explained_share(values, group)
    assert share.isnan().tolist() == [False, True, False]


def test_groups_of_one_are_refused():
    with pytest.raises(ValueError, match="3 examples in 3 groups"):
        explained_share(torch.rand(3, 2), torch.arange(3))


@given(st.integers(0, 1000))
def test_between_class_variance_is_the_mean_squared_distance_from_the_center(seed):
    values, group = example(seed, n=80)
    means = ClassMeans(4, 3).update(values, group).compute()
    by_numpy = np.stack([np.asarray(values)[np.asarray(group) == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(between_class_variance(means), by_numpy.var(axis=0))
    torch.testing.assert_close(between_class_variance(3 * means), 9 * between_class_variance(means))
    # The sum over neurons does not depend on the basis of the feature space.
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    torch.testing.assert_close(
        between_class_variance(means @ rotation).sum(), between_class_variance(means).sum()
    )
