"""Where contamination begins, how strong it is and what ends it, one diagram for each cause."""

from collections.abc import Iterator
from dataclasses import dataclass

from contam.experiment import Experiment, Stage
from contam.experiments.phase_diagrams import depth, two_layer
from contam.experiments.phase_diagrams.cells import Cell, cells
from contam.experiments.phase_diagrams.claims import claims, summarize
from contam.experiments.phase_diagrams.config import FULL, LAPTOP, SMOKE, Config, null
from contam.experiments.phase_diagrams.figures import draw
from contam.run import Run


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train every cell from every seed, predict it where the population model applies."""
    parts = [*cells(config), *deep(config)]
    for index, part in enumerate(parts):
        yield Stage(index / len(parts), part.part)
        if not run.has(part.part):
            run.write(part.part, list(_rows(config, part)))


@dataclass(frozen=True)
class Deep:
    """Deep networks of one kind and depth, in the place of a cell."""

    kind: depth.Kind
    depth: int

    @property
    def part(self) -> str:
        """Name of the part of a run."""
        return f"depth/{self.kind}/{self.depth}"


def deep(config: Config) -> Iterator[Deep]:
    """Yield the deep networks of a config.

    >>> [network.part for network in deep(Config(only=("depth",), depths=(2,)))][:2]
    ['depth/plain/2', 'depth/residual/2']
    """
    if "depth" in (config.only or ("depth",)):
        yield from (Deep(kind, hidden) for kind in depth.KINDS for hidden in config.depths)


def _rows(config: Config, part: Cell | Deep) -> Iterator[dict[str, object]]:
    for seed in range(config.seeds):
        if isinstance(part, Deep):
            yield from depth.trained(config, part.kind, part.depth, seed)
        elif part.until_fit:
            yield two_layer.trained_to_fit(part, seed, config.test_examples)
        else:
            yield from two_layer.trained(part, seed, config.test_examples)
    if isinstance(part, Cell):
        if part.until_fit:
            yield from two_layer.predicted_at_fit(part)
        else:
            yield from two_layer.predicted(part, config.neurons)


EXPERIMENT = Experiment(
    name="phase_diagrams",
    title="Phase diagrams: where contamination begins, how strong it is, and what ends it",
    about="A two-layer ReLU network learns background features that say nothing about the label. "
    "Each diagram changes one or two things: the activation function, the training, the data or "
    "the size. Contamination is V / U, the background that the average neuron has learned per unit "
    "of core; its cost is the OOD minus the ID risk.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the questions of Sec. 7."""
