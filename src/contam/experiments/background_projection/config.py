"""The network, the images, and the numbers of directions that are projected out."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt

from contam.experiment import NULL_STEP_SIZE
from contam.training.optimize import Recipe

PAIRS, MAIN = "span of as many pairs", "main directions of all pairs"
ENVIRONMENTS, RANDOM = "differences of two environments", "random directions"
SOURCES = PAIRS, MAIN, ENVIRONMENTS, RANDOM
"""Where the directions that are projected out of features come from."""
ARMS = {
    "gradients": "gradients of features, pairs",
    "environment_gradients": "gradients of features, two environments",
    "patches": "patches of the first layer, pairs",
    "random_patches": "patches of the first layer, random directions",
}
"""Trainings with a projection, and their names in figures."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper names the projection in its data model alone."""

    recipe: Recipe = Recipe(1e-2, 0.05, 32, epochs=12)
    width: PositiveInt = 16
    """Channels of the first stage of resnet8, whose features have four times as many."""
    train: PositiveInt = 4000
    """Training images, a multiple of 40."""
    id_test: PositiveInt = 1000
    """Images of the ID test, a multiple of 40."""
    ood_test: PositiveInt = 200
    """Images of each of the five OOD tests, a multiple of 10."""
    pairs: PositiveInt = 1000
    """Pairs of training images with the same object, whose differences give the main directions."""
    directions: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 60)
    """Numbers of directions that are projected out of the features of the trained network."""
    gradients: tuple[PositiveInt, ...] = (4, 8, 16, 32)
    """The same for gradients of the features during the training."""
    environment_gradients: tuple[Annotated[int, Field(ge=1, le=10)], ...] = (2, 4, 8)
    """The same where gradients are blocked along differences of two environments, which have one
    direction for each class."""
    patches: tuple[PositiveInt, ...] = (3, 8, 16, 32, 48)
    """The same for the patches of 75 numbers that the first convolution reads."""
    seeds: PositiveInt = 10
    """Seeds of images, initial weights and the order of examples."""


FULL = Config()
LAPTOP = FULL.model_copy(
    update={"recipe": Recipe(1e-2, 0.05, 32, epochs=8), "train": 2000, "gradients": (4, 16),
            "environment_gradients": (4, 8), "patches": (3, 16, 48), "seeds": 3}
)  # fmt: skip
SMOKE = LAPTOP.model_copy(
    update={"recipe": Recipe(1e-2, 0.05, 20, epochs=1), "width": 2, "train": 80, "id_test": 40,
            "ood_test": 10, "pairs": 40, "directions": (1, 4), "gradients": (2,),
            "environment_gradients": (2,), "patches": (3,), "seeds": 2}
)  # fmt: skip


def null(config: Config) -> Config:
    """The config with a step size at which nothing is learned.

    >>> null(Config()).recipe.step_size == NULL_STEP_SIZE
    True
    """
    recipe = Recipe(NULL_STEP_SIZE, 0.05, config.recipe.batch_size, epochs=config.recipe.epochs)
    return config.model_copy(update={"recipe": recipe})
