"""Which teacher, student and standard networks are trained, on which data."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, PositiveInt

from contam.experiments.support.networks import SMALL_NETWORKS, TINY_NETWORKS, Networks
from contam.training.optimize import Recipe

NAME = "fig01_distillation"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. E.1's: CLIP-RN50 on ImageNet, its student, and a standard ResNet-50."""

    networks: Networks = Networks()
    distill: bool = True
    """Whether the teacher has a student. Table 4 has two teachers without one."""
    standard_models: Path | None = None
    """Ours: a CSV of standard models on the same data, from which the line is fitted. It has the
    columns `id` and `ood`, the mean OOD score; or those of ImageNet's testbed."""
    also: tuple[Path, ...] = ()
    """Ours: folders of finished runs of this experiment or of `tab04_baselines`, drawn in the same
    Figure 1."""
    remedies: bool = False
    """Ours: also train a standard network with centered maps, and one with instance norm."""
    sweep: bool = False
    """Ours: draw the line through weaker standard networks that are trained here."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.55
    """Standard networks below this ID accuracy are left out of the line."""
    seeds: PositiveInt = 1


def clip_on(data: Any, teacher: str, *, distill: bool = True) -> Config:
    """The config of a CLIP teacher on a published benchmark.

    Args:
        data: name of the benchmark.
        teacher: architecture of the teacher.
        distill: whether it has a student.

    Source: Tab. 1, Tab. 3, Tab. 4.
    """
    networks = Networks(data=data, teacher=f"open_clip:{teacher}/openai", standard=None)
    return Config(networks=networks, distill=distill)


IWILDCAM = Networks(
    data="iwildcam",
    teacher="torchvision:resnet50",
    # The settings of the WILDS repository; AdamW without weight decay is Adam.
    teacher_recipe=Recipe(3e-5, 0.0, 16, epochs=12, cosine=False),
    teacher_start_from="torchvision:resnet50",
    standard=None,
)
"""App. E.2: the teacher is fine-tuned on iWildCam from weights pre-trained on ImageNet."""
PAPER = Config()
LAPTOP = Config(networks=SMALL_NETWORKS, remedies=True, sweep=True, seeds=3)
DEMO = Config(
    networks=SMALL_NETWORKS.model_copy(update={"examples": 2000, "teacher_examples": 4500})
)
SMOKE = Config(networks=TINY_NETWORKS, remedies=True, sweep=True, least_id=0.0, seeds=2)
