"""The data of a trial: training sets, test sets, and masks of the training images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.annotations import with_masks
from contam.batch import Domain, Shift
from contam.inputs.forms import Options, named_sets
from contam.inputs.input_set import InputSet
from contam.inputs.labels import shared_pixel_range
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.shifts import read_jointly
from contam.inputs.tables import RawSet


@dataclass(frozen=True, eq=False)
class TrialData:
    """What a trial trains on and tests on."""

    classes: tuple[str, ...]
    train: tuple[Domain, ...]
    domain: Int[Tensor, " n"]
    """Domain index of every training example."""
    tests: Mapping[str, Domain]
    """Test sets by name; ID first."""
    transform: Transform | None
    """The transform of image files."""
    pixel_range: PixelRange | None
    """The values of black and white; None if the inputs are not images."""
    own: RawSet
    """The first training set as it was read."""
    notes: tuple[str, ...] = ()

    def masks(self, given: Any) -> Float[Tensor, "n 1 height width"]:
        """Return the masks of all training images, in their order.

        Args:
            given: masks, or a folder of them.

        Raises:
            ValueError: the masks do not match the images.
        """
        if len(self.train) != 1:
            raise ValueError("masks= are those of one training set, and there are several")
        masked = with_masks(InputSet(self.own.name, self.train[0]), self.own, given)
        if masked.masks is None:
            raise ValueError(masked.read_notes[-1] if masked.read_notes else "masks= hold no mask")
        return masked.masks.contiguous()

    def digests(self) -> dict[str, str]:
        """Hash the inputs and labels of each set, in one pass that also decodes its files."""
        domains = [*self.train, *self.tests.values()]
        return {f"{place} {domain.name}": _digest(domain) for place, domain in enumerate(domains)}


def read_data(
    train: Any,
    id: Any,
    ood: Any,
    *,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
) -> TrialData:
    """Find the examples of all sets; most image files are not decoded yet.

    Args:
        train: the training data: one set, or a list or a dict of sets.
        id: test data from the training distribution.
        ood: shifted test data: one set, a list, or a dict by name.
        transform: function from an image to the network's input.
        classes: names of the classes in the order of the logits; by default those of the training
            data.

    Raises:
        ValueError: a set can't be read, has labels of other classes, or has another size.

    >>> x, y = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    >>> data = read_data((x, y), id=(x, y), ood={"dark": (x / 2, y)})
    >>> data.classes, list(data.tests)
    (('0', '1', '2'), ['ID', 'dark'])
    """
    if isinstance(train, Shift):
        raise ValueError("train= is a Shift; give its training domains, train=shift.train")
    trained, shifted = named_sets(train), named_sets(ood)
    if not shifted:
        raise ValueError("a trial measures OOD accuracy, and there is no OOD set; give ood=")
    sets = [*((name, "train", data) for name, data in trained), (None, "ID", id)]
    for place, (name, data) in enumerate(shifted, start=1):
        sets.append((name, "OOD" if len(shifted) == 1 else f"OOD {place}", data))
    options = Options(transform, None if classes is None else tuple(map(str, classes)))
    joint, count = read_jointly(sets, options), len(trained)
    names = [raw.name for raw in joint.raws[count:]]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two test sets have the name {twice[0]!r}; give a dict by name")
    return TrialData(
        joint.classes, joint.domains[:count], torch.cat(joint.origins[:count]),
        dict(zip(names, joint.domains[count:], strict=True)), joint.transform,
        shared_pixel_range(joint.raws[:count]), joint.raws[0], joint.notes,
    )  # fmt: skip


def _digest(domain: Domain) -> str:
    digest = hashlib.sha256()
    for batch in domain.batches(64):
        for part in (batch.x, batch.y):
            digest.update(
                part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()[:16]
