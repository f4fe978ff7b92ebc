"""Changes of a training: what they leave alone, and how they work on a gradient."""

import itertools

import pytest
import torch
from support.shifts import in_domains
from torch import nn

from contam.models.background_difference import BackgroundDifference
from contam.models.leaky import with_leaky_activations
from contam.training.changes import (
    CHANGES,
    balanced_recipe,
    jittered,
    with_negatives,
    with_plain_backgrounds,
    with_swapped_backgrounds,
)
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe


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
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                          nn.Linear(144, 2))  # fmt: skip
    names = {"model": model, "x": torch.rand(2, 3, 8, 8), "masks": torch.ones(2, 1, 8, 8),
             "generator": generator(), "domain": torch.tensor([0, 1, 1])}  # fmt: skip
    exec(CHANGES[name].code, names)


def test_a_network_without_enough_features_can_not_be_wrapped():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(5, 2))  # fmt: skip
    change, x = CHANGES["gradient projection"], torch.rand(2, 3, 8, 8)
    assert "more than 8 features" in change.misfit(model, x, masks=True)
    assert CHANGES["stop gradient"].misfit(model, x, masks=True) == ""


@pytest.mark.parametrize("edit", [with_swapped_backgrounds, with_plain_backgrounds])
def test_new_backgrounds_keep_objects_and_half_of_the_images(edit):
    x = torch.rand(200, 3, 1, 1, generator=generator()).expand(200, 3, 6, 6)
    masks = torch.zeros(200, 1, 6, 6)
    masks[..., 2:4, 2:4] = 1
    edited = edit(x, masks, generator())
    assert torch.equal(edited[..., 2:4, 2:4], x[..., 2:4, 2:4])
    changed = (edited != x).flatten(1).any(1)
    assert 70 < changed.sum() < 130
    outside = edited.masked_select(masks.expand_as(x) == 0).view(200, 3, -1)
    assert torch.equal(outside, outside[..., :1].expand_as(outside))


def test_swapped_backgrounds_are_those_of_other_images_without_their_objects():
    """Gray backgrounds of different brightness, with objects of value 5."""
    x = torch.arange(8.0).div(10).view(8, 1, 1, 1).repeat(1, 3, 6, 6)
    masks = torch.zeros(8, 1, 6, 6)
    for i in range(8):
        masks[i, 0, i % 3 + 1, 2] = 1
    x = torch.where(masks > 0, 5.0, x)
    edited = with_swapped_backgrounds(x, masks, generator())
    for image, mask in zip(edited, masks, strict=True):
        values = image[0][mask[0] == 0].unique()
        assert len(values) == 1 and values[0] < 1
        assert image[0][mask[0] > 0].tolist() == [5.0]


def test_a_leaky_network_is_a_share_of_a_linear_path():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    inner = network[0](x).detach()
    for slope in (0.0, 0.3, 1.0):
        expected = network[2](slope * inner + (1 - slope) * inner.relu())
        torch.testing.assert_close(with_leaky_activations(network, slope)(x), expected)
    with pytest.raises(ValueError, match="has no ReLU to replace"):
        with_leaky_activations(nn.Sequential(nn.Linear(3, 4), nn.GELU()))


def test_the_difference_ignores_what_is_added_for_the_background():
    """Objects and backgrounds add to the logits of a linear network, and backgrounds cancel."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 2))
    masks = torch.zeros(4, 1, 6, 6)
    masks[..., 2:4, 2:4] = 1
    plain = torch.rand(4, 3, 1, 1, generator=generator()).expand(4, 3, 6, 6)
    objects = 3 * masks * torch.rand(4, 3, 6, 6, generator=generator())
    difference = BackgroundDifference(network)(torch.cat([plain + objects, masks], dim=1))
    torch.testing.assert_close(difference, network(objects) - network[1].bias)


def test_balanced_minibatches_have_as_many_examples_of_each_domain():
    domains = in_domains(torch.rand(60, 1), torch.arange(60) % 3, 50, 10).train
    recipe = balanced_recipe(Recipe(0.1, 0.0, 16, epochs=2), examples=60, domains=2)
    assert recipe.length(60) == Recipe(0.1, 0.0, 16, epochs=2).length(60)
    picks = TrainingExamples(domains).minibatches(
        recipe.batch_size, purpose="test", seed=0, start=0, per_domain=recipe.per_domain
    )
    numbers, _ = next(picks)
    assert (numbers < 50).sum() == (numbers >= 50).sum() == 8
    # Of one set, the groups of its examples are balanced.
    groups = torch.arange(50) % 5 // 4
    grouped = TrainingExamples(domains[:1], groups)
    ((micro_batch,),) = itertools.islice(
        grouped.micro_batches(
            8, parts=1, own=range(1), purpose="test", seed=0, start=0, per_domain=True
        ), 1,
    )  # fmt: skip
    assert torch.bincount(groups[micro_batch.numbers]).tolist() == [8, 8]
    assert micro_batch.weight == 1
    model, x = nn.Linear(1, 3), torch.rand(2, 1)
    assert "there is one" in CHANGES["balanced domains"].misfit(model, x)
    assert not CHANGES["balanced domains"].misfit(model, x, domains=2)
