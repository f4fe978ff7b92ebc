"""Images from files: what a pixel becomes, what a pass shows, and what a bad file says."""

import threading
from collections.abc import Generator
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contam.batch import Batch, Domain
from contam.data.images import (
    FolderDomain,
    centered,
    pixels,
    read,
    resized,
    without_border,
)
from contam.rng import generator_for


def saved(path, array, mode=None, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8), mode).save(path, **options)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve files, each of a color that says its number."""
    root = tmp_path_factory.mktemp("numbered")
    for k in range(12):
        Image.new("RGB", (4, 4), (20 * k, 0, 7)).save(root / f"{k:02d}.png")
    return root


def domain(folder, **options) -> FolderDomain:
    files = sorted(folder.glob("*.png"))
    y = torch.arange(len(files)) % 3
    return FolderDomain("d", files, y, 1, pixels, **options)


def numbers(batch: Batch) -> list[int]:
    return [round(255 * value / 20) for value in batch.x[:, 0, 0, 0].tolist()]


def test_gray_palette_and_transparent_images_become_rgb(tmp_path):
    gray = saved(tmp_path / "gray.png", [[0, 128, 255]])
    assert np.array(read(gray)).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    palette = Image.new("RGB", (2, 1), (10, 20, 30)).quantize(4)
    palette.save(tmp_path / "palette.png")
    assert read(tmp_path / "palette.png").getpixel((1, 0)) == (10, 20, 30)
    palette.save(tmp_path / "clear.png", transparency=bytes([0, 255, 255, 255]))
    assert read(tmp_path / "clear.png").getpixel((1, 0)) == (10, 20, 30)
    # Transparency is dropped as in torchvision and WILDS: the color under it shows.
    rgba = saved(tmp_path / "rgba.png", [[[10, 20, 30, 0], [40, 50, 60, 255]]])
    assert np.array(read(rgba)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_sixteen_bit_images_are_scaled_and_not_truncated(tmp_path):
    deep = np.array([[0, 256, 257, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array(read(tmp_path / "deep.png"))[0, :, 1].tolist() == [0, 0, 1, 254, 255]


def test_cmyk_is_converted_and_float_images_are_rejected(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg")
    red, green, blue = np.array(read(tmp_path / "ink.jpg"))[4, 4].tolist()
    assert red > 200 and max(green, blue) < 60
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(ValueError, match=r"real\.tif: pixels are floating-point"):
        read(tmp_path / "real.tif")


def test_the_exif_orientation_is_applied_only_on_request(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read(tmp_path / "turned.jpg").size == (4, 2)
    assert read(tmp_path / "turned.jpg", upright=True).size == (2, 4)


def test_a_centered_transform_by_hand():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    x = pixels(image)
    assert x.shape == (3, 2, 4)
    assert x[2, 1, 3] == 23 / 255
    assert resized(5)(image).shape == (3, 5, 5)


@given(width=st.integers(1, 90), height=st.integers(1, 90), side=st.integers(1, 40))
def test_a_centered_crop_has_its_size_and_keeps_the_middle(width, height, side):
    x = centered(side, short=2 * side)(Image.new("RGB", (width, height), (9, 9, 9)))
    assert x.shape == (3, side, side)
    torch.testing.assert_close(x, torch.full_like(x, 9 / 255), rtol=0, atol=1e-6)


def test_the_center_of_a_wide_image_is_kept():
    stripes = np.zeros((4, 12, 3), dtype=np.uint8)
    stripes[:, 4:8] = 255
    assert torch.equal(centered(4)(Image.fromarray(stripes)), torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match="crop of 8 px does not fit a short side of 4 px"):
        centered(8, short=4)


def test_a_border_is_removed_before_the_transform():
    framed = np.zeros((8, 8, 3), dtype=np.uint8)
    framed[2:-2, 2:-2] = 200
    kept = without_border(2, resized(16))(Image.fromarray(framed))
    assert torch.equal(kept, torch.full((3, 16, 16), 200 / 255))
    with pytest.raises(ValueError, match="4 x 9 px is too small for a border of 2 px"):
        without_border(2, pixels)(Image.new("RGB", (4, 9)))


@pytest.mark.parametrize("workers", [0, 1, 3])
@given(size=st.integers(1, 15), seed=st.none() | st.integers(0, 3))
def test_a_pass_equals_that_of_a_domain_in_memory(folder, workers, size, seed):
    lazy = domain(folder, workers=workers)
    x = torch.stack([pixels(read(path)) for path in lazy.files])
    held = Domain("d", Batch(x, lazy.y, torch.ones_like(lazy.y)))
    draws = [None if seed is None else generator_for(seed, "order") for _ in range(2)]
    passes = [list(d.batches(size, g)) for d, g in zip((lazy, held), draws, strict=True)]
    for one, other in zip(*passes, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_folder_domain_has_the_interface_of_a_domain(folder):
    lazy = domain(folder)
    assert isinstance(lazy, Domain)
    assert len(lazy) == 12
    assert numbers(lazy.data) == list(range(12))
    assert lazy.data.domain.tolist() == [1] * 12
    assert repr(lazy) == "FolderDomain('d', 12 images)"
    assert numbers(lazy.pick(torch.tensor([5, 2])).data) == [5, 2]


def jitter(image: Image.Image, generator: torch.Generator) -> Image.Image:
    blue = int(torch.randint(256, (), generator=generator))
    return Image.merge("RGB", (*image.split()[:2], Image.new("L", image.size, blue)))


def test_augmentation_depends_on_the_seed_and_not_on_workers_or_batches(folder):
    def blues(workers, size, seed):
        train = domain(folder, workers=workers).augmented(jitter)
        return torch.cat([b.x[:, 2, 0, 0] for b in train.batches(size, generator_for(seed, "a"))])

    first = blues(0, 5, 0)
    assert torch.equal(first, blues(3, 2, 0))
    assert not torch.equal(first, blues(0, 5, 1))
    assert len(first.unique()) > 6


def test_without_a_generator_there_is_no_augmentation(folder):
    plain = domain(folder)
    assert torch.equal(plain.augmented(jitter).data.x, plain.data.x)
    shuffled = torch.cat([batch.x for batch in plain.batches(4, generator_for(0, "a"))])
    assert torch.equal(shuffled[:, 2].unique(), torch.tensor([7 / 255]))


def test_stopping_early_leaves_no_running_thread(folder):
    before = threading.active_count()
    passing = cast(Generator[Batch, None, None], domain(folder, workers=3).batches(2))
    next(passing)
    passing.close()
    assert threading.active_count() == before


def damaged(folder):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3))
    whole = saved(folder / "a.jpg", noise)
    cut = folder / "b.jpg"
    cut.write_bytes(whole.read_bytes()[:-600])
    (folder / "c.jpg").write_text("not an image")
    (folder / "d.jpg").touch()
    saved(folder / "e.jpg", noise)
    return sorted(folder.glob("*.jpg"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_reported_in_one_line(tmp_path, workers):
    files = damaged(tmp_path)
    for bad in files[1:4]:
        one = FolderDomain("d", [bad], torch.tensor([0]), 0, pixels, workers=workers)
        with pytest.raises(ValueError, match=f"cannot read the image .*{bad.name}: ") as error:
            list(one.batches(1))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"gone\.png: .*No such file"):
        read(tmp_path / "gone.png")


@pytest.fixture(scope="module")
def bytes_of_images(tmp_path_factory):
    root = tmp_path_factory.mktemp("bytes")
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3))
    return [saved(root / f"x.{kind}", noise).read_bytes() for kind in ("png", "jpg", "gif", "tif")]


@given(data=st.data())
def test_damaged_files_give_an_image_or_one_line(bytes_of_images, tmp_path_factory, data):
    broken = bytearray(data.draw(st.sampled_from(bytes_of_images)))
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(broken[: data.draw(st.integers(0, len(broken)))])
    try:
        assert read(path).mode == "RGB"
    except ValueError as error:
        assert "\n" not in str(error) and str(path) in str(error)


def test_images_of_different_sizes_need_a_transform(tmp_path):
    files = [saved(tmp_path / f"{n}.png", np.zeros((n, 5, 3))) for n in (4, 6)]
    mixed = FolderDomain("d", files, torch.tensor([0, 0]), 0, pixels)
    with pytest.raises(ValueError, match=r"6\.png gives \(3, 6, 5\).*4\.png gives \(3, 4, 5\)"):
        list(mixed.batches(2))


def test_invalid_domains_are_rejected(folder):
    with pytest.raises(ValueError, match="0 files, 2 labels and 2 domain indices"):
        FolderDomain("d", [], torch.tensor([0, 1]), 0, pixels)
    with pytest.raises(ValueError, match="workers are 0 or more, not -1"):
        domain(folder, workers=-1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        list(domain(folder).batches(0))
