"""Two-layer networks trained by SGD, measured at the fit and when training ends."""

from functools import partial

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.projections import learned_sums, own_class
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate


def setting(core=32, background=32, correlation=0.0, slope=0.0, **fields) -> Setting:
    """A run; with slope 0 it is a ReLU network, which the fast engine trains."""
    data = DataModel(
        FeatureModel(core, background, 4 * (core + background)), correlation=correlation
    )
    if slope:
        fields |= {"activation": "leaky_relu", "slope": slope}
    return Setting(data=data, **fields)


def trained(state) -> dict[str, float]:
    """U, V, spurious use, mean margin and OOD hinge risk of a state."""
    data, W = state.setting.data, state.W
    U, V = learned_sums(W, own_class(W, data, state.a), data)
    background = W[:, data.features.core :].sum(dim=1)
    inside, shifted = (
        data.sample(4000, bit_generator_for(state.seed, f"phases {where}"), where)
        for where in ("id", "ood")
    )
    margin, moved = (sample.y * state(sample.f) for sample in (inside, shifted))
    return {
        "step": state.step,
        "U": U,
        "V": V,
        "spurious": float((state.a.sign() * background).mean()),
        "margin": float(margin.mean()),
        "ood_hinge": float((1 - moved).clamp_min(0).mean()),
    }


def fit_of(chosen: Setting, seed: int) -> dict[str, float]:
    """SGD at the step at which the mean margin reaches 1, by linear interpolation."""
    before = None
    for state in simulate(chosen, seed, range(0, chosen.steps + 1, 4)):
        now = trained(state)
        if now["margin"] >= 1 and before is not None:
            share = (1 - before["margin"]) / (now["margin"] - before["margin"])
            return {name: before[name] + share * (now[name] - before[name]) for name in now}
        before = now
    raise AssertionError("SGD did not fit the training examples")


def end_of(chosen: Setting, seed: int) -> dict[str, float]:
    """SGD after all steps."""
    (state,) = simulate(chosen, seed)
    return trained(state)


LONG = partial(setting, step_size=4.0, weight_decay=1e-2, steps=120, batch_size=1000)
"""Weights decay by exp(-4.8): training converges."""
FITS = {
    "standard": setting(),
    "slope": setting(slope=0.5, batch_size=500),
    "critical slope": setting(slope=0.22, batch_size=500),
    "more core": setting(core=48, background=16),
    "more background": setting(core=24, background=40),
    "correlated": setting(correlation=0.5),
}
"""Settings whose training reaches the fit within its steps."""
