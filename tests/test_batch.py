"""Batches, domains and shifts: what goes in comes out once, and what can't be is named."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.batch import Batch, Domain, Shift
from contam.rng import generator_for


def domain(name: str = "d", n: int = 10, classes: int = 3) -> Domain:
    y = torch.arange(n) % classes
    return Domain(name, Batch(torch.arange(float(n))[:, None], y, torch.zeros_like(y)))


@given(n=st.integers(1, 50), size=st.integers(1, 60), seed=st.none() | st.integers(0, 5))
def test_an_epoch_yields_every_example_once(n, size, seed):
    batches = list(
        domain(n=n).batches(size, None if seed is None else generator_for(seed, "order"))
    )
    x = torch.cat([batch.x for batch in batches])[:, 0]
    y = torch.cat([batch.y for batch in batches])
    assert sorted(x.tolist()) == list(range(n))
    assert y.tolist() == [int(value) % 3 for value in x]  # labels stay with their inputs
    assert {len(batch.y) for batch in batches[:-1]} <= {size}
    if seed is None:
        assert x.tolist() == list(range(n))


def test_order_depends_only_on_the_generator():
    orders = [
        torch.cat([b.x for b in domain().batches(4, generator_for(seed, "order"))])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize("which", [slice(2, 4), torch.tensor([2, 3]), torch.arange(10).eq(2)])
def test_pick_selects_the_same_examples_of_all_fields(which):
    picked = domain().data.pick(which)
    assert picked.x[0, 0] == 2
    assert picked.y[0] == 2
    assert len(picked.x) == len(picked.y) == len(picked.domain)


def test_a_domain_requires_a_label_for_every_input():
    with pytest.raises(ValueError, match="10 inputs, 9 labels and 10 domain indices"):
        Domain("d", Batch(torch.zeros(10, 1), torch.zeros(9).long(), torch.zeros(10).long()))


def test_a_batch_has_at_least_one_example():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        list(domain().batches(0))


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (domain("cold", classes=4), "'cold' has labels 0..3, but the 3 classes"),
        (domain("empty", n=0), "'empty' has no examples"),
    ],
)
@pytest.mark.parametrize("role", ["train", "id_test", "ood_tests", "id_val"])
def test_a_shift_checks_every_domain(role, bad, line):
    good = domain()
    parts = {"train": (good,), "id_test": good, "ood_tests": (good,), "id_val": good}
    parts[role] = bad if role in ("id_test", "id_val") else (bad,)
    with pytest.raises(ValueError, match=line):
        Shift("toy", ("a", "b", "c"), **parts)
