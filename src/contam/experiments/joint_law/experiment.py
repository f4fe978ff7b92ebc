"""Trains two-layer networks and deep ones over the plane of correlation and ease."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

from contam.experiment import Experiment, Stage
from contam.experiments.joint_law import deep, two_layer
from contam.experiments.joint_law.claims import claims
from contam.experiments.joint_law.config import FULL, LAPTOP, SMOKE, Config, null
from contam.experiments.joint_law.figures import draw, summarize
from contam.run import Run
from contam.theory.coverage import uncovered


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train two-layer networks and deep networks over the plane, and measure each."""
    plane = list(product(config.sizes, config.correlations))
    works: list[tuple[str, float, Callable[[], Iterator[float]]]] = [
        ("prediction of two-layer networks", 0.1, partial(two_layer.predict, config, run, *place))
        for place in plane
        if uncovered(two_layer.setting_of(config, *place)) is None
    ]
    for seed in range(config.seeds):
        for place in plane:
            work = partial(two_layer.train, config, run, *place, seed)
            works.append((f"seed {seed}: two-layer network", 0.1, work))
        for cell in deep.deep_cells(config):
            doing = f"seed {seed}: contrast {cell.contrast:g}, correlation {cell.correlation:g}"
            works.append((doing, 1.0, partial(deep.train, config, run, cell, seed)))
    total, finished = sum(weight for _, weight, _ in works), 0.0
    for doing, weight, work in works:
        for done in work():
            yield Stage((finished + weight * done) / total, doing)
        finished += weight


EXPERIMENT = Experiment(
    name="joint_law",
    title="Both papers in one plane: correlation with the label and ease of the background",
    about="Feature contamination says that a background harms although it is independent of the "
    "label. Murali et al. (2023) say that a feature that predicts the label harms if it is easier "
    "than the core. Here the same background goes from independent to perfectly predictive, and "
    "from too faint to see to easy, in two-layer networks and in deep ones.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours; Thm. 4.3 at correlation 0, Murali et al. (2023) at correlation 1."""
