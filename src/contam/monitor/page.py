"""The page about a monitored training: its numbers over the steps and over the layers."""

from collections.abc import Iterator, Sequence
from typing import Any

from contam.experiment import Experiment, Stage, no_claims
from contam.measures.attenuation import above_one
from contam.monitor.snapshot import ATTENUATION
from contam.monitor.training_monitor import EXPERIMENT, PARTS, session_of
from contam.plots import Figure, Panel, lines
from contam.run import Run, RunError

MAX_PROFILES = 5
"""Maximum number of steps at which layers are drawn."""
ALARM = 0.5
"""Smallest share of predictions decided early that raises the early alarm."""
RISE = 0.1
"""Smallest excess of this share over that of the untrained network that raises the alarm."""
LAYERED = {
    "information": ("Usable information", "bits about the class"),
    "decided": ("Decided by this probe", "share of queries with a depth"),
    "selectivity": ("Class selectivity", "mean over neurons"),
    "asymmetry": ("Activation asymmetry", "mean over neurons, a rate"),
}


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return all records in the order of their steps.

    If a training was resumed from an earlier step, the records of the first session from that step
    on are left out.

    Args:
        run: the run of a monitor.

    Returns:
        One record for the network, whose layer is empty, and one for each layer, at every step.

    >>> import torch
    >>> from contam.monitor import watch
    >>> y = torch.arange(40) % 2
    >>> model = torch.nn.Sequential(torch.nn.ReLU())
    >>> with watch(model, (torch.eye(2)[y], y), out="runs", show=False) as monitor:
    ...     monitor.step()
    >>> [(row["step"], row["layer"]) for row in rows_of(Run.load(monitor.folder))][:4]
    [(0, ''), (0, 'input'), (0, '0'), (0, 'softmax')]
    """
    kept: dict[int, list[dict[str, Any]]] = {}
    session = 0
    for part in run.parts(PARTS):
        records = run.read(part)
        step = records[0]["step"]
        if session_of(part) > session:
            session = session_of(part)
            kept = {at: rows for at, rows in kept.items() if at < step}
        kept[step] = records
    return [row for step in sorted(kept) for row in kept[step]]


def course_of(run: Run) -> list[dict[str, Any]]:
    """Return the records of the whole network, in the order of their steps.

    Args:
        run: the run of a monitor.

    Raises:
        RunError: there is no snapshot.

    >>> import torch
    >>> from contam.monitor import watch
    >>> y = torch.arange(40) % 2
    >>> model = torch.nn.Sequential(torch.nn.ReLU())
    >>> with watch(model, (torch.eye(2)[y], y), out="runs", show=False) as monitor:
    ...     monitor.step()
    >>> [row["accuracy"] for row in course_of(Run.load(monitor.folder))]
    [1.0, 1.0]
    """
    course = [row for row in rows_of(run) if not row["layer"]]
    if not course:
        raise RunError(f"{run.folder}: holds no snapshot yet")
    return course


def draw(run: Run) -> Sequence[Figure]:
    """Draw the network's numbers over the steps, and those of the layers at a few steps.

    Args:
        run: the run of a monitor.

    >>> import torch
    >>> from contam.monitor import watch
    >>> y = torch.arange(40) % 2
    >>> model = torch.nn.Sequential(torch.nn.ReLU())
    >>> with watch(model, (torch.eye(2)[y], y), out="runs", show=False) as monitor:
    ...     monitor.step()
    >>> [figure.title for figure in draw(Run.load(monitor.folder))]
    ['The training over its steps', 'Layer by layer']
    """
    rows = rows_of(run)
    course = [row for row in rows if not row["layer"]]
    left_out = list(dict.fromkeys(line for row in course for line in row["left_out"]))
    missing = f" Left out: {'; '.join(left_out)}." if left_out else ""
    return [_course(course, missing), _layers([row for row in rows if row["layer"]])]


def _course(course: list[dict[str, Any]], missing: str) -> Figure:
    names = {key for row in course for key in row} - {"step", "layer", "left_out"}
    other_sets = sorted(name for name in names if name.startswith("accuracy/"))
    groups = {
        "Accuracy": ("share correct", {"accuracy": "queries"} | _short(other_sets)),
        "Decided early": (
            "share of queries",
            {
                "decided_early": "by the first layer, of those with a depth",
                "undefined": "without a depth",
            },
        ),
        "Class-profile attenuation in the last layer": (
            "share of the class profile lost",
            {ATTENUATION: "mean of the other sets"},
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
        "The training over its steps",
        "Each snapshot shows the same few hundred examples to the network. A prediction is decided "
        "early if neighbors in the input or the first layer predict it and no later layer changes "
        "it; predictions without a depth are not counted. The first snapshot, before training, is "
        f"the control: the early alarm compares the share that is decided early with it.{missing}",
        "ours",
        tuple(panels),
        tuple(all_rows),
        above_one(row.get(ATTENUATION) for row in course),
    )


def _layers(rows: list[dict[str, Any]]) -> Figure:
    steps = sorted({row["step"] for row in rows})
    if len(steps) > MAX_PROFILES:
        last = len(steps) - 1
        steps = [steps[round(i * last / (MAX_PROFILES - 1))] for i in range(MAX_PROFILES)]
    names = list(dict.fromkeys(row["layer"] for row in rows))
    prefix = f"{ATTENUATION}/"
    others = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    kinds = LAYERED | {
        key: (
            f"Class-profile attenuation: {key.partition('/')[2]}",
            "share of the class profile lost",
        )
        for key in others
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
        "The first step is the control: an untrained network already passes on much of its input. "
        f"Probes: {legend}.",
        "ours",
        tuple(panels),
        tuple(all_rows),
        above_one(row.get(key) for row in rows if row["step"] in steps for key in others),
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
    """Return a sentence with the first and the last numbers of a training.

    Args:
        run: the run of a monitor.

    Raises:
        RunError: there is no snapshot.

    >>> import torch
    >>> from contam.monitor import watch
    >>> y = torch.arange(40) % 2
    >>> model = torch.nn.Sequential(torch.nn.ReLU())
    >>> with watch(model, (torch.eye(2)[y], y), out="runs", show=False) as monitor:
    ...     monitor.step()
    >>> summarize(Run.load(monitor.folder))[:60]
    'From step 0 to step 1 of training this Sequential, accuracy '
    """
    course = course_of(run)
    first, last = course[0], course[-1]
    words = {
        "accuracy": "accuracy",
        "decided_early": "the share of predictions decided early",
        ATTENUATION: "class-profile attenuation in the last layer",
    }
    changes = [
        f"{what} went from {first[key]:.2f} to {last[key]:.2f}"
        for key, what in words.items()
        if first.get(key) is not None and last.get(key) is not None
    ]
    return (
        f"From step {first['step']:,} to step {last['step']:,} of training this "
        f"{run.config['model']}, {'; '.join(changes) or 'nothing could be measured'} "
        f"({len(course)} snapshots)."
    )


def alarm(run: Run) -> str:
    """Return the early alarm: the network may have learned an easy feature that decides.

    The first snapshot, of the network before training, is the control: untrained layers keep what
    neighbors read in the input. A later snapshot raises the alarm if at least `ALARM` of the
    predictions with a depth are decided early, and at least `RISE` more than in the control. If the
    control has no depths, there is no alarm.

    Args:
        run: the run of a monitor.

    Returns:
        A sentence; empty if no snapshot raises the alarm.

    Raises:
        RunError: there is no snapshot.

    Source: ours, after Murali et al. (2023), who interpret small depths by eye and without a
        control.

    >>> import torch
    >>> from contam.monitor import watch
    >>> y = torch.arange(40) % 2
    >>> model = torch.nn.Sequential(torch.nn.ReLU())
    >>> with watch(model, (torch.eye(2)[y], y), out="runs", show=False) as monitor:
    ...     monitor.step()
    >>> alarm(Run.load(monitor.folder))
    ''
    """
    first, *later = course_of(run)
    control = first.get("decided_early")
    for row in later:
        share = row.get("decided_early")
        if control is not None and share is not None and share >= max(ALARM, control + RISE):
            return (
                f"Early alarm: at step {row['step']:,}, {share:.0%} of the predictions that have "
                "a depth are decided by the input or the first layer, compared with "
                f"{control:.0%} at the first snapshot, the control (step {first['step']:,}). An "
                "easy feature may decide them. It can be a shortcut, or the class may be easy to "
                "see: check the accuracy on shifted data."
            )
    return ""


def _compute(_: Any, run: Run) -> Iterator[Stage]:
    raise ValueError(f"{run.folder}: a monitor's run is written by the training that it monitors")


WATCHED = Experiment(
    name=EXPERIMENT,
    title="Training monitor",
    about="Every so many steps the same examples were shown to a network in training. Measured "
    "are how early its predictions are decided, how much each layer says about the class, how "
    "selectively neurons respond to classes, and which share of the class profile other data lose.",
    reproduces=(),
    presets={},
    compute=_compute,
    claims=no_claims,
    draw=draw,
    summary=summarize,
    alert=alarm,
)
