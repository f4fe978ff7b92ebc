"""Trains networks on X-rays, and measures their AUC by group and how early they decide."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contam.batch import Batch, Domain, Shift
from contam.data.drains import GROUPS, drain_pixels
from contam.experiment import NULL_STEP_SIZE, Experiment, Stage
from contam.experiments.chest_xray.claims import claims
from contam.experiments.chest_xray.config import (
    CASES,
    CHEXPERT,
    LAPTOP,
    PAPER,
    SMOKE,
    ChestCase,
    Config,
)
from contam.experiments.chest_xray.data import shift_of
from contam.experiments.chest_xray.figures import draw, summarize
from contam.experiments.chest_xray.network import network, probes
from contam.experiments.support.prediction_depth import over_nearest
from contam.measures.depth import UNCERTAIN, Depths, draw_support, model_depths
from contam.measures.gradcam import heat_share
from contam.measures.group_auc import auc_gap, group_auc
from contam.measures.intervals import bootstrap
from contam.measures.neighbor_heat import neighbor_heat
from contam.models.observe import observe
from contam.rng import generator_for
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimize import Recipe, optimize

EARLY = 1 / 4
"""Share of the probes that are early."""
SHOWN = 8
"""Pictures of each kind in a figure."""
HEAT_SUPPORT = 100
"""Training images of each class among which the heat looks for neighbors, at most."""
CALIBRATION = 50
"""Least number of steps of an untrained network: after so many, the start has a weight below 0.01
in the running statistics of batch norms."""


@dataclass(frozen=True)
class AmsGrad(Recipe):
    """A constant step size of Adam in its AMSGrad variant, with an L2 penalty."""

    def optimizer(self, parameters: Any) -> Optimizer:
        """Build the optimizer."""
        return Adam(parameters, self.step_size, weight_decay=self.weight_decay, amsgrad=True)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train both networks of each seed, and measure them after the first and the last epoch."""
    shift_of(config, "correlated", 0)  # Missing files are reported before any training.
    todo = [(case, seed) for seed in range(config.seeds) for case in CASES]
    for index, (case, seed) in enumerate(todo):
        for done in _train(config, run, case, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {case.data}, {case.state}")


def _train(config: Config, run: Run, case: ChestCase, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    if run.has(case.part(seed)):
        return
    shift, drain = shift_of(config, case.data, seed)
    examples = TrainingExamples(shift.train)
    ill = sum(int(part.y.sum()) for part in shift.train)
    weight = config.positive_weight or (len(examples) - ill) / ill
    learns = case.state == "trained"
    epoch = len(examples) // config.batch_size
    epochs = config.epochs if learns else min(config.epochs, math.ceil(CALIBRATION / epoch))
    recipe = AmsGrad(
        config.step_size if learns else NULL_STEP_SIZE, config.weight_decay, config.batch_size,
        epochs=epochs, cosine=False,
    )  # fmt: skip

    def risk(micro_batch: MicroBatch) -> dict[str, Tensor]:
        x, y, _ = micro_batch.batch
        losses = F.cross_entropy(model(x).float(), y, reduction="none")
        return {"risk": (losses * torch.where(y == 1, weight, 1.0)).mean()}

    model = network(config.network, seed)

    def measure(stage: Any) -> list[dict[str, Any]]:
        done = stage.step // epoch
        if done not in (1, epochs):
            return []
        row = {"data": case.data, "state": case.state, "seed": seed, "epoch": done}
        row |= _depth_row(config, model, shift, seed)
        row |= drain_heat(config, model, shift, seed, row)[0]
        row |= _auc_row(model, shift.ood_tests[0], drain, "independent")
        return [row | _auc_row(model, _as_is(config, shift, seed), drain, "as is")]

    _, rows = yield from checkpointed(
        run, case.part(seed),
        partial(optimize, model, examples, risk, recipe, purpose="chest X-rays", seed=seed,
                report_every=epoch),
        measure=measure,
    )  # fmt: skip
    arrays = None
    if seed == 0:
        heat = drain_heat(config, model, shift, seed, rows[-1])[1]
        arrays = heat | ({"pictures": _pictures(shift, drain)} if case == CASES[0] else {})
    run.write(case.part(seed), rows, arrays)


def _as_is(config: Config, shift: Shift, seed: int) -> Domain:
    """Return the test set in which drains are correlated with the label, the same in all cases."""
    if config.kind != "drawn":
        return shift.id_test
    return shift_of(config, "correlated", seed)[0].id_test


def _fetched(domain: Domain, which: Tensor) -> Batch:
    """The examples with these indices."""
    return next(iter(domain.fetch([(which, torch.zeros_like(which))])))


def _pictures(shift: Shift, drain: int) -> Tensor:
    """Return (4, shown, ...) ill and healthy test images with and without a drain.

    Nothing is returned where a kind has too few images.
    """
    test = shift.id_test
    ill, drained = test.y == 1, test.origin == drain
    kinds = (ill & drained, ill & ~drained, ~ill & drained, ~ill & ~drained)
    chosen = [kind.nonzero().flatten()[:SHOWN] for kind in kinds]
    if any(len(which) < SHOWN for which in chosen):
        return torch.empty(0)
    return torch.stack([_fetched(test, which).x for which in chosen])


def _auc_row(model: nn.Module, test: Domain, drain: int, name: str) -> dict[str, Any]:
    """Return the AUC of all, drained and other positive images, and the gap with its interval.

    Without a positive image of both kinds there is no gap.
    """
    batches = [
        (one.logits.cpu(), one.batch.y, one.batch.domain) for one in observe(model, test, ())
    ]
    logits, y, origin = (torch.cat(parts) for parts in zip(*batches, strict=True))
    score, ill, has = logits[:, 1] - logits[:, 0], y == 1, origin == drain
    row: dict[str, Any] = {f"auc, {name}": group_auc(score, ill, ill).value}
    if 0 < int((ill & has).sum()) < int(ill.sum()):
        gap = auc_gap(score, ill, has)
        row |= {
            f"drained, {name}": group_auc(score, ill, has).value,
            f"undrained, {name}": group_auc(score, ill, ~has).value,
            f"gap, {name}": gap.value, f"low, {name}": gap.low, f"high, {name}": gap.high,
        }  # fmt: skip
    return row


def chest_depth(depths: Depths) -> Float[Tensor, "draws queries"]:
    """Return depths that are also undefined where the last probe but one is uncertain.

    The published depths of DenseNet-121 are 4 (depth + 1).

    Source: ours; the published code.
    """
    return depths.depth.masked_fill(depths.decided[:, -2] == UNCERTAIN, torch.nan)


def _depth_row(config: Config, model: nn.Module, shift: Shift, seed: int) -> dict[str, Any]:
    """Return the distribution of prediction depths of a random part of the ID test."""
    test = shift.id_test
    which = torch.randperm(len(test), generator=generator_for(seed, "chest X-rays/queries"))
    which = which[: config.queries].sort().values
    batch = _fetched(test, which)
    depths = model_depths(
        model, shift.train[0], Domain("queries", batch), probes(model, batch.x[:1]),
        per_class=config.per_class, seed=seed, rule=config.rule, reduce=over_nearest, ends=False,
    )  # fmt: skip
    depth = chest_depth(depths)[0]
    count = len(depths.probes)
    defined = depth[~depth.isnan()]
    return {
        "depth": float(defined.mean()) if len(defined) else None,
        "early": float((defined < EARLY * count).double().mean()) if len(defined) else None,
        "undefined": float(depth.isnan().double().mean()),
        "shares": [float((depth == place).double().mean()) for place in range(count)],
        "probes": list(depths.probes),
    }


def drain_heat(
    config: Config, model: nn.Module, shift: Shift, seed: int, depths: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return where ill images with a drain resemble ill training images, at the deciding layer.

    The layer is the one at which most depths lie. The images are the same for all networks.

    Args:
        config: sizes, and whether the images are drawn; files have no masks of their drains.
        model: the network.
        shift: its data, of which the training images are the support.
        seed: random seed of the support.
        depths: the row of `_depth_row`.

    Returns:
        The layer and the mean share of the heat on the drain with its 95 % bootstrap interval over
        images, beside that of even heat; and some images with their heat. Both are empty for files.

    Source: Murali et al. (2023), Step 3 of their procedure, with a number.
    """
    if config.kind != "drawn":
        return {}, {}
    images = shift_of(config, "correlated", seed)[0].id_test.data
    mask = drain_pixels(agreement=config.agreement, test=config.test, seed=seed)
    which = ((images.y == 1) & (images.domain == GROUPS.index("drain"))).nonzero().flatten()
    which = which[: config.heated]
    queries, mask = images.pick(which), mask[which]
    pool = shift.train[0]
    support = draw_support(pool.y, min(HEAT_SUPPORT, config.per_class), seed=seed)
    members = pool.data.pick(support.rows)
    layer = depths["probes"][int(np.argmax(depths["shares"]))]
    heat = neighbor_heat(
        model, Domain("ill, with a drain", queries), Domain("support", members), layer, queries.y
    )
    shares = heat_share(heat, mask)
    row: dict[str, Any] = {"heat_layer": layer, "even": float(mask.double().mean())}
    known = shares[~shares.isnan()].double()
    if len(known):
        mean = bootstrap(lambda rows: known[rows].mean(), (len(known),), seed=seed)
        row |= {"heat": mean.value, "heat_low": mean.low, "heat_high": mean.high}
    return row, {"heated": queries.x[:SHOWN], "heat": heat[:SHOWN].contiguous()}


EXPERIMENT = Experiment(
    name="chest_xray",
    title="Chest X-rays: the treatment gives the disease away",
    about="Patients with a pneumothorax often have a chest drain in the image, because they are "
    "treated. Murali et al. (2023) study networks that learn the drain instead of the disease. "
    "Here the AUC is split by drain, with a network as control that learns from images whose "
    "drains are independent of the disease.",
    reproduces=(),
    presets={"paper": PAPER, "chexpert": CHEXPERT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=lambda config: config.model_copy(update={"step_size": NULL_STEP_SIZE}),
)
"""Source: ours; Murali et al. (2023), Fig. 8."""
