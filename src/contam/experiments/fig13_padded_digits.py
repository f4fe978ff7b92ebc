"""Real digits in a frame that says nothing about them: a small network learns the frame, too."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.batch import Domain
from contam.data.digits import FRAMES, frame_color, padded_digits
from contam.experiment import Claim, Experiment, Stage, judge
from contam.measures.accuracy import clopper_pearson
from contam.measures.activation import activation_asymmetry
from contam.measures.class_profiles import class_profiles
from contam.measures.color import color_energy_share, hue_axis
from contam.measures.selectivity import selectivity
from contam.measures.variance import between_class_variance
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.plots import Figure, bars, contact_sheet, matrix, over_seeds
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

Frame = Literal["red", "green", "blue", "cyan", "gray", "black", "white", "random", "none"]

LAYERS = ("encoder.relu1", "encoder.relu2", "encoder.relu3")
HUES = ("red", "green", "blue")
"""Colors whose hue is looked for in the first layer; cyan lies on red's axis."""
FAR = "cyan"
"""The complement of red: as far from the training frame as a color gets."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Ours: App. F.4 in miniature, with digits for CIFAR-10 and without adversarial training."""

    frames: tuple[Frame, ...] = ("red", "green", "blue", "cyan", "gray", "random", "none")
    """The frame that each network is trained in; "random" and "none" are controls."""
    width: PositiveInt = 16
    """Channels of the first convolution."""
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    step_size: PositiveFloat = 1e-2
    """Of AdamW at its highest: it warms up and then follows a cosine."""
    weight_decay: NonNegativeFloat = 0.05
    train_examples: PositiveInt = 1200
    """Of the 1797 digits; 197 are kept for validation and the rest for the tests."""
    seeds: PositiveInt = 5


PAPER = Config()
LAPTOP = PAPER.model_copy(update={"frames": ("red", "gray", "random", "none"), "seeds": 3})
SMOKE = LAPTOP.model_copy(update={"frames": ("red", "random"), "width": 4, "epochs": 2, "seeds": 2})


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network in each frame from each seed, and look at it in every frame."""
    todo = [(frame, seed) for seed in range(config.seeds) for frame in config.frames]
    for index, (frame, seed) in enumerate(todo):
        part = f"net/{frame}/seed{seed}"
        if run.has(part):
            continue
        shift = padded_digits(frame, seed=seed, train=config.train_examples)
        model = small_cnn(width=config.width, seed=seed)
        begun = _look(model, (shift.id_test,), "at the start")
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
        rows = begun + _look(model, (shift.id_test, *shift.ood_tests), "after training")
        about = {"frame": frame, "seed": seed}
        stem = model.encoder.get_parameter("conv1.weight").detach()
        run.write(part, [about | row for row in [*rows, _first_layer(stem)]], {"stem": stem})


def _look(model: Classifier, domains: Sequence[Domain], when: str) -> list[dict[str, Any]]:
    """Accuracy on each domain, and what each layer makes of its classes."""
    rows: list[dict[str, Any]] = []
    for domain in domains:
        shown = domain.name.removesuffix(" frame").replace("no", "none")
        found = class_profiles(model, domain, LAYERS, classes=10, batch_size=512)
        assert found.accuracy is not None
        rows.append(
            {"what": "accuracy", "when": when, "shown": shown}
            | {"accuracy": found.accuracy.share}
            | {"correct": found.accuracy.correct, "count": found.accuracy.count}
        )
        for layer, profile in found.layers.items():
            rows.append(
                {"what": "layer", "when": when, "shown": shown, "layer": layer}
                | {"selectivity": float(selectivity(profile.means).mean())}
                | {"rate": float(profile.rates.mean())}
                | {"asymmetry": float(activation_asymmetry(profile.rates).mean())}
                | {"between_classes": float(between_class_variance(profile.means).sum())}
            )
    return rows


def _first_layer(stem: torch.Tensor) -> dict[str, Any]:
    """How far the first layer's filters point along the hue of each color."""
    shares = {hue: float(color_energy_share(stem, hue_axis(frame_color(hue)))) for hue in HUES}
    return {"what": "stem"} | shares


def claims(run: Run) -> Sequence[Claim]:
    """The framed network fails where only the frame changes, its controls do not; and where."""
    config = Config.model_validate(run.config)
    rows = _rows(run)

    def per_seed(key: str, **which: Any) -> list[float]:
        return [row[key] for row in _chosen(rows, **which)]

    def accuracies(frame: str) -> list[dict[str, float]]:
        """For each seed, the trained network's accuracy by the frame that it is shown."""
        found: list[dict[str, float]] = [{} for _ in range(config.seeds)]
        for row in _chosen(rows, what="accuracy", when="after training", frame=frame):
            found[row["seed"]][row["shown"]] = row["accuracy"]
        return found

    def fall(frame: str) -> list[float]:
        """Accuracy lost from the training frame to the worst other color, digits unchanged."""
        return [
            seen[frame] - min(value for shown, value in seen.items() if shown != "none")
            for seen in accuracies(frame)
        ]

    def kept(frame: str, shown: str) -> list[float]:
        """Between-class variance of the last layer, in a frame over in the training frame."""
        last: dict[str, Any] = {"what": "layer", "layer": LAYERS[-1], "when": "after training"}
        here = per_seed("between_classes", frame=frame, shown=shown, **last)
        own = per_seed("between_classes", frame=frame, shown=frame, **last)
        return [a / b for a, b in zip(here, own, strict=True)]

    found = [
        judge(
            "A small network reads digits in the frame it was trained in",
            per_seed("accuracy", what="accuracy", when="after training", frame="red", shown="red"),
            source="App. F.4",
            quantity="accuracy on held-out digits, red frame",
            low=0.95,
        ),
        judge(
            "Trained in red, it fails on the same digits when only the frame's color changes",
            fall("red"),
            source="App. F.4",
            quantity="accuracy lost in the worst other color, trained in red",
            low=0.3,
            every_seed=True,
        ),
    ]
    if "random" in config.frames:
        found.append(
            judge(
                "A network that saw random frame colors does not fail in another frame",
                fall("random"),
                source="App. F.4",
                quantity="accuracy lost in the worst color, trained in random colors",
                high=0.1,
                every_seed=True,
            )
        )
    if "gray" in config.frames:
        found.append(
            judge(
                "A network trained in a gray frame does not fail in another frame",
                fall("gray"),
                source="ours",
                quantity="accuracy lost in the worst other color, trained in gray",
                high=0.1,
            )
        )
    if "none" in config.frames:
        seen = accuracies("none")
        found.append(
            judge(
                "A network that never saw a frame does not fail in one (its digits are larger)",
                [each["none"] - min(v for k, v in each.items() if k != "none") for each in seen],
                source="App. F.4",
                quantity="accuracy lost in the worst frame, trained without one",
                high=0.1,
            )
        )
    if "random" in config.frames:
        own, other = (_chosen(rows, what="stem", frame=frame) for frame in ("red", "random"))
        found += [
            judge(
                "The first layer leans along the frame's hue more than along other hues",
                [row["red"] - max(row["green"], row["blue"]) for row in own],
                source="App. F.4",
                quantity="share of the filters' energy along red's hue, minus that along others'",
                low=0.0,
                every_seed=True,
            ),
            judge(
                "The first layer leans along red more than after training in random colors",
                [a["red"] - b["red"] for a, b in zip(own, other, strict=True)],
                source="App. F.4",
                quantity="share of the filters' energy along red's hue, red minus random frames",
                low=0.05,
                every_seed=True,
            ),
            judge(
                "In the last layer the classes draw together when the frame turns cyan",
                kept("red", FAR),
                source="Sec. 5",
                quantity="between-class variance in cyan over that in the training frame",
                high=0.8,
                every_seed=True,
            ),
            judge(
                "After training in random colors, the classes stay apart when the frame turns cyan",
                kept("random", FAR),
                source="Sec. 5",
                quantity="between-class variance in cyan over that in random colors",
                low=0.8,
                every_seed=True,
            ),
        ]
    last = {"what": "layer", "layer": LAYERS[-1], "frame": "red"}
    for key, name, source in (
        ("selectivity", "selectivity (Eq. 61)", "Fig. 5"),
        ("asymmetry", "asymmetry of the activation rates", "Fig. 4"),
    ):
        begun = per_seed(key, when="at the start", shown="red", **last)
        own = per_seed(key, when="after training", shown="red", **last)
        far = per_seed(key, when="after training", shown=FAR, **last)
        found += [
            judge(
                f"Training raises the last layer's {name}",
                [a - b for a, b in zip(own, begun, strict=True)],
                source=source,
                quantity=f"{name}, trained minus start",
                low=0.02,
                every_seed=True,
            ),
            judge(
                f"The shift lowers the last layer's {name}",
                [a - b for a, b in zip(far, own, strict=True)],
                source=source,
                quantity=f"{name}, cyan minus red frame",
                high=0.0,
                every_seed=True,
            ),
        ]
    return found


def draw(run: Run) -> Sequence[Figure]:
    """What the networks see, where they fail, and what their layers show."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    accuracy = _chosen(rows, what="accuracy", when="after training")
    table = over_seeds(accuracy, ["frame", "shown"], "accuracy")
    order = {frame: place for place, frame in enumerate(FRAMES)}
    table.sort(key=lambda row: (order[row["frame"]], order[row["shown"]]))
    return [
        _pictures(config),
        _table(table),
        _curves(config, accuracy),
        _deep(config, rows),
        _stem(config, run, rows),
    ]


def _pictures(config: Config) -> Figure:
    shift = padded_digits("red", seed=0, train=config.train_examples)
    tests = {"red": shift.id_test} | {t.name.split()[0]: t for t in shift.ood_tests}
    tests = {name.replace("no", "none"): test for name, test in tests.items()}
    pictures = [
        [tests[frame].data.x[i].permute(1, 2, 0).numpy() for frame in FRAMES] for i in range(4)
    ]
    sheet = contact_sheet(
        pictures,
        title="Four test digits in every frame: " + ", ".join(FRAMES),
    )
    return Figure(
        "The same digits, another frame",
        "Frame and digit are independent of each other, and a linear map of the pixels separates "
        "them. The first column is the training distribution.",
        "Fig. 6",
        (sheet,),
    )


def _table(table: list[dict[str, Any]]) -> Figure:
    panel = matrix(
        table,
        title="Accuracy: rows as trained, columns as shown",
        x=("shown", "frame shown"),
        y=("frame", "trained in"),
        value=("accuracy", "accuracy"),
    )
    return Figure(
        "Where each network fails",
        "Mean over seeds. Networks that learned in one color fail in others although the digits "
        "are the same to the pixel; the one that saw random colors holds. The row without a frame "
        "differs in the digits' scale, too.",
        "ours",
        (panel,),
        tuple(table),
    )


def _curves(config: Config, accuracy: list[dict[str, Any]]) -> Figure:
    rows = []
    for frame in (each for each in ("red", "random") if each in config.frames):
        for shown in FRAMES:
            own = _chosen(accuracy, frame=frame, shown=shown)
            if own:
                correct, count = sum(r["correct"] for r in own), sum(r["count"] for r in own)
                low, high = clopper_pearson(correct, count)
                rows.append(
                    {"trained in": frame, "shown": shown, "accuracy": correct / count}
                    | {"low": low, "high": high, "images": count}
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


def _deep(config: Config, rows: list[dict[str, Any]]) -> Figure:
    panels, shown_rows = [], []
    layers = _chosen(rows, what="layer", frame="red")
    states = (
        ("at the start", "red", "random weights"),
        ("after training", "red", "trained, own frame"),
        ("after training", FAR, "trained, cyan frame"),
    )
    for key, title, y in (
        ("selectivity", "Selectivity", "selectivity (Eq. 61)"),
        ("asymmetry", "Asymmetry of activation", "max - mean class activation rate"),
        ("rate", "Activation rate", "share of positive activations"),
    ):
        points = [
            {"layer": f"layer {i}", "state": label, key: row[key]}
            | {"low": row["low"], "high": row["high"]}
            for i, layer in enumerate(LAYERS, start=1)
            for when, shown, label in states
            for row in over_seeds(
                _chosen(layers, when=when, shown=shown, layer=layer), ["layer"], key
            )
        ]
        panels.append(
            bars(
                points,
                title=title,
                x=("layer", ""),
                y=(key, y),
                series=("state", ""),
            )
        )
        shown_rows += points
    spread = []
    for frame in (each for each in ("red", "random") if each in config.frames):
        last = _chosen(rows, what="layer", when="after training", layer=LAYERS[-1], frame=frame)
        own = {r["seed"]: r["between_classes"] for r in last if r["shown"] == frame}
        relative = [r | {"kept": r["between_classes"] / own[r["seed"]]} for r in last]
        spread += [
            {"shown": r["shown"], "trained in": frame, "kept": r["kept"]}
            | {"low": r["low"], "high": r["high"]}
            for r in over_seeds(relative, ["shown"], "kept")
        ]
    order = {frame: place for place, frame in enumerate(FRAMES)}
    spread.sort(key=lambda row: order[row["shown"]])
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
        "What the layers show",
        "The network trained in the red frame (first three panels), and how far apart its last "
        "layer keeps the classes when the frame changes. Whiskers: all seeds.",
        "Fig. 5",
        tuple(panels),
        tuple(shown_rows + spread),
    )


def _stem(config: Config, run: Run, rows: list[dict[str, Any]]) -> Figure:
    stems = [
        {"trained in": row["frame"], "hue": hue, "share": row[hue]}
        | {"low": row["low"], "high": row["high"]}
        for hue in HUES
        for row in over_seeds(_chosen(rows, what="stem"), ["frame"], hue)
    ]
    panel = bars(
        stems,
        title="First layer: energy along each hue",
        x=("trained in", "trained in"),
        y=("share", "share of squared weights"),
        series=("hue", "along the hue of"),
    )
    filters = []
    for frame in config.frames:
        stem = run.arrays(f"net/{frame}/seed0")["stem"]
        scaled = 0.5 + 0.5 * stem / stem.abs().amax(dim=(1, 2, 3), keepdim=True)
        filters.append([each.permute(1, 2, 0).numpy() for each in scaled])
    sheet = contact_sheet(
        filters,
        title="First-layer filters, one row a network: " + ", ".join(config.frames),
        scale=12,
    )
    return Figure(
        "The frame in the first layer",
        "How much of the first layer's weight lies along the hues of three colors: what sets a "
        "color apart from gray. A third is what filters without a preferred axis have. Whiskers: "
        "all seeds.",
        "App. F.4",
        (panel, sheet),
        tuple(stems),
    )


def summarize(run: Run) -> str:
    """What happened, in a sentence."""
    rows = _chosen(_rows(run), what="accuracy", when="after training")

    def mean(frame: str, shown: str) -> str:
        values = [row["accuracy"] for row in _chosen(rows, frame=frame, shown=shown)]
        return f"{sum(values) / len(values):.0%}"

    return (
        "On real handwritten digits, a small network trained inside a red frame reads "
        f"{mean('red', 'red')} of new digits in that frame and {mean('red', FAR)} of the same "
        f"digits in a cyan one; trained in frames of random color, it reads {mean('random', FAR)}."
    )


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for part in run.parts("net/") for row in run.read(part)]


def _chosen(rows: Sequence[dict[str, Any]], **which: Any) -> list[dict[str, Any]]:
    """The rows that have these values, in the order of their seeds."""
    found = [row for row in rows if all(row.get(key) == value for key, value in which.items())]
    return sorted(found, key=lambda row: row["seed"])


EXPERIMENT = Experiment(
    name="fig13_padded_digits",
    title="Real digits in a frame: the background is learned although it says nothing",
    about="Handwritten digits stand inside a frame of one color, the same for every class. The "
    "frame is then changed and the digits are not. This is the paper's padded CIFAR-10 in "
    "miniature; its adversarial training and its pictures of features are in fig13_padded_cifar.",
    reproduces=(),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: App. F.4."""
