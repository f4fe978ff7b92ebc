"""Trains and measures the two-layer networks of the theory, and the pairs of image networks."""

from collections.abc import Iterator
from typing import Any

from contam.experiment import Experiment, Stage
from contam.experiments.contamination_pairs.claims import claims
from contam.experiments.contamination_pairs.config import (
    FULL,
    LAPTOP,
    SMOKE,
    TWO_LAYER,
    Config,
    null,
    two_layer_setting,
)
from contam.experiments.contamination_pairs.figures import draw, summarize
from contam.experiments.support.background_readings import (
    centering_gain,
    changed_images,
    network_readings,
    two_layer_readings,
)
from contam.experiments.support.paired_networks import (
    PairData,
    PairSetting,
    PairZoo,
    Variant,
    accuracy,
)
from contam.experiments.support.untrained_controls import CONTROLS
from contam.run import Run
from contam.theory.trajectory import simulate


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train and measure two-layer networks, then the pairs."""
    two_layer = [(name, seed) for name in TWO_LAYER for seed in range(config.two_layer_seeds)]
    pairs = [(setting, seed) for seed in range(config.seeds) for setting in config.settings]
    start = len(two_layer) / 10
    total = start + len(pairs)
    for index, (name, seed) in enumerate(two_layer):
        yield Stage(index / 10 / total, f"two-layer network, {name}, seed {seed}")
        part = f"theory/{name.replace(' ', '_').replace(',', '')}/seed{seed}"
        if not run.has(part):
            (state,) = simulate(two_layer_setting(config, name), seed)
            run.write(part, [{"network": name, "seed": seed} | two_layer_readings(state)])
    for index, (setting, seed) in enumerate(pairs):
        for done, doing in _pair(config, run, setting, seed):
            yield Stage((start + index + done) / total, doing)


def _pair(config: Config, run: Run, setting: PairSetting, seed: int) -> Iterator[Stage]:
    """Train and measure all networks of a setting, a part for each."""
    variants: tuple[Variant, ...] = ("plain", *CONTROLS, *config.ways)
    parts: dict[Variant, str] = {}
    for variant in variants:
        part = f"pair/{setting.name}/{variant}/seed{seed}"
        if not run.has(part):
            parts[variant] = part
    zoo = PairZoo(config.networks, seed, run.folder.parent)
    for done, doing in zoo.train(setting, [*parts]):
        yield Stage(0.8 * done, doing)
    data = PairData(config.networks, setting, seed)
    for place, (variant, part) in enumerate(parts.items()):
        yield Stage(0.8 + 0.2 * place / len(parts), f"measuring {part}")
        run.write(part, [_network_row(config, zoo, setting, variant, data)])


def _network_row(
    config: Config, zoo: PairZoo, setting: PairSetting, variant: Variant, data: PairData
) -> dict[str, Any]:
    """The accuracies of a network; the plain and the untrained ones have measures, too.

    Source: ours, what is measured of one network, as a row.
    """
    model = zoo.network(setting, variant)
    row: dict[str, Any] = {"setting": setting.name, "seed": zoo.seed, "variant": variant}
    row |= setting._asdict()
    row["id"], row["ood"] = (accuracy(model, t.x, t.y) for t in (data.id_test, data.ood_test))
    if variant in ("plain", *CONTROLS):
        images = changed_images(data, setting, zoo.seed, images=config.images, shown=config.objects)
        row |= network_readings(model, images, answers=variant == "plain")
    if variant == "plain":
        row["loss"] = row["id"] - row["ood"]
        row["product"] = row["loss"] * row["relative"]
        row["centering"] = centering_gain(model, data)
    return row


EXPERIMENT = Experiment(
    name="contamination_pairs",
    title="Contamination or coverage: which measure tells them apart?",
    about="A network fails on new backgrounds because learning mixed backgrounds into its "
    "features, or because its training images do not cover them. Pairs of networks that learn from "
    "identical images differ only in whether contamination is blocked. The experiment asks which "
    "measure of the plain network predicts the difference in OOD accuracy, first where the theory "
    "knows the answer, then on small image networks, out of sample.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, contamination told from a lack of coverage."""
