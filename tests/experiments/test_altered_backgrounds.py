"""Objects on changed backgrounds, and the effects of the background on features."""

import pytest
import torch
from torch import nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import ID
from contam.data.shapes import splits
from contam.experiments.coupling_family import counterfactual_row
from contam.experiments.support.altered_backgrounds import (
    EACH,
    Altered,
    altered_images,
    background_effects,
)


class Additive(nn.Module):
    """A feature that depends on the object alone, and one that depends on the background alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0, 16, 16], x[:, 0, 0, 0]], dim=1)


class Gated(nn.Module):
    """The response to the object is there only on the second background."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x[:, 0, 16, 16] - 0.65) * x[:, 0, 0, 0])[:, None]


def two_classes_on_two_backgrounds() -> Altered:
    y = torch.arange(20) % 2
    before = []
    for k in range(EACH * len(ID) + 2):
        x = torch.zeros(20, 3, 32, 32) + (k % 2)
        x[:, :, 16, 16] = 0.5 + 0.3 * y[:, None].float()
        before.append(Domain(str(k), Batch(x, y, torch.full_like(y, k))))
    return Altered(before[0], {"negative": before[1], "recolored": before[0]}, before)


def test_an_additive_background_has_variance_but_no_interaction():
    row = counterfactual_row(background_effects(Additive(), two_classes_on_two_backgrounds(), 2))
    for key in ("counterfactual", "negative", "recolored", "interaction", "dependent"):
        assert row[key] == pytest.approx(0, abs=1e-6)
    spread = {"class": 0.15**2, "background": 0.5**2}
    for key, value in spread.items():
        assert row[key] == pytest.approx(value / sum(spread.values()), rel=1e-5)
    assert row["both"] == pytest.approx((row["class"] * row["background"]) ** 0.5)


def test_a_response_that_half_of_the_backgrounds_switch_off_depends_on_them_by_half():
    effects = background_effects(Gated(), two_classes_on_two_backgrounds(), 2)
    assert effects.dependent == pytest.approx(0.5, rel=1e-5)
    assert effects.everywhere.of_background == pytest.approx(0, abs=1e-6)


def test_altered_images_differ_only_in_the_background():
    altered = altered_images(0, images=200, objects=20)
    shown = splits(0, train=40, id_val=40, id_test=200, ood_test=10)["id_test"]
    assert torch.equal(altered.plain.data.x, shown.x)
    inside = shown.mask.expand_as(shown.x) > 0
    for images in altered.changed.values():
        assert torch.equal(images.data.x[inside], shown.x[inside])
        assert not torch.equal(images.data.x, shown.x)
        assert torch.equal(images.y, shown.y)
    assert len(altered.before) == 18
