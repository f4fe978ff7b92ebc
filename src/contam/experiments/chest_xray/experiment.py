"""Chest X-rays whose drains give the disease away: AUC by group, and how early it shows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from contam.batch import Domain, Shift
from contam.data.chest_xray import chest_xrays
from contam.data.drains import GROUPS, drain_pixels, drawn_xrays
from contam.data.images import FolderDomain, resized
from contam.data.missing_files import MissingFilesError
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.prediction_depth import over_nearest
from contam.measures.depth import UNCERTAIN, Depths, Rule, draw_support, model_depths
from contam.measures.gradcam import heat_share
from contam.measures.group_auc import auc_gap, group_auc
from contam.measures.intervals import bootstrap
from contam.measures.neighbor_heat import neighbor_heat
from contam.models.classifier import Classifier
from contam.models.observe import layers_of, observe
from contam.models.small import resnet8
from contam.models.sources import load
from contam.plots import Figure, Tile, bars, contact_sheet, heat_maps, histogram, over_seeds
from contam.rng import generator_for, seeded
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimize import Recipe, optimize
from contam.training.precision import available_device

MURALI = "Murali et al. (2023)"
EARLY = 1 / 4
"""Share of the probes that are early."""
SHOWN = 8
HEAT_SUPPORT = 100
"""Training images of each class among which the heat looks for neighbors, at most."""
"""Pictures of each kind in a figure."""
CALIBRATION = 50
"""Least number of steps of an untrained network: after so many, the start has a weight below 0.01
in the running statistics of batch norms."""
CHEST_RULE = Rule(k=29, metric="l1", reference="last probe", margin=0.13)
"""The published rule for chest X-rays; the margin gives its votes. See `chest_depth`."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are those of the published code unless a field says otherwise."""

    kind: str = "nih-cxr"
    """A kind of `contam.data.chest_xray.chest_xrays`, or drawn."""
    folder: Path = Path("data/nih-cxr")
    label: str = "Pneumothorax"
    group: str | None = None
    """Column with the group of each image."""
    annotations: Path | None = Path("data/nih-cxr/drains.csv")
    """Table with columns image and group instead; NIH's set does not say who has a drain."""
    with_drain: str = "drain"
    """Name of the group whose positive images may be easier."""
    network: str = "torchvision:densenet121"
    """A name that `contam.models.sources.load` knows, or resnet8."""
    side: PositiveInt = 128
    epochs: PositiveInt = 25
    batch_size: PositiveInt = 64
    step_size: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 1e-5
    """L2 penalty of Adam in its AMSGrad variant."""
    positive_weight: PositiveFloat | None = None
    """Weight of positive images in the loss; None takes the number of negative over that of
    positive training images, which was 20.16."""
    rule: Rule = CHEST_RULE
    per_class: PositiveInt = 500
    """Ours: training images of each class in the support; the published size is not given."""
    queries: PositiveInt = 1000
    """Test images whose depth is measured."""
    heated: PositiveInt = 200
    """Ours, drawn X-rays: ill test images with a drain whose heat is measured, at most."""
    agreement: PositiveFloat = 0.9
    """Ours, drawn X-rays: share of images whose drain agrees with the label."""
    train: PositiveInt = 1600
    """Ours: number of drawn training images."""
    test: PositiveInt = 1200
    """Ours: number of drawn images of each test."""
    seeds: PositiveInt = 3
    """Ours: one was published."""


PAPER = Config()
CHEXPERT = Config(
    kind="chexpert", folder=Path("data/CheXpert-v1.0-small"), group="Support Devices",
    annotations=None, with_drain="1.0",
)  # fmt: skip
LAPTOP = Config(
    kind="drawn",
    annotations=None,
    network="resnet8",
    side=32,
    epochs=8,
    batch_size=32,
    step_size=3e-3,
    per_class=300,
    queries=300,
)
SMOKE = LAPTOP.model_copy(
    update={
        "epochs": 2, "batch_size": 20, "train": 160, "test": 80, "per_class": 30, "queries": 40,
        "rule": Rule(k=9, metric="l1", reference="last probe", margin=0.13), "seeds": 2,
    }
)  # fmt: skip


class ChestCase(NamedTuple):
    """A network: the data it learns from, and whether it learns."""

    data: str
    """`correlated` for the data as it is, `control` for drains independent of the label."""
    state: str
    """`trained`, or `untrained` for weights that do not move; batch norms are calibrated."""

    def part(self, seed: int) -> str:
        """The part of a run that holds its rows."""
        return f"net/{self.data}-{self.state}/seed{seed}"


CASES = tuple(ChestCase(d, s) for d in ("correlated", "control") for s in ("trained", "untrained"))


@dataclass(frozen=True)
class AmsGrad(Recipe):
    """A constant step size of Adam in its AMSGrad variant, with an L2 penalty."""

    def optimizer(self, parameters: Any) -> Optimizer:
        """Build the optimizer."""
        return Adam(parameters, self.step_size, weight_decay=self.weight_decay, amsgrad=True)


class DenseBlock(nn.Module):
    """A dense block whose concatenated features can be read behind every second layer.

    torchvision's dense layers return only their new features. The published probes are the first,
    third, ... dense layer of each block with all features up to them.

    Args:
        layers: the dense layers, by name.
    """

    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = list(layers)
        for place, (name, layer) in enumerate(layers.items()):
            self.add_module(name, layer)
            if place % 2 == 0:
                self.add_module(f"probe{place + 1}", nn.Identity())

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        features = [x]
        for place, name in enumerate(self.layers):
            features.append(self.get_submodule(name)(features))
            if place % 2 == 0:
                self.get_submodule(f"probe{place + 1}")(torch.cat(features, 1))
        return torch.cat(features, 1)


def network(name: str, seed: int) -> Classifier:
    """Return a network with two classes and random weights; dense blocks become `DenseBlock`.

    Source: ours; DenseNet-121 of Murali et al. (2023), Fig. 8.
    """
    if name == "resnet8":
        model = resnet8(2, width=12, seed=seed)
    else:
        source = load(name, seed=seed)
        for path, module in list(source.encoder.named_modules()):
            if type(module).__name__ == "_DenseBlock":
                parent, _, child = path.rpartition(".")
                block = DenseBlock(nn.ModuleDict(dict(module.named_children())))
                setattr(source.encoder.get_submodule(parent), child, block)
        with seeded(seed, "chest X-rays/head"):
            model = Classifier(source.encoder, 2, source.width)
    return model.to(available_device())


def _probes(model: nn.Module, x: Float[Tensor, "1 ..."]) -> list[str]:
    """Return the probes: every second dense layer, or all activations of another network."""
    dense = [name for name, _ in model.named_modules() if ".probe" in name]
    return dense or layers_of(model, x.to(next(model.parameters()).device))


def chest_depth(depths: Depths) -> Float[Tensor, "draws queries"]:
    """Return depths that are also undefined where the last probe but one is uncertain.

    The published depths of DenseNet-121 are 4 (depth + 1).

    Source: ours; the published code.
    """
    return depths.depth.masked_fill(depths.decided[:, -2] == UNCERTAIN, torch.nan)


def _shift_of(config: Config, data: str, seed: int) -> tuple[Shift, int]:
    """Return the data of a case, and the index of the group with a drain.

    Raises:
        ValueError: tables or listed images are missing, which the message names, or there is no
            such group.
    """
    if config.kind == "drawn":
        share = config.agreement if data == "correlated" else 0.5
        shift = drawn_xrays(agreement=share, train=config.train, test=config.test, seed=seed)
        return shift, GROUPS.index("drain")
    hint = "Nothing is downloaded: put the data there, or give its folder with --folder"
    if config.annotations is not None:
        hint += " and the table of drains with --annotations"
    try:
        xrays = chest_xrays(
            config.kind, config.folder, label=config.label, group=config.group,
            annotations=config.annotations, transform=resized(config.side),
        )  # fmt: skip
    except MissingFilesError as error:
        raise ValueError(f"{error}. {hint}") from error
    if config.with_drain not in xrays.groups:
        raise ValueError(
            f"no image in {config.folder} is in the group {config.with_drain!r}, only in "
            f"{', '.join(xrays.groups)}"
        )
    shift, drain = xrays.shift, xrays.groups.index(config.with_drain)
    lost = [p for d in (*shift.train, shift.id_test) for p in _files(d) if not p.is_file()]
    if lost:
        raise ValueError(f"{len(lost):,} listed images are missing, such as {lost[0]}. {hint}")
    if data == "control":
        shift = Shift(
            f"{shift.name}, control", shift.classes,
            tuple(decorrelated(part, seed) for part in shift.train), shift.id_test, (shift.id_test,)
        )  # fmt: skip
    return shift, drain


def _files(domain: Domain) -> tuple[Path, ...]:
    return domain.files if isinstance(domain, FolderDomain) else ()


def decorrelated(domain: Domain, seed: int) -> Domain:
    """Return as many images as possible whose group is independent of the label.

    Of each group, the share among positive images equals that among negative ones.

    Source: ours, a control that learns from the same images.

    Raises:
        ValueError: No group has both labels.
    """
    y, origin = domain.y, domain.origin
    counts = torch.stack([origin[y == c].bincount(minlength=int(origin.max()) + 1) for c in (0, 1)])
    shares = (counts / counts.sum(dim=1, keepdim=True)).amin(dim=0)
    if not shares.any():
        raise ValueError("no group has images of both labels, so there is no control")
    shares /= shares.sum()
    used = shares > 0
    sizes = (counts[:, used] / shares[used]).amin(dim=1)
    generator = generator_for(seed, "chest X-rays/control")
    kept = []
    for label in (0, 1):
        for group in used.nonzero().flatten().tolist():
            here = ((y == label) & (origin == group)).nonzero().flatten()
            count = int(sizes[label] * shares[group] + 1e-6)
            kept.append(here[torch.randperm(len(here), generator=generator)[:count]])
    which = torch.cat(kept).sort().values
    if isinstance(domain, FolderDomain):
        return domain.pick(which, f"{domain.name}, control")
    return Domain(f"{domain.name}, control", domain.data.pick(which))


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train both networks of each seed, and measure them after the first and the last epoch."""
    _shift_of(config, "correlated", 0)  # Missing files are reported before any training.
    todo = [(case, seed) for seed in range(config.seeds) for case in CASES]
    for index, (case, seed) in enumerate(todo):
        for done in _train(config, run, case, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {case.data}, {case.state}")


def _train(config: Config, run: Run, case: ChestCase, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    if run.has(case.part(seed)):
        return
    shift, drain = _shift_of(config, case.data, seed)
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
        return [row | _auc_row(model, shift.ood_tests[0], drain, "independent")
                | _auc_row(model, _as_is(config, shift, seed), drain, "as is")]  # fmt: skip

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
    return _shift_of(config, "correlated", seed)[0].id_test


def _pictures(shift: Shift, drain: int) -> Tensor:
    """Return (4, shown, ...) ill and healthy test images with and without a drain.

    Nothing is returned where a kind has too few images.
    """
    test = shift.id_test
    origin = test.origin
    rows = []
    for label in (1, 0):
        for has in (True, False):
            which = ((test.y == label) & ((origin == drain) == has)).nonzero().flatten()[:SHOWN]
            if len(which) < SHOWN:
                return torch.empty(0)
            zeros = torch.zeros_like(which)
            rows.append(next(iter(test.fetch([(which, zeros)]))).x)
    return torch.stack(rows)


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
        row |= {f"drained, {name}": group_auc(score, ill, has).value}
        row |= {f"undrained, {name}": group_auc(score, ill, ~has).value}
        row |= {f"gap, {name}": gap.value, f"low, {name}": gap.low, f"high, {name}": gap.high}
    return row


def _depth_row(config: Config, model: nn.Module, shift: Shift, seed: int) -> dict[str, Any]:
    """Return the distribution of prediction depths of a random part of the ID test."""
    test = shift.id_test
    which = torch.randperm(len(test), generator=generator_for(seed, "chest X-rays/queries"))
    which = which[: config.queries].sort().values
    batch = next(iter(test.fetch([(which, torch.zeros_like(which))])))
    depths = model_depths(
        model, shift.train[0], Domain("queries", batch), _probes(model, batch.x[:1]),
        per_class=config.per_class, seed=seed, rule=config.rule, reduce=over_nearest, ends=False,
        at_once=4,
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
    images = _shift_of(config, "correlated", seed)[0].id_test.data
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


class ChestResults:
    """The rows of a run by case, seed and epoch."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        rows = run.table("net/")
        self.rows = rows.set_index(["data", "state", "seed", "epoch"])

    def values(
        self, data: str, column: str, epoch: int | None = None, state: str = "trained"
    ) -> np.ndarray:
        """(seeds,) a column after an epoch, by default and at most the last."""
        keys = self.keys(data, state, epoch)
        if column not in self.rows:
            raise NotJudged("the test has no positive images both with and without a drain")
        return self.rows[column].loc[keys].to_numpy(dtype=float)

    def keys(
        self, data: str, state: str, epoch: int | None = None
    ) -> list[tuple[str, str, int, int]]:
        """The rows of all seeds after an epoch, by default and at most the last."""
        last = int(self.rows.loc[data, state].index.get_level_values("epoch").max())
        at = last if epoch is None else min(epoch, last)
        return [(data, state, seed, at) for seed in range(self.config.seeds)]

    def minus_control(self, column: str, epoch: int | None = None) -> np.ndarray:
        """(seeds,) a column of the network on correlated data minus that of the control."""
        return self.values("correlated", column, epoch) - self.values("control", column, epoch)

    def learned(self, column: str, epoch: int | None = None) -> list[float]:
        """For each seed, `minus_control` minus the same difference of untrained networks."""
        before = self.values("correlated", column, epoch, "untrained")
        before = before - self.values("control", column, epoch, "untrained")
        return (self.minus_control(column, epoch) - before).tolist()

    def heat_learned(self) -> list[float]:
        """For each seed, the share of the heat on drains that training on them adds.

        Raises:
            NotJudged: the images have no masks of their drains, or no heat.
        """
        if "heat" not in self.rows:
            raise NotJudged("files hold no masks of the drains")
        return self.learned("heat")

    def hidden(self) -> list[float]:
        """For each seed, AUC of all minus that of undrained images, minus the control's."""
        both = self.minus_control("auc, as is") - self.minus_control("undrained, as is")
        return both.tolist()


def _independent_test(results: ChestResults) -> None:
    """Require a test set in which drains are independent of the disease."""
    if results.config.kind != "drawn":
        raise NotJudged("files hold no test set in which drains are independent of the disease")


STATEMENTS = (
    Statement("Without help from drains, the disease can be learned", "ours",
              "AUC of the control, drains independent",
              lambda r: r.values("control", "auc, independent").tolist(), low=0.7,
              every_seed=True, given=_independent_test),
    Statement("A network that learns from correlated drains recognizes treated patients better "
              "than untreated ones", MURALI,
              "gap of the AUC, drained minus undrained, minus the control's",
              lambda r: r.minus_control("gap, as is").tolist(), low=0.1, every_seed=True),
    Statement("The AUC over all patients hides it", MURALI,
              "AUC of all minus AUC of undrained patients, minus the control's",
              ChestResults.hidden, low=0.05, every_seed=True),
    Statement("The shortcut harms: where drains are independent of the disease, the AUC is lower "
              "than the control's", MURALI, "AUC, drains independent, control minus correlated",
              lambda r: (-r.minus_control("auc, independent")).tolist(), low=0.05,
              every_seed=True, given=_independent_test),
    Statement("After one epoch, training on correlated drains has moved decisions to early layers",
              MURALI,
              "share of defined depths in the first quarter of the probes, minus the control's, "
              "minus the same untrained", lambda r: r.learned("early", 1), low=0.1,
              every_seed=True),
    Statement("Trained on correlated drains, decisions are made earlier than in the control",
              MURALI, "mean depth minus the control's, minus the same untrained, probes",
              lambda r: r.learned("depth"), high=-0.3, every_seed=True),
    Statement("At the layer where most images are decided, it is the drain that makes ill images "
              "alike", MURALI,
              "share of the heat of the nearest neighbors on the drain, minus the control's, minus "
              "the same untrained", ChestResults.heat_learned, low=0.05, every_seed=True),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether drains are a shortcut, and whether prediction depth shows it."""
    return judge_all(STATEMENTS, ChestResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """Pictures, AUC by group, and the distribution of depths."""
    results = ChestResults(run)
    figures = []
    shown = run.arrays(CASES[0].part(0))["pictures"]
    if shown.numel():
        rows = [[x.permute(1, 2, 0).numpy() for x in kind] for kind in shown]
        figures.append(Figure(
            "Test images", "Rows: ill with a drain, ill without, healthy with a drain, healthy "
            "without.", "ours", (contact_sheet(rows, title="Test images"),),
        ))  # fmt: skip
    rows = []
    names = {"drained": "ill with drain", "undrained": "ill without", "auc": "all ill"}
    for data in ("correlated", "control"):
        for key, name in names.items():
            column = f"{key}, as is"
            if column in results.rows:
                rows += [{"network": data, "patients": name, "AUC": value}
                         for value in results.values(data, column)]  # fmt: skip
    means = over_seeds(rows, ["network", "patients"], "AUC")
    figures.append(Figure(
        "AUC by group", "Ill patients of each group against all healthy ones, on the test in which "
        "drains are correlated with the disease. The control learned from data in which they are "
        "not. Bars: mean over seeds; whiskers: all seeds.", MURALI,
        (bars(means, title="AUC by group", x=("network", "training data"), y=("AUC", "AUC"),
              series=("patients", "")),), tuple(means),
    ))  # fmt: skip
    panels, table = [], []
    for title, state, epoch in (("Untrained", "untrained", None), ("After one epoch", "trained", 1),
                                ("After training", "trained", None)):  # fmt: skip
        samples = {}
        for data in ("correlated", "control"):
            keys = results.keys(data, state, epoch)
            shares = np.mean(results.rows["shares"].loc[keys].tolist(), axis=0)
            counts = np.rint(10_000 * shares).astype(int)
            samples[data] = np.repeat(np.arange(len(shares)), counts).astype(float)
        edges = np.arange(len(shares) + 1) - 0.5
        if any(map(len, samples.values())):
            chart, bins = histogram(samples, title=title, x="prediction depth, probes",
                                    edges=edges, y="share of defined depths")  # fmt: skip
            panels.append(chart)
            table += [{"state": title} | row for row in bins]
    figures.append(Figure(
        "Prediction depth", f"Depth by the rule for chest X-rays: {results.config.rule.k} "
        "neighbors, an uncertain band, maps resized to 8 x 8. A peak at low depths is the alarm of "
        "the published procedure. The untrained networks show what the data alone decide.",
        MURALI, tuple(panels), tuple(table),
    ))  # fmt: skip
    return [*figures, *_heat_figure(run, results)]


def _heat_figure(run: Run, results: ChestResults) -> list[Figure]:
    """Where images resemble those of their class, drawn and as a share on the drain."""
    if "heat" not in results.rows:
        return []
    tiles, numbers = [], []
    for case in CASES:
        name = f"{case.data}, {case.state}"
        arrays = run.arrays(case.part(0))
        pictures = [x.permute(1, 2, 0).clamp(0, 1).numpy() for x in arrays["heated"]]
        heads = [f"image {place + 1}" for place in range(len(pictures))]
        if not tiles:
            tiles = [Tile(head, "picture", x) for head, x in zip(heads, pictures, strict=True)]
        tiles += [
            Tile(head, name, x, heat)
            for head, x, heat in zip(heads, pictures, arrays["heat"].numpy(), strict=True)
        ]
        rows = results.rows.loc[results.keys(case.data, case.state)].reset_index()
        columns = ["seed", "heat_layer", "heat", "heat_low", "heat_high", "even"]
        numbers += [{"network": name} | row for row in rows[columns].to_dict("records")]
    means = over_seeds(numbers, ["network"], "heat")
    return [Figure(
        "What ill images share at the layer that decides",
        "Grad-CAM of the similarity to ill training images, at the layer where most images are "
        "decided, on ill test images with a drain. Right: the share of the heat on the drain, "
        f"mean over images; even heat has {numbers[0]['even']:.2f}. Bars: mean over seeds; "
        "whiskers: all seeds. The table has the 95 % bootstrap intervals over images.",
        MURALI,
        (heat_maps(tiles, title="Heat of the nearest neighbors of the first seed", x="image",
                   y="network"),
         bars(means, title="Heat on the drain", x=("network", ""),
              y=("heat", "share of the heat"))),
        tuple(numbers),
    )]  # fmt: skip


def summarize(run: Run) -> str:
    """The AUC of drained and undrained patients, in two sentences."""
    results = ChestResults(run)
    mean = {
        (data, key): float(np.mean(results.values(data, f"{key}, as is")))
        for data in ("correlated", "control")
        for key in ("auc", "drained", "undrained")
    }
    return (
        f"Trained where drains are correlated with the disease, the network has an AUC of "
        f"{mean['correlated', 'auc']:.3f}: {mean['correlated', 'drained']:.3f} for ill patients "
        f"with a drain and {mean['correlated', 'undrained']:.3f} for those without. Trained where "
        f"drains are independent, it has {mean['control', 'drained']:.3f} and "
        f"{mean['control', 'undrained']:.3f}."
    )


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
