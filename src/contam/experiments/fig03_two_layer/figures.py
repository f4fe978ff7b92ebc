"""Figures of a run of two-layer networks."""

from collections.abc import Sequence
from typing import Any

from contam.experiments.fig03_two_layer.config import CLASSES, COUPLING, LINEAR, Config
from contam.experiments.support.two_layer_runs import NAMES, curve
from contam.plots import Figure, lines, over_seeds, scatter
from contam.run import Run
from contam.theory.setting import Setting

TIME = ("time", "training time (steps × step size)")


def draw(run: Run) -> Sequence[Figure]:
    """Figures 3a, 7, 8 and 9, the long run, and the prediction over the simulated curves."""
    setting = Config.model_validate(run.config).setting
    name = NAMES[setting.activation]
    long = _compared(run, setting, "long", "background_norm")
    long_panel = _panel(long, "Background norm over a long training",
                        "norm of the background projections", wide=True)  # fmt: skip
    sums = _compared(run, setting, "regression", "V")
    sums_panel = _panel(sums, "Background, summed with its sign",
                        "V, summed background projections", wide=True)  # fmt: skip
    classification = _task(run, setting, "classification", setting.loss, f"{setting.loss} risk")
    regression = _task(run, setting, "regression", "squared", "squared error per output")
    return [
        _asymmetry(run, setting),
        Figure(
            "Classification: the learned features, and the cost of a shift",
            f"The {name} network's neurons learn background features although these are "
            "independent of the label, and its OOD risk stays high; the linear network's do not. "
            "Predicted: by the population model, without training. Bands: all seeds.",
            "Fig. 8",
            *classification,
        ),
        Figure(
            "Regression on the ideal representation",
            "Trained to output the core features themselves (the ideal representation), the "
            f"{name} network still learns background features, which raises its OOD error; the "
            "linear network does not. Bands: all seeds.",
            "Fig. 9",
            (*regression[0], sums_panel),
            (*regression[1], *({"network": "both"} | row for row in sums)),
        ),
        Figure(
            "The long run",
            "The training risk is close to zero after 200 steps. From then on weight decay removes "
            f"the background from the linear network, and the {name} network keeps it.",
            "ours",
            (long_panel,),
            tuple(long),
        ),
        _other_data(run, setting),
    ]


def _panel(rows: list[dict[str, Any]], title: str, y: str, *, wide: bool = False) -> Any:
    return lines(rows, title=title, x=TIME, y=("value", y), series=("what", ""), wide=wide)


def _compared(run: Run, setting: Setting, task: str, column: str) -> list[dict[str, Any]]:
    """A column of the network and of its linear twin over training time."""
    return [
        row
        for activation in (setting.activation, LINEAR)
        for row in curve(run, f"{task}/{activation}", "time", column, NAMES[activation])
    ]


def _task(
    run: Run, setting: Setting, task: str, loss: str, loss_name: str
) -> tuple[tuple[Any, ...], tuple[dict[str, Any], ...]]:
    """Panels and rows of norms and risks, for the network and for its linear twin."""
    panels, rows = [], []
    for activation in (setting.activation, LINEAR):
        part, name = f"{task}/{activation}", NAMES[activation]
        sources = {part: ""}
        if part == f"classification/{setting.activation}" and run.parts("prediction/"):
            sources["prediction"] = ", predicted"
        for title, y, columns in (
            ("learned features", "norm of the projections",
             {"core_norm": "core", "background_norm": "background"}),
            ("risk", loss_name, {f"id_{loss}": "ID", f"ood_{loss}": "OOD"}),
        ):  # fmt: skip
            curves = [
                row
                for source, suffix in sources.items()
                for column, label in columns.items()
                for row in curve(run, source, "time", column, label + suffix)
            ]
            panels.append(_panel(curves, f"{name}: {title}", y))
            rows += [{"network": name} | row for row in curves]
    return tuple(panels), tuple(rows)


def _other_data(run: Run, setting: Setting) -> Figure:
    """Risks with several classes, and with more general data."""
    panels, rows = [], []
    for task, loss, title in (
        ("several", "logistic", f"{CLASSES} classes"),
        ("general", setting.loss, "Dependent backgrounds, skewed core weights"),
    ):
        if not run.parts(f"{task}/"):
            continue
        curves = [
            row
            for activation in (setting.activation, LINEAR)
            for where in ("id", "ood")
            for row in curve(run, f"{task}/{activation}", "time", f"{where}_{loss}",
                             f"{NAMES[activation]}, {where.upper()}")
        ]  # fmt: skip
        panels.append(_panel(curves, title, f"{loss} risk"))
        rows += [{"data": title} | row for row in curves]
    return Figure(
        "More classes, and more general data",
        f"{NAMES[setting.activation]} networks also fail with {CLASSES} classes (logistic loss, "
        f"trained head), and with background features that share a quantile with probability "
        f"{COUPLING}; linear networks do not. Bands: all seeds.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _asymmetry(run: Run, setting: Setting) -> Figure:
    """Each neuron's mean response to the two classes over training, and shares over seeds."""
    table = run.table("responses/seed")
    panels, rows = [], []
    for time, neurons in table[table["part"] == "responses/seed0"].groupby("time"):
        marks = neurons.sort_values("kind")[["time", "positive", "negative", "kind"]]
        panels.append(
            scatter(
                marks.to_dict("records"),
                title=f"Neurons at training time {time:g}",
                x=("positive", "mean response to class +1"),
                y=("negative", "mean response to class −1"),
                series=("kind", "responds to"),
            )
        )
        rows += marks.to_dict("records")
    shares = (
        table.groupby(["part", "time"])["kind"].value_counts(normalize=True)
        .unstack(fill_value=0.0).stack().rename("share").reset_index()
    )  # fmt: skip
    curves = [
        row | {"what": row["kind"], "value": row["share"]}
        for row in over_seeds(shares.to_dict("records"), ["kind", "time"], "share")
    ]
    panels.append(_panel(curves, "Neurons that respond to", "share of neurons", wide=True))
    return Figure(
        "Activation becomes asymmetric",
        f"Each mark is a neuron of the {NAMES[setting.activation]} network (seed 0). Before "
        "training, a quarter of the neurons has a positive mean response to both classes; after "
        "training, almost none has. The curves are shares of neurons, with bands over all seeds.",
        "Fig. 7",
        tuple(panels),
        tuple(rows + curves),
    )
