"""Configs, specs and recipes of the networks that the image experiments compare."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, PositiveInt

from contam.data.benchmarks import Kind
from contam.experiment import NULL_STEP_SIZE
from contam.models import efficientnet_lite
from contam.training.distill import PUBLISHED as DISTILLED
from contam.training.distill import SCRIPTS, Distillation
from contam.training.optimize import Recipe
from contam.training.precision import PLAIN, ComputeConfig
from contam.training.probe import PUBLISHED as PROBED
from contam.training.probe import SCRIPTS as SCRIPTED_PROBES
from contam.training.probe import FullBatch, Minibatches

SMALL = "resnet8"
"""Name of the small network for the embedded benchmark; it is always trained here."""

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
Published = TypeVar("Published")


class Networks(BaseModel, frozen=True, extra="forbid"):
    """Data and networks. Defaults are those of App. E.1 unless a field says otherwise."""

    data: Kind = "imagenet"
    folder: Path = Path("data")
    """Folder with the files of a published benchmark; the embedded benchmark needs none."""
    weights: Path = Path("weights")
    """Folder with published weights, in files named after their networks."""
    teacher: str = "open_clip:RN50/openai"
    """A name for `contam.models.sources.load`, or resnet8; also the student's architecture.

    On the embedded benchmark, a network of a library is shown enlarged images, of `side` pixels."""
    standard: str | None = "torchvision:resnet50"
    """Architecture of the network that is trained on ID labels only; None for no such network."""
    teacher_recipe: Recipe | None = None
    """How the teacher is trained here: pre-trained on the embedded benchmark (ours), or fine-tuned
    on a published one from `teacher_start_from`. None takes its weights from a file."""
    teacher_start_from: str | None = None
    """The file in `weights` from which the teacher's training starts, named after this network."""
    student_recipe: Distillation | None = None
    """None uses the recipe that was published for this teacher and this data; for the embedded
    benchmark there is none, and no student."""
    standard_recipe: Recipe | None = None
    """How a standard network is trained here; None takes its weights from a file."""
    standard_start_from: str | None = None
    """The file in `weights` from which the standard network's training starts, named after this
    network; its head may have other classes. None starts from random weights."""
    published: Literal["text", "scripts"] = "text"
    """Source of the recipes of students and probes that are None: the paper or its code."""
    side: PositiveInt | None = None
    """Pixels of the square inputs; None takes the benchmark's, such as 448 for iWildCam, or else
    the network's own."""
    probe: FullBatch | Minibatches | None = None
    """None uses the recipe that was published for this data."""
    compute: ComputeConfig = PLAIN
    """Ours: precision, accumulation and memory layout; the published numbers are in float32."""
    width: PositiveInt = 16
    """Ours: channels of the first stage of resnet8."""
    examples: PositiveInt = 4000
    """Ours: training images of the embedded benchmark."""
    teacher_examples: PositiveInt = 9000
    """Ours: pre-training images of the embedded benchmark."""
    id_examples: PositiveInt = 2000
    """Ours: images of the embedded benchmark's ID test."""
    ood_examples: PositiveInt = 400
    """Ours: images of each of the embedded benchmark's five OOD tests."""

    @property
    def masked(self) -> bool:
        """Whether the data has masks of its objects, so that their backgrounds can be changed."""
        return self.data == "shapes"


SMALL_NETWORKS = Networks(
    data="shapes",
    teacher=SMALL,
    standard=SMALL,
    teacher_recipe=Recipe(3e-3, 0.05, 128, epochs=12),
    student_recipe=Distillation(3e-3, 0.05, 128, epochs=24),
    standard_recipe=Recipe(3e-3, 0.05, 128, epochs=12),
    probe=FullBatch(penalties=(1e-1, 1e-2, 1e-3, 1e-4)),
)
"""The embedded benchmark: teacher, student and standard network take a minute for each seed."""
REFERENCE_NETWORKS = Networks(
    data="shapes",
    teacher=efficientnet_lite.NAME,
    standard=None,
    side=128,
    probe=FullBatch(penalties=(1e-1, 1e-2, 1e-3, 1e-4)),
    examples=1000,
    id_examples=600,
    ood_examples=200,
)
"""An encoder that was trained on ImageNet, of the extra `reference`, on the embedded benchmark."""
TINY_NETWORKS = SMALL_NETWORKS.model_copy(
    update={
        "teacher_recipe": Recipe(3e-3, 0.05, 50, epochs=2),
        "student_recipe": Distillation(3e-3, 0.05, 40, epochs=2),
        "standard_recipe": Recipe(3e-3, 0.05, 40, epochs=2),
        "width": 4,
        "examples": 200,
        "teacher_examples": 250,
        "id_examples": 200,
        "ood_examples": 40,
    }
)
"""For tests: it trains in seconds and learns little."""


def without_learning(networks: Networks) -> Networks:
    """The same networks, trained with step sizes at which nothing is learned; probes are fitted.

    Source: ours, null runs have the same networks with step sizes that change nothing.

    Raises:
        ValueError: a network's weights come from a file, or its recipe is looked up.

    >>> without_learning(TINY_NETWORKS).student_recipe.step_size
    1e-09
    """
    recipes = {
        name: getattr(networks, name)
        for name in ("teacher_recipe", "student_recipe", "standard_recipe")
        if name != "standard_recipe" or networks.standard is not None
    }
    if missing := [name for name, recipe in recipes.items() if recipe is None]:
        raise ValueError(f"a null run trains all networks here; set {' and '.join(missing)}")
    return networks.model_copy(
        update={name: replace(recipe, step_size=NULL_STEP_SIZE) for name, recipe in recipes.items()}
    )


class NetworkSpec(NamedTuple):
    """One network of the zoo: its training data and its settings."""

    name: str
    """The name in tables and figures."""
    learns: Literal["nothing", "statistics", "labels", "features", "pretraining", "captions"]
    """Labels of the training data, the teacher's features of it, or a teacher's own data.

    Statistics are those of batch norms alone; the weights stay random.
    Captions also name the background, and belong to images of the ID and of the OOD families.
    """
    examples: int | None = None
    """Number of training images, the first ones; None for all."""
    epochs: int | None = None
    """None uses the number in the recipe."""
    width: int | None = None
    """Channels of the first stage of resnet8; None uses the config's."""
    normalization: Literal["batch", "centered", "instance"] = "batch"
    families: int | None = None
    """Families of backgrounds in the pre-training data of the embedded benchmark, none of which is
    in its OOD tests; None uses those of the teacher or of the captioned teacher."""
    start: Literal["pretraining", "captions"] | None = None
    """What the encoder learned, from as many families, before the network learns labels with a new
    head; None starts from random weights."""

    @property
    def part(self) -> str:
        """Name of its part in the zoo's run: all fields except the name.

        >>> NetworkSpec("ERM, 3 epochs", "labels", epochs=3).part
        'labels+epochs=3'
        """
        fields = self._asdict() | {"name": None, "learns": None}
        changed = [
            f"{key}={value}" for key, value in fields.items() if value not in (None, "batch")
        ]
        return "+".join([self.learns, *changed])

    @property
    def before(self) -> "NetworkSpec | None":
        """The network from whose encoder the training starts.

        >>> NetworkSpec("fine-tuned", "labels", families=3, start="pretraining").before.part
        'pretraining+families=3'
        """
        if self.start is None:
            return None
        return NetworkSpec(f"before {self.name}", self.start, families=self.families)


UNTRAINED = NetworkSpec("untrained", "nothing")
CALIBRATED = NetworkSpec("calibrated", "statistics")
"""Random weights, with the statistics of its batch norms on the training data; without batch norms
it is the untrained network."""
TEACHER = NetworkSpec("teacher", "pretraining")
CAPTIONED = NetworkSpec("captioned teacher", "captions")
"""A teacher of the embedded benchmark that is trained on captions, also of OOD families."""
STUDENT = NetworkSpec("student", "features")
ERM = NetworkSpec("ERM", "labels")
CENTERED = NetworkSpec("ERM, centered maps", "labels", normalization="centered")
INSTANCE = NetworkSpec("ERM, instance norm", "labels", normalization="instance")
SWEEP = (
    NetworkSpec("ERM, 2000 images", "labels", examples=2000, epochs=12),
    NetworkSpec("ERM, 1000 images", "labels", examples=1000, epochs=20),
    NetworkSpec("ERM, 3 epochs", "labels", epochs=3),
    NetworkSpec("ERM, 6 epochs", "labels", epochs=6),
    NetworkSpec("ERM, half the width", "labels", width=8),
    NetworkSpec("ERM, a quarter of the width", "labels", width=4),
)
"""Weaker standard networks of the embedded benchmark, to fit a line of OOD on ID accuracy."""


def student_recipe(config: Networks) -> Distillation:
    """Return the recipe of the student: the config's, or else the published one.

    Raises:
        ValueError: there is neither.

    >>> student_recipe(Networks()).epochs
    100
    """
    recipes = DISTILLED if config.published == "text" else SCRIPTS
    published = recipes.get((config.data, _plain(config.teacher)))
    return _required(config.student_recipe or published, "student_recipe", config)


def probe_recipe(config: Networks, spec: NetworkSpec) -> FullBatch | Minibatches:
    """Return the recipe of a network's probe: the config's, or else the published one.

    Raises:
        ValueError: there is neither.
    """
    role = "student" if spec.learns == "features" else "teacher"
    probes = PROBED if config.published == "text" else SCRIPTED_PROBES
    return _required(config.probe or probes.get((config.data, role)), "probe", config)


def with_epochs(recipe: AnyRecipe, spec: NetworkSpec) -> AnyRecipe:
    """Return the recipe with the epochs of the spec, if it has any."""
    return recipe if spec.epochs is None else replace(recipe, epochs=spec.epochs, steps=None)


def _required(recipe: Published | None, field: str, config: Networks) -> Published:
    """Return the recipe, or raise an error that names the field to set."""
    if recipe is None:
        raise ValueError(
            f"no recipe was published for {config.teacher} on {config.data}; set {field}"
        )
    return recipe


def _plain(name: str) -> str:
    """The architecture in the name of a network: RN50 in open_clip:RN50/openai."""
    return name.partition(":")[2].partition("/")[0]
