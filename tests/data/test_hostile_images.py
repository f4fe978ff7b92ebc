"""Image files that would hang, use up memory or start other programs: each is one unreadable file.

What `read` refuses is left out of a folder and counted, and never ends a pass over the others.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from contam.data.chest_xray import read as read_xray
from contam.data.images import open_image, pixels, read
from contam.inputs import read_set


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + rows + chunk(b"IEND", b"")


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def tiff(**tags: int) -> bytes:
    numbers = {"width": 256, "height": 257, "strips": 273, "counts": 279}
    entries = [(numbers[name], 4, 1, value) for name, value in tags.items()]
    entries += [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
JPEG = encoded("JPEG")
MPO = encoded("MPO", save_all=True, append_images=[Image.new("RGB", (40, 40))])
FILES: dict[str, tuple[bytes, str]] = {
    "a PNG of 60 000 x 60 000 pixels": (png(60_000, 60_000), "3600000000 pixels"),
    "a PNG of 2 billion columns": (png(2**31 - 1, 1), "pixels"),
    "a PNG with a text that unpacks to 100 MB": (
        png(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))), ""
    ),
    "a PNG without pixels": (png(0, 0), ""),
    "a BMP of 60 000 x 60 000 pixels": (bmp(60_000, 60_000), "pixels"),
    "a BMP of negative width": (bmp(-9, 9), ""),
    "a PPM of 60 000 x 60 000 pixels": (b"P6 60000 60000 255\n", "pixels"),
    "a PPM with a number of 5000 digits": (b"P6 " + b"9" * 5000 + b" 1 255\n", ""),
    "a GIF of 65 535 x 65 535 pixels": (b"GIF89a\xff\xff\xff\xff\0\0\0;", ""),
    "a TIFF of 60 000 x 60 000 pixels": (
        tiff(width=60_000, height=60_000, strips=8, counts=8), "pixels"
    ),
    "a TIFF whose pixels lie outside the file": (
        tiff(width=9, height=9, strips=10**9, counts=81), ""
    ),
    "EPS, for which Pillow would start Ghostscript": (EPS, "cannot identify"),
    "EPS that Pillow would read without end": (EPS + b"%%BeginBinary: -40\n", "cannot identify"),
    "PDF": (b"%PDF-1.7\n" + b"(" * 10_000, "cannot identify"),
    "an icon": (b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0\xff\xff\xff\x7f\x16\0\0\0", "cannot identify"),
    "a FLI animation of no frames": (
        struct.pack("<IHHHHH", 128, 0xAF11, 0, 9, 9, 8) + bytes(120), "cannot identify"
    ),
    "a web page": (b"<!doctype html><html>not found</html>", "cannot identify"),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"
    ),
    "an empty file": (b"", "cannot identify"),
    "a JPEG cut in half": (JPEG[: len(JPEG) // 2], "truncated"),
    "two pictures in one JPEG, cut in the first": (MPO[: len(MPO) // 4], ""),
}  # fmt: skip


@pytest.mark.parametrize("reader", [read, read_xray])
@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_is_one_line(tmp_path, case, reader):
    content, message = FILES[case]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.png") as refused:
        reader(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("reader", [read, read_xray])
@pytest.mark.parametrize("make", [pipe, device, loop, nowhere, Path.mkdir])
@pytest.mark.parametrize("name", ["a.png", "a.dcm"])
def test_what_is_no_file_never_hangs(tmp_path, reader: Callable, make: Callable, name):
    path = tmp_path / name
    make(path)
    with pytest.raises(ValueError, match=r"cannot read the (image|DICOM file) ") as refused:
        reader(path)
    assert "\n" not in str(refused.value)


def test_a_pass_leaves_hostile_files_out(tmp_path):
    (tmp_path / "a").mkdir()
    for number, (content, _) in enumerate(FILES.values()):
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(content)
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "99.png")
    pipe(tmp_path / "a" / "98.png")
    kept = read_set(tmp_path, transform=pixels)
    assert sum(len(batch.y) for batch in kept.domain.batches(4)) == 1
    assert any(f"{len(FILES)} of {len(FILES) + 1} examples" in note for note in kept.notes)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000"])
def test_the_suffix_does_not_decide_the_format(tmp_path, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(kind))
    with open_image(path) as image:
        assert image.format == kind
    assert read(path).size == (40, 40)


def test_the_first_of_two_pictures_in_one_jpeg_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(MPO)
    assert read(path).size == (40, 40)
