"""Find out why a network fails on shifted data: predict and measure feature contamination.

The public names are imported when they are first used, so `import contam` is fast.

>>> import contam
>>> prediction = contam.predict_contamination(contam.Setting(steps=100))
>>> prediction.final.ood_hinge > 0.5
True
"""

from importlib import import_module

# As in `typing`, whose import takes most of the time until Ctrl-C ends a command without a word.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from contam import inputs
    from contam.auditing.api import audit
    from contam.auditing.multilabel import audit_multilabel
    from contam.auditing.result import Audit
    from contam.batch import Batch, Domain, Shift
    from contam.experiment import Claim, Experiment
    from contam.measures.accuracy import accuracy
    from contam.measures.activation import activation_asymmetry
    from contam.measures.attenuation import class_profile_attenuation
    from contam.measures.class_means import ClassMeans
    from contam.measures.class_profiles import class_profiles
    from contam.measures.depth import model_depths
    from contam.measures.gradcam import heat_maps
    from contam.measures.robustness import effective_robustness
    from contam.measures.selectivity import selectivity
    from contam.measures.usable_information import usable_information
    from contam.models.classifier import Classifier
    from contam.models.observe import observe
    from contam.monitor.training_monitor import watch
    from contam.run import Run
    from contam.saved_results import load
    from contam.theory.distribution import DataModel
    from contam.theory.features import FeatureModel
    from contam.theory.population import predict_contamination
    from contam.theory.trajectory import Setting, simulate
    from contam.training.distill import distill
    from contam.training.probe import fit_probe
    from contam.trials.api import trial
    from contam.trials.result import Trial

__version__: str

_MODULES = {
    "Audit": "auditing.result",
    "audit": "auditing.api",
    "audit_multilabel": "auditing.multilabel",
    "watch": "monitor.training_monitor",
    "Batch": "batch",
    "Domain": "batch",
    "Shift": "batch",
    "Classifier": "models.classifier",
    "observe": "models.observe",
    "accuracy": "measures.accuracy",
    "activation_asymmetry": "measures.activation",
    "ClassMeans": "measures.class_means",
    "class_profile_attenuation": "measures.attenuation",
    "class_profiles": "measures.class_profiles",
    "effective_robustness": "measures.robustness",
    "heat_maps": "measures.gradcam",
    "model_depths": "measures.depth",
    "selectivity": "measures.selectivity",
    "usable_information": "measures.usable_information",
    "distill": "training.distill",
    "fit_probe": "training.probe",
    "Claim": "experiment",
    "Experiment": "experiment",
    "Run": "run",
    "load": "saved_results",
    "DataModel": "theory.distribution",
    "FeatureModel": "theory.features",
    "predict_contamination": "theory.population",
    "Setting": "theory.trajectory",
    "simulate": "theory.trajectory",
    "trial": "trials.api",
    "Trial": "trials.result",
}
"""The module of each public name."""

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
    "Trial",
    "__version__",
    "accuracy",
    "activation_asymmetry",
    "audit",
    "audit_multilabel",
    "class_profile_attenuation",
    "class_profiles",
    "distill",
    "effective_robustness",
    "fit_probe",
    "heat_maps",
    "inputs",
    "load",
    "model_depths",
    "observe",
    "predict_contamination",
    "selectivity",
    "simulate",
    "trial",
    "usable_information",
    "watch",
]


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        # Not on import: the first half second of a command belongs to its own messages.
        return import_module("importlib.metadata").version("contam")
    if name == "inputs":
        return import_module("contam.inputs")
    if name not in _MODULES:
        raise AttributeError(f"module 'contam' has no attribute {name!r}")
    return getattr(import_module(f"contam.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
