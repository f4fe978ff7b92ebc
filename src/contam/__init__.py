"""Why a network fails on shifted data: feature contamination, reproduced, predicted and measured.

The public names below are imported when first used, so that `import contam` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contam.audit.door import audit
    from contam.audit.result import Audit
    from contam.batch import Batch, Domain, Shift
    from contam.data.digits import padded_digits
    from contam.experiment import Claim, Experiment
    from contam.experiments import IN_PAPER_ORDER, find
    from contam.measures.accuracy import accuracy
    from contam.measures.activation import activation_asymmetry
    from contam.measures.class_means import ClassMeans
    from contam.measures.class_profiles import class_profiles
    from contam.measures.selectivity import selectivity
    from contam.models.blocks import blocks_of
    from contam.models.classifier import Classifier
    from contam.models.observe import observe
    from contam.run import Run
    from contam.seeds import stream
    from contam.theory.distribution import DataModel
    from contam.theory.features import FeatureModel
    from contam.theory.population import predict
    from contam.theory.trajectory import Setting, simulate
    from contam.training.loop import Progress, train
    from contam.watching.watcher import watch

__version__ = version("contam")

_HOMES = {
    "Audit": "audit.result",
    "audit": "audit",
    "Batch": "batch",
    "Domain": "batch",
    "Shift": "batch",
    "padded_digits": "data.digits",
    "Claim": "experiment",
    "Experiment": "experiment",
    "IN_PAPER_ORDER": "experiments",
    "find": "experiments",
    "accuracy": "measures.accuracy",
    "activation_asymmetry": "measures.activation",
    "ClassMeans": "measures.class_means",
    "class_profiles": "measures.class_profiles",
    "selectivity": "measures.selectivity",
    "blocks_of": "models.blocks",
    "Classifier": "models.classifier",
    "observe": "models.observe",
    "Run": "run",
    "stream": "seeds",
    "DataModel": "theory.distribution",
    "FeatureModel": "theory.features",
    "predict": "theory.population",
    "Setting": "theory.trajectory",
    "simulate": "theory.trajectory",
    "Progress": "training.loop",
    "train": "training.loop",
    "watch": "watching.watcher",
}

__all__ = [
    "IN_PAPER_ORDER",
    "Audit",
    "Batch",
    "Claim",
    "ClassMeans",
    "Classifier",
    "DataModel",
    "Domain",
    "Experiment",
    "FeatureModel",
    "Progress",
    "Run",
    "Setting",
    "Shift",
    "__version__",
    "accuracy",
    "activation_asymmetry",
    "audit",
    "blocks_of",
    "class_profiles",
    "find",
    "observe",
    "padded_digits",
    "predict",
    "selectivity",
    "simulate",
    "stream",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'contam' has no attribute {name!r}")
    home = import_module(f"contam.{_HOMES[name]}")
    # The package of the audit is called like the function, and is both.
    return home if name == _HOMES[name] else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
