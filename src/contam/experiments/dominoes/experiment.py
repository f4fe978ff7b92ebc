"""Which spurious features harm: those that are easier than the core, seen early in training."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from contam.batch import Shift
from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.dominoes.cases import (
    Case,
    Config,
    cases,
    half_of,
    network,
    pictured,
    profiled,
    shift_of,
)
from contam.experiments.dominoes.figures import figures
from contam.experiments.dominoes.results import SECOND, Seen
from contam.experiments.dominoes.snapshots import (
    answers_row,
    counter_row,
    depth_row,
    information_rows,
)
from contam.measures.correlation import spearman
from contam.measures.depth import Rule
from contam.plots import Figure
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

HARMFUL = 0.1
"""Accuracy lost when it says nothing any more, above which a feature counts as harmful."""
SHOWN = 10
"""Pictures of a case that a figure shows."""

PAPER = Config()
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
    """Train a network on every case from each seed; look at it at both ends of the training."""
    for cue in (config.core, *config.spurious):
        half_of(cue, config.folder)  # What is missing is said before anything is trained.
    todo = [(case, seed) for seed in range(config.seeds) for case in cases(config)]
    for index, (case, seed) in enumerate(todo):
        for done in _learn(config, run, case, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {case.name}")


def _learn(config: Config, run: Run, case: Case, seed: int) -> Iterator[float]:
    """Train one network and write its part; yields the share done."""
    part = case.part(seed)
    if run.has(part):
        return
    shift = shift_of(config, case, seed)
    model = network(config.network, config.width, seed)
    look = _looks(config, case, shift, seed)
    profile = _profiles(config, case, shift, seed)
    epoch = config.train // config.batch_size
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
            seed=seed,
            report_every=epoch,
        ),
        measure=lambda stage: look(model, stage.step // epoch),
        before=lambda: profile(model, "untrained"),
    )
    rows += profile(model, "trained")
    shown = None
    if seed == 0 and case in pictured(config):
        shown = {"pictures": shift.id_test.data.x[:SHOWN]}
    run.write(part, [{"case": case.name, "seed": seed} | row for row in rows], shown)


def _looks(
    config: Config, case: Case, shift: Shift, seed: int
) -> Callable[[nn.Module, int], list[dict[str, Any]]]:
    """Tells after some epochs where answers are decided, and what they are.

    That is at both ends of a training, and after every epoch if there are counter-examples.
    """

    def told(model: nn.Module, epoch: int) -> list[dict[str, Any]]:
        if case.agreement == 1 and epoch not in (1, config.epochs):
            return []
        depth = depth_row(model, shift, per_class=config.per_class, rule=config.rule, seed=seed)
        judged = case.kind in ("over", "background") and epoch == config.epochs
        answers = answers_row(model, shift, interval=judged)
        row = {"what": "look", "epoch": epoch} | depth | answers
        if case.agreement == 1 or epoch > 1:
            return [row]
        found = counter_row(model, shift.train[0], k=config.rule.k)
        return [row, {"what": "counter-examples"} | found]

    return told


def _profiles(
    config: Config, case: Case, shift: Shift, seed: int
) -> Callable[[nn.Module, str], list[dict[str, Any]]]:
    """Tells what the layers say of the class, and of what is independent of it."""
    if case not in profiled(config):
        return lambda model, state: []
    fitted, scored = shift.train[0], shift.id_test
    if case.kind == "over":
        # The cores that were learned, below halves that say nothing of them.
        fitted = shift_of(config, case, seed, agreement=0.5).train[0]
        scored = shift.ood_tests[0]

    def told(model: nn.Module, state: str) -> list[dict[str, Any]]:
        rows = information_rows(model, fitted, scored, k=config.rule.k)
        return [{"what": "information", "state": state} | row for row in rows]

    return told


def _minus(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def claims(run: Run) -> Sequence[Claim]:
    """What harms is what is easier than the core; what shows it early, and what does not."""
    seen = Seen(run)
    return [*_difficulty(seen), *_verdicts(seen), *_dose(seen), *_early(seen), *_layers(seen),
            *_controls(seen)]  # fmt: skip


def _difficulty(seen: Seen) -> list[Claim]:
    config = seen.config
    core = seen.each(seen.core, "mean")
    easiest, hardest = seen.alone("mean")[:, [0, -1]].T.tolist()
    return [
        judge(
            "Alone, the core can be learned",
            seen.each(seen.core, "as in training"),
            source="ours",
            quantity=f"accuracy, {config.core} alone",
            low=0.93,
        ),
        judge(
            "Prediction depth puts the easy feature before the core",
            _minus(core, easiest),
            source=SECOND,
            quantity=f"mean depth alone, {config.core} minus {config.spurious[0]}, probes",
            low=0.0,
            every_seed=True,
        ),
        judge(
            "Prediction depth puts the hard feature behind the core",
            _minus(hardest, core),
            source=SECOND,
            quantity=f"mean depth alone, {config.spurious[-1]} minus {config.core}, probes",
            low=0.0,
            every_seed=True,
        ),
    ]


def _verdicts(seen: Seen) -> list[Claim]:
    easy, hard = seen.config.spurious[0], seen.config.spurious[-1]
    return [
        judge(
            "An easy spurious feature harms: without it, the network guesses",
            seen.each(seen.easy, "top randomized"),
            source=SECOND,
            quantity=f"accuracy when {easy} is random",
            low=0.4,
            high=0.6,
            every_seed=True,
        ),
        judge(
            "Where the easy feature says the opposite, the network says the opposite",
            seen.each(seen.easy, "top flipped"),
            source="ours",
            quantity=f"accuracy when {easy} is flipped",
            high=0.05,
            every_seed=True,
        ),
        judge(
            "A hard spurious feature is benign: without it, the network still knows the class",
            seen.each(seen.hard, "top randomized"),
            source=SECOND,
            quantity=f"accuracy when {hard} is random",
            low=0.92,
            every_seed=True,
        ),
        judge(
            "Beside the easy feature, the input decides nearly every answer",
            seen.shares(seen.easy)[:, 0].tolist(),
            source=SECOND,
            quantity=f"share decided at the input, {easy} over {seen.config.core}",
            low=0.98,
            every_seed=True,
        ),
        judge(
            "Beside the hard feature, answers are decided later than for the core alone",
            _minus(seen.each(seen.hard, "mean"), seen.each(seen.core, "mean")),
            source="ours",
            quantity=f"mean depth, {hard} over {seen.config.core} minus it alone, probes",
            low=0.3,
            every_seed=True,
        ),
    ]


def _dose(seen: Seen) -> list[Claim]:
    depth, harm = seen.alone("mean"), seen.over("harm")
    easier = depth < np.array(seen.each(seen.core, "mean"))[:, None]
    accuracy = (
        seen.over("as in training") - np.array(seen.each(seen.core, "as in training"))[:, None]
    )
    many = len(seen.config.spurious)
    return [
        _falling(depth, harm),
        judge(
            "A feature is harmful if and only if it is easier than the core",
            np.mean(easier == (harm > HARMFUL), axis=1).tolist(),
            source=SECOND,
            quantity=f"share of {many} features for which harm above {HARMFUL:g} says the same",
            low=1.0,
            every_seed=True,
        ),
        judge(
            "Accuracy on data as in training warns of none of them",
            accuracy.min(axis=1).tolist(),
            source=SECOND,
            quantity=f"least ID accuracy over {many} features, minus that of the core alone",
            low=-0.02,
        ),
    ]


def _falling(depth: np.ndarray, harm: np.ndarray) -> Claim:
    """That harm falls with depth, seed by seed; not judged where one of them is constant."""
    says = "The deeper a spurious feature alone, the less it harms"
    quantity = f"rank correlation of depth and harm over {harm.shape[1]} features"
    if np.isnan(depth).any() or not (np.ptp(depth, axis=1) * np.ptp(harm, axis=1)).all():
        why = "in a seed, a feature has no depth, or all features harm alike"
        return Claim(says, "ours", quantity, high=-0.8, not_judged=why)
    ranked = [spearman(torch.tensor(d), torch.tensor(h)) for d, h in zip(depth, harm, strict=True)]
    return judge(says, ranked, source="ours", quantity=quantity, high=-0.8, every_seed=True)


def _early(seen: Seen) -> list[Claim]:
    config = seen.config
    easy, hard = config.spurious[0], config.spurious[-1]
    begun = {case: seen.each(case, "early", 1) for case in (seen.easy, seen.hard, seen.core)}
    aucs = [
        (
            "After one epoch, the loss finds the examples that an easy feature contradicts",
            "ours", seen.found(seen.rare, "in the network"), f"loss, {easy}", 0.9, None,
        ),
        (
            "After one epoch, the loss is silent on examples that a hard feature contradicts",
            "ours", seen.found(seen.rare_hard, "in the network"), f"loss, {hard}", 0.4, 0.65,
        ),
        (
            "Neighbors in the data find what contradicts an easy feature, without any network",
            "ours", seen.found(seen.rare, "in the data"), f"neighbors, {easy}", 0.9, None,
        ),
        (
            "Neighbors in the data point at what contradicts a hard feature, although it is benign",
            "ours", seen.found(seen.rare_hard, "in the data"), f"neighbors, {hard}", 0.55, None,
        ),
    ]  # fmt: skip
    return [
        judge(
            "After one epoch, nearly all answers beside the easy feature are decided early",
            begun[seen.easy],
            source=SECOND,
            quantity=f"share decided at the first two probes, {easy} over {config.core}, epoch 1",
            low=0.98,
            every_seed=True,
        ),
        judge(
            "Beside the easy feature, more is decided early than for the core alone: an alarm",
            _minus(begun[seen.easy], begun[seen.core]),
            source=SECOND,
            quantity=f"share decided early, {easy} over {config.core} minus it alone, epoch 1",
            low=0.1,
            every_seed=True,
        ),
        judge(
            "Beside the hard feature, no more is decided early than for the core alone: no alarm",
            _minus(begun[seen.hard], begun[seen.core]),
            source=SECOND,
            quantity=f"share decided early, {hard} over {config.core} minus it alone, epoch 1",
            high=0.05,
            every_seed=True,
        ),
        *(
            judge(says, values, source=source, quantity=f"AUC of the {what}", low=low, high=high)
            for says, source, values, what, low, high in aucs
        ),
    ]


def _layers(seen: Seen) -> list[Claim]:
    config = seen.config
    easy, hard = config.spurious[0], config.spurious[-1]
    of_easy = seen.bits(seen.easy, "label", "trained")
    label, cue = (seen.bits(seen.hard, about, "trained")[:, -2] for about in ("label", "cue"))
    return [
        judge(
            "Beside the easy feature, no layer says anything of the class",
            of_easy.max(axis=1).tolist(),
            source="ours",
            quantity=f"most usable information about the class, {easy} random, bits",
            high=0.1,
            every_seed=True,
        ),
        judge(
            "Beside the easy feature, learning adds nothing about the class to any layer",
            (of_easy - seen.bits(seen.easy, "label", "untrained")).max(axis=1).tolist(),
            source="ours",
            quantity=f"most of it that training adds, {easy} random, bits",
            high=0.1,
            every_seed=True,
        ),
        judge(
            "The input says all about the easy feature",
            seen.bits(seen.easy, "cue", "trained")[:, 0].tolist(),
            source=SECOND,
            quantity=f"usable information about {easy} in the input, bits",
            low=0.9,
            every_seed=True,
        ),
        judge(
            "Beside the hard feature, the last layer speaks of the class and not of the feature",
            (label - cue).tolist(),
            source="ours",
            quantity=f"usable information, class minus {hard}, last layer, bits",
            low=0.3,
            every_seed=True,
        ),
    ]


def _controls(seen: Seen) -> list[Claim]:
    config = seen.config
    swapped = Case("as core", config.spurious[0])
    last, first = seen.each(seen.rare, "early"), seen.each(seen.rare, "early", 1)
    gained = seen.bits(seen.background, "cue", "trained") - seen.bits(
        seen.background, "cue", "untrained"
    )
    return [
        judge(
            "An easy core looks just like an easy spurious feature",
            [
                abs(gap)
                for gap in _minus(seen.each(swapped, "early", 1), seen.each(seen.easy, "early", 1))
            ],
            source="ours",
            quantity="shares decided early after one epoch, difference",
            high=0.02,
            every_seed=True,
        ),
        judge(
            "A background that says nothing of the class can cost accuracy when it is reversed",
            seen.each(seen.background, "harm"),
            source="ours",
            quantity="accuracy lost on reversed backgrounds",
            low=0.01,
            every_seed=True,
        ),
        judge(
            "Prediction depth gives no alarm of a background that says nothing of the class",
            _minus(seen.each(seen.background, "early", 1), seen.each(seen.core, "early", 1)),
            source="ours",
            quantity="share decided early after one epoch, with backgrounds minus without",
            high=0.05,
            every_seed=True,
        ),
        judge(
            "What the layers say of the background is passed through, not learned",
            gained[:, 1:-1].max(axis=1).tolist(),
            source="ours",
            quantity="most information about it in a layer, trained minus untrained, bits",
            high=0.1,
            every_seed=True,
        ),
        judge(
            "With some counter-examples, a network recovers from the easy feature",
            _minus(
                seen.each(seen.rare, "top randomized"), seen.each(seen.rare, "top randomized", 1)
            ),
            source="ours",
            quantity="accuracy when it is random, last epoch minus first",
            low=0.1,
            every_seed=True,
        ),
        judge(
            "Prediction depth does not see that a network recovers from the easy feature",
            _minus(last, first),
            source="ours",
            quantity="share decided early, last epoch minus first",
            low=-0.05,
            every_seed=True,
        ),
        judge(
            "A network that recovers follows the easy feature less often",
            _minus(seen.each(seen.rare, "follows"), seen.each(seen.rare, "follows", 1)),
            source="ours",
            quantity="share of answers that are what a random feature shows, last minus first",
            high=-0.1,
            every_seed=True,
        ),
    ]


def draw(run: Run) -> Sequence[Figure]:
    """The dominoes, how hard each feature is, what harms, what shows early, what layers say."""
    return figures(run)


def summarize(run: Run) -> str:
    """What happened, in a sentence."""
    seen = Seen(run)
    easy, hard = seen.config.spurious[0], seen.config.spurious[-1]
    depth = [seen.mean(Case("alone", each), "mean") for each in (easy, seen.config.core, hard)]
    return (
        f"Alone, the easy feature ({easy}), the core and the hard feature ({hard}) have prediction "
        f"depths of {depth[0]:.2f}, {depth[1]:.2f} and {depth[2]:.2f}. Made random, the easy one "
        f"costs {seen.mean(seen.easy, 'harm'):.0%} of accuracy and the hard one "
        f"{seen.mean(seen.hard, 'harm'):.0%}; after one epoch, "
        f"{seen.mean(seen.easy, 'early', 1):.0%} of the answers beside the easy one are decided at "
        "the first two probes."
    )


EXPERIMENT = Experiment(
    name="dominoes",
    title="Which spurious features harm: those easier to learn than the core",
    about="A picture has two halves: the lower one says what the class is, the upper one goes "
    "along with it in training. Murali et al. (2023) say that this harms only if the upper half is "
    "easier, and that prediction depth shows it early in training. Here the upper half goes from "
    "easy to hard, which gives harm as a curve.",
    reproduces=(),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: ours; Murali et al. (2023)."""
