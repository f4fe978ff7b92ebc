"""Deep networks on digits, on backgrounds of a contrast and a correlation."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.data.dominoes import CORE, NOISE, STRENGTH, background_patterns, dominoes
from contam.experiments.joint_law.config import Config
from contam.experiments.support.prediction_depth import depth_row, network
from contam.experiments.support.untrained_controls import TRAINED, controls
from contam.measures.accuracy import accuracy
from contam.rng import generator_for
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

RANDOMIZED, REVERSED = "backgrounds randomized", "backgrounds reversed"
"""Tests with backgrounds independent of the label: those of training, and those subtracted."""
SHOWN = 10
"""Number of pictures of a background in the figure."""


class DeepCell(NamedTuple):
    """What a deep network learns from."""

    contrast: float
    """Standard deviation of the background's pixels at strength 1; 0 for no background."""
    correlation: float
    """Correlation of background and label in training and ID test."""
    digits: bool = True
    """Whether there are digits; otherwise noise is in their place."""

    def part(self, seed: int) -> str:
        """The part of a run that holds a network's rows."""
        kind = "digits" if self.digits else "alone"
        return f"net/{kind}-contrast{self.contrast:g}-correlation{self.correlation:g}/seed{seed}"


def deep_cells(config: Config) -> list[DeepCell]:
    """What the deep networks of a seed learn from: no background, it alone, and the plane.

    >>> cells = deep_cells(Config(contrasts=(0.5, 1.0), correlations=(0.0, 0.9)))
    >>> [cell.contrast for cell in cells if cell.digits]
    [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    plane = product(config.contrasts, config.correlations)
    return [
        DeepCell(0.0, 0.0),
        *(DeepCell(contrast, 1.0, digits=False) for contrast in config.contrasts),
        *(DeepCell(*place) for place in plane),
    ]


def shift_of(config: Config, cell: DeepCell, seed: int) -> Shift:
    """Return digits on backgrounds that are correlated with the label in training.

    `Batch.domain` is the index of the background. It is the label with a probability of
    (1 + correlation) / 2. The OOD tests have the digits of the ID test, pixel for pixel, on
    backgrounds that are independent of the label: added as in training, or subtracted.

    Args:
        config: the sizes of the parts.
        cell: contrast and correlation of the backgrounds.
        seed: random seed.

    Source: ours, Def. 3.1 with correlated backgrounds, on the dominoes of Murali et al. (2023).
    """
    base = dominoes(
        NOISE, CORE if cell.digits else NOISE, train=config.train, validation=0, test=config.test,
        seed=seed,
    )  # fmt: skip
    train, test = base.train[0], base.id_test
    patterns = cell.contrast * background_patterns(test.data.x.shape[2], test.data.x.shape[3], seed)

    def shown(domain: Domain, rho: float, name: str, sign: int = 1) -> Domain:
        draws = generator_for(seed, f"joint law/{name}")
        agrees = torch.rand(len(domain), generator=draws) < (1 + rho) / 2
        which = torch.where(agrees, domain.y, 1 - domain.y)
        low, high = STRENGTH
        strength = low + (high - low) * torch.rand(len(domain), 1, 1, 1, generator=draws)
        x = domain.data.x + sign * strength * patterns[which]
        return Domain(name, Batch(x, domain.y, which))

    return Shift(
        f"digits on backgrounds of contrast {cell.contrast:g}, correlation {cell.correlation:g}",
        base.classes,
        (shown(train, cell.correlation, "training"),),
        shown(test, cell.correlation, "as in training"),
        (shown(test, 0, RANDOMIZED), shown(test, 0, REVERSED, sign=-1)),
    )


def train(config: Config, run: Run, cell: DeepCell, seed: int) -> Iterator[float]:
    """Train a deep network, and measure its accuracy and prediction depth before and after."""
    part = cell.part(seed)
    if run.has(part):
        return
    shift, deep = shift_of(config, cell, seed), config.deep
    randomized, reversed_ = shift.ood_tests
    tests = {"id": shift.id_test, "randomized": randomized, "reversed": reversed_}
    model = network("resnet8", deep.width, seed)

    def measured(state: str, one: nn.Module) -> dict[str, Any]:
        accuracies = {name: accuracy(one, test).share for name, test in tests.items()}
        depth = depth_row(one, shift, per_class=config.per_class, rule=config.rule, seed=seed)
        return cell._asdict() | {"seed": seed, "state": state} | accuracies | depth

    _, rows = yield from checkpointed(
        run,
        part,
        partial(
            fit, model, shift, epochs=deep.epochs, batch_size=deep.batch_size,
            step_size=deep.step_size, weight_decay=deep.weight_decay, seed=seed,
            report_every=deep.epochs * (config.train // deep.batch_size),
        ),
        measure=lambda stage: [measured(TRAINED, model)],
        before=lambda: [measured(*one) for one in controls(model, shift.train, seed).items()],
    )  # fmt: skip
    arrays = None
    if seed == 0 and cell.digits and cell.correlation == config.correlations[0]:
        pictures = [test.data.x[:SHOWN] for test in (shift.id_test, reversed_)]
        arrays = {"pictures": torch.stack(pictures)}
    run.write(part, rows, arrays)
