"""Minibatches and micro-batches of one or several domains, in memory or on disk.

The examples of a minibatch, their order and the random numbers of their augmentation are functions
of the seed and the step. The number of processes and workers changes only where they are read.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Batch, Domain
from contam.rng import generator_for

Pick = tuple[Tensor, Tensor]
"""Indices of examples, and for each of them a random number for its augmentation."""


class MicroBatch(NamedTuple):
    """A part of a minibatch."""

    batch: Batch
    numbers: Tensor
    """(batch,) index of each example among all."""
    step: int
    """Step of the training, from 0."""
    place: str
    """Name that is unique within a training, for random numbers."""
    weight: float
    """Share of the minibatch, in (0, 1]."""


class TrainingExamples:
    """Examples of several domains, with consecutive indices.

    Args:
        domains: Training domains.
        groups: (n,) group of each example, which takes the place of its domain where every domain
            gives the same number of examples.
    """

    def __init__(self, domains: Sequence[Domain], groups: Int[Tensor, " n"] | None = None) -> None:
        self.domains = tuple(domains)
        self._members = (
            None if groups is None else [(groups == g).nonzero().flatten() for g in groups.unique()]
        )
        self._ends = torch.tensor([len(domain) for domain in domains]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def augmented(self) -> bool:
        """Whether an example is augmented when it is read."""
        return any(domain.augments for domain in self.domains)

    def fetch(self, picks: Iterable[Pick]) -> Iterator[Batch]:
        """Yield a batch for each pick, in its order; domains on disk are read ahead."""
        if len(self.domains) == 1:
            yield from self.domains[0].fetch(picks)
            return
        requested, fetched = itertools.tee(picks)
        for (numbers, _), parts in zip(requested, self.fetch_domains(fetched), strict=True):
            # The parts are ordered by domain; restore the requested order.
            back = self._home(numbers).argsort(stable=True).argsort()
            nonempty = [part for part in parts if len(part.y)]
            yield Batch(*map(torch.cat, zip(*nonempty, strict=True))).pick(back)

    def fetch_domains(self, picks: Iterable[Pick]) -> Iterator[tuple[Batch, ...]]:
        """Yield one batch from each domain for each pick; domains on disk are read ahead."""
        fetched = [
            domain.fetch(self._own(index, copy))
            for index, (domain, copy) in enumerate(
                zip(self.domains, itertools.tee(picks, len(self.domains)), strict=True)
            )
        ]
        return zip(*fetched, strict=True)

    def minibatches(
        self, size: int, *, purpose: str, seed: int, start: int, per_domain: bool = False
    ) -> Iterator[Pick]:
        """Yield minibatches without end, from minibatch `start` on.

        Args:
            size: Examples of a minibatch.
            purpose: Name of the training, for random numbers.
            seed: Random seed.
            start: First minibatch.
            per_domain: Whether every domain gives `size` examples, drawn with replacement as in
                DomainBed. Otherwise all examples are shuffled together every epoch, and those that
                do not fill a last minibatch are left out.
        """
        if per_domain:
            yield from self._from_every_domain(size, purpose=purpose, seed=seed, start=start)
            return
        full = len(self) // size
        epoch, skipped = divmod(start, full)
        while True:
            order = torch.randperm(
                len(self), generator=generator_for(seed, f"{purpose}/epoch {epoch}")
            )
            source = generator_for(seed, f"{purpose}/images of epoch {epoch}")
            draws = torch.randint(2**62, (len(self),), generator=source)
            drawn = zip(order.split(size), draws.split(size), strict=True)
            yield from itertools.islice(drawn, skipped, full)
            epoch, skipped = epoch + 1, 0

    def _from_every_domain(
        self, size: int, *, purpose: str, seed: int, start: int
    ) -> Iterator[Pick]:
        """Yield `size` examples of every domain, drawn with replacement."""
        for step in itertools.count(start):
            source = generator_for(seed, f"{purpose}/every domain, step {step}")
            if self._members is not None:
                picks = [
                    members[torch.randint(len(members), (size,), generator=source)]
                    for members in self._members
                ]
            else:
                picks = [
                    int(end) - len(domain) + torch.randint(len(domain), (size,), generator=source)
                    for domain, end in zip(self.domains, self._ends, strict=True)
                ]
            yield torch.cat(picks), torch.randint(2**62, (size * len(picks),), generator=source)

    def micro_batches(
        self,
        size: int,
        *,
        parts: int,
        own: range,
        purpose: str,
        seed: int,
        start: int,
        per_domain: bool = False,
    ) -> Iterator[tuple[MicroBatch, ...]]:
        """Yield the micro-batches of this process for each minibatch from `start` on.

        Args:
            size: Examples of a minibatch.
            parts: Number of micro-batches of a minibatch over all processes.
            own: Micro-batches of this process.
            purpose: Name of the training, for random numbers.
            seed: Random seed.
            start: First minibatch.
            per_domain: As for `minibatches`.
        """
        minibatches = self.minibatches(
            size, purpose=purpose, seed=seed, start=start, per_domain=per_domain
        )
        whole = size * len(self._members or self.domains) if per_domain else size
        cut = (
            (step, f"{step}" if parts == 1 else f"{step}, part {part}", *_part(pick, part, parts))
            for step, pick in enumerate(minibatches, start)
            for part in own
        )
        picks, names = itertools.tee(cut)
        batches = self.fetch((numbers, draws) for _, _, numbers, draws in picks)
        micro_batches = (
            MicroBatch(batch, numbers, step, place, len(numbers) / whole)
            for (step, place, numbers, _), batch in zip(names, batches, strict=True)
        )
        # The same iterator several times groups the micro-batches of each minibatch.
        return zip(*[micro_batches] * len(own), strict=True)

    def _own(self, index: int, picks: Iterable[Pick]) -> Iterator[Pick]:
        """Yield the examples of each pick that are in one domain, by their indices there."""
        begin = int(self._ends[index]) - len(self.domains[index])
        for numbers, draws in picks:
            here = self._home(numbers) == index
            yield numbers[here] - begin, draws[here]

    def _home(self, numbers: Tensor) -> Tensor:
        """Return the index of each example's domain."""
        return torch.bucketize(numbers, self._ends, right=True)


def _part(pick: Pick, part: int, parts: int) -> Pick:
    numbers, draws = pick
    return numbers.tensor_split(parts)[part], draws.tensor_split(parts)[part]
