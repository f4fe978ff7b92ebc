"""The data, the network and its training, with the settings of the published code."""

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.measures.depth import Rule

CHEST_RULE = Rule(k=29, metric="l1", reference="last probe", margin=0.13)
"""The published rule for chest X-rays; the margin gives its votes. See `chest_depth`."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are those of the published code unless a field says otherwise."""

    kind: str = "nih-cxr"
    """A kind of `contam.data.chest_xray.chest_xrays`, or drawn."""
    folder: Path = Path("data/nih-cxr")
    label: str = "Pneumothorax"
    group: str | None = None
    """Column with the group of each image."""
    annotations: Path | None = Path("data/nih-cxr/drains.csv")
    """Table with columns image and group instead; NIH's set does not say who has a drain."""
    with_drain: str = "drain"
    """Name of the group whose positive images may be easier."""
    network: str = "torchvision:densenet121"
    """A name that `contam.models.sources.load` knows, or resnet8."""
    side: PositiveInt = 128
    epochs: PositiveInt = 25
    batch_size: PositiveInt = 64
    step_size: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 1e-5
    """L2 penalty of Adam in its AMSGrad variant."""
    positive_weight: PositiveFloat | None = None
    """Weight of positive images in the loss; None takes the number of negative over that of
    positive training images, which was 20.16."""
    rule: Rule = CHEST_RULE
    per_class: PositiveInt = 500
    """Ours: training images of each class in the support; the published size is not given."""
    queries: PositiveInt = 1000
    """Test images whose depth is measured."""
    heated: PositiveInt = 200
    """Ours, drawn X-rays: ill test images with a drain whose heat is measured, at most."""
    agreement: PositiveFloat = 0.9
    """Ours, drawn X-rays: share of images whose drain agrees with the label."""
    train: PositiveInt = 1600
    """Ours: number of drawn training images."""
    test: PositiveInt = 1200
    """Ours: number of drawn images of each test."""
    seeds: PositiveInt = 3
    """Ours: one was published."""


PAPER = Config()
CHEXPERT = Config(
    kind="chexpert", folder=Path("data/CheXpert-v1.0-small"), group="Support Devices",
    annotations=None, with_drain="1.0",
)  # fmt: skip
LAPTOP = Config(
    kind="drawn",
    annotations=None,
    network="resnet8",
    side=32,
    epochs=8,
    batch_size=32,
    step_size=3e-3,
    per_class=300,
    queries=300,
)
SMOKE = LAPTOP.model_copy(
    update={
        "epochs": 2, "batch_size": 20, "train": 160, "test": 80, "per_class": 30, "queries": 40,
        "rule": Rule(k=9, metric="l1", reference="last probe", margin=0.13), "seeds": 2,
    }
)  # fmt: skip


class ChestCase(NamedTuple):
    """A network: the data it learns from, and whether it learns."""

    data: str
    """`correlated` for the data as it is, `control` for drains independent of the label."""
    state: str
    """`trained`, or `untrained` for weights that do not move; batch norms are calibrated."""

    def part(self, seed: int) -> str:
        """The part of a run that holds its rows."""
        return f"net/{self.data}-{self.state}/seed{seed}"


CASES = tuple(ChestCase(d, s) for d in ("correlated", "control") for s in ("trained", "untrained"))
