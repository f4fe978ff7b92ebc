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
        out: folder in which each audit and its page are saved.
        on_error: `note` logs an audit that fails and the training continues; `raise` ends it.
        settings: the arguments of `audit` besides the network; `progress` is off unless given.

    Raises:
        ValueError: an interval below 1, another `on_error`, or data that one audit uses up.
        TypeError: `audit` does not take one of the settings, or there are no ID data.
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
            raise ValueError(f"want an audit every 1 epoch or more, not every {every}")
        if on_error not in ("note", "raise"):
            raise ValueError(f"on_error is 'note' or 'raise', not {on_error!r}")
        self.settings = {"progress": False, **settings}
        # A misspelled name is reported now and not after the first epochs.
        inspect.signature(audit).bind(None, **self.settings)
        self._data = [settings["id"], *(data for _, data in named_sets(settings.get("ood")))]
        if any(isinstance(data, Iterator) for data in self._data):
            raise ValueError(
                "an iterator is used up by the first audit; give the loader, or a list of batches"
            )
        self.every, self.on_error = every, on_error
        self.out = None if out is None else Path(out)
        self.by_epoch: dict[int, Audit] = {}
        """The audits by the number of epochs that were done."""
        self._tried = 0

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        self.after(epoch, model)

    def on_end(self, model: nn.Module, epoch: int) -> None:
        self.after(epoch, model, last=True)

    def after(self, epoch: int, model: nn.Module, *, last: bool = False) -> None:
        """Audit the network if it is time, or if the training is complete.

        Args:
            epoch: the number of epochs that are done.
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
                result = self.by_epoch[epoch] = audit(model, **self.settings)
            if self.out is not None:
                folder = result.save(self.out / f"epoch-{epoch:04}")
                result.report(folder / PAGE)
        except Exception as error:  # an audit that fails must not end a training
            if self.on_error == "raise":
                raise
            LOG.warning("audit after epoch %d: %s", epoch, " ".join(str(error).split()))


def lightning(**settings: Any) -> Any:
    """A Lightning callback that audits the module that the trainer trains.

    Its `listener` is the `Audits`. Of several processes only the first one audits.

    Args:
        settings: the arguments of `Audits`.

    Raises:
        ValueError: Lightning is not installed, or a setting is out of range.
        TypeError: there is no such setting.
    """
    return lightning_callback(Audits(**settings))


def hugging_face(**settings: Any) -> Any:
    """A `TrainerCallback` that audits the model that a Hugging Face `Trainer` trains.

    Its `listener` is the `Audits`. Of several processes only the first one audits.

    Args:
        settings: the arguments of `Audits`.

    Raises:
        ValueError: transformers is not installed, or a setting is out of range.
        TypeError: there is no such setting.
    """
    return hugging_face_callback(Audits(**settings))
