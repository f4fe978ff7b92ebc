"""The methods of a comparison, by name: algorithms, changes of the training, repairs, and own ones.

References have more data than the algorithms: a teacher that was pre-trained on other backgrounds,
and what learns from it.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from contam.models.sources import imported
from contam.remedies import REPAIRS, WeightInterpolation
from contam.training.algorithms import ALGORITHMS, Algorithm
from contam.training.changes import CHANGES, TrainingChange

Kind = Literal["algorithm", "change", "repair", "reference"]
ERM, TEACHER, DISTILLATION = "ERM", "teacher", "distillation"
FINE_TUNING, INTERPOLATION = "fine-tuning", WeightInterpolation.name
BALANCED = "balanced domains"
POOLED = TrainingChange(
    "pooled sampling",
    "Minibatches are drawn from all training examples alike, so that larger domains have more.",
)
"""What undoes the balanced domains of a comparison's minibatches."""
AFTER = {
    DISTILLATION: (TEACHER,), FINE_TUNING: (TEACHER,), INTERPOLATION: (TEACHER, FINE_TUNING),
}  # fmt: skip
"""The methods whose networks a reference starts from."""
PAPER = (
    "ERM", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "DANN", "SagNet", "ARM", "VREx", "RSC",
    "SelfReg", "IB-ERM", "IB-IRM", "Fish",
)  # fmt: skip
"""The baselines of the paper.

Source: App. E.4.
"""


PRETRAINING = "pre-training on other backgrounds"
"""What the teacher uses besides the training domains."""


@dataclass(frozen=True)
class Method:
    """One method of a comparison."""

    name: str
    """The name in commands, tables and figures."""
    kind: Kind
    """A change is one of ERM's training, and a repair one of the network that ERM trained."""
    target: Any = None
    """A subclass of `Algorithm`, a `TrainingChange`, a `Repair`, or a function
    `repair(network, data)` of the user's."""
    code: str = ""
    """Digest of the file of a method of the user's, whose results belong to this code alone."""
    uses: str = ""
    """What the method uses besides the training domains; empty for nothing."""

    @property
    def part(self) -> str:
        """Name in the parts of runs.

        >>> METHODS["large dropout"].part
        'large_dropout'
        """
        plain = "".join(c if c.isalnum() or c in "-." else "_" for c in self.name)
        return f"{plain}+{self.code}" if self.code else plain


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(Method(name, "algorithm", algorithm) for name, algorithm in ALGORITHMS.items()),
        *(
            Method(name, "change", change, uses="masks" if change.needs_masks else "")
            for name, change in CHANGES.items()
            # Minibatches of a comparison have as many examples of each domain already.
            if name != "no change" and not change.balances_domains
        ),
        Method(POOLED.name, "change", POOLED),
        *(
            Method(
                repair.title, "repair", repair,
                uses="labels of test domains" if "OOD labels" in repair.needs
                else "images of test domains" if repair.uses_ood else "",
            )
            for repair in REPAIRS
        ),
        Method(TEACHER, "reference", uses=PRETRAINING),
        Method(FINE_TUNING, "reference", uses=PRETRAINING),
        Method(INTERPOLATION, "reference", uses=PRETRAINING),
        Method(DISTILLATION, "reference", uses="features of the teacher"),
    )
}  # fmt: skip
"""Every method by its name."""


def find_method(name: str) -> Method:
    """Return a method by name, or the user's own by `package.module:object`.

    Own methods are subclasses of `contam.training.algorithms.Algorithm`, and functions
    `repair(network, data)` that get the network that ERM trained and the training domains as a
    `Shift` (held-out parts are its `id_val`), and return a network.

    Args:
        name: a name of `METHODS`, in upper or lower case, or `package.module:object`.

    Raises:
        ValueError: there is no such method; the message suggests the nearest name. Or the object
            cannot be imported or is neither of the two.

    Source: ours, a method of the user's is named like those of the table.

    >>> find_method("coral").name
    'CORAL'
    """
    if ":" in name:
        return _own(name)
    by_spelling = {known.lower(): method for known, method in METHODS.items()}
    spelled = name.strip().lower().replace("_", " ")
    for candidate in (spelled, spelled.replace(" ", "-"), spelled.replace("-", " ")):
        if candidate in by_spelling:
            return by_spelling[candidate]
        if candidate == BALANCED:
            raise ValueError(
                f"ERM already has {BALANCED}, since its minibatches have as many examples of every "
                f"training domain; compare {POOLED.name!r} to see what that does"
            )
    close = [by_spelling[key].name for key in get_close_matches(spelled, by_spelling, n=3)]
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"choose from {', '.join(METHODS)}, or give your own as package.module:object"
    )
    raise ValueError(f"no method {name!r}; {hint}")


def _own(name: str) -> Method:
    target = imported(name)
    if isinstance(target, type):
        if not issubclass(target, Algorithm):
            raise ValueError(
                f"{name} is a class, but not a subclass of contam.training.algorithms.Algorithm; "
                "derive it from Algorithm or Objective"
            )
        if inspect.isabstract(target):
            missing = " and ".join(sorted(target.__abstractmethods__))
            raise ValueError(f"{name} does not define {missing}; add it to the class")
        if not isinstance(getattr(target, "name", None), str):
            raise ValueError(f"{name} has no name; add a line such as name = {target.__name__!r}")
        return Method(name, "algorithm", target, code=_digest(target))
    if not callable(target):
        raise ValueError(
            f"{name} is a {type(target).__name__}; expected a subclass of Algorithm or a function "
            "repair(network, data)"
        )
    return Method(name, "repair", target, code=_digest(target))


def _digest(target: Callable[..., Any]) -> str:
    """Hash the file in which an object is defined."""
    module = sys.modules.get(target.__module__)
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8] if file else "unknown"
