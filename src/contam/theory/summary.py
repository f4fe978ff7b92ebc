"""All scalar measures of one state of a run."""

import math

import torch

from contam.theory.neurons import (
    activation_probabilities,
    asymmetry,
    good_neurons,
    neuron_sets,
)
from contam.theory.projections import (
    average_norms,
    gradient_projections,
    largest_background,
    layer_sums,
    learned_sums,
    own_class,
    weighted_sums,
)
from contam.theory.risks import held_out, ood_risk, risk
from contam.theory.trajectory import State


@torch.no_grad()
def summary(state: State, examples: int = 8192) -> dict[str, float]:
    """Measure a state on held-out examples of each distribution.

    Args:
        state: a state of a run.
        examples: number of held-out examples of each distribution.

    Returns:
        step; U, V; core_norm, background_norm; largest_background; good_share, other_class_rate
        (of good neurons); asymmetry_1 and on, one per layer; of deeper networks, U_2, V_2 and on,
        the sums of layers beyond the first (see `layer_sums`), NaN with too few examples; the loss
        and the error on "id", "ood" and "worst", such as ood_hinge; and ood_risk, the largest of
        the losses. Two-layer networks with one output add set_share, the share of neurons in N_-1
        or N_+1, and set_C and set_B, their mean sgn(a_k) C_k and B_k. Without biases, ReLU and
        identity networks add background_pull, the mean negative gradient along background features.
        Means over no neuron are NaN.

    Source: ours, the row of a run's table.

    >>> from contam.theory.trajectory import Setting, simulate
    >>> (state,) = simulate(Setting(activation="identity"), seed=0)
    >>> abs(summary(state)["V"]) < 0.1
    True
    """
    setting, data, W = state.setting, state.setting.data, state.W
    core = data.features.core
    two_layer = setting.depth == 1 and setting.outputs == 1
    own = own_class(W, data, state.a if two_layer else None)
    samples = {where: held_out(state, where, examples) for where in ("id", "ood", "worst")}

    u, v = learned_sums(W, own, data)
    core_norm, background_norm = average_norms(W, core)
    row = {
        "step": float(state.step),
        "U": u,
        "V": v,
        "core_norm": core_norm,
        "background_norm": background_norm,
        "largest_background": largest_background(W, core, data.features.dimension),
    }

    layers = activation_probabilities(state.network, samples["id"], data)
    good, other_rate = good_neurons(layers[0], own)
    row["good_share"] = float(good.double().mean())
    row["other_class_rate"] = _mean(other_rate[good])
    for layer, probability in enumerate(layers, start=1):
        row[f"asymmetry_{layer}"] = float(asymmetry(probability).mean())
    if setting.depth > 1:
        _, *deeper = state.network.preactivations(samples["id"].f)
        fewest = torch.bincount(data.class_index(samples["id"].y), minlength=data.classes).min()
        for layer, z in enumerate(deeper, start=2):
            row[f"U_{layer}"], row[f"V_{layer}"] = (
                layer_sums(z, samples["id"], data)
                if fewest > data.features.size
                else (math.nan, math.nan)
            )

    risks = {where: risk(state, sample) for where, sample in samples.items()}
    for where, (loss, error) in risks.items():
        row[f"{where}_{setting.loss}"] = loss
        if error is not None:
            row[f"{where}_error"] = error
    row["ood_risk"] = ood_risk({where: value.loss for where, value in risks.items()})

    if two_layer:
        members = neuron_sets(W, state.a, data).any(dim=0)
        C, B = weighted_sums(W, data)
        row["set_share"] = float(members.double().mean())
        row["set_C"], row["set_B"] = _mean((state.a.sign() * C)[members]), _mean(B[members])
    plain = setting.bias == "none" and not setting.intervention.normalizes
    if two_layer and plain and setting.activation in ("relu", "identity"):
        pull = gradient_projections(W, state.a, samples["id"], setting.activation)
        row["background_pull"] = _mean(pull[:, core:])
    return row


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan
