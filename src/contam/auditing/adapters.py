"""An audit every few epochs, in trainers that call back: Lightning's and Hugging Face's.

Neither is ever required. What is found stays at hand by epoch, and in a folder if one is named.
"""

import inspect
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import nn

from contam.auditing.api import audit
from contam.auditing.result import Audit
from contam.inputs.forms import named_sets
from contam.rng import preserve_rng
from contam.training.trainer_callbacks import base_of

LOG = logging.getLogger("contam.audit")
PAGE = "audit.html"


class Audits:
    """Audits of a network in training, at every so many epochs and at the end.

    `given` is what `audit` takes besides the network; there is no bar unless `progress` asks for
    one. With `on_error='note'` an audit that fails is logged and the training goes on, with 'raise'
    it ends it.

    Source: ours.

    Raises:
        ValueError: an interval below 1, `on_error` is something else, or data that one audit uses
            up.
        TypeError: `given` holds what `audit` does not take, or no ID data.
    """

    def __init__(
        self,
        *,
        every: int = 1,
        out: str | Path | None = None,
        on_error: Literal["note", "raise"] = "note",
        **given: Any,
    ) -> None:
        if every < 1:
            raise ValueError(f"want an audit every 1 epoch or more, not every {every}")
        if on_error not in ("note", "raise"):
            raise ValueError(f"on_error is 'note' or 'raise', not {on_error!r}")
        self.given = {"progress": False, **given}
        # A misspelled name is better told now than after the first epochs.
        inspect.signature(audit).bind(None, **self.given)
        self._data = [given["id"], *(each for _, each in named_sets(given.get("ood")))]
        if any(isinstance(each, Iterator) for each in self._data):
            raise ValueError(
                "an iterator is used up by the first audit; give the loader, or a list of batches"
            )
        self.every, self.on_error = every, on_error
        self.out = None if out is None else Path(out)
        self.by_epoch: dict[int, Audit] = {}
        """What was found, by how many epochs were done."""
        self._tried = 0

    def after(self, epoch: int, model: nn.Module, *, last: bool = False) -> None:
        """Say how many epochs are done; audit if it is time, or if they were the last.

        Raises:
            ValueError: the audit fails or can't be written, and `on_error` is 'raise'.
        """
        if epoch == self._tried or (epoch % self.every and not last):
            return
        self._tried = epoch
        try:
            with preserve_rng(*self._data):
                found = self.by_epoch[epoch] = audit(model, **self.given)
            if self.out is not None:
                folder = found.save(self.out / f"epoch-{epoch:04}")
                found.report(folder / PAGE)
        except Exception as error:  # a training of days does not end for want of an audit
            if self.on_error == "raise":
                raise
            LOG.warning("audit after epoch %d: %s", epoch, " ".join(str(error).split()))


def lightning(**settings: Any) -> Any:
    """A Lightning callback that audits the module that the trainer trains; `settings` of `Audits`.

    Its `audits` holds what was found. Of several processes the first alone audits.

    Source: ours.

    Raises:
        ValueError: Lightning is not installed, or a setting is out of range.
        TypeError: a setting that is none.
    """
    kind: Any = base_of("Callback", "lightning.pytorch", "pytorch_lightning")

    class AuditingCallback(kind):
        """Audits after epochs."""

        def __init__(self) -> None:
            super().__init__()
            self.audits = Audits(**settings)
            self._done = 0

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self._done = trainer.current_epoch + 1
            if trainer.is_global_zero:
                self.audits.after(self._done, pl_module)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                self.audits.after(self._done, pl_module, last=True)

    return AuditingCallback()


def hugging_face(**settings: Any) -> Any:
    """A `TrainerCallback` that audits the model that a `Trainer` trains; `settings` of `Audits`.

    Its `audits` holds what was found. Of several processes the first alone audits.

    Source: ours.

    Raises:
        ValueError: transformers is not installed, or a setting is out of range.
        TypeError: a setting that is none.
    """
    kind: Any = base_of("TrainerCallback", "transformers")

    class AuditingCallback(kind):
        """Audits after epochs."""

        def __init__(self) -> None:
            super().__init__()
            self.audits = Audits(**settings)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self._after(state, given["model"])

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self._after(state, given["model"], last=True)

        def _after(self, state: Any, model: nn.Module, *, last: bool = False) -> None:
            if state.is_world_process_zero and state.epoch:
                # An epoch that `max_steps` cut short counts as done.
                self.audits.after(math.ceil(state.epoch - 1e-6), model, last=last)

    return AuditingCallback()
