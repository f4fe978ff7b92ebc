"""Runs whose every text is hostile, and the page about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, PositiveInt

from contam import report
from contam.experiment import Claim, Experiment, judge
from contam.plots import (
    Figure,
    Tile,
    accuracies,
    bars,
    contact_sheet,
    heat_maps,
    histogram,
    lines,
    matrix,
    over_seeds,
    scatter,
)
from contam.run import Run

HOSTILE = "</script><script>alert('x')</script><!-- & \"quoted\" 'too' 日本語 𝒳 \u2028"
LONG = "contamination" * 24


class Part(BaseModel, frozen=True, extra="forbid"):
    """A config within a config."""

    width: PositiveInt = 256
    """Hidden neurons & <more>."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """What the fake experiment is run with."""

    seeds: PositiveInt = 4
    """Ours: the paper does not say how many."""
    name: str = HOSTILE
    network: Part = Part()


def claims(run: Run) -> list[Claim]:
    values = [row["value"] for row in run.read("measured")]
    return [
        judge(f"{HOSTILE} it holds", values, source="Thm. 4.1", quantity="share", low=0.1,
              published=".5 <b>"),
        judge("It does not hold", values, source="ours", quantity=LONG, high=0.01),
        judge("In every seed", values, source="Eq. 5", quantity="x", low=0, high=1,
              every_seed=True),
        judge("No number at all", [], source="Fig. 8", quantity="y", low=1.0),
        judge("Not a number", [float("nan")], source="Fig. 8", quantity="z", low=1.0),
        Claim(f"{LONG} was not run", "App. F.1", HOSTILE, not_judged=f"because {HOSTILE}"),
    ]  # fmt: skip


def draw(run: Run) -> list[Figure]:
    curve = [
        {"step": step, "net": net, "value": value * step, "low": 0.0, "high": 1.2 * value * step}
        for net, value, steps in ((HOSTILE, 1.0, 99), ("linear", 0.5, 800), (LONG, 0.1, 9))
        for step in range(steps)
    ]
    curve += [{"step": 7, "net": "linear", "value": value} for value in (None, float("nan"))]
    cells = [
        {"frame": frame, "net": net, "value": value, "low": 0.1, "high": 0.9}
        for frame in ("red", "a frame of a long name", HOSTILE)
        for net, value in (("a", 0.5), ("b", None), ("c", float("nan")))
    ]
    short = [cell | {"frame": cell["frame"][:3]} for cell in cells]
    rng = np.random.default_rng(0)
    models = [
        {"net": net, "id": 0.5 + 0.1 * i, "ood": 0.4, "ood_low": 0.0, "ood_high": 0.7,
         "low": 0.3, "high": 0.5} for net in (HOSTILE, "linear") for i in range(6)
    ]  # fmt: skip
    x, y, series = ("step", "training step"), ("value", f"risk {HOSTILE}"), ("net", "network")
    shares, rows = histogram(
        {"trained": rng.random(50), "none": np.array([])},
        title="Shares", x="selectivity", edges=np.linspace(0, 1, 11), series="net",
    )  # fmt: skip
    group = ("frame", "frame at test time")
    panels = (
        lines(curve, title=HOSTILE, x=x, y=y, series=series),
        lines(curve, title="Log", x=x, y=y, series=series, log="xy", points=True),
        bars(cells, title="Lying", x=group, y=y, series=series),
        bars(short, title="Standing", x=group, y=y, series=series),
        bars(short[:1], title="One bar", x=group, y=y),
        shares,
        scatter(curve[:90], title="Points", x=x, y=y, series=series),
        matrix(cells, title="Cells", x=group, y=series, value=("value", "v")),
        contact_sheet([[rng.random((4, 4, 3))] * 3] * 2, title="Pictures"),
        accuracies(
            models,
            title="Models",
            x=("id", HOSTILE),
            y=("ood", LONG),
            series=series,
            name="net",
            line=models,
            join="net",
        ),
        heat_maps(
            [
                Tile(column, row, rng.random((4, 4, 3)), rng.random((2, 2)), HOSTILE[:9])
                for column in ("a", LONG)
                for row in ("b", HOSTILE)
            ],
            title="Heat",
        ),
    )
    empty = (
        lines([], title="No curve", x=x, y=y, series=series),
        bars([], title="No bar", x=group, y=y),
        scatter([], title="No point", x=x, y=y, series=series),
        matrix([], title="No cell", x=group, y=series, value=("value", "v")),
    )
    return [
        Figure(f"Every kind {HOSTILE}", f"Caption {HOSTILE}", "Fig. 8", panels, tuple(curve)),
        Figure("Nothing", "No row was written.", "ours", empty),
        Figure("Rows", "", "ours", (), tuple(over_seeds(rows, ["series", "from"], "share"))),
    ]


EXPERIMENT = Experiment(
    name="hostile",
    title=f"Title {HOSTILE}",
    about=f"About {HOSTILE} {LONG}",
    reproduces=("Fig. 8", "Thm. 4.1"),
    presets={"paper": Config(), "smoke": Config(seeds=2)},
    compute=lambda config, run: iter(()),
    claims=claims,
    draw=draw,
    summary=lambda run: f"Summary {HOSTILE} of {len(run.parts())} part, 87 %.",
)
SILENT = Experiment(
    name="silent",
    title="An experiment without claims or figures",
    about="It says nothing.",
    reproduces=(),
    presets={"paper": Config()},
    compute=lambda config, run: iter(()),
    claims=lambda run: [],
    draw=lambda run: [],
    summary=lambda run: "Nothing was found.",
)


def finished(root: Path, experiment: Experiment, config: Any) -> Run:
    with Run.start(root, experiment.name, config) as run:
        run.write("measured", [{"seed": seed, "value": 0.3 + seed / 10} for seed in range(3)])
        run.finish()
    return Run.load(run.folder)


@pytest.fixture(scope="session")
def experiments() -> dict[str, Experiment]:
    return {"hostile": EXPERIMENT, "silent": SILENT}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A finished run, one of other settings, one without claims, and an unfinished one."""
    root = tmp_path_factory.mktemp("runs")
    with Run.start(root, "hostile", Config(seeds=7)) as unfinished:
        unfinished.write("measured", [{"seed": 0, "value": 1.0}])
    return [
        finished(root, EXPERIMENT, EXPERIMENT.presets["smoke"]),
        finished(root, EXPERIMENT, Config(seeds=3, network=Part(width=8))),
        finished(root, SILENT, Config()),
        Run.load(unfinished.folder),
    ]


@pytest.fixture(scope="session")
def page(runs: list[Run], experiments: dict[str, Experiment]) -> str:
    return report.page(runs, experiments)
