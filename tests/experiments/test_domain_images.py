"""The split of the images whose domains are classified."""

from pathlib import Path

import torch

from contam.batch import Batch, Domain
from contam.experiments.support.domain_images import domains_of, unseen_objects
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import ERM, TINY_NETWORKS


def test_no_object_is_in_both_train_and_test_images():
    """The OOD tests show the objects of the ID test, so an object is held out on all of them."""
    parts = domains_of(ModelZoo(TINY_NETWORKS, 0, Path("nowhere")).benchmark(ERM).shift)
    own, *ood = parts
    assert torch.equal(own.y, torch.cat([part.y for part in ood]))
    test = unseen_objects(parts, 0)
    assert len(test) == sum(map(len, parts))
    assert torch.equal(test[: len(own)], test[len(own) :])
    assert int(test.sum()) == 2 * round(0.2 * len(own))
    assert not torch.equal(test, unseen_objects(parts, 1))


def test_a_short_id_test_shares_no_object_between_train_and_test():
    def domain(count: int) -> Domain:
        zeros = torch.zeros(count, dtype=torch.int64)
        return Domain("some", Batch(torch.zeros(count, 1), zeros, zeros))

    test = unseen_objects([domain(10), domain(20), domain(20)], 0)
    assert torch.equal(test[:10], test[10:20]) and int(test[10:].sum()) == 8
