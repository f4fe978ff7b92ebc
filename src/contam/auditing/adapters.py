"""An audit every few epochs, as a callback of Lightning and Hugging Face; neither is required."""

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import nn

from contam.auditing.api import audit
from contam.auditing.result import Audit
from contam.inputs import named_sets
from contam.rng import preserve_rng
from contam.training.trainer_callbacks import (
    TrainingListener,
    hugging_face_callback,
    lightning_callback,
)

LOG = logging.getLogger("contam.audit")
PAGE = "audit.html"


class Audits(TrainingListener):
    """Audits of a network in training, every so many epochs and at the end.

    Args:
        every: epochs between two audits.
        out: folder in which audits and their pages are saved.
        on_error: `note` logs a failed audit and continues the training; `raise` ends the training.
        settings: the arguments of `audit` besides the network; `progress` is off unless given.

    Raises:
        ValueError: the interval is below 1, `on_error` is unknown, or the data are an iterator.
        TypeError: `audit` has no such argument, or the ID data are missing.

    >>> import torch
    >>> audits = Audits(every=5, id=(torch.rand(4, 2), torch.tensor([0, 1, 0, 1])))
    >>> audits.by_epoch
    {}
    """

    def __init__(
        self,
        *,
        every: int = 1,
        out: str | Path | None = None,
        on_error: Literal["note", "raise"] = "note",
        **settings: Any,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 epoch, not {every}")
        if on_error not in ("note", "raise"):
            raise ValueError(f"on_error is 'note' or 'raise', not {on_error!r}")
        self.settings = {"progress": False, **settings}
        # Report a misspelled name before training starts.
        inspect.signature(audit).bind(None, **self.settings)
        self._data = [settings["id"], *(data for _, data in named_sets(settings.get("ood")))]
        if any(isinstance(data, Iterator) for data in self._data):
            raise ValueError(
                "the first audit would exhaust an iterator; give the loader, or a list of batches"
            )
        self.every, self.on_error = every, on_error
        self.out = None if out is None else Path(out)
        self.by_epoch: dict[int, Audit] = {}
        """The audits by the number of completed epochs."""
        self._tried = 0

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """Audit the network after an epoch if it is time."""
        self.after(epoch, model)

    def on_end(self, model: nn.Module, epoch: int) -> None:
        """Audit the trained network."""
        self.after(epoch, model, last=True)

    def after(self, epoch: int, model: nn.Module, *, last: bool = False) -> None:
        """Audit the network if it is time, or if the training is complete.

        Args:
            epoch: number of completed epochs.
            model: the network.
            last: whether the training is complete.

        Raises:
            ValueError: the audit fails or can't be written, and `on_error` is 'raise'.
        """
        if epoch == self._tried or (epoch % self.every and not last):
            return
        self._tried = epoch
        try:
            with preserve_rng(*self._data):
                result = audit(model, **self.settings)
            # Without the network, which is trained further, and the examples of its repairs.
            self.by_epoch[epoch] = Audit(result.evidence)
            if self.out is not None:
                folder = result.save(self.out / f"epoch-{epoch:04}")
                result.report(folder / PAGE)
        except Exception as error:  # A failed audit must not end a training.
            if self.on_error == "raise":
                raise
            LOG.warning("audit after epoch %d: %s", epoch, " ".join(str(error).split()))


def lightning(**settings: Any) -> Any:
    """Return a Lightning callback that audits the module in training.

    Only the first of several processes audits.

    Args:
        settings: the arguments of `Audits`.

    Returns:
        The callback; its `listener` is the `Audits`.

    Raises:
        ValueError: Lightning is not installed, or a setting is out of range.
        TypeError: there is no such setting.

    >>> import torch
    >>> lightning(every=0, id=(torch.rand(2, 2), torch.tensor([0, 1])))
    Traceback (most recent call last):
        ...
    ValueError: every must be at least 1 epoch, not 0
    """
    return lightning_callback(Audits(**settings))


def hugging_face(**settings: Any) -> Any:
    """Return a `TrainerCallback` that audits the model of a Hugging Face `Trainer`.

    Only the first of several processes audits.

    Args:
        settings: the arguments of `Audits`.

    Returns:
        The callback; its `listener` is the `Audits`.

    Raises:
        ValueError: transformers is not installed, or a setting is out of range.
        TypeError: there is no such setting.

    >>> hugging_face(id=iter([]))
    Traceback (most recent call last):
        ...
    ValueError: the first audit would exhaust an iterator; give the loader, or a list of batches
    """
    return hugging_face_callback(Audits(**settings))
