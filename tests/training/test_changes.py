"""Changes of a training: what they leave alone, and how they work on a gradient."""

import pytest
import torch
from torch import nn

from contam.training.changes import CHANGES, jittered, with_negatives


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_jitter_keeps_gray_images_gray_and_changes_every_image():
    gray = torch.linspace(0.2, 0.8, 16).view(1, 1, 4, 4).expand(8, 3, 4, 4)
    x = jittered(gray, generator())
    torch.testing.assert_close(x, x[:, :1].expand_as(x), rtol=0, atol=2e-3)
    assert ((x - gray).abs().amax((1, 2, 3)) > 1e-3).all()


def test_jitter_of_color_images_turns_hues_and_keeps_the_range():
    red = torch.zeros(32, 3, 2, 2)
    red[:, 0] = 0.8
    x = jittered(red, generator())
    assert x.min() >= 0 and x.max() <= 1
    assert set(x.mean((2, 3)).argmax(1).tolist()) == {0, 1, 2}


def test_negatives_invert_backgrounds_of_half_of_the_images():
    x, masks = torch.full((200, 3, 2, 2), 0.3), torch.zeros(200, 1, 2, 2)
    masks[..., 0] = 1
    edited = with_negatives(x, masks, generator())
    assert torch.equal(edited[..., 0], x[..., 0])
    inverted = edited[:, 0, 0, 1].isclose(torch.tensor(0.7))
    assert 70 < inverted.sum() < 130
    assert torch.equal(edited[~inverted], x[~inverted])


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_keeps_the_names_and_values_of_the_weights(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    changed = CHANGES[name].network(model)
    before = dict(model.named_parameters())
    for key, value in changed.named_parameters():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if change.code])
def test_the_code_of_a_change_runs(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    names = {"model": model, "x": torch.rand(2, 3, 8, 8), "masks": torch.ones(2, 1, 8, 8),
             "generator": generator()}  # fmt: skip
    exec(CHANGES[name].code, names)
