"""What a step of training learns from: shares of minibatches, out of memory or out of files.

Which examples a minibatch holds, in which order, and what an augmentation draws for each of them
follow from the seed and the step. Processes and workers only decide who reads them.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from contam.batch import Batch, Domain
from contam.rng import generator_for

Pick = tuple[Tensor, Tensor]
"""Numbers of examples, and for each of them a draw for its augmentation."""


class MicroBatch(NamedTuple):
    """A part of a minibatch."""

    batch: Batch
    numbers: Tensor
    """(batch,) the place of each example among all."""
    step: int
    """The step of the training that it belongs to, from 0."""
    place: str
    """The share's own name within a training, for what is drawn at random."""
    weight: float
    """Its part of the minibatch, in (0, 1]."""


class Examples:
    """The examples of several domains, numbered one domain after the other."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = tuple(domains)
        self._ends = torch.tensor([len(domain) for domain in domains]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def augmented(self) -> bool:
        """Whether an example is another one each time."""
        return any(domain.augments for domain in self.domains)

    def fetch(self, picks: Iterable[Pick]) -> Iterator[Batch]:
        """A batch for each pick, in its order; domains on disk are read ahead."""
        if len(self.domains) == 1:
            yield from self.domains[0].fetch(picks)
            return
        asked, *copies = itertools.tee(picks, 1 + len(self.domains))
        fetched = [
            domain.fetch(self._own(index, copy))
            for index, (domain, copy) in enumerate(zip(self.domains, copies, strict=True))
        ]
        for (numbers, _), parts in zip(asked, zip(*fetched, strict=True), strict=True):
            # Domain by domain, and then back into the order that was asked for.
            back = self._home(numbers).argsort(stable=True).argsort()
            found = [part for part in parts if len(part.y)]
            yield Batch(*map(torch.cat, zip(*found, strict=True))).pick(back)

    def minibatches(self, size: int, *, purpose: str, seed: int, start: int) -> Iterator[Pick]:
        """Full minibatches, epoch after epoch without end, from the one with number `start` on."""
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

    def shares(
        self, size: int, *, parts: int, own: range, purpose: str, seed: int, start: int
    ) -> Iterator[tuple[MicroBatch, ...]]:
        """For every minibatch from number `start` on, those of its `parts` that are `own`."""
        minibatches = self.minibatches(size, purpose=purpose, seed=seed, start=start)
        cut = (
            (step, f"{step}" if parts == 1 else f"{step}, part {part}", *_part(pick, part, parts))
            for step, pick in enumerate(minibatches, start)
            for part in own
        )
        asked, told = itertools.tee(cut)
        batches = self.fetch((numbers, draws) for _, _, numbers, draws in asked)
        shares = (
            MicroBatch(batch, numbers, step, place, len(numbers) / size)
            for (step, place, numbers, _), batch in zip(told, batches, strict=True)
        )
        # So many times the same iterator: as many shares as this process has of a minibatch.
        return zip(*[shares] * len(own), strict=True)

    def _own(self, index: int, picks: Iterable[Pick]) -> Iterator[Pick]:
        """What of each pick is in one domain, by its numbers there."""
        begin = int(self._ends[index]) - len(self.domains[index])
        for numbers, draws in picks:
            here = self._home(numbers) == index
            yield numbers[here] - begin, draws[here]

    def _home(self, numbers: Tensor) -> Tensor:
        """The domain that each example comes from, by its place in the list of them."""
        return torch.bucketize(numbers, self._ends, right=True)


def _part(pick: Pick, part: int, parts: int) -> Pick:
    numbers, draws = pick
    return numbers.tensor_split(parts)[part], draws.tensor_split(parts)[part]
