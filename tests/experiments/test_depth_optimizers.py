"""What the blocks of deep networks are measured on."""

import pandas
import pytest

from contam.data.shapes import shapes
from contam.experiment import NotJudged
from contam.experiments.depth_optimizers import FULL, SMOKE
from contam.experiments.depth_optimizers.claims import (
    DepthResults,
    agreement,
    gained,
    learned_by_linear,
    rise_of_background,
)
from contam.experiments.depth_optimizers.config import IMAGE_KINDS, TrainedNetwork, networks
from contam.experiments.depth_optimizers.experiment import built, measured, perceptron
from contam.experiments.support.altered_backgrounds import altered_images, background_effects
from contam.experiments.support.deep_perceptrons import layer_effects
from contam.theory.projections import learned_sums, own_class
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate


def test_a_config_has_every_combination_once():
    parts = [network.part(0) for network in networks(FULL)]
    assert len(set(parts)) == len(parts) == (5 + 1 + 3 + 2) * 3


IMAGE_NETWORKS = [network for network in networks(SMOKE) if network.kind in IMAGE_KINDS]


@pytest.mark.parametrize("network", IMAGE_NETWORKS[::2], ids=lambda network: network.kind)
def test_every_block_gets_a_row_and_the_last_one_is_what_the_features_show(network):
    """A residual network's features are the mean of its last block's maps."""
    shift = shapes(0, train=40, id_val=40, id_test=40, ood_test=10)
    altered = altered_images(0, images=40, objects=10)
    model = built(SMOKE, network, 0).eval()
    rows = list(measured(model, network, shift, altered))
    assert [row["block"] for row in rows] == list(range(1, network.blocks + 1))
    assert all(0 <= row["interaction"] <= 1 for row in rows)
    if network.kind == "resnet":
        effects = background_effects(model.encoder, altered, len(shift.classes))
        assert rows[-1]["interaction"] == pytest.approx(effects.dependent, rel=1e-4)
        assert rows[-1]["attenuation"] == pytest.approx(effects.attenuation, rel=1e-3)


def perceptron_rows(**fields) -> list[dict]:
    (state,) = simulate(Setting(width=32, batch_size=200, steps=60, **fields), seed=0)
    return list(layer_effects(state, examples=800, objects=20))


def test_the_first_layers_sums_are_those_of_its_weights_also_in_a_rotated_basis():
    setting = perceptron(SMOKE, TrainedNetwork("mlp", 2, "adamw"))
    assert setting.ambient and setting.optimizer == "adamw" and setting.depth == 2
    (state,) = simulate(setting, seed=0)
    first, second = layer_effects(state, examples=2000, objects=20)
    own = own_class(state.W, setting.data)
    assert (first["U"], first["V"]) == pytest.approx(
        learned_sums(state.W, own, setting.data), rel=1e-3
    )
    assert first["contamination"] == pytest.approx(first["V"] / first["U"])
    assert (first["depth"], second["depth"]) == (0.5, 1.0)


def test_a_linear_layer_adds_the_background_and_a_relu_layer_gates_the_class_by_it():
    (linear,), (relu,) = (perceptron_rows(activation=name) for name in ("identity", "relu"))
    assert abs(linear["interaction"]) < 1e-9 and abs(linear["attenuation"]) < 0.01
    assert relu["interaction"] > 0.1 and relu["attenuation"] > 0.3
    assert relu["V"] > 10 * abs(linear["V"])
    assert relu["ood_risk"] > relu["id_risk"] + 0.3


def results_of(**changes: float) -> DepthResults:
    """Made-up rows of MLPs of two layers in which training creates V, and the interaction falls.

    Args:
        changes: values that replace a column of the trained rows.
    """
    rows = []
    for kind in ("mlp", "linear"):
        for seed in range(2):
            for optimizer in ("sgd", "adamw"):
                for block in (1, 2):
                    background = 0.3 * block if kind == "mlp" else 0.0
                    labels = {"kind": kind, "blocks": 2, "optimizer": optimizer, "seed": seed,
                              "block": block, "id_accuracy": 0.99}  # fmt: skip
                    rows.append(labels | {"state": "untrained", "V": 0.0, "interaction": 0.5})
                    rows.append(
                        labels | {"state": "trained", "V": background, "interaction": 0.3,
                                  "contamination": background, "attenuation": block} | changes
                    )  # fmt: skip
    results = object.__new__(DepthResults)
    results.config, results.rows = FULL, pandas.DataFrame(rows)
    return results


def test_what_training_adds_is_measured_in_the_last_layer_and_against_the_untrained_network():
    results = results_of()
    assert rise_of_background(results) == pytest.approx([0.6, 0.6])
    assert learned_by_linear(results) == [0.0, 0.0]
    assert gained("mlp", "interaction", "last")(results) == pytest.approx([-0.2, -0.2])
    assert agreement("attenuation")(results) == pytest.approx([1.0, 1.0])
    learned_background = results_of(V=-0.4)
    assert rise_of_background(learned_background) == pytest.approx([-0.4, -0.4])
    assert learned_by_linear(learned_background) == pytest.approx([0.4, 0.4])
    with pytest.raises(NotJudged, match="no ResNet"):
        gained("resnet", "interaction", "last")(results)
