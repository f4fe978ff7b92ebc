"""Projecting the background's span out of a deep network: the theory's remedy on images.

In the paper's data model, gradients that are projected out of the span of counterfactual pairs
learn no background once there are as many pairs as background features. Here the span is estimated
in three places of a network for images: in the features after the training, in the gradients of
the features during the training, and in the patches that the first convolution reads.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from contam.batch import Domain
from contam.data.object_removal import pasted, without_objects
from contam.data.shapes import Scenes, splits
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.untrained_controls import CONTROLS, TRAINED, controls
from contam.models.classifier import Classifier
from contam.models.projected_gradients import (
    EnvironmentGradients,
    ProjectedGradients,
    background_moment,
    main_directions,
)
from contam.models.small import resnet8
from contam.plots import Figure, lines, over_seeds
from contam.remedies.fresh_head import fit_linear_head
from contam.rng import generator_for
from contam.run import DataFrame, Run
from contam.training.changed_loss import changed_risk
from contam.training.changes import CHANGES
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe, optimize

FEW = 8
"""Directions at which the share of the variance between classes is judged."""
LEARNED = 0.5
"""ID accuracy from which on a network has learned its ten classes."""
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
PER_CLASS = 20
"""Images of each class in an environment whose differences block gradients."""


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


class Pairs(NamedTuple):
    """Training images, and the same objects on the backgrounds of others."""

    plain: Float[Tensor, "pairs 3 height width"]
    swapped: Float[Tensor, "pairs 3 height width"]


class Drawn(NamedTuple):
    """The images of a seed."""

    scenes: dict[str, Scenes]
    pairs: Pairs

    @property
    def ood(self) -> list[Scenes]:
        """The OOD tests, one for each family of backgrounds."""
        return [scenes for name, scenes in self.scenes.items() if name.startswith("ood/")]


def drawn(config: Config, seed: int) -> Drawn:
    """Draw the images of a seed."""
    scenes = splits(seed, train=config.train, id_val=40, id_test=config.id_test,
                    ood_test=config.ood_test)  # fmt: skip
    shown, generator = scenes["train"], generator_for(seed, "background projection/pairs")
    own, other = (torch.randint(len(shown.y), (config.pairs,), generator=generator)
                  for _ in range(2))  # fmt: skip
    behind = without_objects(shown.x[other], shown.mask[other])
    return Drawn(scenes, Pairs(shown.x[own], pasted(shown.x[own], shown.mask[own], behind)))


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network for each projection and seed, and project the features of the plain one."""
    numbers: dict[str, tuple[int, ...]] = {
        "no_change": (0,), "gradients": config.gradients,
        "environment_gradients": config.environment_gradients, "patches": config.patches,
        "random_patches": config.patches,
    }  # fmt: skip
    todo = [
        (seed, arm, directions)
        for seed in range(config.seeds)
        for arm, counts in numbers.items()
        for directions in counts
    ]
    for index, (seed, arm, directions) in enumerate(todo):
        what = f"seed {seed}: {ARMS.get(arm, 'no change')}, {directions} directions"
        for done in _train(config, run, arm, directions, seed):
            yield Stage((index + done) / len(todo), what)


def _train(config: Config, run: Run, arm: str, directions: int, seed: int) -> Iterator[float]:
    """Train one network, unless the run has it, and yield the share that is done."""
    part = f"trained/{arm}/{directions}/seed{seed}"
    if run.has(part) and (arm != "no_change" or run.has(f"features/seed{seed}")):
        return
    images = drawn(config, seed)
    shown = images.scenes["train"]
    network = resnet8(width=config.width, seed=seed)
    model: nn.Module = network
    learner, change = model, None
    if arm == "gradients":
        learner, change = ProjectedGradients(network, directions), CHANGES["gradient projection"]
        model = learner.network
    elif arm == "environment_gradients":
        learner = EnvironmentGradients(network, *environments(shown), directions=directions)
        model = learner.network
    elif arm != "no_change":
        restrict(model, patch_directions(model, images.pairs, directions, seed,
                                         random=arm == "random_patches"))  # fmt: skip
    loss = changed_risk(
        learner, change, masks=shown.mask, purpose="background projection", seed=seed
    )
    training = partial(
        optimize, learner, TrainingExamples((Domain("train", shown.batch),)), loss, config.recipe,
        purpose="background projection", seed=seed,
        report_every=max(1, config.recipe.length(len(shown.y)) // 20),
    )  # fmt: skip
    yield from checkpointed(run, part, training)
    model.eval()
    scores = _accuracies(model, images)
    row = {"arm": arm, "directions": directions, "seed": seed} | scores
    if arm == "no_change":
        untrained = resnet8(width=config.width, seed=seed).eval()
        train = (Domain("train", shown.batch),)
        networks = {TRAINED: network, **controls(untrained, train, seed)}
        rows = [
            {"state": state} | accuracy
            for state, one in networks.items()
            for accuracy in projected(config, one, images, seed)
        ]
        run.write(f"features/seed{seed}", rows)
    run.write(part, [row])


def environments(
    shown: Scenes, per_class: int = PER_CLASS
) -> tuple[Float[Tensor, "classes images 3 h w"], Float[Tensor, "classes images 3 h w"]]:
    """Return the first images of each class with backgrounds of each of the first two families.

    Args:
        shown: training images.
        per_class: images of each class, or as many as the rarest class of a family has.

    Source: ours, environments whose backgrounds differ.
    """
    cells = [
        [(shown.y == label) & (shown.domain == family) for label in shown.y.unique()]
        for family in range(2)
    ]
    count = min(per_class, *(int(cell.sum()) for row in cells for cell in row))
    first, second = (torch.stack([shown.x[cell][:count] for cell in row]) for row in cells)
    return first, second


def restrict(model: nn.Module, basis: Float[Tensor, "patch directions"]) -> None:
    """Make the first convolution blind to directions of its patches, now and in training.

    Args:
        model: the network, changed in place.
        basis: orthonormal directions of the patches.

    Source: ours, the projection of Sec. 5 where a convolution has its inputs.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 1))
    >>> restrict(model, torch.eye(1))  # The only direction of a patch of one pixel.
    >>> torch.equal(model(torch.ones(1, 1, 2, 2)), model(torch.zeros(1, 1, 2, 2)))
    True
    """
    weight = _first_convolution(model).weight

    def outside(values: Tensor) -> Tensor:
        flat = values.flatten(1)
        return (flat - (flat @ basis) @ basis.T).view_as(values)

    with torch.no_grad():
        weight.copy_(outside(weight))
    weight.register_hook(outside)


def patch_directions(
    model: nn.Module, pairs: Pairs, directions: int, seed: int, *, random: bool
) -> Float[Tensor, "patch directions"]:
    """Return the main directions in which the patches of pairs differ, or as many random ones.

    Args:
        model: the network whose first convolution reads the patches.
        pairs: images of the same objects on two backgrounds.
        directions: number of directions.
        seed: random seed of random directions.
        random: whether to draw the directions.

    Source: ours, directions of the background, estimated from patches without labels.
    """
    convolution = _first_convolution(model)
    if random:
        width = convolution.weight[0].numel()
        return _random_directions(width, directions, seed).float()
    patches = [
        F.unfold(
            images, convolution.kernel_size, convolution.dilation, int(convolution.padding[0]),
            convolution.stride,
        ).transpose(1, 2).flatten(0, 1)
        for images in pairs
    ]  # fmt: skip
    return main_directions(background_moment(*patches), directions).float()


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def _random_directions(width: int, directions: int, seed: int) -> Float[Tensor, "width directions"]:
    """Return an orthonormal basis of random directions.

    Source: ours, the control of directions that are estimated.
    """
    drawn = torch.randn(width, directions, dtype=torch.float64,
                        generator=generator_for(seed, "background projection/random"))  # fmt: skip
    return torch.linalg.qr(drawn)[0]


@torch.no_grad()
def projected(
    config: Config, model: Classifier, images: Drawn, seed: int
) -> Iterator[dict[str, Any]]:
    """Project directions out of a network's features, and fit a fresh head to the rest.

    Yields:
        A row for each source and number of directions: accuracies, and `class_share`, the share of
        the variance between class means that lies in the directions.

    Source: ours, features without the background's directions, judged by a fresh head.
    """
    shown = images.scenes["train"]
    parts = (shown.x, images.scenes["id_test"].x, *(scenes.x for scenes in images.ood))
    train, *tests = (_features(model, x) for x in parts)
    labels = [images.scenes["id_test"].y, *(scenes.y for scenes in images.ood)]
    plain, swapped = (_features(model, x) for x in images.pairs)
    means = torch.stack([train[shown.y == label].mean(dim=0) for label in shown.y.unique()])
    means = means - means.mean(dim=0)
    bases = {
        PAIRS: lambda count: torch.linalg.qr((swapped - plain)[:count].T)[0],
        MAIN: partial(main_directions, background_moment(plain, swapped)),
        ENVIRONMENTS: partial(main_directions, _between_environments(train, shown)),
        RANDOM: lambda count: _random_directions(train.shape[1], count, seed),
    }
    nothing = train.new_zeros(train.shape[1], 1)
    cases = [("nothing", 0, nothing)] + [
        (source, count, basis(count))
        for source, basis in bases.items()
        for count in config.directions
        # Two environments differ in one mean for each class.
        if count < train.shape[1] and (source != ENVIRONMENTS or count <= len(means))
    ]
    for source, count, basis in cases:
        left, *others = (
            (values - (values @ basis) @ basis.T).float() for values in (train, *tests)
        )
        head = fit_linear_head(left, shown.y, classes=len(means))
        right = [
            float((head(values).argmax(1) == y).double().mean())
            for values, y in zip(others, labels, strict=True)
        ]
        yield {
            "source": source, "directions": count, "seed": seed, "width": train.shape[1],
            "id_accuracy": right[0], "ood_accuracy": fmean(right[1:]),
            "class_share": float((means @ basis).square().sum() / means.square().sum()),
        }  # fmt: skip


def _between_environments(train: Tensor, shown: Scenes) -> Tensor:
    """The second moment of the differences of class means between the first two families."""
    first, second = (
        torch.stack([
            train[(shown.domain == family) & (shown.y == label)].mean(dim=0)
            for label in shown.y.unique()
        ])
        for family in range(2)
    )  # fmt: skip
    return background_moment(first, second)


def _features(model: Classifier, x: Tensor) -> Tensor:
    return torch.cat([model.encoder(part) for part in x.split(500)]).double()


@torch.no_grad()
def _accuracies(model: nn.Module, images: Drawn) -> dict[str, float]:
    """The accuracy on the ID test, and the mean over the OOD tests.

    Source: ours, one OOD accuracy for each network, so that networks can be compared.
    """
    own, *others = (
        float((model(scenes.x).argmax(1) == scenes.y).double().mean())
        for scenes in (images.scenes["id_test"], *images.ood)
    )
    return {"id_accuracy": own, "ood_accuracy": fmean(others)}


class ProjectionResults:
    """The accuracies with every projection."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.trained: DataFrame = run.table("trained/").sort_values("seed")
        self.features: DataFrame = run.table("features/").sort_values("seed")

    def feature_values(self, source: str, column: str, state: str = "trained") -> DataFrame:
        """A column of the projected features, with a row per seed and a column per number."""
        table = self.features
        table = table[(table.source == source) & (table.state == state)]
        return table.pivot(index="seed", columns="directions", values=column)

    def trained_values(self, arm: str, column: str) -> DataFrame:
        """A column of the trainings, with a row per seed and a column per number of directions."""
        table = self.trained[self.trained.arm == arm]
        return table.pivot(index="seed", columns="directions", values=column)


def _points(values: Any) -> list[float]:
    return (100 * values).tolist()


def _best_gain(*sources: str) -> Callable[[ProjectionResults], list[float]]:
    """The gain in OOD accuracy at the best number of directions, that of the mean over seeds."""

    def measure(results: ProjectionResults) -> list[float]:
        before = results.feature_values("nothing", "ood_accuracy")[0]
        gains = [
            results.feature_values(source, "ood_accuracy").sub(before, axis=0) for source in sources
        ]
        curves = [gain[gain.mean().idxmax()] for gain in gains]
        return _points(max(curves, key=lambda curve: curve.mean()))

    return measure


def _trained_gain(arm: str) -> Callable[[ProjectionResults], list[float]]:
    """The gain in OOD accuracy of a training at its best number of directions."""

    def measure(results: ProjectionResults) -> list[float]:
        before = results.trained_values("no_change", "ood_accuracy")[0]
        gains = results.trained_values(arm, "ood_accuracy").sub(before, axis=0)
        return _points(gains[gains.mean().idxmax()])

    return measure


def _trained_cost(results: ProjectionResults) -> list[float]:
    """ID accuracy without a change minus that of trainings without most gradients, the larger."""
    before = results.trained_values("no_change", "id_accuracy")[0]
    costs = []
    for arm in ("gradients", "environment_gradients"):
        values = results.trained_values(arm, "id_accuracy")
        costs.append(before - values[values.columns.max()])
    return _points(max(costs, key=lambda cost: cost.mean()))


def _extra_cost(results: ProjectionResults) -> list[float]:
    """ID accuracy with random directions minus that with as many of pairs, at half the width."""
    half = _half(results)
    values = [results.feature_values(source, "id_accuracy")[half] for source in (RANDOM, MAIN)]
    return _points(values[0] - values[1])


def _class_share(against: Literal["random", "untrained"]) -> Callable[..., list[float]]:
    """The class share of a few main directions minus that of random ones, or untrained.

    Of the two untrained networks, it is the one whose share differs most.
    """

    def measure(results: ProjectionResults) -> list[float]:
        few = min(results.config.directions, key=lambda count: abs(count - FEW))
        trained = results.feature_values(MAIN, "class_share")[few]
        if against == "random":
            return (trained - results.feature_values(RANDOM, "class_share")[few]).tolist()
        differences = np.stack([
            trained - results.feature_values(MAIN, "class_share", state)[few] for state in CONTROLS
        ])  # fmt: skip
        largest = np.abs(differences).argmax(axis=0)
        return differences[largest, range(len(trained))].tolist()

    return measure


def _patch_change(column: str, control: bool = False) -> Callable[[ProjectionResults], list[float]]:
    """The change of an accuracy without 16 directions of the first layer's patches."""

    def measure(results: ProjectionResults) -> list[float]:
        count = min(results.config.patches, key=lambda count: abs(count - 16))
        before = results.trained_values("no_change", column)[0]
        if control:
            before = results.trained_values("random_patches", column)[count]
        return _points(results.trained_values("patches", column)[count] - before)

    return measure


def _half(results: ProjectionResults) -> int:
    width = int(results.features.width.iloc[0])
    return min(results.config.directions, key=lambda count: abs(count - width // 2))


def _learned(results: ProjectionResults) -> None:
    """Require that the network without a change has learned."""
    score = results.trained_values("no_change", "id_accuracy").to_numpy().mean()
    if not score >= LEARNED:
        raise NotJudged(f"the network did not learn: its ID accuracy is {score:.2f}")


CLAIMS: tuple[Statement, ...] = (
    Statement(
        "Features without the span of counterfactual pairs or environments are not better OOD",
        "ours", "gain in OOD accuracy of features at the best number of directions, points",
        _best_gain(PAIRS, MAIN, ENVIRONMENTS), high=3.0, given=_learned),
    Statement(
        "Projecting background directions out costs ID accuracy, more than random directions",
        "ours", "ID accuracy without random directions minus that without main directions of "
        "pairs, half of all directions, points", _extra_cost, low=5.0, given=_learned),
    Statement(
        "The directions of the background are also directions of the classes", "ours",
        f"share of the variance between class means in {FEW} main directions of pairs minus that "
        "in random ones", _class_share("random"), low=0.3, given=_learned),
    Statement(
        "They already are in untrained networks", "ours",
        f"share of the variance between class means in {FEW} main directions of pairs, trained "
        "minus the untrained network that differs most", _class_share("untrained"),
        low=-0.1, high=0.1, given=_learned),
    Statement(
        "No gradient along the background's directions does not help", "ours",
        "gain in OOD accuracy of trainings at the best number of directions, points",
        _trained_gain("gradients"), high=3.0, given=_learned),
    Statement(
        "Nor does it along directions in which two environments differ", "ours",
        "gain in OOD accuracy of trainings at the best number of directions, two environments, "
        "points", _trained_gain("environment_gradients"), high=3.0, given=_learned),
    Statement(
        "Blocked gradients cost little ID accuracy, since the head still reads all features",
        "ours", "ID accuracy without a change minus that without gradients along the most "
        "directions, pairs or environments, points", _trained_cost, high=10.0, given=_learned),
    Statement(
        "A first layer that is blind to the background's directions of patches fails more OOD",
        "ours", "change of OOD accuracy against as many random directions, points",
        _patch_change("ood_accuracy", control=True), high=-3.0, given=_learned),
)  # fmt: skip
"""The remedy of the theory does not carry over; the claims say where it fails."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, ProjectionResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """Accuracies over the number of directions, of features and of trainings."""
    results = ProjectionResults(run)
    return [_features_figure(results), _trainings_figure(results)]


def _features_figure(results: ProjectionResults) -> Figure:
    table = results.features[results.features.state == "trained"]
    panels, shown = [], []
    for column, title in (("ood_accuracy", "OOD accuracy"), ("id_accuracy", "ID accuracy"),
                          ("class_share", "share of the variance between classes")):  # fmt: skip
        rows = []
        for row in over_seeds(table.to_dict("records"), ["source", "directions"], column):
            point = {"directions": row["directions"], "value": row[column], "low": row["low"],
                     "high": row["high"]}  # fmt: skip
            sources = SOURCES if row["source"] == "nothing" else (row["source"],)
            rows += [{"source": source, **point} for source in sources]
        rows.sort(key=lambda row: (SOURCES.index(row["source"]), row["directions"]))
        panels.append(
            lines(rows, title=title[0].upper() + title[1:],
                  x=("directions", "directions projected out"), y=("value", title),
                  series=("source", ""), points=True)
        )  # fmt: skip
        shown += [{"of": title} | row for row in rows]
    width = int(table.width.iloc[0])
    return Figure(
        "Directions projected out of features",
        f"The features of a trained network have {width} dimensions. A fresh head is fitted to "
        "what is left of them. The share is that of the variance between class means which lies in "
        "the directions. Bands: all seeds.",
        "ours", tuple(panels), tuple(shown),
    )  # fmt: skip


def _trainings_figure(results: ProjectionResults) -> Figure:
    panels, shown = [], []
    for column, title in (("ood_accuracy", "OOD accuracy"), ("id_accuracy", "ID accuracy")):
        rows = []
        records = results.trained.to_dict("records")
        for row in over_seeds(records, ["arm", "directions"], column):
            point = {"directions": row["directions"], "value": row[column], "low": row["low"],
                     "high": row["high"]}  # fmt: skip
            arms = ARMS if row["arm"] == "no_change" else (row["arm"],)
            rows += [{"projection": ARMS[arm], **point} for arm in arms]
        rows.sort(key=lambda row: (row["projection"], row["directions"]))
        panels.append(
            lines(rows, title=title, x=("directions", "directions projected out"),
                  y=("value", title), series=("projection", ""), points=True)
        )  # fmt: skip
        shown += [{"of": title} | row for row in rows]
    return Figure(
        "Directions projected out during training",
        "Networks are trained with gradients of features, or with a first layer, that are blind to "
        "the directions. Without directions, all are the same network. Bands: all seeds.",
        "ours", tuple(panels), tuple(shown),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The accuracies without a projection and with the best one of each kind."""
    results = ProjectionResults(run)
    own, other = (
        results.trained_values("no_change", column).to_numpy().mean()
        for column in ("id_accuracy", "ood_accuracy")
    )
    gains = {
        "features": fmean(_best_gain(PAIRS, MAIN, ENVIRONMENTS)(results)),
        **{name: fmean(_trained_gain(arm)(results)) for arm, name in list(ARMS.items())[:3]},
    }
    listed = "; ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
    return (
        f"Without a projection, accuracy is {own:.0%} ID and {other:.0%} OOD. Change of the OOD "
        f"accuracy at the best number of directions, in points: {listed}."
    )


EXPERIMENT = Experiment(
    name="background_projection",
    title="The background's span projected out of a network for images",
    about="In the paper's data model, gradients that are projected out of the span of "
    "counterfactual pairs learn no background. The same is tried on a convolutional network and "
    "images: in its features, in their gradients, and in the patches of its first layer.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the projection of Sec. 5 beyond its data model."""
