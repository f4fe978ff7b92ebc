"""OOD problems, and the domains of a set, from data of any accepted form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Domain, Shift
from contam.inputs.forms import Options, named_sets, read_raw, tree_of
from contam.inputs.image_sizes import one_size
from contam.inputs.labels import labeled, origins
from contam.inputs.parts import numbered
from contam.inputs.pixel_range import Transform
from contam.inputs.table_files import table_of
from contam.inputs.tables import RawSet


@dataclass(frozen=True, eq=False)
class JointSets:
    """Several data sets with one list of classes and consistent domain indices."""

    classes: tuple[str, ...]
    raws: tuple[RawSet, ...]
    """The sets as they were read."""
    domains: tuple[Domain, ...]
    """The sets in the same order."""
    origins: tuple[Int[Tensor, " n"], ...]
    """Domain indices of the examples of each set."""
    transform: Transform | None
    """The transform of image files."""
    notes: tuple[str, ...]
    """Sentences about what was changed, guessed or drawn."""


def read_jointly(sets: Sequence[tuple[str | None, str, Any]], options: Options) -> JointSets:
    """Read several sets with one list of classes, one size and consistent domain indices.

    Args:
        sets: name, name if it has no other, and data of each set. The first one decides the
            classes, unless the options give them.
        options: options for reading.

    Raises:
        ValueError: a set can't be read, an example can't be read or holds non-finite values,
            inputs differ in shape, or a label is none of the classes.

    Source: ours, for trainings, which need one list of classes.

    >>> x = torch.rand(2, 3)
    >>> sets = (None, "train", (x, ["b", "a"])), (None, "test", (x, ["b", "b"]))
    >>> [domain.y.tolist() for domain in read_jointly(sets, Options()).domains]
    [[1, 0], [1, 1]]
    """
    notes: list[str] = []
    if options.transform is None:
        options, notes = _with_one_size(sets, options)
    raws: list[RawSet] = []
    for name, role, data in sets:
        raw = read_raw(name, data, role, options)
        raw.refuse_left_out()
        notes += raw.remarks
        if options.classes is None:
            options = replace(options, classes=_classes(raw))
        raws.append(raw)
    assert options.classes is not None
    for raw in raws:
        if raw.shape != raws[0].shape:
            raise ValueError(
                f"inputs of {raw.name!r} have the shape {raw.shape}, those of {raws[0].name!r} "
                f"{raws[0].shape}; expected one shape, so resize them in the transform"
            )
    places = tuple(place.long() for place in origins(raws)[0])
    domains = tuple(
        raw.make_domain(labeled(raw, options.classes), place, None).with_classes(options.classes)
        for raw, place in zip(raws, places, strict=True)
    )
    transform = options.transform or options.one_size
    unique = tuple(dict.fromkeys(notes))
    return JointSets(options.classes, tuple(raws), domains, places, transform, unique)


def as_shift(
    train: Any,
    id_test: Any,
    ood_tests: Any,
    *,
    id_val: Any = None,
    name: str = "shift",
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
) -> Shift:
    """Make an OOD problem of data sets of any accepted form, with one list of classes.

    Args:
        train: the training set; or several, one for each training domain, in a list or a dict. Of
            a `Shift`, its training domains.
        id_test: the test set from the training distribution.
        ood_tests: the shifted test set; or several, in a list or a dict by name.
        id_val: the set for model selection.
        name: name of the problem.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits; by default those of the first
            training set.
        workers: number of threads that decode image files, by default 4, or of processes that
            read a dataset.

    Returns:
        The problem. Domain indices number the sets and their domains: training sets, ID validation
        and test, OOD tests.

    Raises:
        ValueError: a form is not accepted, an example can't be read or holds non-finite values,
            inputs differ in shape, or a label is none of the classes.

    Source: ours, because trainings and experiments take a `Shift`.

    >>> x = torch.rand(4, 3)
    >>> shift = as_shift((x, [0, 1, 0, 1]), (x, [1, 1, 0, 0]), {"night": (x, [1, 0, 1, 0])})
    >>> shift.classes, [domain.name for domain in shift.ood_tests]
    (('0', '1'), ['night'])
    """
    options = Options(transform, _names(classes), keys or {}, workers=workers)
    trained = named_sets(list(train.train) if isinstance(train, Shift) else train)
    shifted = named_sets(ood_tests)
    validation = [("ID validation", "", id_val)] if id_val is not None else []
    joint = read_jointly(
        [
            *((title, "training", data) for title, data in trained),
            *validation,
            ("ID test", "", id_test),
            *((title, "OOD", data) for title, data in shifted),
        ],
        options,
    )
    domains = joint.domains
    first = len(trained)
    after = first + len(validation)
    return Shift(
        name, joint.classes, domains[:first], domains[after], domains[after + 1 :],
        domains[first] if validation else None,
    )  # fmt: skip


def read_domains(
    data: Any,
    *,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    domain: str | int | None = None,
    workers: int | None = None,
) -> tuple[Domain, ...]:
    """Read a data set and return each of its domains, such as those of `domain/class/image`.

    Args:
        data: the data set, of any accepted form.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits.
        domain: name or number of the metadata column that is the domain; by default the first
            that groups the examples.
        workers: number of threads that decode image files, by default 4, or of processes that
            read a dataset.

    Returns:
        One `Domain` for each domain, sorted by name or number, with this name; the domain indices
        number them.

    Raises:
        ValueError: as for `contam.inputs.as_domain`.

    Source: ours, because methods of domain generalization take each training domain by itself.

    >>> x, y, place = torch.rand(4, 3), [0, 1, 0, 1], ["sea", "sea", "land", "land"]
    >>> [(part.name, part.y.tolist()) for part in read_domains((x, y, place))]
    [('land', [0, 1]), ('sea', [0, 1])]
    """
    options = Options(transform, _names(classes), keys or {}, domain=domain, workers=workers)
    raw = read_raw(None, data, "data", options)
    raw.refuse_left_out()
    titles = options.classes or _classes(raw)
    values = [raw.name] * len(raw) if raw.origin is None else raw.origin
    index, names = numbered(values) if isinstance(values, list) else _renumbered(values)
    whole = raw.make_domain(labeled(raw, titles, renamed=True), index, None).with_classes(titles)
    return tuple(
        whole.pick((index == place).nonzero().flatten(), name) for place, name in enumerate(names)
    )


def _renumbered(index: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return domain indices without gaps, and the original ones as names."""
    values, places = torch.as_tensor(index).unique(return_inverse=True)
    return places, tuple(map(str, values.tolist()))


def _with_one_size(
    sets: Sequence[tuple[str | None, str, Any]], options: Options
) -> tuple[Options, list[str]]:
    """Give image files of all folders one size, where the user gives no transform."""
    trees = [
        tree_of(data, name, options)
        for name, _, data in sets
        if isinstance(data, str | Path) and table_of(data) is None
    ]
    if not trees:
        return options, []
    transform, notes = one_size([(tree.root.name, tree.root, tree.files) for tree in trees])
    return replace(options, one_size=transform), [note for some in notes for note in some]


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if classes is None else tuple(map(str, classes))


def _classes(raw: RawSet) -> tuple[str, ...]:
    """Return the names of a set's classes, or the indices up to the largest."""
    if raw.classes is not None:
        return raw.classes
    if isinstance(raw.y, Tensor):
        return tuple(map(str, range(int(raw.y.max()) + 1)))
    return tuple(sorted(set(map(str, raw.y))))
