"""Changed backgrounds: what changes, by hand, and that the object does not."""

import pytest
import torch

from contam.data.counterfactual import CHANGES, counterfactual
from contam.data.shapes import scenes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def shown():
    return scenes(("stripes", "photo"), 40)


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_background_changes(shown, change):
    x = counterfactual(shown.x, shown.mask, change, generator=generator())
    assert x.shape == shown.x.shape and x.min() >= 0 and x.max() <= 1
    touched = (shown.mask > 0).expand_as(x)
    assert torch.equal(x[touched], shown.x[touched])
    assert (x != shown.x)[~touched].float().mean() > 0.8


def test_changes_by_hand():
    x = torch.tensor([0.5, 0.2, 0.4, 0.9]).view(1, 1, 2, 2) * torch.tensor([1, 0.5, 0]).view(
        3, 1, 1
    )
    mask = torch.tensor([[[[0.3, 0.0], [0.0, 0.0]]]])

    def changed(change: str) -> torch.Tensor:
        return counterfactual(x, mask, change, generator=generator())[0].flatten(1)

    torch.testing.assert_close(changed("negative")[0], torch.tensor([0.5, 0.8, 0.6, 0.1]))
    torch.testing.assert_close(changed("negative")[2], torch.tensor([0.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(changed("recolored")[0], torch.tensor([0.5, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(changed("recolored")[1], torch.tensor([0.25, 0.2, 0.4, 0.9]))
    # The background's mean is 0.5 in the first channel.
    torch.testing.assert_close(changed("contrast")[0], torch.tensor([0.5, 0.0, 0.3, 1.0]))


def test_shuffling_permutes_the_background_pixels(shown):
    x = counterfactual(shown.x, shown.mask, "shuffled", generator=generator())
    for before, after, mask in zip(shown.x, x, shown.mask, strict=True):
        old, new = (image[:, mask[0] == 0].T for image in (before, after))
        assert torch.equal(old.unique(dim=0), new.unique(dim=0))
        assert torch.equal(old.sort(dim=0).values, new.sort(dim=0).values)


def test_shuffling_uses_only_the_given_generator(shown):
    first, again = (
        counterfactual(shown.x, shown.mask, "shuffled", generator=generator()) for _ in range(2)
    )
    other = counterfactual(
        shown.x, shown.mask, "shuffled", generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("change", ["negative", "recolored"])
def test_rotating_hues_by_a_full_turn_restores_the_image(shown, change):
    x = shown.x
    for _ in range(6):
        x = counterfactual(x, shown.mask, change, generator=generator())
    torch.testing.assert_close(x, shown.x)


def test_an_image_filled_by_the_object_is_unchanged(shown):
    for change in CHANGES:
        x = counterfactual(shown.x, torch.ones_like(shown.mask), change, generator=generator())
        assert torch.equal(x, shown.x)


def test_an_unknown_change_is_rejected_with_the_known_names(shown):
    with pytest.raises(ValueError, match=r"unknown change 'blur'.*'negative'"):
        counterfactual(shown.x, shown.mask, "blur", generator=generator())
