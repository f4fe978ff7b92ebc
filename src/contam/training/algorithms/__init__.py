"""Algorithms of domain generalization, one file each.

To add one, subclass `Objective` (a loss) or `Algorithm` (a step), and list it in `ALGORITHMS`.
"""

from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings, Objective
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.fit import AlgorithmStage, fit_algorithm

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmSettings",
    "AlgorithmStage",
    "Objective",
    "fit_algorithm",
]

ALGORITHMS: dict[str, type[Algorithm]] = {
    "ERM": ERM,
}
"""Every algorithm by its name, in the order of App. E.4; the last ones are not in the paper."""
