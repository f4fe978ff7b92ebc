"""What distillation changes in images at random: boxes and pixels are torchvision's."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp

from contam.data.images import (
    FolderDomain,
    centered,
    crop_box,
    cropped_and_flipped,
    domainbed_augmentation,
    pixels,
)
from contam.models.torchvision_import import import_torchvision
from contam.rng import generator_for

DRAWS = 3000
RATIO = (3 / 4, 4 / 3)


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(256, size=(height, width, 3), dtype=np.uint8))


def boxes(size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    generator = generator_for(0, "boxes")
    return np.array([crop_box(size, generator, scale=scale) for _ in range(DRAWS)])


def torchvision_boxes(size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    import_torchvision()
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(8, scale=scale, ratio=RATIO)
    image = Image.new("RGB", size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [crop.make_params([image]) for _ in range(DRAWS)]
    corners = [(d["left"], d["top"], d["left"] + d["width"], d["top"] + d["height"]) for d in drawn]
    return np.array(corners)


@pytest.mark.parametrize("size", [(200, 150), (90, 300), (640, 640)])
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.08, 1.0)], ids=str)
def test_boxes_are_distributed_as_in_torchvision(size, scale):
    ours, theirs = boxes(size, scale), torchvision_boxes(size, scale)
    width, height = (lambda b: b[:, 2] - b[:, 0]), (lambda b: b[:, 3] - b[:, 1])
    for value in (
        lambda b: width(b) * height(b),
        lambda b: width(b) / height(b),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: size[0] - b[:, 2],
    ):
        comparison: Any = ks_2samp(value(ours), value(theirs))
        assert comparison.pvalue > 1e-3


@pytest.mark.parametrize(
    ("size", "box"), [((300, 20), (136, 0, 163, 20)), ((20, 300), (0, 136, 20, 163))]
)
def test_the_center_is_cropped_if_no_box_fits(size, box):
    """As wide as 4/3 of the height, or as high as 4/3 of the width, as torchvision has it."""
    assert crop_box(size, generator_for(0, "boxes"), scale=(0.9, 1)) == box
    assert tuple(torchvision_boxes(size, (0.9, 1))[0]) == box


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    least=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_a_box_lies_within_the_image(width, height, least, seed):
    left, top, right, bottom = crop_box(
        (width, height), generator_for(seed, "boxes"), scale=(least, 1)
    )
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("seed", range(8))
def test_pixels_equal_those_of_torchvision_for_the_same_box(seed):
    import_torchvision()
    from torchvision.transforms.v2 import InterpolationMode, functional

    image: Any = noise(71, 53)
    ours = cropped_and_flipped(32)(image, generator_for(seed, "draw"))
    left, top, right, bottom = crop_box(image.size, generator_for(seed, "draw"), scale=(0.9, 1))
    side = [32, 32]
    theirs: Any = functional.resized_crop(
        image, top, left, bottom - top, right - left, side, InterpolationMode.BICUBIC
    )
    both = {np.asarray(theirs).tobytes(), np.asarray(functional.hflip(theirs)).tobytes()}
    assert len(both) == 2
    assert np.asarray(ours).tobytes() in both


def test_half_of_the_images_are_flipped():
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 4, 8))
    generator = generator_for(0, "flips")
    bright = [
        cropped_and_flipped(8, scale=(1, 1))(image, generator).getpixel((0, 4)) == (255, 255, 255)
        for _ in range(1000)
    ]
    assert abs(sum(bright) / 1000 - 0.5) < 4 * np.sqrt(0.25 / 1000)


def test_a_transform_to_the_same_size_keeps_the_pixels(tmp_path):
    noise(40, 30).save(tmp_path / "a.png")
    y = torch.zeros(1, dtype=torch.int64)
    augment = cropped_and_flipped(16)
    domain = FolderDomain("d", [tmp_path / "a.png"], y, 0, centered(16)).augmented(augment)
    draw = torch.tensor([5])
    (batch,) = domain.fetch([(torch.tensor([0]), draw)])
    alone = augment(noise(40, 30), torch.Generator().manual_seed(5))
    assert torch.equal(batch.x[0], pixels(alone))
    (again,) = domain.batches(1)  # to look at, and not to train on
    assert torch.equal(again.x[0], centered(16)(noise(40, 30)))


@pytest.mark.parametrize(("side", "scale"), [(0, (0.9, 1.0)), (8, (0.0, 1.0)), (8, (0.9, 1.1))])
def test_invalid_crop_sizes_are_rejected(side, scale):
    with pytest.raises(ValueError, match=r"cannot crop shares .* such as cropped_and_flipped"):
        cropped_and_flipped(side, scale=scale)


def test_colors_change_as_torchvision_changes_them():
    """DomainBed's jitter, replayed with torchvision's functions and the same random numbers."""
    import_torchvision()
    from torchvision.transforms import functional as torchvision_functional

    functional: Any = torchvision_functional  # its annotations know tensors alone
    image = noise(9, 7)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        lambda image, factor: functional.adjust_hue(image, factor - 1),
    )
    grays = set()
    for seed in range(30):
        augmented = domainbed_augmentation(8)(image, generator_for(seed, "jitter"))
        again = generator_for(seed, "jitter")
        expected = image.crop(crop_box(image.size, again, scale=(0.7, 1.0)))
        expected = expected.resize((8, 8), Image.Resampling.BILINEAR)
        if torch.rand((), generator=again) < 0.5:
            expected = functional.hflip(expected)
        factors = (0.7 + 0.6 * torch.rand(4, generator=again)).tolist()
        for which in torch.randperm(4, generator=again).tolist():
            expected = changes[which](expected, factors[which])
        gray = bool(torch.rand((), generator=again) < 0.1)
        if gray:
            expected = functional.to_grayscale(expected, 3)
        grays.add(gray)
        # Rounding may take a neighboring level of the hue.
        difference = np.abs(np.array(augmented).astype(int) - np.array(expected).astype(int))
        assert np.median(difference) <= 1 and difference.mean() < 3
    assert grays == {True, False}
