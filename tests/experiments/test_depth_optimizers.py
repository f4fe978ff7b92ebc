"""What the blocks of deep networks are measured on."""

import pytest

from contam.data.shapes import shapes
from contam.experiments.depth_optimizers import FULL, SMOKE, built, measured, networks
from contam.experiments.support.altered_backgrounds import altered_images, background_effects


def test_a_config_has_every_combination_once():
    parts = [network.part(0) for network in networks(FULL)]
    assert len(set(parts)) == len(parts) == (3 + 2) * 3


@pytest.mark.parametrize("network", networks(SMOKE)[::2], ids=lambda each: each.kind)
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
