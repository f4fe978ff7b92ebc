"""Which spurious features are harmful: those easier than the core, visible early in training."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from typing import Any

from torch import nn

from contam.batch import Shift
from contam.experiment import NULL_STEP_SIZE, Experiment, Stage
from contam.experiments.dominoes.cases import (
    Case,
    Config,
    cases,
    check_halves,
    pictured,
    profiled,
    shift_of,
)
from contam.experiments.dominoes.claims import claims
from contam.experiments.dominoes.figures import draw
from contam.experiments.dominoes.results import DominoesResults
from contam.experiments.dominoes.snapshots import (
    accuracy_row,
    counterexample_row,
    information_rows,
)
from contam.experiments.support.prediction_depth import behind_normalization, depth_row, network
from contam.experiments.support.untrained_controls import TRAINED, controls
from contam.measures.depth import Rule
from contam.measures.layerwise import over_grid
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

FULL_SIDE = 64
"""Side of a grid that keeps all values of the maps of a domino, as published."""
SHOWN = 10
"""Number of pictures of a case in a figure."""

FULL = Config()
LAPTOP = Config(
    folder=None,
    core="core",
    spurious=("easy", "centered", "moved", "inverted", "noisy", "hard"),
    network="resnet8",
    epochs=8,
    batch_size=32,
    step_size=3e-3,
    train=1600,
    test=800,
    per_class=500,
)
MURALI = Config(
    core="kmnist",
    spurious=("kmnist-patch", "mnist", "svhn"),
    resize=True,
    network="resnet18_cifar",
    width=64,
    outputs=10,
    step_size=0.1,
    weight_decay=5e-4,
    momentum=0.9,
    schedule_epochs=200,
    support=2000,
    queries=20,
    probes="convolutions",
    rule=Rule(k=29, metric="l1", reference="last probe"),
    seeds=1,
)
"""The published pairs over KMNIST, with the settings of the published code."""
MURALI_FASHION = MURALI.model_copy(
    update={"core": "fashion-mnist", "spurious": ("svhn", "cifar10")}
)
"""The published pairs over Fashion-MNIST."""
SMOKE = LAPTOP.model_copy(
    update={
        "spurious": ("easy", "hard"),
        "width": 4,
        "epochs": 2,
        "batch_size": 8,
        "step_size": 1e-2,
        "train": 80,
        "test": 40,
        "per_class": 30,
        "rule": Rule(k=9),
        "seeds": 2,
    }
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network on every case for each seed, and measure it during training."""
    check_halves(config)  # Missing files are reported before any training.
    todo = [(case, seed) for seed in range(config.seeds) for case in cases(config)]
    for index, (case, seed) in enumerate(todo):
        for done in _train(config, run, case, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {case.name}")


def _train(config: Config, run: Run, case: Case, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    part = case.part(seed)
    if run.has(part):
        return
    shift = shift_of(config, case, seed)
    model = network(config.network, config.width, seed, config.outputs)
    snapshot = _snapshots(config, case, shift, seed)
    information = _information(config, case, shift, seed)
    epoch = config.train // config.batch_size

    def before() -> list[dict[str, Any]]:
        untrained = controls(model, shift.train, seed).items()
        return [
            row
            for state, one in untrained
            for row in snapshot(one, state, 0) + information(one, state)
        ]

    _, rows = yield from checkpointed(
        run,
        part,
        partial(
            fit,
            model,
            shift,
            epochs=config.epochs,
            batch_size=config.batch_size,
            step_size=config.step_size,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            schedule_epochs=config.schedule_epochs,
            seed=seed,
            report_every=epoch,
        ),
        measure=lambda stage: snapshot(model, TRAINED, stage.step // epoch),
        before=before,
    )
    rows += information(model, TRAINED)
    arrays = None
    if seed == 0 and case in pictured(config):
        arrays = {"pictures": shift.id_test.data.x[:SHOWN]}
    run.write(part, [{"case": case.name, "seed": seed} | row for row in rows], arrays)


def _snapshots(
    config: Config, case: Case, shift: Shift, seed: int
) -> Callable[[nn.Module, str, int], list[dict[str, Any]]]:
    """Return a function that measures depth and accuracy of a network after an epoch.

    It does so before training (epoch 0), after the first and the last epoch, and with
    counter-examples after every epoch.
    """

    def measure(model: nn.Module, state: str, epoch: int) -> list[dict[str, Any]]:
        if case.agreement == 1 and epoch not in (0, 1, config.epochs):
            return []
        depth = depth_row(
            model, shift, per_class=config.per_class, rule=config.rule, seed=seed,
            support=config.support, queries=config.queries, **_probes(config, model),
        )  # fmt: skip
        with_interval = case.kind in ("over", "background") and epoch == config.epochs
        accuracy = accuracy_row(model, shift, interval=with_interval)
        row = {"what": "snapshot", "state": state, "epoch": epoch} | depth | accuracy
        if case.agreement == 1 or epoch != 1:
            return [row]
        counterexamples = counterexample_row(
            model, shift.train[0], k=config.rule.k, outputs=config.outputs
        )
        return [row, {"what": "counter-examples"} | counterexamples]

    return measure


def _probes(config: Config, model: nn.Module) -> dict[str, Any]:
    """The probes of depth and how they are read, for `depth_row`."""
    if config.probes == "activations":
        return {}
    return {"layers": behind_normalization(model), "reduce": partial(over_grid, side=FULL_SIDE)}


def _information(
    config: Config, case: Case, shift: Shift, seed: int
) -> Callable[[nn.Module, str], list[dict[str, Any]]]:
    """Return a function that measures the information of layers about label and domain."""
    if case not in profiled(config):
        return lambda model, state: []
    fitted, scored = shift.train[0], shift.id_test
    if case.kind == "over":
        # The cores of the training data, below features that are independent of the class.
        fitted = shift_of(config, case, seed, agreement=0.5).train[0]
        scored = shift.ood_tests[0]

    def measure(model: nn.Module, state: str) -> list[dict[str, Any]]:
        rows = information_rows(model, fitted, scored, k=config.rule.k)
        return [{"what": "information", "state": state} | row for row in rows]

    return measure


def summarize(run: Run) -> str:
    """The depths and accuracy drops of the easy and the hard feature, in two sentences."""
    results = DominoesResults(run)
    config = results.config
    easy, hard = config.spurious[0], config.spurious[-1]
    depths = [
        fmean(results.values(Case("alone", feature), "depth"))
        for feature in (easy, config.core, hard)
    ]
    return (
        f"Alone, the easy feature ({easy}), the core and the hard feature ({hard}) have prediction "
        f"depths of {depths[0]:.2f}, {depths[1]:.2f} and {depths[2]:.2f}. When the easy feature is "
        f"random, accuracy drops by {fmean(results.values(results.easy, 'accuracy_drop')):.0%}; "
        f"for the hard one, by {fmean(results.values(results.hard, 'accuracy_drop')):.0%}. After "
        f"one epoch, {fmean(results.values(results.easy, 'early', 1)):.0%} of the predictions with "
        "the easy feature are decided at the first two probes."
    )


EXPERIMENT = Experiment(
    name="dominoes",
    title="Which spurious features are harmful: those easier to learn than the core feature",
    about="A picture has two halves: the lower one, the core feature, determines the class; the "
    "upper one is correlated with it in training. Murali et al. (2023) state that this is harmful "
    "only if the upper half is easier, and that prediction depth shows it early in training. Here "
    "the upper half goes from easy to hard, which gives the accuracy drop as a curve.",
    reproduces=("Murali Fig. 5",),
    presets={
        "full": FULL,
        "murali": MURALI,
        "murali-fashion": MURALI_FASHION,
        "laptop": LAPTOP,
        "smoke": SMOKE,
    },
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=lambda config: config.model_copy(update={"step_size": NULL_STEP_SIZE}),
)
"""Source: ours; Murali et al. (2023), Fig. 5."""
