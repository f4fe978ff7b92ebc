"""The data of a trial: training sets, test sets, and masks of the training images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.annotations import with_masks
from contam.batch import Domain, Shift
from contam.inputs.forms import Options, named_sets, read_raw, tree_of
from contam.inputs.image_sizes import one_size
from contam.inputs.input_set import InputSet
from contam.inputs.labels import labeled, origins, shared_pixel_range
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.table_files import table_of
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
        found = with_masks(InputSet(self.own.name, self.train[0]), self.own, given)
        if found.masks is None:
            raise ValueError(found.read_notes[-1] if found.read_notes else "masks= hold no mask")
        return found.masks.contiguous()

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
    sets = [("train", pair) for pair in named_sets(train)]
    sets += [("ID", (None, id))]
    shifted = named_sets(ood)
    sets += [("OOD", pair) for pair in shifted]
    if not shifted:
        raise ValueError("a trial measures OOD accuracy, and there is no OOD set; give ood=")
    options = Options(transform, None if classes is None else tuple(map(str, classes)))
    if transform is None:
        options, notes = _with_one_size([pair for _, pair in sets], options)
    else:
        notes = []
    raws: list[tuple[str, RawSet]] = []
    titles = [role for role, _ in sets]
    if len(shifted) > 1:
        titles[-len(shifted) :] = [f"OOD {place + 1}" for place in range(len(shifted))]
    for title, (role, (name, data)) in zip(titles, sets, strict=True):
        raw = read_raw(name, data, title, options)
        raw.refuse_left_out()
        notes += raw.remarks
        if options.classes is None:
            options = replace(options, classes=_names(raw))
        raws.append((role, raw))
    assert options.classes is not None
    _check(raws)
    places, _ = origins([raw for _, raw in raws])
    domains = [
        (role, raw.make_domain(labeled(raw, options.classes), place.long(), None))
        for (role, raw), place in zip(raws, places, strict=True)
    ]
    own = [raw for role, raw in raws if role == "train"]
    tests = {raw.name: domain for (role, domain), (_, raw) in zip(domains, raws, strict=True)
             if role != "train"}  # fmt: skip
    origin = [place for place, (role, _) in zip(places, raws, strict=True) if role == "train"]
    return TrialData(
        options.classes, tuple(domain for role, domain in domains if role == "train"),
        torch.cat(origin).long(), tests,
        options.transform or options.one_size, shared_pixel_range(own), own[0],
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _with_one_size(
    sets: Sequence[tuple[str | None, Any]], options: Options
) -> tuple[Options, list[str]]:
    """Give image files of all folders one size, where the user gives no transform."""
    trees = [
        tree_of(data, name, options)
        for name, data in sets
        if isinstance(data, str | Path) and table_of(data) is None
    ]
    if not trees:
        return options, []
    transform, notes = one_size([(tree.root.name, tree.root, tree.files) for tree in trees])
    return replace(options, one_size=transform), [note for some in notes for note in some]


def _names(raw: RawSet) -> tuple[str, ...]:
    if raw.classes is not None:
        return raw.classes
    if isinstance(raw.y, Tensor):
        return tuple(map(str, range(int(raw.y.max()) + 1)))
    return tuple(sorted(set(map(str, raw.y))))


def _check(raws: Sequence[tuple[str, RawSet]]) -> None:
    names = [raw.name for role, raw in raws if role != "train"]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two test sets have the name {twice[0]!r}; give a dict by name")
    first = raws[0][1]
    for _, raw in raws:
        if raw.shape != first.shape:
            raise ValueError(
                f"inputs of {raw.name!r} have the shape {raw.shape}, those of {first.name!r} "
                f"{first.shape}; expected one shape, so resize them in the transform"
            )


def _digest(domain: Domain) -> str:
    found = hashlib.sha256()
    for batch in domain.batches(64):
        for part in (batch.x, batch.y):
            found.update(
                part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
    return found.hexdigest()[:16]
