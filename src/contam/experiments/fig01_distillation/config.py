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
    pairs: tuple[str, ...] = ()
    """Ours: other presets of `PAIRS` whose teacher and student are trained in the same run, with
    the same folders, and drawn in the same Figure 1."""
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

    >>> config = clip_on("pacs", "ViT-B-32")
    >>> config.networks.teacher, config.networks.standard
    ('open_clip:ViT-B-32/openai', None)
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
IMAGENET_PAIRS = {
    "rn101": clip_on("imagenet", "RN101"),
    "vit": clip_on("imagenet", "ViT-B-16"),
    "rn50x4": clip_on("imagenet", "RN50x4"),
    "rn50x16": clip_on("imagenet", "RN50x16"),
}
"""Rows of Table 1 beside that of the paper's preset."""
OTHER_PAIRS = {
    "iwildcam": Config(networks=IWILDCAM),
    "camelyon17": clip_on("camelyon17", "ViT-B-16"),
    "domainnet": clip_on("domainnet", "RN50"),
    "domainnet_rn101": clip_on("domainnet", "RN101", distill=False),
    "domainnet_vit": clip_on("domainnet", "ViT-B-32", distill=False),
}
"""Rows of Tables 2 to 4."""
FIVE_PAIRS = Config(pairs=tuple(IMAGENET_PAIRS))
"""Table 1 in one run."""
FIGURE_1 = Config(pairs=(*IMAGENET_PAIRS, *OTHER_PAIRS))
"""Tables 1 to 4 in one run."""
LAPTOP = Config(networks=SMALL_NETWORKS, remedies=True, sweep=True, seeds=3)
DEMO = Config(
    networks=SMALL_NETWORKS.model_copy(update={"examples": 2000, "teacher_examples": 4500})
)
SMOKE = Config(networks=TINY_NETWORKS, remedies=True, sweep=True, least_id=0.0, seeds=2)
PAIRS = {"paper": PAPER, **IMAGENET_PAIRS, **OTHER_PAIRS, "smoke": SMOKE}
"""Presets whose teacher and student a run can add."""


def added_pairs(config: Config) -> dict[str, Config]:
    """The presets whose pairs a run adds, with the folders of its own networks.

    Args:
        config: the run's config.

    Source: ours, for Figure 1 in one run.

    Raises:
        ValueError: there is no such preset.

    >>> from pathlib import Path
    >>> networks = PAPER.networks.model_copy(update={"folder": Path("/data")})
    >>> added_pairs(Config(networks=networks, pairs=("vit",)))["vit"].networks.folder.name
    'data'
    """
    unknown = [name for name in config.pairs if name not in PAIRS]
    if unknown:
        raise ValueError(f"no pair {unknown[0]!r}; choose from {', '.join(PAIRS)}")
    folders = {"folder": config.networks.folder, "weights": config.networks.weights}
    return {
        name: PAIRS[name].model_copy(
            update={"networks": PAIRS[name].networks.model_copy(update=folders), "pairs": ()}
        )
        for name in dict.fromkeys(config.pairs)
    }
