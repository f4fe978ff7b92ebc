"""Real digits in a frame that is independent of them: a small network learns the frame, too."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.batch import Domain
from contam.data.digits import FRAMES, frame_color, padded_digits
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.untrained_controls import CALIBRATED, strictest, training_inputs
from contam.measures.accuracy import clopper_pearson
from contam.measures.activation import activation_asymmetry
from contam.measures.class_profiles import class_profiles
from contam.measures.color import color_energy_share, hue_axis
from contam.measures.selectivity import selectivity
from contam.measures.variance import between_class_variance
from contam.models.batch_statistics import calibrated
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.plots import Figure, bars, channels_last, contact_sheet, matrix, over_seeds
from contam.run import DataFrame, Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

Frame = Literal["red", "green", "blue", "cyan", "gray", "black", "white", "random", "none"]

LAYERS = ("encoder.relu1", "encoder.relu2", "encoder.relu3")
HUES = ("red", "green", "blue")
"""Colors whose hue is measured in the first layer; cyan lies on red's axis."""
FAR = "cyan"
"""The complement of red, the color farthest from the training frame."""
LEARNED = 0.8
"""Accuracy in its own frame from which on a network has learned to read digits."""
START, END = "at the start", "after training"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Ours: App. F.4 in miniature, with digits for CIFAR-10 and without adversarial training."""

    frames: tuple[Frame, ...] = ("red", "green", "blue", "cyan", "gray", "random", "none")
    """The frames that networks are trained in, one each; "random" and "none" are controls."""
    width: PositiveInt = 16
    """Channels of the first convolution."""
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    step_size: PositiveFloat = 1e-2
    """The highest of AdamW's, between a warm-up and a cosine."""
    weight_decay: NonNegativeFloat = 0.05
    train_examples: PositiveInt = 1200
    """Of the 1797 digits; 197 are for validation and the rest for the tests."""
    seeds: PositiveInt = 5


FULL = Config()
LAPTOP = FULL.model_copy(update={"frames": ("red", "gray", "random", "none"), "seeds": 3})
SMOKE = LAPTOP.model_copy(update={"frames": ("red", "random"), "width": 4, "epochs": 2, "seeds": 2})


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network in each frame from each seed, and measure it in every frame."""
    todo = [(frame, seed) for seed in range(config.seeds) for frame in config.frames]
    for index, (frame, seed) in enumerate(todo):
        part = f"net/{frame}/seed{seed}"
        if run.has(part):
            continue
        shift = padded_digits(frame, seed=seed, train=config.train_examples)
        model = small_cnn(width=config.width, seed=seed)
        tests = (shift.id_test, *shift.ood_tests)
        rows = _measure(model, tests, START)
        rows += _measure(calibrated(model, training_inputs(shift.train, seed)), tests, CALIBRATED)
        training = partial(
            fit,
            model,
            shift,
            epochs=config.epochs,
            batch_size=config.batch_size,
            step_size=config.step_size,
            weight_decay=config.weight_decay,
            seed=seed,
            report_every=config.train_examples // config.batch_size,
        )
        for done in checkpointed(run, part, training):
            yield Stage((index + done) / len(todo), part)
        stem = model.encoder.get_parameter("conv1.weight").detach()
        shares = {hue: float(color_energy_share(stem, hue_axis(frame_color(hue)))) for hue in HUES}
        rows += _measure(model, tests, END)
        rows.append({"what": "stem"} | shares)
        run.write(part, [{"frame": frame, "seed": seed} | row for row in rows], {"stem": stem})


def _measure(model: Classifier, domains: Sequence[Domain], when: str) -> list[dict[str, Any]]:
    """Accuracy on each domain, and the class statistics of each layer."""
    rows: list[dict[str, Any]] = []
    for domain in domains:
        where = {"when": when, "shown": domain.name.removesuffix(" frame").replace("no", "none")}
        profiles = class_profiles(model, domain, LAYERS, classes=10, batch_size=512)
        accuracy = profiles.accuracy
        assert accuracy is not None
        rows.append(
            {"what": "accuracy"}
            | where
            | {"accuracy": accuracy.share, "correct": accuracy.correct, "count": accuracy.count}
        )
        for layer, profile in profiles.layers.items():
            rows.append(
                {"what": "layer"}
                | where
                | {"layer": layer, "selectivity": float(selectivity(profile.means).mean())}
                | {"rate": float(profile.rates.mean())}
                | {"asymmetry": float(activation_asymmetry(profile.rates).mean())}
                | {"between_classes": float(between_class_variance(profile.means).sum())}
            )
    return rows


def _where(table: DataFrame, **values: Any) -> DataFrame:
    """The rows that have these values, by seed."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table.sort_values("seed", kind="stable")


def _accuracies(table: DataFrame, frame: str) -> DataFrame:
    """The trained networks' accuracy; seeds by the frame shown."""
    rows = _where(table, what="accuracy", when=END, frame=frame)
    return rows.pivot(index="seed", columns="shown", values="accuracy")


def _loss(table: DataFrame, frame: str) -> list[float]:
    """Accuracy lost from the training frame to the worst other one, digits unchanged."""
    accuracy = _accuracies(table, frame)
    others = accuracy.drop(columns="none")
    return (accuracy[frame] - others.min(axis=1)).tolist()


def _last_layer(table: DataFrame, column: str, frame: str, shown: str, when: str) -> DataFrame:
    rows = _where(table, what="layer", layer=LAYERS[-1], when=when, frame=frame, shown=shown)
    return rows.set_index("seed")[column]


def _spread(table: DataFrame, frame: str) -> list[float]:
    """Between-class variance of the last layer in cyan, over that in the training frame."""
    far, own = (_last_layer(table, "between_classes", frame, shown, END) for shown in (FAR, frame))
    return (far / own).tolist()


def _rise(table: DataFrame, column: str) -> list[float]:
    """A measure of the last layer trained in red, minus the larger one of untrained networks."""
    after, *before = (
        _last_layer(table, column, "red", "red", when) for when in (END, START, CALIBRATED)
    )
    return strictest([after - values for values in before], at_least=True).tolist()


def _stems(table: DataFrame, frame: str) -> DataFrame:
    return _where(table, what="stem", frame=frame).set_index("seed")[list(HUES)]


def _fall(table: DataFrame, column: str) -> list[float]:
    """How a measure of the last layer falls from red to cyan frames, minus untrained.

    Of the two untrained networks, it is the one that falls more.
    """
    after, *before = (
        _last_layer(table, column, "red", FAR, when)
        - _last_layer(table, column, "red", "red", when)
        for when in (END, START, CALIBRATED)
    )
    return strictest([after - values for values in before], at_least=False).tolist()


def _read_by(frame: str) -> Callable[[DataFrame], None]:
    """Require that the network of a frame reads digits in its own frame."""

    def require(table: DataFrame) -> None:
        accuracy = float(_accuracies(table, frame)[frame].min())
        if accuracy < LEARNED:
            raise NotJudged(f"the network did not learn: accuracy {accuracy:.2f} in its own frame")

    return require


RED = (
    Statement(
        "A small network reads digits in the frame it was trained in",
        "ours",
        "accuracy on held-out digits, red frame",
        lambda table: _accuracies(table, "red").red.tolist(),
        low=0.95,
    ),
    Statement(
        "Trained in red, it fails on the same digits when only the frame's color changes",
        "ours",
        "accuracy lost in the worst other color, trained in red",
        lambda table: _loss(table, "red"),
        low=0.3,
        every_seed=True,
    ),
)
CONTROLS = {
    "random": Statement(
        "A network trained with random frame colors does not fail in another frame",
        "ours",
        "accuracy lost in the worst color, trained in random colors",
        lambda table: _loss(table, "random"),
        high=0.1,
        every_seed=True,
        given=_read_by("random"),
    ),
    "gray": Statement(
        "A network trained in a gray frame does not fail in another frame",
        "ours",
        "accuracy lost in the worst other color, trained in gray",
        lambda table: _loss(table, "gray"),
        high=0.1,
        given=_read_by("gray"),
    ),
    "none": Statement(
        "A network trained without frames does not fail in one (its digits are larger)",
        "ours",
        "accuracy lost in the worst frame, trained without one",
        lambda table: _loss(table, "none"),
        high=0.1,
        given=_read_by("none"),
    ),
}
AGAINST_RANDOM = (
    Statement(
        "The first layer responds to red more than after training in random colors",
        "ours",
        "share of the filters' energy along red's hue, red minus random frames",
        lambda table: (_stems(table, "red").red - _stems(table, "random").red).tolist(),
        low=0.05,
        every_seed=True,
    ),
    Statement(
        "In the last layer the classes move together when the frame turns cyan",
        "ours",
        "between-class variance in cyan over that in the training frame",
        lambda table: _spread(table, "red"),
        high=0.8,
        every_seed=True,
        given=_read_by("red"),
    ),
    Statement(
        "After training in random colors, the classes stay apart when the frame turns cyan",
        "ours",
        "between-class variance in cyan over that in random colors",
        lambda table: _spread(table, "random"),
        low=0.8,
        every_seed=True,
        given=_read_by("random"),
    ),
)
LAST_LAYER = (
    Statement(
        "Training raises the last layer's selectivity (Eq. 61)",
        "Fig. 5",
        "selectivity (Eq. 61), trained minus the larger one before training",
        lambda table: _rise(table, "selectivity"),
        low=0.02,
        every_seed=True,
    ),
    Statement(
        "The shift lowers the last layer's selectivity (Eq. 61), more than before training",
        "Fig. 5",
        "selectivity (Eq. 61), cyan minus red frame, trained minus the larger fall before training",
        lambda table: _fall(table, "selectivity"),
        high=-0.05,
        every_seed=True,
    ),
    Statement(
        "Training raises the last layer's asymmetry of the activation rates",
        "Fig. 4",
        "asymmetry of the activation rates, trained minus the larger one before training",
        lambda table: _rise(table, "asymmetry"),
        low=0.02,
        every_seed=True,
    ),
    Statement(
        "The shift lowers the last layer's asymmetry of the activation rates, more than before "
        "training",
        "ours",
        "asymmetry of the activation rates, cyan minus red frame, trained minus the larger fall "
        "before training",
        lambda table: _fall(table, "asymmetry"),
        high=-0.05,
        every_seed=True,
    ),
)


def claims(run: Run) -> Sequence[Claim]:
    """The network of one color fails when only the frame changes, its controls do not; and why."""
    frames = Config.model_validate(run.config).frames
    controls = [control for frame, control in CONTROLS.items() if frame in frames]
    against_random = AGAINST_RANDOM if "random" in frames else ()
    return judge_all([*RED, *controls, *against_random, *LAST_LAYER], run.table("net/"))


def draw(run: Run) -> Sequence[Figure]:
    """The digits, each network's accuracy in every frame, and the statistics of the layers."""
    config = Config.model_validate(run.config)
    table = run.table("net/")
    accuracy = _where(table, what="accuracy", when=END)
    return [
        _digits(config),
        _matrix(accuracy),
        _intervals(config, accuracy),
        _layers(config, table[table.what == "layer"]),
        _first_layer(config, run, table),
    ]


def _digits(config: Config) -> Figure:
    shift = padded_digits("red", seed=0, train=config.train_examples)
    tests = {"red": shift.id_test} | {t.name.split()[0]: t for t in shift.ood_tests}
    tests = {name.replace("no", "none"): test for name, test in tests.items()}
    pictures = [
        channels_last([tests[frame].data.x[i].numpy() for frame in FRAMES]) for i in range(4)
    ]
    sheet = contact_sheet(pictures, title="Four test digits in every frame: " + ", ".join(FRAMES))
    return Figure(
        "The same digits, another frame",
        "Each row is one digit; only the frame differs between the columns, and the last one has "
        "none. Frame and digit are independent of each other, and a linear map of the pixels "
        "separates them. The first column is the training distribution.",
        "Fig. 6",
        (sheet,),
    )


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the frames."""
    order = list(FRAMES)
    return sorted(rows, key=lambda row: [order.index(row[key]) for key in ("frame", "shown")])


def _matrix(accuracy: DataFrame) -> Figure:
    rows = _in_order(over_seeds(accuracy, ["frame", "shown"], "accuracy"))
    panel = matrix(
        rows,
        title="Accuracy: rows as trained, columns as shown",
        x=("shown", "frame shown"),
        y=("frame", "trained in"),
        value=("accuracy", "accuracy"),
    )
    return Figure(
        "Accuracy of each network in each frame",
        "Mean over seeds. Networks that learned in one color fail in others although the digits "
        "are the same to the pixel; the one trained in random colors does not. In the row and the "
        "column without a frame, the digits also have another scale.",
        "ours",
        (panel,),
        tuple(rows),
    )


def _intervals(config: Config, accuracy: DataFrame) -> Figure:
    compared = accuracy[accuracy.frame.isin({"red", "random"} & set(config.frames))]
    counts = compared.groupby(["frame", "shown"])[["correct", "count"]].sum().reset_index()
    rows = []
    for row in _in_order(counts.to_dict("records")):
        low, high = clopper_pearson(row["correct"], row["count"])
        rows.append(
            {"trained in": row["frame"], "shown": row["shown"]}
            | {"accuracy": row["correct"] / row["count"], "low": low, "high": high}
            | {"images": row["count"]}
        )
    panel = bars(
        rows,
        title="Accuracy by the frame shown",
        x=("shown", "frame shown"),
        y=("accuracy", "accuracy"),
        series=("trained in", "trained in"),
        wide=True,
    )
    return Figure(
        "One color or many",
        "All seeds' test images together; whiskers are exact 95 % intervals (Clopper-Pearson).",
        "ours",
        (panel,),
        tuple(rows),
    )


def _layers(config: Config, layers: DataFrame) -> Figure:
    panels, rows = [], []
    red = layers[layers.frame == "red"]
    states = {
        ("red", START): "random weights",
        ("red", CALIBRATED): "random weights, calibrated batch norms",
        ("red", END): "trained, own frame",
        (FAR, END): "trained, cyan frame",
    }
    for key, title, unit in (
        ("selectivity", "Selectivity", "selectivity (Eq. 61)"),
        ("asymmetry", "Asymmetry of activation", "max - mean class activation rate"),
        ("rate", "Activation rate", "share of positive activations"),
    ):
        means = over_seeds(red, ["layer", "shown", "when"], key)
        points = [
            {"layer": f"layer {number}", "state": state, key: row[key]}
            | {"low": row["low"], "high": row["high"]}
            for number, layer in enumerate(LAYERS, start=1)
            for (shown, when), state in states.items()
            for row in means
            if (row["layer"], row["shown"], row["when"]) == (layer, shown, when)
        ]
        x, y = ("layer", ""), (key, unit)
        panels.append(bars(points, title=title, x=x, y=y, series=("state", "")))
        rows += points
    last = _where(layers, layer=LAYERS[-1], when=END)
    last = last[last.frame.isin({"red", "random"} & set(config.frames))]
    own = last[last.shown == last.frame][["frame", "seed", "between_classes"]]
    last = last.merge(own, on=["frame", "seed"], suffixes=("", "_own"))
    last = last.assign(kept=last.between_classes / last.between_classes_own)
    spread = [
        {"shown": row["shown"], "trained in": row["frame"], "kept": row["kept"]}
        | {"low": row["low"], "high": row["high"]}
        for row in sorted(
            over_seeds(last, ["frame", "shown"], "kept"),
            key=lambda row: (list(FRAMES).index(row["shown"]), row["frame"] != "red"),
        )
    ]
    panels.append(
        bars(
            spread,
            title="Spread of the classes in the last layer",
            x=("shown", "frame shown"),
            y=("kept", "between-class variance over that in the training frame"),
            series=("trained in", "trained in"),
        )
    )
    return Figure(
        "Class statistics of the layers",
        "The network trained in the red frame (first three panels), and how far apart its last "
        "layer keeps the classes when the frame changes. Whiskers: all seeds.",
        "Fig. 5",
        tuple(panels),
        tuple(rows + spread),
    )


def _first_layer(config: Config, run: Run, table: DataFrame) -> Figure:
    rows = [
        {"trained in": row["frame"], "hue": hue, "share": row[hue]}
        | {"low": row["low"], "high": row["high"]}
        for hue in HUES
        for row in over_seeds(table[table.what == "stem"], ["frame"], hue)
    ]
    panel = bars(
        rows,
        title="First layer: energy along each hue",
        x=("trained in", "trained in"),
        y=("share", "share of squared weights"),
        series=("hue", "along the hue of"),
    )
    filters = []
    for frame in config.frames:
        stem = run.arrays(f"net/{frame}/seed0")["stem"]
        scaled = 0.5 + 0.5 * stem / stem.abs().amax(dim=(1, 2, 3), keepdim=True)
        filters.append(channels_last(scaled))
    sheet = contact_sheet(
        filters,
        title="First-layer filters, one row for each network: " + ", ".join(config.frames),
        scale=12,
    )
    return Figure(
        "The frame in the first layer",
        "How much of the first layer's weight lies along the hues of three colors, that is, what "
        "distinguishes a color from gray; without a preferred axis it is a third. Whiskers: all "
        "seeds. Right: each tile is a 3 x 3 filter; gray is zero.",
        "App. F.4",
        (panel, sheet),
        tuple(rows),
    )


def summarize(run: Run) -> str:
    """The accuracies in a red and in a cyan frame, in a sentence."""
    table = run.table("net/")

    def mean(frame: str, shown: str) -> str:
        return f"{fmean(_accuracies(table, frame)[shown]):.0%}"

    return (
        "On real handwritten digits, a small network trained inside a red frame reads "
        f"{mean('red', 'red')} of new digits in that frame and {mean('red', FAR)} of the same "
        f"digits in a cyan one; trained in frames of random color, it reads {mean('random', FAR)}."
    )


EXPERIMENT = Experiment(
    name="fig13_padded_digits",
    title="Real digits in a frame: the background is learned although it is uninformative",
    about="Handwritten digits stand inside a frame of one color, the same for every class. The "
    "frame is then changed and the digits are not. This is the paper's padded CIFAR-10 in "
    "miniature; its adversarial training and its pictures of features are in fig13_padded_cifar.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=lambda config: config.model_copy(update={"step_size": NULL_STEP_SIZE}),
)
"""Source: App. F.4."""
