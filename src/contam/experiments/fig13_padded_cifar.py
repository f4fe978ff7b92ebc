"""Features of adversarially trained networks, visualized: does a red frame color them?

As published: a ResNet-32 is trained on CIFAR-10 inside a brick-red frame against L2 perturbations,
and inputs are optimized to maximize channels of its last convolution. The paper shows the pictures.
Here two numbers stand beside them: the share of their color that lies between red and cyan, and
their redness. Both are compared with networks trained in a gray frame, which differs in color
alone, and without a frame, where the image is also larger (or not cropped).

Colors of pictures need controls. Random weights have a tint of their own, and batch norm subtracts
the mean of what a network was trained on, so that a frame can color pictures without any learning.
What training adds is measured in two ways: against the untrained network of the same seed with
batch-norm statistics of the same images, and between networks whose statistics are all computed on
the red-framed images, so that only their weights differ.

In miniature (preset `laptop`: digits, 8 layers, epsilon 0.5, 15 epochs) the frame's hue is learned,
and its sign does not reproduce: the strokes that maximize channels are cyan on a reddish ground,
where the paper shows red areas, so that the claim of greater redness fails. The paper preset needs
the files of CIFAR-10 and a GPU; its claims have not been judged.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import (
    BaseModel,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data import digits
from contam.data.cifar import BORDER, CLASSES, SIDE, images_of, padded
from contam.data.digits import frame_color, frame_title, padded_digits
from contam.experiment import NULL_STEP_SIZE, Claim, Experiment, Stage, Statement, judge_all
from contam.experiments.support.small_image_files import check_readable
from contam.measures.accuracy import accuracy
from contam.measures.feature_visualization import (
    displayed,
    hue_share,
    redness,
    visualize_channels,
)
from contam.measures.intervals import bootstrap
from contam.models.batch_statistics import calibrate
from contam.models.classifier import Classifier
from contam.models.memory_format import channels_last, unsafe_in_channels_last
from contam.models.resnet_cifar import resnet_cifar
from contam.plots import Figure, Tile, bars, heat_maps
from contam.rng import seeded
from contam.run import Run
from contam.training.adversarial import AdversarialRecipe, train_adversarially
from contam.training.checkpointed import checkpointed
from contam.training.precision import ComputeConfig

Frame = Literal["red", "green", "blue", "cyan", "gray", "black", "white", "none"]
Augmentation = Callable[[Tensor], Tensor]
Features = dict[tuple[str, str], Float[Tensor, "seeds channels"]]
"""A number of every picture, by frame and state."""

SHOWN = 7
"""Channels of each network that the figure shows: the first ones."""
SHARE = 0.1
"""Difference in the red-cyan share that counts: a fifth of the way from no hue to this one."""
MARGIN = 0.01
"""Redness that counts as a difference: a hundredth of the way from gray to pure red."""
TRAINED, OWN, COMMON, UNTRAINED = "trained", "own", "common", "untrained"
STATES = {
    TRAINED: "trained",
    OWN: "trained, statistics of own frame",
    COMMON: "trained, statistics of red frame",
    UNTRAINED: "untrained, statistics of own frame",
}
"""What a network's weights are, and which statistics its batch norms have: the running averages of
training (as published), or exact ones of noisy training images in its own frame or the red one."""
VISUALIZING = 0.1
"""Share of the time of a network that its pictures take, about."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (App. F.4 and its published code) unless a field says otherwise."""

    images: Literal["cifar10", "digits"] = "cifar10"
    """CIFAR-10 from files, or (ours) scikit-learn's digits in color."""
    folder: Path = Path("data/cifar10")
    """Folder with the files of CIFAR-10; digits need none."""
    frames: tuple[Frame, ...] = ("red", "gray", "none")
    """Frame that each network is trained in. Gray is ours: it differs in color alone."""
    padding: Literal["resize", "crop"] = "resize"
    """How an image with 8 pixels of frame becomes 32 pixels wide: resized (the text), or cropped at
    random (the published code, whose unframed images are not cropped)."""
    train_examples: PositiveInt = 1200
    """Digits to train on; CIFAR-10 is used whole."""
    depth: PositiveInt = 32
    """Layers of the CIFAR ResNet."""
    width: PositiveInt = 16
    """Channels of its first stage."""
    stem_stride: PositiveInt = 1
    """Stride of its first convolution."""
    epsilon: NonNegativeFloat = 255 / 256
    """Largest L2 norm of a perturbation, for pixels in [0, 1]."""
    attack_steps: PositiveInt = 4
    noise: NonNegativeFloat = 0.25
    """Standard deviation of the Gaussian noise, for pixels in [0, 1]."""
    noise_vectors: PositiveInt = 2
    """Noisy copies of every image."""
    batch_size: PositiveInt = 128
    """Noisy images in a step: 64 images with 2 noise vectors, as the published code counts."""
    step_size: PositiveFloat = 0.1
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    epochs: PositiveInt = 250
    drop_every: PositiveInt = 50
    """Epochs after which the step size is divided by 10."""
    epsilon_warmup: PositiveInt = 10
    """Epochs over which epsilon grows to its full value."""
    channels: PositiveInt = 64
    """Channels of the last convolution that are visualized: the first ones."""
    restarts: PositiveInt = 10
    visualization_steps: PositiveInt = 200
    """Adam steps of a restart; restarts after the middle take 1.3 times as many."""
    visualization_step_size: PositiveFloat = 0.05
    blur: PositiveInt = 5
    """Width of the box filter between restarts, in pixels."""
    penalty: NonNegativeFloat = 1e-2
    """Weight of the distance of a picture from mid-gray."""
    penalty_norm: Literal["squared", "plain"] = "squared"
    """Squared L2 distance, or the distance itself (the published code)."""
    seeds: PositiveInt = 3
    """Ours: one was published."""

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if "red" not in self.frames or len(set(self.frames)) < 2:
            raise ValueError("frames: need 'red' and at least one control, such as 'gray'")
        if self.batch_size % self.noise_vectors:
            raise ValueError("batch_size: must be a multiple of noise_vectors")
        if self.channels > 4 * self.width:
            raise ValueError(f"channels: the last convolution has {4 * self.width}")
        return self

    @property
    def layer(self) -> str:
        """Name of the network's last convolution: the 31st of ResNet-32."""
        return f"encoder.layer3.{(self.depth - 2) // 6 - 1}.conv2"

    @property
    def recipe(self) -> AdversarialRecipe:
        """Settings of the adversarial training."""
        return AdversarialRecipe(
            self.step_size,
            self.weight_decay,
            self.batch_size // self.noise_vectors,
            epochs=self.epochs,
            epsilon=self.epsilon,
            attack_steps=self.attack_steps,
            noise=self.noise,
            noise_vectors=self.noise_vectors,
            momentum=self.momentum,
            epsilon_warmup=self.epsilon_warmup,
            drop_every=self.drop_every,
        )


PAPER = Config()
SCRIPT = PAPER.model_copy(update={"padding": "crop", "penalty_norm": "plain"})
LAPTOP = PAPER.model_copy(
    update={
        "images": "digits", "depth": 8, "stem_stride": 2, "epsilon": 0.5, "epochs": 15,
        "drop_every": 5, "epsilon_warmup": 1, "channels": 32, "restarts": 4,
        "visualization_steps": 50,
    }
)  # fmt: skip
SMOKE = LAPTOP.model_copy(
    update={
        "train_examples": 128, "width": 2, "batch_size": 32, "epochs": 2, "attack_steps": 2,
        "channels": 8, "restarts": 2, "visualization_steps": 3, "seeds": 2,
    }
)  # fmt: skip


class PaddedBenchmark(NamedTuple):
    """What a network is trained and tested on."""

    shift: Shift
    augment: Augmentation | None


def benchmark(config: Config, frame: str, seed: int) -> PaddedBenchmark:
    """Load the images in a frame, and how training augments them.

    Raises:
        MissingFilesError: files of CIFAR-10 are missing; the message names them.
        ValueError: a file of CIFAR-10 is malformed.
    """
    if config.images == "digits":
        return PaddedBenchmark(padded_digits(frame, seed=seed, train=config.train_examples), None)
    parts = {}
    for part in ("train", "test"):
        images, y = images_of(config.folder, part)
        x = images.float() / 255
        if frame != "none" and config.padding == "resize":
            x = padded(x, frame_color(frame))
        elif frame != "none" and part == "train":
            whole = SIDE + 2 * BORDER
            canvas = frame_color(frame)[:, None, None].repeat(len(x), 1, whole, whole)
            canvas[:, :, BORDER:-BORDER, BORDER:-BORDER] = x
            x = canvas
        parts[part] = Domain(f"{part}, {frame} frame", Batch(x, y, torch.zeros_like(y)))
    shift = Shift(f"CIFAR-10, {frame} frame", CLASSES, (parts["train"],), parts["test"], ())
    return PaddedBenchmark(shift, cropped_and_flipped)


def cropped_and_flipped(x: Tensor) -> Tensor:
    """Crop images to 32 pixels at random places, and flip them with probability 1/2.

    The paper names cropping and flipping; in the published code these two are all.

    Args:
        x: images `(batch, 3, height, width)`, at least 32 pixels high and wide.

    Source: App. F.4.

    >>> cropped_and_flipped(torch.rand(2, 3, 40, 40)).shape
    torch.Size([2, 3, 32, 32])
    """
    offsets = x.shape[-1] - SIDE + 1
    top, left = torch.randint(offsets, (2, len(x), 1))
    flip = torch.rand(len(x), 1) < 0.5
    along = torch.arange(SIDE)
    columns = left + torch.where(flip, along.flip(0), along)
    index = torch.arange(len(x))[:, None, None]
    picked = x[index, :, (top + along)[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network in every frame from every seed, and visualize its features."""
    check_readable([partial(benchmark, config, "red", 0)])
    todo = [(seed, frame) for seed in range(config.seeds) for frame in config.frames]
    for index, (seed, frame) in enumerate(todo):
        part = f"net/{frame}/seed{seed}"
        if run.has(part):
            continue
        own = benchmark(config, frame, seed)
        model = network(config, seed)
        training = partial(
            train_adversarially,
            model,
            own.shift,
            config.recipe,
            seed=seed,
            report_every=max(1, len(own.shift.train[0]) // config.recipe.batch_size),
            augment=own.augment,
            compute=ComputeConfig(channels_last=not unsafe_in_channels_last(model)),
        )
        for done in checkpointed(run, part, training):
            yield Stage((index + (1 - VISUALIZING) * done) / len(todo), part)
        hits = accuracy(model, own.shift.id_test)
        about = {"frame": frame, "seed": seed}
        rows: list[dict[str, Any]] = [
            about | {"what": "accuracy", "correct": hits.correct, "count": hits.count}
            | {"accuracy": hits.share}
        ]  # fmt: skip
        framed = own if frame == "red" else benchmark(config, "red", seed)
        pictures = {TRAINED: _visualized(config, model, seed)}
        for state, images in ((OWN, own), (COMMON, framed)):
            pictures[state] = _visualized(config, _calibrated(config, model, images, seed), seed)
        untrained = _calibrated(config, network(config, seed), own, seed)
        pictures[UNTRAINED] = _visualized(config, untrained, seed)
        for state, shown in pictures.items():
            measured = zip(hue_share(shown).tolist(), redness(shown).tolist(), strict=True)
            rows += [
                about
                | {"what": "feature", "state": state, "channel": channel}
                | {"share": share, "redness": red}
                for channel, (share, red) in enumerate(measured)
            ]
        arrays = {state: (255 * shown).round().byte() for state, shown in pictures.items()}
        example = next(own.shift.train[0].batches(1)).x
        if own.augment is not None:
            with seeded(seed, "fig13_padded_cifar/example"):
                example = own.augment(example)
        run.write(part, rows, arrays | {"example": (255 * example[0]).round().byte()})


def network(config: Config, seed: int) -> Classifier:
    """Build the untrained network of a seed; it is the same for every frame."""
    return channels_last(
        resnet_cifar(config.depth, width=config.width, stem_stride=config.stem_stride, seed=seed)
    )


def _calibrated(config: Config, model: Classifier, on: PaddedBenchmark, seed: int) -> Classifier:
    """The network, its batch-norm statistics replaced by those of noisy training images."""

    def noisy(batch: Batch) -> Tensor:
        x = batch.x if on.augment is None else on.augment(batch.x)
        return x + config.noise * torch.randn_like(x)

    with seeded(seed, "fig13_padded_cifar/statistics"):
        calibrate(model, map(noisy, on.shift.train[0].batches(256)))
    return model


def _visualized(config: Config, model: Classifier, seed: int) -> Tensor:
    """Displayed pictures of the first channels, `(channels, 3, height, width)` in [0, 1]."""
    return displayed(
        visualize_channels(
            model,
            config.layer,
            range(config.channels),
            digits.SIDE if config.images == "digits" else SIDE,
            restarts=config.restarts,
            steps=config.visualization_steps,
            step_size=config.visualization_step_size,
            blur=config.blur,
            penalty=config.penalty,
            norm=config.penalty_norm,
            seed=seed,
        )
    )


class _Results(NamedTuple):
    """The numbers that claims read."""

    accuracies: list[float]
    """The lowest accuracy of all frames, for each seed."""
    share: Features
    """Red-cyan share of the color of each feature."""
    redness: Features
    control: str
    """The frame that the red one is compared with."""

    def gained(self, frame: str) -> Tensor:
        """How much training adds to the red-cyan share, for each seed."""
        return (self.share[frame, OWN] - self.share[frame, UNTRAINED]).mean(1)

    def difference(self, features: Features) -> list[float]:
        """Red frame minus control under common statistics, for each seed."""
        return (features["red", COMMON] - features[self.control, COMMON]).mean(1).tolist()


STATEMENTS = (
    Statement(
        "Adversarially trained networks recognize held-out images in their own frame",
        "ours",
        "accuracy in the training frame, lowest of all frames",
        lambda results: results.accuracies,
        low=0.4,
        every_seed=True,
    ),
)
AGAINST_CONTROL = (
    Statement(
        "Training in the red frame turns the colors of features towards red and cyan, more than "
        "training {elsewhere} does",
        "Fig. 13",
        "red-cyan share of color, trained minus untrained, red frame minus {control}",
        lambda results: (results.gained("red") - results.gained(results.control)).tolist(),
        low=SHARE,
        every_seed=True,
    ),
    Statement(
        "The weights carry this: it remains when all batch norms have statistics of the "
        "red-framed images (against training {elsewhere})",
        "Fig. 13",
        "red-cyan share under common statistics, red frame minus {control}",
        lambda results: results.difference(results.share),
        low=SHARE,
        every_seed=True,
    ),
    Statement(
        "Features are redder, not more cyan, after training in the red frame than {elsewhere}, "
        "with the same statistics",
        "Fig. 13",
        "redness under common statistics, red frame minus {control}",
        lambda results: results.difference(results.redness),
        low=MARGIN,
        every_seed=True,
    ),
)
CONTROLS = {"gray": "in a gray frame", "none": "without a frame"}


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether the weights learned the frame's color, beyond what batch norm shows."""
    config = Config.model_validate(run.config)
    share, red = (_features(run, config, key) for key in ("share", "redness"))
    accuracies = [
        min(
            row["accuracy"]
            for frame in config.frames
            for row in run.read(f"net/{frame}/seed{seed}")
            if row["what"] == "accuracy"
        )
        for seed in range(config.seeds)
    ]
    judged = judge_all(STATEMENTS, _Results(accuracies, share, red, ""))
    for control in (control for control in CONTROLS if control in config.frames):
        results = _Results(accuracies, share, red, control)
        words = {"control": control, "elsewhere": CONTROLS[control]}
        judged += judge_all(AGAINST_CONTROL, results, **words)
    return judged


def draw(run: Run) -> Sequence[Figure]:
    """Show the features, and how red they are."""
    config = Config.model_validate(run.config)
    share, red = (_features(run, config, key) for key in ("share", "redness"))
    return [_pictures(run, config, share, red), _chart(share, red)]


def _pictures(run: Run, config: Config, share: Features, red: Features) -> Figure:
    rows: dict[str, tuple[str, str]] = {
        frame_title(frame): (frame, TRAINED) for frame in config.frames
    }
    rows["red frame, but untrained"] = ("red", UNTRAINED)
    tiles = []
    for name, (frame, state) in rows.items():
        arrays = run.arrays(f"net/{frame}/seed0")
        if state == TRAINED:
            tiles.append(Tile("training image", name, _drawn(arrays["example"])))
        for channel, picture in enumerate(arrays[state][:SHOWN]):
            which = frame, state
            note = f"{share[which][0, channel]:.0%}, {red[which][0, channel]:+.2f}"
            tiles.append(Tile(f"channel {channel}", name, _drawn(picture), note=note))
    return Figure(
        "Features that the networks learned",
        "Each picture is optimized to maximize the mean of one channel of the last convolution and "
        "rescaled to use the whole range. The first channels of the first seed are shown, not "
        "chosen ones; a channel has no counterpart in another row. Below each picture: how much of "
        "its color lies between red and cyan (50 % where no hue is preferred), and its redness, "
        "the mean of R - (G + B) / 2 (negative is cyan).",
        "Fig. 13",
        (
            heat_maps(
                tiles,
                title="Visualized features, by the frame in training",
                y="trained in",
            ),
        ),
    )


def _chart(share: Features, red: Features) -> Figure:
    panels, shown = [], []
    for key, values, title, unit in (
        ("share", share, "Color between red and cyan", "share of color (0.5: no preferred hue)"),
        ("redness", red, "Redness", "mean of R - (G + B) / 2 (-1 cyan, 1 red)"),
    ):
        rows = []
        for (frame, state), one in values.items():
            if state == TRAINED:  # The same as with exact statistics, but for their noise.
                continue
            estimate = bootstrap(lambda s, c, one=one: one[s][:, c].mean(), one.shape)
            rows.append(
                {"frame": frame_title(frame), "network": STATES[state], key: estimate.value}
                | {"low": estimate.low, "high": estimate.high}
            )
        panels.append(
            bars(
                rows,
                title=title,
                x=("frame", "trained in"),
                y=(key, unit),
                series=("network", "network"),
            )
        )
        shown += rows
    return Figure(
        "Which colors the features have",
        "Means over channels and seeds; whiskers are 95 % bootstrap intervals over both. Networks "
        "with statistics of their own frames show what training adds to an untrained network; "
        "networks with statistics of the red frame differ in their weights alone.",
        "ours",
        tuple(panels),
        tuple(shown),
    )


def summarize(run: Run) -> str:
    """State the redness of the features in a sentence."""
    config = Config.model_validate(run.config)
    share, red = (_features(run, config, key) for key in ("share", "redness"))
    control = next(frame for frame in config.frames if frame != "red")
    own, other, untrained = (
        f"{float(share[which].mean()):.0%}"
        for which in (("red", TRAINED), (control, TRAINED), ("red", UNTRAINED))
    )
    return (
        f"In pictures of features of networks trained in a red frame, {own} of the color lies "
        "between red and cyan (50 % where no hue is preferred); after training with "
        f"{frame_title(control)} it is {other}, without training {untrained}. Their mean redness "
        f"is {float(red['red', TRAINED].mean()):+.3f}: cyan areas count as negative."
    )


def _features(run: Run, config: Config, key: str) -> Features:
    values: dict[tuple[str, str], list[list[float]]] = {}
    for frame in config.frames:
        for seed in range(config.seeds):
            rows = run.read(f"net/{frame}/seed{seed}")
            for state in STATES:
                values.setdefault((frame, state), []).append(
                    [row[key] for row in rows if row.get("state") == state]
                )
    return {which: torch.tensor(nested) for which, nested in values.items()}


def _drawn(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy() / 255


EXPERIMENT = Experiment(
    name="fig13_padded_cifar",
    title="Visualized features of networks trained in a red frame",
    about="Networks are trained against L2 perturbations on images inside a red frame that is "
    "the same for every class. Pictures that maximize channels of the last convolution are then "
    "compared with those of networks trained in a gray frame and without a frame. On CIFAR-10 "
    "files as published; in miniature on real digits.",
    reproduces=("App. F.4", "Fig. 13"),
    presets={"paper": PAPER, "script": SCRIPT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=lambda config: config.model_copy(update={"step_size": NULL_STEP_SIZE}),
)
"""Source: App. F.4, Fig. 6, Fig. 13."""
