"""Two-layer networks on backgrounds of a size and a correlation, trained and predicted."""

from collections.abc import Iterator
from dataclasses import replace

from contam.experiments.joint_law.config import Config
from contam.experiments.support.two_layer_runs import train_into
from contam.rng import bit_generator_for
from contam.run import Run
from contam.theory.distribution import Uniform
from contam.theory.initialization import initial_network
from contam.theory.meanfield import Neurons, advance
from contam.theory.population import hinge_risk
from contam.theory.risks import held_out, risk
from contam.theory.setting import Setting
from contam.theory.trajectory import State


def two_layer_part(size: float, correlation: float) -> str:
    """The parts of a run with two-layer networks, without the seed.

    >>> two_layer_part(0.5, 1.0)
    'theory/size0.5-correlation1'
    """
    return f"theory/size{size:g}-correlation{correlation:g}"


def predicted_part(size: float, correlation: float) -> str:
    """The part of a run with the prediction of two-layer networks.

    >>> predicted_part(0.5, 1.0)
    'predicted/size0.5-correlation1'
    """
    return f"predicted/size{size:g}-correlation{correlation:g}"


def setting_of(config: Config, size: float, correlation: float) -> Setting:
    """The setting of a two-layer network whose background weights go up to `size`."""
    data = replace(
        config.setting.data, background_weights=Uniform(0.0, size),
        ood_weights=Uniform(-size, 0.0), correlation=correlation,
    )  # fmt: skip
    return replace(config.setting, data=data)


def predict(config: Config, run: Run, size: float, rho: float) -> Iterator[float]:
    """Predict the losses of a two-layer network from its initial weights, without training it."""
    part = predicted_part(size, rho)
    if run.has(part):
        return
    setting = setting_of(config, size, rho)
    network = initial_network(setting, seed=0)
    weights = network.head.weight.detach()[0]
    neurons = Neurons.read(network.projections, weights, core=setting.data.features.core)
    for step in range(setting.steps):
        neurons = advance(neurons, setting)
        yield (step + 1) / setting.steps
    run.write(part, [{
        "size": size, "correlation": rho, "id": hinge_risk(neurons, setting).hinge,
        "randomized": hinge_risk(neurons, setting_of(config, size, 0.0)).hinge,
        "reversed": hinge_risk(neurons, setting, "ood").hinge,
    }])  # fmt: skip


def train(config: Config, run: Run, size: float, rho: float, seed: int) -> Iterator[float]:
    """Train a two-layer network, and measure its losses."""
    randomized = setting_of(config, size, 0.0)

    def measured(state: State) -> dict[str, float]:
        draws = bit_generator_for(seed, "held out backgrounds randomized")
        samples = {
            "id": held_out(state, "id"),
            "randomized": randomized.data.sample(8192, draws, "id", dtype=randomized.dtype),
            "reversed": held_out(state, "ood"),
        }
        losses = {name: risk(state, sample).loss for name, sample in samples.items()}
        return losses | {"size": size, "correlation": rho, "seed": seed}

    part = f"{two_layer_part(size, rho)}/seed{seed}"
    setting = setting_of(config, size, rho)
    yield from train_into(run, part, setting, seed, points=1, measure=measured)
