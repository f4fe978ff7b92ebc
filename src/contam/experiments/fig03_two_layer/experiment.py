"""Trains two-layer networks, and predicts what they learn."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

from contam.experiment import Experiment, Stage
from contam.experiments.fig03_two_layer.claims import claims
from contam.experiments.fig03_two_layer.config import (
    KINDS,
    LAPTOP,
    LINEAR_CLASSIFIER,
    PAPER,
    RESPONSE_TIMES,
    SMOKE,
    Config,
    flow,
    networks,
    null,
)
from contam.experiments.fig03_two_layer.figures import draw
from contam.experiments.fig03_two_layer.results import TwoLayerResults, at_end
from contam.experiments.support.two_layer_runs import NAMES, report_steps, train_into
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.initialization import initial_network
from contam.theory.population import Neurons, predict_contamination
from contam.theory.projections import class_correlations
from contam.theory.summary import summary
from contam.theory.trajectory import State, simulate
from contam.training.checkpointed import checkpointed


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train every network from every seed, and predict the classification without training."""
    parts = [
        (f"{name}/seed{seed}", setting, seed)
        for seed in range(config.seeds)
        for name, setting in networks(config).items()
    ]
    for index, (part, setting, seed) in enumerate(parts):
        for share in train_into(
            run,
            part,
            setting,
            seed,
            points=config.points,
            measure=lambda state: summary(state, examples=config.test_examples),
            arrays=lambda state: {"W": state.W},
        ):
            yield Stage((index + share) / len(parts), part)
    for seed in range(config.seeds):
        for _ in _responses(config, run, f"responses/seed{seed}", seed):
            yield Stage(1.0, "each neuron's responses")
        if uncovered(flow(config)) is None and not run.has(f"prediction/seed{seed}"):
            yield Stage(1.0, "the population model")
            run.write(f"prediction/seed{seed}", _predicted(config, seed))


def _responses(config: Config, run: Run, part: str, seed: int) -> Iterator[float]:
    """Write each neuron's mean response to both classes at several times of the classification."""
    if run.has(part):
        return
    setting = config.setting
    steps = {round(share * setting.steps) for share in RESPONSE_TIMES}
    _, records = yield from checkpointed(
        run, part, partial(simulate, setting, seed, steps), measure=_response_rows
    )
    run.write(part, records)


def _response_rows(state: State) -> list[dict[str, Any]]:
    """Each neuron's mean response to both classes, and how many of the two are positive."""
    by_class = class_correlations(state.W, state.setting.data)
    return [
        {"time": state.step * state.setting.time_per_step, "neuron": neuron,
         "positive": positive, "negative": negative, "kind": KINDS[(positive > 0) + (negative > 0)]}
        for neuron, (negative, positive) in enumerate(by_class.T.tolist())
    ]  # fmt: skip


def _predicted(config: Config, seed: int) -> list[dict[str, Any]]:
    """The population model's curve, from the initial weights of the trained network."""
    setting = flow(config)
    network = initial_network(config.setting, seed)
    a = network.head.weight.detach()[0]
    prediction = predict_contamination(
        setting,
        start=Neurons.read(network.projections, a, core=setting.data.features.core),
        report_at=report_steps(setting.steps, config.points),
    )
    return [
        {"time": point["step"] * setting.step_size} | point  # pyright: ignore[reportOptionalOperand]
        for point in prediction.records()
    ]


def summarize(run: Run) -> str:
    """The result in two sentences."""
    results = TwoLayerResults(run)
    setting = results.config.setting

    def mean(column: str, network: str = "classification") -> float:
        return statistics.fmean(at_end(column, network)(results))

    text = (
        f"A {NAMES[setting.activation]} network with {setting.width} neurons learned to tell two "
        f"classes apart (ID {setting.loss} risk {mean('id_{loss}'):.3f}), learned background "
        f"features that are independent of the class, and had a risk of {mean('ood_{loss}'):.2f} "
        f"after the background shifted; the linear network's was "
        f"{mean('ood_{loss}', LINEAR_CLASSIFIER):.3f}."
    )
    if uncovered(flow(results.config)) is None:
        risk = mean("ood_hinge", "prediction")
        text += f" The population model predicted {risk:.2f} without training."
    return text


EXPERIMENT = Experiment(
    name="fig03_two_layer",
    title="Two-layer networks: ReLU learns the background, linear does not",
    about="Inputs are made of core features, which carry the label, and background features, which "
    "are independent of it. Two-layer networks learn to classify them, or to recover the core "
    "features; then the background shifts. The paper gives orders of magnitude; expected ranges "
    "are ours.",
    reproduces=("Fig. 3", "Fig. 7", "Fig. 8", "Fig. 9"),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 3, Fig. 7, Fig. 8, Fig. 9."""
