"""Why a network fails on shifted data: feature contamination, reproduced, predicted and measured.

The public names below are imported when first used, so that `import contam` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contam.auditing.api import audit
    from contam.auditing.result import Audit
    from contam.batch import Batch, Domain, Shift
    from contam.experiment import Claim, Experiment
    from contam.measures.accuracy import accuracy
    from contam.measures.activation import activation_asymmetry
    from contam.measures.class_means import ClassMeans
    from contam.measures.class_profiles import class_profiles
    from contam.measures.selectivity import selectivity
    from contam.models.blocks import blocks_of
    from contam.models.classifier import Classifier
    from contam.models.observe import observe
    from contam.monitor.training_monitor import watch
    from contam.run import Run
    from contam.theory.distribution import DataModel
    from contam.theory.features import FeatureModel
    from contam.theory.population import predict_contamination
    from contam.theory.trajectory import Setting, simulate

__version__ = version("contam")

_HOMES = {
    "Audit": "auditing.result",
    "audit": "auditing.api",
    "Batch": "batch",
    "Domain": "batch",
    "Shift": "batch",
    "Claim": "experiment",
    "Experiment": "experiment",
    "accuracy": "measures.accuracy",
    "activation_asymmetry": "measures.activation",
    "ClassMeans": "measures.class_means",
    "class_profiles": "measures.class_profiles",
    "selectivity": "measures.selectivity",
    "blocks_of": "models.blocks",
    "Classifier": "models.classifier",
    "observe": "models.observe",
    "watch": "monitor.training_monitor",
    "Run": "run",
    "DataModel": "theory.distribution",
    "FeatureModel": "theory.features",
    "predict_contamination": "theory.population",
    "Setting": "theory.trajectory",
    "simulate": "theory.trajectory",
}

__all__ = [
    "Audit",
    "Batch",
    "Claim",
    "ClassMeans",
    "Classifier",
    "DataModel",
    "Domain",
    "Experiment",
    "FeatureModel",
    "Run",
    "Setting",
    "Shift",
    "__version__",
    "accuracy",
    "activation_asymmetry",
    "audit",
    "blocks_of",
    "class_profiles",
    "observe",
    "predict_contamination",
    "selectivity",
    "simulate",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'contam' has no attribute {name!r}")
    return getattr(import_module(f"contam.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
