"""Repairs are judged on examples that they were not fitted to."""

from dataclasses import dataclass

import pytest
import torch
from support.noise import noise
from torch import nn

from contam.batch import Batch
from contam.measures.accuracy import paired_change
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies import FreshHead, HeadRepair, cross_fit
from contam.remedies.cross_fit import HeadCrossFit, RepairEffect, matched_halves


@dataclass(frozen=True)
class Memory(HeadRepair):
    """Classifies exactly the OOD examples correctly whose features it was fitted to."""

    name = "memory"
    needs = frozenset({"OOD labels"})

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        # Feature k is 1 for example k alone.
        weight = torch.zeros(2, ood.x.shape[1])
        for part in (id, ood):
            rows = part.x.nonzero()
            weight[part.y[rows[:, 0]], rows[:, 1]] = 1.0
        return LinearHead(weight, torch.tensor([0.5, 0.0]))


def one_hot(n: int, y: torch.Tensor) -> Batch:
    return Batch(torch.eye(n), y, 0 * y)


def test_no_example_is_judged_by_a_fit_that_used_it():
    y = torch.ones(20).long()
    data, head = one_hot(20, y), LinearHead(torch.zeros(2, 20), torch.zeros(2))
    effect = HeadCrossFit(Memory(), head, data).effect(data)
    # Rows of ID and OOD are the same here, so half of the content is known from the other set.
    assert 0 < effect.ood_after.sum() < 20
    same = torch.arange(20)[:, None].expand(20, 2)
    effect = HeadCrossFit(Memory(), head, data).effect(data, same=same)
    assert not effect.ood_after.any() and not effect.id_after.any()


def test_without_shared_content_id_repairs_use_all_id_examples_for_ood_ones():
    fits: list[int] = []

    @dataclass(frozen=True)
    class Counting(HeadRepair):
        name = "counting"
        needs = frozenset({"ID labels"})

        def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
            fits.append(len(id.y))
            return head

    y = torch.arange(10) % 2
    data, head = one_hot(10, y), LinearHead(torch.zeros(2, 10), torch.zeros(2))
    once = HeadCrossFit(Counting(), head, data)
    once.effect(data)
    assert fits == [5, 5, 10]
    once.effect(data.pick(slice(4)))
    assert fits == [5, 5, 10]
    fits.clear()
    once.effect(data, same=torch.tensor([[0, 0]]))
    assert len(fits) == 2 and sum(fits) == 10


@pytest.mark.parametrize("seed", range(3))
def test_halves_keep_pairs_together_and_classes_balanced(seed):
    id_y, ood_y = torch.arange(60) % 3, torch.arange(45) % 3
    pairs = torch.stack([torch.arange(0, 30), torch.arange(30).flip(0)], dim=1)
    chain = torch.tensor([[40, 40], [41, 40], [41, 41]])
    halves = matched_halves(id_y, ood_y, torch.cat([pairs, chain]), seed=seed)
    ids, oods = (torch.cat(parts).sort().values for parts in zip(*halves, strict=True))
    assert ids.equal(torch.arange(60)) and oods.equal(torch.arange(45))
    for id_rows, ood_rows in halves:
        for first, second in torch.cat([pairs, chain]).tolist():
            assert (first in id_rows) == (second in ood_rows)
        assert (torch.bincount(id_y[id_rows]) - 10).abs().max() <= 3
        assert (torch.bincount(ood_y[ood_rows]) - 7.5).abs().max() <= 3


def test_a_gain_by_hand():
    y = torch.arange(40) % 2
    x = torch.eye(2)[y] + 0.01 * noise(40, 2)
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].load_state_dict({"weight": torch.eye(2).flip(0), "bias": torch.zeros(2)})
    data = Batch(x, y, 0 * y)
    effect = cross_fit(FreshHead(), LogitsAdapter(model), data, data)
    estimate = effect.gain()
    assert estimate.value == 1.0
    assert (estimate.low, estimate.high) == paired_change(40, 0, 40)
    assert not effect.id_before.any() and effect.id_after.all()


def test_a_repair_that_changes_nothing_has_a_gain_of_0_with_an_interval():
    same = torch.arange(20) % 3 > 0
    estimate = RepairEffect(same, same, same, same, labels=0).gain()
    assert estimate.low < 0 == estimate.value < estimate.high
