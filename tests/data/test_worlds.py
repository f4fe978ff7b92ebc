"""Worlds: what differs between the training images and each test."""

import pytest
import torch

from contam.data.backgrounds import FAMILIES, ID, OOD
from contam.data.worlds import FEWER, FOLLOWS, WORLDS, world


@pytest.fixture(scope="module")
def worlds():
    return {name: world(name, 0, train=540, test=400) for name in WORLDS}


def families(shown) -> set[str]:
    return {list(FAMILIES)[k] for k in shown.domain.unique().tolist()}


def follows(shown) -> float:
    """The share of images whose domain, here the color, is that of the class."""
    return (shown.domain == shown.y).double().mean().item()


def test_classes_are_balanced_and_images_are_in_range(worlds):
    for drawn in worlds.values():
        for part in (drawn.train, drawn.id_test, drawn.ood_test, drawn.shifted):
            counts = torch.bincount(part.y, minlength=10)
            assert counts.min() == counts.max() > 0
            assert part.x.min() >= 0 and part.x.max() <= 1


def test_paired_tests_show_the_same_objects(worlds):
    for drawn in worlds.values():
        if drawn.paired:
            n = min(len(drawn.id_test.y), len(drawn.ood_test.y))
            assert torch.equal(drawn.id_test.mask[:n], drawn.ood_test.mask[:n])
    healthy = worlds["healthy"]
    masks = {mask.numpy().tobytes() for mask in healthy.id_test.mask}
    assert not masks & {mask.numpy().tobytes() for mask in healthy.ood_test.mask}


def test_new_backgrounds_are_new_in_the_contaminated_world_alone(worlds):
    contaminated, healthy = worlds["contaminated"], worlds["healthy"]
    assert families(contaminated.train) == families(contaminated.id_test) == set(ID)
    assert families(contaminated.ood_test) == set(OOD)
    assert families(healthy.ood_test) <= families(healthy.train) == {*ID, *OOD}
    assert families(contaminated.shifted) == {*ID, *OOD}


def test_the_color_of_the_background_follows_the_class_in_training_alone(worlds):
    drawn = worlds["spurious"]
    # A random color is that of the class in a tenth of the images.
    expected = FOLLOWS + (1 - FOLLOWS) / 10
    assert follows(drawn.train) == pytest.approx(expected, abs=0.04)
    assert follows(drawn.id_test) == pytest.approx(expected, abs=0.04)
    assert follows(drawn.ood_test) == pytest.approx(0.1, abs=0.06)
    assert follows(drawn.shifted) == pytest.approx((expected + 0.1) / 2, abs=0.08)


def test_corruption_changes_contrast_and_noise_and_nothing_else(worlds):
    drawn = worlds["corrupted"]
    assert torch.equal(drawn.id_test.y, drawn.ood_test.y)
    own, other = (part.x.mean(dim=(1, 2, 3)) for part in (drawn.id_test, drawn.ood_test))
    torch.testing.assert_close(other - 0.5, 0.4 * (own - 0.5), atol=0.03, rtol=0)


def test_the_undertrained_world_has_fewer_images_of_the_same_kind(worlds):
    drawn = worlds["undertrained"]
    assert drawn.more is not None and len(drawn.more.y) == FEWER * len(drawn.train.y)
    assert families(drawn.train) == families(drawn.more)
    assert all(other.more is None for name, other in worlds.items() if name != "undertrained")


def test_half_of_the_images_of_the_shift_are_training_images(worlds):
    for drawn in worlds.values():
        n = len(drawn.shifted.y)
        same = (drawn.shifted.x == drawn.train.x[:n]).flatten(1).all(dim=1)
        assert 0.4 <= same.double().mean() <= 0.6


def test_an_unknown_world_is_rejected():
    with pytest.raises(ValueError, match="choose from contaminated"):
        world("flat")
