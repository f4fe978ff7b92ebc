"""Convert data of many forms to a `Domain`: the public entry point for data.

Accepted everywhere: a folder (`class/image` or `domain/class/image`), a table with a path and a
label for each image (a CSV, Parquet or JSON file, a data frame, an `ImageTable`), a `DataLoader`, a
`Dataset` (also iterable ones and those of Hugging Face), a pair (x, y) or a triple (x, y, domain)
of tensors or arrays, a dict of them, a list of batches, a `Domain`, and a `Shift` (its ID test
set). An example or a batch is (x, y), (x, y, metadata) or a dict; labels are class indices, whole
floats, one-hot rows or names; bytes become shares in [0, 1]; images go through the transform.

Three functions differ in how they treat examples that can't be read or hold non-finite values:

* `as_domain` reads a set and raises on the first such example.
* `read_set` leaves them out and records a note in the `InputSet`; audits and monitors use it.
* `as_batches` makes one pass without keeping data, in a loader's own order, and raises; measures
  use it.

`as_shift` makes an OOD problem of several sets, and `read_domains` returns the domains of a set.

An `InputSet` has `.name`, `.domain`, `.classes` and `.notes`. `domain.batches(size)` yields the
examples in a fixed order, and `pick(indices)` selects some of them. An index is a position among
the readable examples. Labels of a folder come from its tree. Its files are decoded in the first
pass over `domain.batches` and then kept in memory up to `contam.inputs.lazy_files.MAX_BYTES`.
Therefore take labels and domains from the batches during the first pass: `len(domain)` and
`domain.y` still count files that were not tried yet, and the batches can hold fewer examples. After
that pass, lengths, indices and notes are final.

>>> import torch
>>> domain = as_domain((torch.rand(4, 3), torch.tensor([0, 1, 0, 1])))
>>> len(domain), domain.y.tolist()
(4, [0, 1, 0, 1])
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from contam.batch import Batch, Domain, Shift
from contam.inputs.forms import ACCEPTED, Options, named_sets, read_raw
from contam.inputs.input_set import InputSet, pick_examples
from contam.inputs.labels import UNLABELED, column_title, group_columns, labeled, origins
from contam.inputs.parts import numbered
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.shifts import as_shift, read_domains
from contam.inputs.streams import stream
from contam.inputs.table_files import ImageTable

__all__ = [
    "ACCEPTED",
    "ImageTable",
    "InputSet",
    "PixelRange",
    "Transform",
    "as_batches",
    "as_domain",
    "as_shift",
    "from_folder",
    "from_loader",
    "from_table",
    "from_tensors",
    "named_sets",
    "pick_examples",
    "read_domains",
    "read_set",
]


def as_domain(
    data: Any,
    *,
    name: str | None = None,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    domain: str | int | None = None,
    budget: int | None = None,
    labeled: bool = True,
    seed: int = 0,
    workers: int | None = None,
) -> Domain:
    """Convert data of any accepted form to a `Domain`.

    A `Domain` is returned unchanged unless there is a budget or its inputs are bytes.

    Args:
        data: the data set.
        name: name of the domain; by default that of the folder, or `data`.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits.
        domain: name or number of the metadata column that is the domain; by default the first
            that groups the examples.
        budget: maximum number of examples; they are drawn at random.
        labeled: whether labels are read; otherwise the data need none, and all class indices are 0.
        seed: random seed of the budget's draw.
        workers: number of threads that decode image files, by default 4, or of processes that
            read a dataset.

    Returns:
        The examples with (n,) class indices and (n,) domain indices.

    Raises:
        ValueError: the form is not accepted, there is no example, one can't be read or holds
            non-finite values, or a label is none of the classes.

    Source: ours, because users have data in many forms and measures take one.

    >>> import torch
    >>> as_domain((torch.zeros(3, 2), [0, 1, 1])).y.tolist()
    [0, 1, 1]
    """
    if isinstance(data, Shift):
        data = data.id_test
    if isinstance(data, Domain) and budget is None and not _holds_bytes(data):
        return data
    options = Options(
        transform, _names(classes), keys or {}, budget, seed, domain=domain, workers=workers,
        labeled=labeled,
    )  # fmt: skip
    raw = read_raw(name, data, "data", options)
    raw.refuse_left_out()
    return _domain_of(raw, options.classes)


def read_set(
    data: Any,
    *,
    name: str | None = None,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    domain: str | int | None = None,
    budget: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> InputSet:
    """Read data of any accepted form; leave out and note examples that can't be read.

    Args:
        data: the data set.
        name: its name; by default that of the folder, or `data`.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits.
        domain: name or number of the metadata column that is the domain; by default the first
            that groups the examples.
        budget: maximum number of examples; they are drawn at random.
        limit: number of examples after which no further batch of a stream (a loader or an iterable
            without length) is read.
        seed: random seed of the budget's draw.

    Returns:
        The data set with its notes.

    Raises:
        ValueError: the form is not accepted, no example can be read, or a label is none of the
            classes.

    >>> import torch
    >>> x = torch.tensor([[0.0], [float("nan")]])
    >>> read_set((x, [0, 1]), name="mine").notes[0][:48]
    "1 of 2 examples of 'mine' were left out; the fir"
    """
    if isinstance(data, Shift):
        data = data.id_test
    options = Options(transform, _names(classes), keys or {}, budget, seed, limit, domain)
    raw = read_raw(name, data, "data", options)
    examples = _domain_of(raw, options.classes)
    names = options.classes or raw.classes
    groups = group_columns(raw)
    return InputSet(
        raw.name, examples, None, None, names, (*raw.notes, *raw.remarks), groups,
        column_title(raw.domain_column),
    )  # fmt: skip


def as_batches(
    data: Any,
    size: int = 256,
    *,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """Make one pass over data of any accepted form, without keeping it in memory.

    A loader and a list of batches keep their own order and sizes.

    Args:
        data: the data set, or an iterable of `Batch`.
        size: batch size if the data have no batches.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits.

    Returns:
        An iterator over batches.

    Raises:
        ValueError: the form is not accepted, or an example can't be read.

    Source: ours, the input of every measure that takes data.

    >>> import torch
    >>> [len(batch.y) for batch in as_batches((torch.zeros(3, 2), [0, 1, 1]), 2)]
    [2, 1]
    """
    return stream(data, size, Options(transform, _names(classes), keys or {}))


def from_folder(
    root: str | Path,
    *,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    workers: int | None = None,
) -> Domain:
    """Read a folder `class/image` or `domain/class/image`; files are decoded in the first pass.

    Args:
        root: the folder.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        classes: folder names in the order of the logits; sorted by default.
        name: name of the domain; by default that of the folder.
        workers: number of threads that decode images; 4 by default.

    Returns:
        The images with class indices by folder.

    Raises:
        ValueError: there is no such folder, a folder is none of the classes, or there is no image.

    >>> from PIL import Image
    >>> for label, color in (("cat", "gray"), ("dog", "white")):
    ...     Path("animals", label).mkdir(parents=True)
    ...     Image.new("RGB", (4, 4), color).save(Path("animals", label, "0.png"))
    >>> domain = from_folder("animals")
    >>> domain.name, domain.y.tolist(), domain.data.x.shape
    ('animals', [0, 1], torch.Size([2, 3, 4, 4]))
    """
    return as_domain(Path(root), name=name, transform=transform, classes=classes, workers=workers)


def from_loader(
    loader: DataLoader,
    *,
    name: str | None = None,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Domain:
    """Read the dataset of a loader, in the dataset's order.

    Args:
        loader: a loader of (x, y), (x, y, metadata) or dicts.
        name: name of the domain.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        keys: names of the parts of dicts, such as `{"x": "scan"}`.
        classes: names of the classes in the order of the logits.

    Returns:
        The examples in the dataset's order.

    Raises:
        ValueError: an example can't be read, or a label is none of the classes.

    >>> import torch
    >>> pairs = torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    >>> from_loader(DataLoader(pairs, batch_size=2, shuffle=True)).y.tolist()
    [0, 1, 1]
    """
    return as_domain(loader, name=name, transform=transform, keys=keys, classes=classes)


def from_tensors(
    x: Any, y: Any, domain: Any = None, *, name: str | None = None,
    classes: Sequence[str] | None = None,
) -> Domain:  # fmt: skip
    """Make a domain of inputs and labels in memory.

    Args:
        x: (n, ...) tensor or array; unsigned bytes are divided by 255.
        y: (n,) class indices or names, or (n, classes) one-hot rows.
        domain: (n,) indices or names of domains.
        name: name of the domain.
        classes: names of the classes in the order of the logits.

    Returns:
        The examples; names become indices in sorted order unless `classes` is given.

    Raises:
        ValueError: the lengths differ, or an input is not finite.

    >>> import torch
    >>> from_tensors(torch.zeros(2, 1), ["cat", "ant"]).y.tolist()
    [1, 0]
    """
    parts = {"x": x, "y": y} | ({} if domain is None else {"domain": domain})
    column = None if domain is None else 0
    return as_domain(parts, name=name, classes=classes, domain=column)


def _holds_bytes(domain: Domain) -> bool:
    return type(domain) is Domain and domain.data.x.dtype in (torch.uint8, torch.uint16)


def from_table(
    source: Any,
    *,
    path: str | None = None,
    label: str | None = None,
    domain: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Domain:
    """Read the images that a table lists; files are decoded in the first pass.

    Columns that are not named are found by their usual names, such as `path` or `file_name`,
    `label` or `class`, `domain` or `group`. To audit a network by name with its own transform, give
    the audit the table's path or an `ImageTable` instead.

    Args:
        source: a file (.csv, .tsv, .parquet, .json, .jsonl), a pattern such as `shards/*.csv`, or
            a data frame.
        path: column of the images' paths.
        label: column of the class names or indices.
        domain: column of the domains, or several columns whose combinations are the domains.
        where: values by column, such as `{"split": "val"}`; other rows are left out.
        root: folder of relative paths; by default that of the file.
        transform: function from an image to the network's input; by default pixels in [0, 1].
        classes: names of the classes in the order of the logits; sorted by default.
        name: name of the domain; by default the values of `where`, or the name of the file.

    Returns:
        The images in the order of the rows.

    Raises:
        ValueError: the table can't be read, lacks a column, or none of its images is a file.

    >>> from PIL import Image
    >>> for name in ("a.png", "b.png"):
    ...     Image.new("RGB", (4, 4)).save(name)
    >>> import pandas as pd
    >>> animals = pd.DataFrame({"file": ["a.png", "b.png"], "animal": ["dog", "cat"]})
    >>> domain = from_table(animals, label="animal")
    >>> domain.y.tolist(), domain.classes
    ([1, 0], ('cat', 'dog'))
    """
    table = ImageTable(source, path, label, domain, where=where or {}, root=root)
    return as_domain(table, name=name, transform=transform, classes=classes)


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if classes is None else tuple(map(str, classes))


def _domain_of(raw: Any, classes: tuple[str, ...] | None) -> Domain:
    if classes is None:
        y, names = numbered(raw.y, raw.classes)
    else:
        y, names = labeled(raw, classes, renamed=True), classes
    if int(y.min()) < 0:
        raise ValueError(
            f"{raw.name!r} has labels {int(y.min())}..{int(y.max())}; expected 0 or more"
            f"{UNLABELED if int(y.min()) == -1 else ''}"
        )
    return raw.make_domain(y, origins([raw])[0][0].long(), None).with_classes(names or None)
