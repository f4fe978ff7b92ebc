"""The table of class means, against NumPy, and however the data comes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.measures.class_means import ClassMeans


def example(n: int = 60, classes: int = 4, neurons: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    y[:classes] = torch.arange(classes)
    return torch.randn(n, neurons, generator=generator), y


def test_class_means_by_hand():
    means = ClassMeans(classes=2, neurons=2)
    means.update(torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([1, 1, 0]))
    assert means.compute().tolist() == [[5.0, 6.0], [2.0, 2.0]]


def test_class_means_agree_with_numpy():
    values, y = example()
    expected = [np.asarray(values)[np.asarray(y) == c].mean(axis=0) for c in range(4)]
    means = ClassMeans(4, 3).update(values, y).compute()
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 70), st.integers(0, 60), st.randoms(use_true_random=False))
def test_results_do_not_depend_on_batches_order_or_processes(size, split, random):
    values, y = example()
    whole = ClassMeans(4, 3).update(values, y)
    order = torch.tensor(random.sample(range(len(y)), len(y)))
    parts = [ClassMeans(4, 3), ClassMeans(4, 3)]
    for part, picked in zip(parts, (order[:split], order[split:]), strict=True):
        for some in picked.split(size):
            part.update(values[some], y[some])
    merged = parts[0].merge(parts[1])
    torch.testing.assert_close(merged.compute(), whole.compute(), rtol=1e-13, atol=1e-14)
    assert torch.equal(merged.counts, whole.counts)


@given(st.integers(0, 60), st.randoms(use_true_random=False))
def test_rates_of_power_of_two_positions_merge_exactly(split, random):
    values, y = example()
    values = (values * 64).round() / 64
    order = torch.tensor(random.sample(range(len(y)), len(y)))
    first = ClassMeans(4, 3).update(values[order[:split]], y[order[:split]])
    second = ClassMeans(4, 3).update(values[order[split:]], y[order[split:]])
    merged = first.merge(second).compute()
    assert torch.equal(merged, ClassMeans(4, 3).update(values, y).compute())


def test_many_batches_do_not_lose_precision():
    """In single precision the sum would stop growing at 2^24."""
    means = ClassMeans(1, 1)
    means.cell_sums += 2.0**24
    means.cell_counts += 2**24
    for _ in range(1000):
        means.update(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64))
    assert means.sums.item() == 2**24 + 1000
    assert means.compute().item() == 1


def test_half_precision_and_gradients_are_accepted():
    values, y = example()
    means = ClassMeans(4, 3).update(values.bfloat16().requires_grad_(), y).compute()
    assert means.dtype == torch.float64 and not means.requires_grad
    torch.testing.assert_close(means, ClassMeans(4, 3).update(values.bfloat16(), y).compute())


def test_a_class_without_examples_is_reported():
    means = ClassMeans(3, 1).update(torch.ones(2, 1), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"no example of class \[1, 2\]"):
        means.compute()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_rejected_and_nothing_is_added(label):
    means = ClassMeans(3, 1)
    with pytest.raises(ValueError, match=r"don't fit 3 classes"):
        means.update(torch.ones(2, 1), torch.tensor([0, label]))
    assert not means.sums.any() and not means.counts.any()


def test_values_of_another_width_are_rejected():
    with pytest.raises(ValueError, match="expected 1 neurons for each of 2 examples"):
        ClassMeans(3, 1).update(torch.ones(2, 2), torch.tensor([0, 1]))


def test_merging_tables_of_different_sizes_is_rejected():
    with pytest.raises(ValueError, match=r"\(1, 1, 3, 1\) and \(1, 1, 3, 2\)"):
        ClassMeans(3, 1).merge(ClassMeans(3, 2))


def test_parts_and_domains_keep_separate_sums():
    values, y = example()
    domain = torch.arange(60) % 2
    means = ClassMeans(4, 3, parts=5, domains=2)
    for rows in torch.arange(60).split(7):
        means.update(values[rows], y[rows], domain=domain[rows])
    torch.testing.assert_close(means.compute(), ClassMeans(4, 3).update(values, y).compute())
    # The examples of a class go to the parts in turn.
    by_part = means.cell_counts.sum(dim=0)
    assert (by_part.amax(dim=0) - by_part.amin(dim=0) <= 1).all()
    second = ClassMeans(4, 3).update(values[domain == 1], y[domain == 1])
    torch.testing.assert_close(means.cell_sums[1].sum(dim=0), second.sums)
    pooled = means.pooled()
    assert pooled.cell_sums.shape == (1, 1, 4, 3)
    torch.testing.assert_close(pooled.compute(), means.compute())
    with pytest.raises(ValueError, match=r"part 5\.\.5 doesn't fit 5 parts"):
        means.update(values[:1], y[:1], part=torch.tensor([5]))


def test_the_variance_within_classes_agrees_with_numpy():
    values, y = example(n=400)
    domain = torch.arange(400) % 2
    moved = values + 7 * domain[:, None]
    means = ClassMeans(4, 3, domains=2).update(moved, y, domain=domain)

    def pooled(x: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
        squares = [np.square(x[g] - x[g].mean(axis=0)).sum(axis=0) for g in groups]
        return np.sum(squares, axis=0) / (len(x) - len(groups))

    classes = [np.asarray(y) == c for c in range(4)]
    cells = [c & (np.asarray(domain) == d) for c in classes for d in range(2)]
    x = moved.double().numpy()
    np.testing.assert_allclose(means.within_class_variance(), pooled(x, classes))
    np.testing.assert_allclose(means.within_class_variance(by_domain=True), pooled(x, cells))
    assert ClassMeans(4, 3).update(values[:4], y[:4]).within_class_variance().isnan().all()
