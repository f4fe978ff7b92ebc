"""Which networks are compared, on how many images, and under which controlled shifts."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import BaseModel, PositiveInt

from contam.data.shapes import Scenes, blended, stylized
from contam.experiments.support.networks import (
    CALIBRATED,
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the OOD background in the controlled shift."""


class ControlledShift(NamedTuple):
    """A shift of the embedded benchmark with a strength."""

    draw: Callable[..., Scenes]
    """From a seed, a strength and a number of objects."""
    axis: str
    title: str
    about: str


SHIFTS = {
    "shift": ControlledShift(
        blended, "share of the OOD background", "while its background changes",
        "The object does not change, and its background turns from an ID one into an OOD one.",
    ),
    "style": ControlledShift(
        stylized, "strength of the style transfer", "in the style of an OOD background",
        "The image takes the colors, the contrast and the strength of details of an OOD "
        "background, by matching the mean and standard deviation of filter responses. The object "
        "changes its colors too.",
    ),
}  # fmt: skip
"""The exchange of backgrounds, and style transfer."""
OTHERS = {"ERM": ERM, "untrained": UNTRAINED, "calibrated": CALIBRATED}


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (Sec. 5) unless a field says otherwise."""

    networks: Networks = Networks(data="domainnet", standard=None)
    others: tuple[Literal["ERM", "untrained", "calibrated"], ...] = ("untrained", "calibrated")
    """Ours: networks to compare with the teacher and the student; two have random weights."""
    images: PositiveInt = 200
    """Ours: images of each OOD test; the ID test has as many as all OOD tests together. Of a
    published benchmark, as many ID images are restyled."""
    objects: PositiveInt = 600
    """Ours: objects under the controlled shifts of the embedded benchmark."""
    seeds: PositiveInt = 1

    @property
    def specs(self) -> list[NetworkSpec]:
        """The networks that are compared."""
        return [TEACHER, STUDENT, *(OTHERS[name] for name in dict.fromkeys(self.others))]

    @property
    def shifts(self) -> list[str]:
        """The controlled shifts of the data: images without masks are only restyled."""
        return [*SHIFTS] if self.networks.masked else ["style"]

    @property
    def region(self) -> Literal["object", "picture"]:
        """Where heat is averaged: on the object, or everywhere without masks of objects."""
        return "object" if self.networks.masked else "picture"


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={"networks": SMALL_NETWORKS, "others": ("ERM", "untrained", "calibrated"), "seeds": 3}
)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "images": 40, "objects": 200, "seeds": 2}
)
