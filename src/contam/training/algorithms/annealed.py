"""Objectives whose penalty gets its weight only after some steps."""

from abc import abstractmethod
from collections.abc import Sequence

from contam.batch import Batch
from contam.training.algorithms.algorithm import Objective


class AnnealedObjective(Objective):
    """An objective whose penalty changes its weight at given steps, where Adam starts afresh.

    Without the reset, moments of gradients from before the change would decide the first steps
    after it.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021).
    """

    @property
    @abstractmethod
    def switches(self) -> tuple[int, ...]:
        """Numbers of completed steps after which a weight changes."""

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one step of Adam, without its memory where a weight changes."""
        if self.done in self.switches:
            self.optimizer.state.clear()
        return super().step(batches)
