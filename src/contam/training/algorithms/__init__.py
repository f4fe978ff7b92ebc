"""Algorithms of domain generalization, one file each.

To add one, subclass `Objective` (a loss) or `Algorithm` (a step), and list it in `ALGORITHMS`.
"""

from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings, Objective
from contam.training.algorithms.arm import ARM
from contam.training.algorithms.coral import CORAL
from contam.training.algorithms.dann import DANN
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.fish import Fish
from contam.training.algorithms.fishr import Fishr
from contam.training.algorithms.fit import AlgorithmStage, fit_algorithm
from contam.training.algorithms.group_dro import GroupDRO
from contam.training.algorithms.ib_erm import IBERM
from contam.training.algorithms.ib_irm import IBIRM
from contam.training.algorithms.irm import IRM
from contam.training.algorithms.large_dropout import LargeDropout
from contam.training.algorithms.mixup import Mixup
from contam.training.algorithms.mldg import MLDG
from contam.training.algorithms.rsc import RSC
from contam.training.algorithms.sagnet import SagNet
from contam.training.algorithms.selfreg import SelfReg
from contam.training.algorithms.swad import SWAD
from contam.training.algorithms.vrex import VREx
from contam.training.optimize import NotFiniteError

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmSettings",
    "AlgorithmStage",
    "NotFiniteError",
    "Objective",
    "fit_algorithm",
]

ALGORITHMS: dict[str, type[Algorithm]] = {
    "ERM": ERM,
    "IRM": IRM,
    "GroupDRO": GroupDRO,
    "Mixup": Mixup,
    "MLDG": MLDG,
    "CORAL": CORAL,
    "DANN": DANN,
    "SagNet": SagNet,
    "ARM": ARM,
    "VREx": VREx,
    "RSC": RSC,
    "SelfReg": SelfReg,
    "IB-ERM": IBERM,
    "IB-IRM": IBIRM,
    "Fish": Fish,
    "Fishr": Fishr,
    "SWAD": SWAD,
    "large dropout": LargeDropout,
}
"""Every algorithm by its name, in the order of App. E.4; the last three are not in the paper."""
