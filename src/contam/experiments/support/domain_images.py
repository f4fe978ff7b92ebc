"""The images whose domains a linear classifier predicts, and the split of their objects."""

from collections.abc import Sequence

import torch
from torch import Tensor

from contam.batch import Domain, Shift
from contam.data.images import FolderDomain
from contam.measures.separability import held_out


def domains_of(shift: Shift) -> list[Domain]:
    """The images whose domains are classified: the tests of a generated benchmark, else all images.

    The paper does not say which images of PACS it takes; without those that a network learned
    from, few would remain.

    Source: ours, the domains whose separability is measured.

    >>> from contam.batch import Batch
    >>> zeros = torch.zeros(2).long()
    >>> train, test, ood = (Domain(name, Batch(torch.zeros(2, 3), zeros, zeros)) for name in "abc")
    >>> shift = Shift("toy", ("cow", "camel"), (train,), test, (ood,))
    >>> [domain.name for domain in domains_of(shift)]
    ['b', 'c']
    """
    tests = (shift.id_test, *shift.ood_tests)
    if not isinstance(shift.id_test, FolderDomain):
        return [*tests]
    validation = () if shift.id_val is None else (shift.id_val,)
    return [*dict.fromkeys((*shift.train, *validation, *tests))]


def unseen_objects(parts: Sequence[Domain], seed: int) -> Tensor:
    """A mask of a fifth of the objects, in all images that show them.

    The OOD tests of the embedded benchmark show the objects of its ID test in the same order.

    Source: ours, domains must be told by backgrounds, not by remembered objects.

    >>> from contam.batch import Batch
    >>> zeros = torch.zeros(10).long()
    >>> parts = [Domain(name, Batch(torch.zeros(10, 2), zeros, zeros)) for name in ("id", "ood")]
    >>> mask = unseen_objects(parts, seed=0)
    >>> int(mask.sum()), torch.equal(mask[:10], mask[10:])
    (4, True)
    """
    own, *ood = map(len, parts)
    chosen = held_out(torch.zeros(max(own, sum(ood)), dtype=torch.int64), seed=seed)
    return torch.cat([chosen[:own], chosen[: sum(ood)]])
