"""The networks that are compared, and how they are trained."""

from dataclasses import replace
from typing import Literal, NamedTuple

from pydantic import BaseModel, PositiveFloat, PositiveInt, model_validator

from contam.experiment import NULL_STEP_SIZE
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting

Kind = Literal["mlp", "linear", "resnet", "vit"]
Optimizer = Literal["sgd", "momentum", "adamw"]
NAMES: dict[Optimizer, str] = {"sgd": "SGD", "momentum": "SGD with momentum", "adamw": "AdamW"}
"""Names of the optimizers in figures."""
KINDS: dict[Kind, str] = {
    "mlp": "MLP", "linear": "linear MLP", "resnet": "ResNet", "vit": "ViT"
}  # fmt: skip
"""Names of the kinds of network; a linear MLP has no activation function."""
IMAGE_KINDS: tuple[Kind, ...] = ("resnet", "vit")
"""Networks for images."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper trains networks of one depth with one optimizer."""

    hidden_layers: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5)
    """Hidden layers of the MLPs; the deepest is trained without an activation function, too."""
    mlp: Setting = Setting(
        data=DataModel(FeatureModel(dictionary="rotated")), ambient=True, head="trained",
        loss="logistic", step_size=0.1, batch_size=256, steps=500,
    )  # fmt: skip
    """The data and the training of the MLPs; the step size is that of SGD."""
    mlp_momentum_step_size: PositiveFloat = 0.02
    """Step size of SGD with momentum for MLPs."""
    mlp_adamw_step_size: PositiveFloat = 1e-3
    """Step size of AdamW for MLPs."""
    examples: PositiveInt = 4000
    """Held-out examples of each distribution for MLPs."""
    resnets: tuple[PositiveInt, ...] = (2, 4, 8)
    """Blocks of the residual networks."""
    vits: tuple[PositiveInt, ...] = (2, 4)
    """Blocks of the vision transformers."""
    optimizers: tuple[Optimizer, ...] = ("sgd", "momentum", "adamw")
    """Optimizers of every network."""
    sgd_step_size: PositiveFloat = 0.3
    """Largest step size of SGD; all step sizes warm up and follow a cosine."""
    momentum_step_size: PositiveFloat = 0.05
    """Largest step size of SGD with a momentum of 0.9."""
    adamw_step_size: PositiveFloat = 5e-3
    """Largest step size of AdamW."""
    resnet_width: PositiveInt = 16
    """Channels of the stem of residual networks."""
    vit_width: PositiveInt = 48
    """Size of a token of vision transformers, a multiple of 4."""
    epochs: PositiveInt = 12
    """Epochs of the residual networks; transformers take twice as many."""
    batch_size: PositiveInt = 32
    """Images of a minibatch."""
    train: PositiveInt = 4000
    """Training images, a multiple of 40."""
    id_test: PositiveInt = 1000
    """Images of the ID test, a multiple of 40."""
    ood_test: PositiveInt = 200
    """Images of each of the five OOD tests, a multiple of 10."""
    images: PositiveInt = 800
    """Images whose backgrounds are altered, a multiple of 40."""
    objects: PositiveInt = 100
    """Objects that are shown on every background of a list, a multiple of 10."""
    seeds: PositiveInt = 5
    """Seeds of images, initial weights and the order of examples."""

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.mlp.loss == "squared":
            raise ValueError("loss of mlp must be logistic or hinge: the networks are classifiers")
        return self


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "hidden_layers": (1, 2, 3, 5),
        "mlp": replace(FULL.mlp, width=128, steps=300),
        "vits": (2,),
        "resnet_width": 8,
        "vit_width": 32,
        "epochs": 8,
        "train": 2000,
        "images": 400,
        "seeds": 3,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "hidden_layers": (1, 2),
        "mlp": replace(
            FULL.mlp, data=DataModel(FeatureModel(8, 8, 32, "rotated")), width=32,
            batch_size=100, steps=100,
        ),
        "examples": 400,
        "resnets": (2,),
        "vits": (1,),
        "optimizers": ("sgd", "adamw"),
        "resnet_width": 4,
        "vit_width": 8,
        "epochs": 1,
        "batch_size": 20,
        "train": 200,
        "id_test": 200,
        "ood_test": 40,
        "images": 80,
        "objects": 20,
        "seeds": 2,
    }
)  # fmt: skip


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).mlp.step_size == NULL_STEP_SIZE
    True
    """
    names = ("sgd", "momentum", "adamw", "mlp_momentum", "mlp_adamw")
    return config.model_copy(
        update={f"{name}_step_size": NULL_STEP_SIZE for name in names}
        | {"mlp": replace(config.mlp, step_size=NULL_STEP_SIZE)}
    )


class TrainedNetwork(NamedTuple):
    """A network of the comparison: its kind, its number of blocks and its optimizer."""

    kind: Kind
    blocks: int
    optimizer: Optimizer

    def part(self, seed: int) -> str:
        """Name of the part of a run."""
        return f"{self.kind}-{self.blocks}/{self.optimizer}/seed{seed}"


def networks(config: Config) -> list[TrainedNetwork]:
    """The networks of a config.

    >>> one = Config(hidden_layers=(1, 4), resnets=(), vits=(), optimizers=("sgd",))
    >>> [(network.kind, network.blocks) for network in networks(one)]
    [('mlp', 1), ('mlp', 4), ('linear', 4)]
    """
    layers = config.hidden_layers
    depths: dict[Kind, tuple[int, ...]] = {
        "mlp": layers, "linear": layers and (max(layers),),
        "resnet": config.resnets, "vit": config.vits,
    }  # fmt: skip
    return [
        TrainedNetwork(kind, blocks, optimizer)
        for kind, numbers in depths.items()
        for blocks in numbers
        for optimizer in config.optimizers
    ]
