"""A data set with its annotations and notes, as audits and monitors use it."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch, Domain
from contam.inputs.duplicates import fingerprints
from contam.inputs.indexed import DatasetDomain
from contam.inputs.lazy_files import LazyFolderDomain
from contam.inputs.parts import pick


@dataclass(frozen=True, eq=False)
class InputSet:
    """A data set: its examples in a fixed order, with annotations and notes.

    Source: ours, the common form of data for audits and monitors.
    """

    name: str
    domain: Domain
    """`domain.batches(size)` without a generator gives the examples in a fixed order."""
    masks: Float[Tensor, "n 1 height width"] | None = field(default=None, repr=False)
    """Share of each pixel that the object covers, at the size of the network's input."""
    background: Int[Tensor, " n"] | None = field(default=None, repr=False)
    """Declared label of each example's background."""
    classes: tuple[str, ...] | None = None
    """Names of the classes by index, if they are known."""
    read_notes: tuple[str, ...] = field(default=(), repr=False)
    """Sentences about what was left out before the first pass."""
    read_groups: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """Metadata columns that group the examples; those of a folder or table also have the files that
    are left out in the first pass."""
    domain_column: str = field(default="", repr=False)
    """Name of the metadata column that is the domain; empty if it has none."""
    read_numbers: Int[Tensor, " n"] | None = field(default=None, repr=False)
    """Position of each example in the user's data; also of the files that are left out in the first
    pass."""
    read_files: tuple[str, ...] = field(default=(), repr=False)
    """Path of each file, likewise, relative to the folder of the set if it has one; empty for other
    sets."""

    def __len__(self) -> int:
        return len(self.domain)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out so far; complete after the first pass."""
        lazy = isinstance(self.domain, LazyFolderDomain)
        return (*self.read_notes, *(self.domain.decoder.notes if lazy else ()))  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Metadata columns that group the n examples; final after the first pass."""
        kept = self._rows(torch.arange(len(self)))
        return {name: pick(column, kept) for name, column in self.read_groups.items()}

    def sources(self, which: Int[Tensor, " some"]) -> list[tuple[int, str]]:
        """Return position in the user's data and path of examples; the path can be empty."""
        rows = self._rows(which)
        numbers = rows if self.read_numbers is None else self.read_numbers[rows]
        files = [self.read_files[row] for row in rows.tolist()] if self.read_files else []
        return list(zip(numbers.tolist(), files or [""] * len(rows), strict=True))

    def _rows(self, which: Int[Tensor, " some"]) -> Int[Tensor, " some"]:
        """Rows of `read_groups`, `read_numbers` and `read_files` of these examples."""
        domain = self.domain
        return domain.decoder.positions[which] if isinstance(domain, LazyFolderDomain) else which

    @property
    def fingerprints(self) -> Float[Tensor, "n cells"] | None:
        """Averages that stand for the content of each example; None before all were read."""
        domain = self.domain
        if isinstance(domain, LazyFolderDomain):
            numbers, known = domain.decoder.positions.tolist(), domain.decoder.prints
            complete = all(number in known for number in numbers)
            return torch.stack([known[number] for number in numbers]) if complete else None
        if type(domain) is Domain:
            return fingerprints(domain.data.x)
        return domain.prints if isinstance(domain, DatasetDomain) else None

    def pick(self, which: Int[Tensor, " some"]) -> "InputSet":
        """Return the examples with these indices, in this order, with their annotations."""
        return replace(
            self,
            domain=pick_examples(self.domain, which),
            masks=None if self.masks is None else self.masks[which],
            background=None if self.background is None else self.background[which],
            read_groups={name: pick(c, self._rows(which)) for name, c in self.read_groups.items()},
            read_numbers=pick(self.read_numbers, self._rows(which)),
            read_files=tuple(pick(list(self.read_files) or None, self._rows(which)) or ()),
        )


def pick_examples(domain: Domain, which: Int[Tensor, " some"]) -> Domain:
    """Return the examples of any domain with these indices, in this order.

    Args:
        domain: the domain; only the picked files of a folder are decoded.
        which: (m,) indices.

    Returns:
        A domain of m examples.

    >>> y = torch.arange(3)
    >>> pick_examples(Domain("d", Batch(y.float(), y, y)), torch.tensor([2, 0])).y.tolist()
    [2, 0]
    """
    if type(domain) is Domain or type(domain).pick is not Domain.pick:
        return domain.pick(which)
    order = which.argsort()
    wanted, parts, done = which[order], [], 0
    for batch in domain.batches(64):
        ends = torch.tensor([done, done + len(batch.y)])
        first, last = torch.searchsorted(wanted, ends).tolist()
        if first < last:
            parts.append(batch.pick(wanted[first:last] - done))
        done += len(batch.y)
    back = order.argsort()
    columns = (torch.cat(column)[back] for column in zip(*parts, strict=True))
    return Domain(domain.name, Batch(*columns))
