"""Images in every form become the same pixels, whichever way they come in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.dicom_files import dicom

from contam.auditing.annotations import with_masks
from contam.data.image_modes import to_opaque_rgb, to_rgb
from contam.data.images import FolderDomain, pixels
from contam.data.images import read as read_published
from contam.inputs import as_batches, as_domain, read_set
from contam.inputs.forms import Options, read_raw

SIDE = 8
GRAY = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
RGB = np.stack([GRAY, GRAY + 1, GRAY + 2], axis=-1)
EXPECTED = {1: torch.tensor(GRAY / 255)[None].expand(3, SIDE, SIDE).float(),
            3: torch.tensor(RGB / 255).permute(2, 0, 1).float()}  # fmt: skip
WORDS, MOVED, WHITE = "16-bit images", "channels of arrays", "composited over white"


def translucent(alpha: int) -> Image.Image:
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(alpha)
    return image


def keyed() -> Image.Image:
    """A palette image whose only color is transparent."""
    image = Image.new("P", (SIDE, SIDE))
    image.info["transparency"] = 0
    return image


# Name -> example of a dataset, channels of the expected picture (0 for white), what is said
EXAMPLES = {
    "8-bit gray image": (Image.fromarray(GRAY), 1, ""),
    "16-bit gray image": (Image.fromarray(GRAY.astype(np.uint16) * 257), 1, WORDS),
    "16-bit gray image, big-endian": (
        Image.frombytes("I;16B", (SIDE, SIDE), (GRAY.astype(">u2") * 257).tobytes()), 1, WORDS
    ),
    "32-bit image of 16-bit values": (Image.fromarray(GRAY.astype(np.int32) * 257), 1, WORDS),
    "32-bit image of bytes": (Image.fromarray(GRAY.astype(np.int32)), 1, ""),
    "color image": (Image.fromarray(RGB), 3, ""),
    "opaque RGBA image": (translucent(255), 3, ""),
    "transparent RGBA image": (translucent(0), 0, WHITE),
    "transparent palette image": (keyed(), 0, WHITE),
    "transparent gray image": (Image.new("LA", (SIDE, SIDE), (0, 0)), 0, WHITE),
    "uint8 array": (GRAY, 1, ""),
    "uint8 array with one channel": (GRAY[..., None], 1, ""),
    "uint16 array": (GRAY.astype(np.uint16) * 257, 1, WORDS),
    "uint16 color array": (RGB.astype(np.uint16) * 257, 3, WORDS),
    "uint8 color array": (RGB, 3, ""),
    "uint8 RGBA array": (np.array(translucent(0)), 0, WHITE),
    "uint8 color tensor, channels last": (torch.tensor(RGB), 3, ""),
    "uint8 color tensor": (torch.tensor(RGB).permute(2, 0, 1), 3, ""),
    "uint16 color tensor": (
        torch.tensor(RGB.astype(np.int32) * 257).permute(2, 0, 1).to(torch.uint16), 3, ""
    ),
    "float array, channels last": (RGB.astype(np.float32) / 255, 3, MOVED),
    "float array, channels first": (RGB.transpose(2, 0, 1) / 255, 3, ""),
}  # fmt: skip


class Examples(torch.utils.data.Dataset):
    def __init__(self, x) -> None:
        self.x = x

    def __getitem__(self, number: int):
        return self.x, number % 2

    def __len__(self) -> int:
        return 4


def checked(x: torch.Tensor, channels: int) -> None:
    expected = torch.ones(3, SIDE, SIDE) if channels == 0 else EXPECTED[channels]
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_a_dataset(name):
    x, channels, said = EXAMPLES[name]
    some = read_set(Examples(x), name="mine")
    checked(some.domain.data.x[3], channels)
    assert len(some.notes) == bool(said)
    if said:
        assert said in some.notes[0] and "4 of 4 examples of 'mine'" in some.notes[0]
    checked(as_domain(Examples(x)).data.x[0], channels)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_a_stream(name):
    x, channels, said = EXAMPLES[name]
    some = read_set(((x, number % 2) for number in range(4)), name="mine", transform=pixels)
    checked(some.domain.data.x[3], channels)
    assert bool(some.notes) == bool(said)
    (batch,) = as_batches((x, number % 2) for number in range(4))
    checked(batch.x[0], channels)


FILES = {
    "8-bit gray.png": ("8-bit gray image", 1, ""),
    "16-bit gray.png": ("16-bit gray image", 1, WORDS),
    "16-bit gray.tif": ("16-bit gray image", 1, WORDS),
    "color.bmp": ("color image", 3, ""),
    "opaque.png": ("opaque RGBA image", 3, ""),
    "transparent.png": ("transparent RGBA image", 0, WHITE),
    "transparent.webp": ("transparent RGBA image", 0, WHITE),
    "transparent.gif": ("transparent palette image", 0, WHITE),
    "gray.jp2": ("8-bit gray image", 1, ""),
}


@pytest.mark.parametrize("file", FILES)
def test_a_file_gives_the_same_pixels_as_an_example_of_a_dataset(tmp_path, file):
    name, channels, said = FILES[file]
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        image = EXAMPLES[name][0]
        assert isinstance(image, Image.Image)
        image.save(tmp_path / label / file, lossless=True)
    some = read_set(tmp_path, name="mine")
    checked(some.domain.data.x[1], channels)
    assert bool(some.notes) == bool(said)
    if said:
        assert said in some.notes[0] and "2 of 2 examples of 'mine'" in some.notes[0]


def test_16_bit_tiff_files_in_which_white_is_zero_are_inverted(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        dark = Image.fromarray(65535 - GRAY.astype(np.uint16) * 257)
        dark.save(tmp_path / label / "1.tif", tiffinfo={262: 0})
    some = read_set(tmp_path)
    checked(some.domain.data.x[0], 1)
    assert "were inverted" in some.notes[0]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_files_are_read_with_bright_bones(tmp_path, kind):
    pytest.importorskip("pydicom")
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        values = GRAY if kind == "MONOCHROME2" else 255 - GRAY
        dicom(tmp_path / label / "1.dcm", values, PhotometricInterpretation=kind)
    some = read_set(tmp_path)
    shown = some.domain.data.x[0, 0]
    assert (shown.flatten().diff() >= 0).all() and shown.max() == 1 and shown.min() == 0
    assert "DICOM images were windowed" in some.notes[0]


def with_orientation(path):
    image, exif = Image.fromarray(RGB), Image.Exif()
    exif[0x0112] = 6
    image.save(path.with_suffix(".png"), exif=exif)


def animated(path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(path.with_suffix(".png"), save_all=True, append_images=frames[1:])


UNUSED = {
    "an orientation": (with_orientation, "orientation (EXIF) was not applied, as in torchvision"),
    "several frames": (animated, "only the first image of files with several was used"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_what_a_file_holds_beside_its_first_image_is_not_used_and_said(tmp_path, case):
    save, said = UNUSED[case]
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        save(tmp_path / label / "1")
    some = read_set(tmp_path)
    checked(some.domain.data.x[0], 3)
    assert said in some.notes[0]


ARRAYS = {
    "bytes, channels last": (np.stack([RGB] * 4), 3, MOVED),
    "16 bits, channels last": (np.stack([RGB] * 4).astype(np.uint16) * 257, 3, MOVED),
    "RGBA bytes": (np.stack([np.array(translucent(0))] * 4), 0, MOVED),
    "floats, channels last": (np.stack([RGB] * 4) / 255, 3, MOVED),
    "floats, channels first": (np.stack([RGB] * 4).transpose(0, 3, 1, 2) / 255, 3, ""),
    "a tensor of bytes, channels last": (torch.tensor(np.stack([RGB] * 4)), 3, MOVED),
    "a list of arrays": ([RGB] * 4, 3, MOVED),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_whole_set_in_an_array(name):
    x, channels, said = ARRAYS[name]
    some = read_set({"x": x, "y": [0, 1, 0, 1]}, name="mine")
    checked(some.domain.data.x[3], channels)
    assert bool(some.notes) == bool(said)


@pytest.mark.parametrize("reader", ["default", "of its own"])
def test_a_domain_of_a_published_set_is_read_as_it_reads_itself(tmp_path, reader):
    for name in ("1.png", "2.png"):
        translucent(0).save(tmp_path / name)
    files, y = [tmp_path / "1.png", tmp_path / "2.png"], torch.tensor([0, 1])
    own = read_published if reader == "default" else lambda path: Image.fromarray(255 - RGB)
    published = FolderDomain("set", files, y, 0, pixels, reader=own)
    again = read_set(published)
    torch.testing.assert_close(again.domain.data.x, published.data.x)
    torch.testing.assert_close(read_set(again.domain).domain.data.x, published.data.x)
    assert not again.notes
    users = read_set(grown(tmp_path / "tree"))
    torch.testing.assert_close(read_set(users.domain).domain.data.x, users.domain.data.x)
    checked(users.domain.data.x[0], 0)


def grown(root):
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        translucent(0).save(root / label / "1.png")
    return root


def test_published_sets_drop_transparency_and_users_images_show_white():
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (10, 20, 30)
    assert to_opaque_rgb(clear)[0].getpixel((0, 0)) == (255, 255, 255)


@settings(max_examples=40)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV",
                          "I", "I;16", "I;16B"]),
    width=st.integers(1, 9), height=st.integers(1, 9),
)  # fmt: skip
def test_every_mode_becomes_bytes_of_the_same_size(mode, width, height):
    image = to_opaque_rgb(Image.new(mode, (width, height)))[0]
    assert (image.mode, image.size) == ("RGB", (width, height))


@settings(max_examples=40)
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), channels=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64", "int64"]),
)  # fmt: skip
def test_arrays_of_any_shape_are_read_without_loss(rows, columns, channels, dtype):
    """Only axes move, except that RGBA bytes become RGB."""
    x = (np.arange(2 * rows * columns * channels) % 200).astype(dtype)
    x = x.reshape(2, rows, columns, channels)
    domain = as_domain((x, [0, 1]))
    shape = domain.data.x.shape[1:]
    opaque = channels == 4 and dtype.startswith("u") and min(rows, columns) >= 5
    assert sorted(shape) == sorted((rows, columns, 3 if opaque else channels))


# Masks

MASKS = {
    "truth values": lambda m: m > 0,
    "bytes 0 and 255": lambda m: (m * 255).to(torch.uint8),
    "bytes 0 and 1": lambda m: m.to(torch.uint8),
    "whole numbers": lambda m: m.long(),
    "arrays of truth values": lambda m: m.numpy() > 0,
    "a list of arrays": lambda m: list(m.numpy()),
    "shares": lambda m: m,
    "shares with a channel": lambda m: m[:, None],
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_kind_are_shares(name):
    wanted = (torch.arange(4 * SIDE * SIDE).reshape(4, SIDE, SIDE) % 2).float()
    data = torch.rand(4, 3, SIDE, SIDE), torch.arange(4)
    raw = read_raw("ID", data, "ID", Options())
    masks = with_masks(read_set(data), raw, MASKS[name](wanted)).masks
    assert masks is not None and torch.equal(masks[:, 0], wanted)


BAD_MASKS = {
    "not finite": (torch.full((4, SIDE, SIDE), torch.nan), "not finite"),
    "numbers of classes in bytes": (torch.full((4, SIDE, SIDE), 3, dtype=torch.uint8), "black"),
    "beyond one": (torch.full((4, SIDE, SIDE), 7.0), "expected shares"),
    "a number": (3, r"masks are a int; expected \(n, height, width\)"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_masks_that_are_no_shares_are_rejected(name):
    masks, message = BAD_MASKS[name]
    data = torch.rand(4, 3, SIDE, SIDE), torch.arange(4)
    with pytest.raises(ValueError, match=message):
        with_masks(read_set(data), read_raw("ID", data, "ID", Options()), masks)
