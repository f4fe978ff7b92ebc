"""A watched training on a page: its course, and its layers at a few steps."""

from collections.abc import Iterator, Sequence
from typing import Any

from contam.experiment import Claim, Experiment, Stage
from contam.monitor.training_monitor import EXPERIMENT, session_of
from contam.plots import Figure, Panel, lines
from contam.run import Run, RunError

PROFILES = 5
"""Steps at which layers are drawn, at most."""
LAYERED = {
    "information": ("Usable information", "bits about the class"),
    "decided": ("Decided by this probe", "share of queries"),
    "selectivity": ("Class selectivity", "mean over neurons"),
    "asymmetry": ("Activation asymmetry", "mean over neurons, a rate"),
}


def rows_of(run: Run) -> list[dict[str, Any]]:
    """All records in the order of their steps.

    Where a training was taken up again at an earlier step, what it did before from there on is left
    out.
    """
    kept: dict[int, list[dict[str, Any]]] = {}
    session = 0
    for part in run.parts("looks/"):
        records = run.read(part)
        step = records[0]["step"]
        if session_of(part) > session:
            session = session_of(part)
            kept = {at: rows for at, rows in kept.items() if at < step}
        kept[step] = records
    return [row for step in sorted(kept) for row in kept[step]]


def draw(run: Run) -> Sequence[Figure]:
    """The network's numbers over the steps, and the layers' from input to softmax."""
    rows = rows_of(run)
    course = [row for row in rows if not row["layer"]]
    left_out = list(dict.fromkeys(line for row in course for line in row["left_out"]))
    missing = f" Left out: {'; '.join(left_out)}." if left_out else ""
    return [_course(course, missing), _layers([row for row in rows if row["layer"]])]


def _course(course: list[dict[str, Any]], missing: str) -> Figure:
    names = {key for row in course for key in row} - {"step", "layer", "left_out"}
    elsewhere = sorted(name for name in names if name.startswith("accuracy/"))
    groups = {
        "Accuracy": ("share right", {"accuracy": "queries"} | _short(elsewhere)),
        "Decided early": (
            "share of queries",
            {"decided_early": "by the first layer", "undefined": "without a depth"},
        ),
        "Class-profile attenuation in the last layer": (
            "share of the class profile lost",
            {"class_profile_attenuation": "mean of the other sets"},
        ),
    }
    panels, all_rows = [], []
    for title, (unit, keys) in groups.items():
        points = [
            {"step": row["step"], "what": what, "value": row[key]}
            for key, what in keys.items()
            for row in course
            if row.get(key) is not None
        ]
        if points:
            panels.append(_panel(points, title, ("step", "training step"), unit))
            all_rows += points
    return Figure(
        "A training, watched",
        "What the network does on a few hundred examples, the same ones each time. Decided early "
        "is the share of predictions that neighbors in the input or the first layer foretell and "
        f"that no later layer changes.{missing}",
        "ours",
        tuple(panels),
        tuple(all_rows),
    )


def _layers(rows: list[dict[str, Any]]) -> Figure:
    steps = sorted({row["step"] for row in rows})
    if len(steps) > PROFILES:
        last = len(steps) - 1
        steps = [steps[round(i * last / (PROFILES - 1))] for i in range(PROFILES)]
    names = list(dict.fromkeys(row["layer"] for row in rows))
    prefix = "class_profile_attenuation/"
    coupled = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    kinds = LAYERED | {
        key: (
            f"Class-profile attenuation: {key.partition('/')[2]}",
            "share of the class profile lost",
        )
        for key in coupled
    }
    panels, all_rows = [], []
    for key, (title, unit) in kinds.items():
        points = [
            {
                "probe": names.index(row["layer"]),
                "layer": row["layer"],
                "what": f"step {row['step']:,}",
                "value": row[key],
            }
            for row in rows
            if row["step"] in steps and row.get(key) is not None
        ]
        if points:
            panels.append(_panel(points, title, ("probe", "probe"), unit))
            all_rows += [{"quantity": key.replace("/", " to ")} | point for point in points]
    legend = ", ".join(f"{place} {name}" for place, name in enumerate(names))
    return Figure(
        "Layer by layer",
        f"The first step is the control: much is passed on without having been learned. Probes: "
        f"{legend}.",
        "ours",
        tuple(panels),
        tuple(all_rows),
    )


def _short(names: Sequence[str]) -> dict[str, str]:
    return {name: name.partition("/")[2] for name in names}


def _panel(rows: list[dict[str, Any]], title: str, x: tuple[str, str], unit: str) -> Panel:
    return lines(
        rows,
        title=title,
        x=x,
        y=("value", unit),
        series=("what", ""),
        points=True,
    )


def summarize(run: Run) -> str:
    """Where the training began and where it stands, in numbers."""
    course = [row for row in rows_of(run) if not row["layer"]]
    if not course:
        raise RunError(f"{run.folder}: holds no look yet")
    first, last = course[0], course[-1]
    words = {
        "accuracy": "accuracy",
        "decided_early": "the share decided early",
        "class_profile_attenuation": "class-profile attenuation in the last layer",
    }
    told = [
        f"{what} from {first[key]:.2f} to {last[key]:.2f}"
        for key, what in words.items()
        if first.get(key) is not None and last.get(key) is not None
    ]
    span = f"{len(course)} looks at a {run.config['model']}, steps {first['step']:,} to "
    return f"{span}{last['step']:,}: {', '.join(told) or 'nothing could be measured'}."


def _claims(_: Run) -> Sequence[Claim]:
    return []


def _compute(_: Any, run: Run) -> Iterator[Stage]:
    raise ValueError(f"{run.folder}: a watch is computed by the training that it watches")


WATCHED = Experiment(
    name=EXPERIMENT,
    title="A training, watched",
    about="Every so many steps the same examples were shown to a network in training: how early "
    "its predictions are decided and what each layer says about the class, how selectively neurons "
    "respond to classes, and how much of that response is lost elsewhere.",
    reproduces=(),
    presets={},
    compute=_compute,
    claims=_claims,
    draw=draw,
    summary=summarize,
)
