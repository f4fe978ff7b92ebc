"""MNIST's, CIFAR-10's and SVHN's files: of the true layout, and hostile ones."""

import gzip
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_files import idx, svhn

from contam.data import small_images
from contam.data.layout import check
from contam.data.missing_files import MissingFilesError
from contam.data.small_images import convert_digits, labeled_images, read_idx, read_svhn

N = 20
LABELS = np.arange(N) % 10


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mat(path: Path, *, packed: bool = True, **variables) -> Path:
    scipy.io.savemat(path, variables, do_compression=packed)
    return path


@pytest.mark.parametrize("kind", ["mnist", "kmnist", "fashion-mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_gray_images_are_padded_with_black_to_three_equal_channels(tmp_path, kind, packed):
    gray = pictures(N, 28, 28)
    idx(tmp_path, "t10k", gray, LABELS, packed=packed)
    x, y = labeled_images(kind, tmp_path, "test")
    assert x.shape == (N, 3, 32, 32) and x.dtype == torch.uint8
    for channel in x.unbind(dim=1):
        assert np.array_equal(channel[:, 2:-2, 2:-2], gray)
    assert int(x.long().sum()) == 3 * int(gray.astype(int).sum())
    assert y.tolist() == LABELS.tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_svhn_axes_are_reordered_and_label_ten_is_zero(tmp_path, packed):
    x = pictures(32, 32, 3, N)
    path = mat(tmp_path / "train_32x32.mat", packed=packed, X=x, y=LABELS[:, None] + 1.0)
    images, y = labeled_images("svhn", tmp_path, "train")
    assert images.shape == (N, 3, 32, 32)
    for k, c, i, j in ((0, 0, 0, 0), (3, 1, 5, 9), (19, 2, 31, 30)):
        assert int(images[k, c, i, j]) == x[i, j, c, k]
    assert y.tolist() == [*range(1, 10), 0] * 2
    assert torch.equal(read_svhn(path)[0], images)


def test_cifar_versions_are_read_as_by_their_own_readers(tmp_path):
    data = pictures(N, 3072)
    rows = np.concatenate([LABELS[:, None].astype(np.uint8), data], axis=1)
    (tmp_path / "test_batch.bin").write_bytes(rows.tobytes())
    batch = {"data": data, "labels": LABELS.tolist()}
    other = tmp_path / "python"
    other.mkdir()
    (other / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    for folder in (tmp_path, other):
        x, y = labeled_images("cifar10", folder, "test")
        assert np.array_equal(x.flatten(1), data) and y.tolist() == LABELS.tolist()


class Bomb:
    """What unpickles by making a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_that_would_run_code_is_rejected(tmp_path):
    hostile = {b"data": Bomb(tmp_path / "trace"), b"labels": [0]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(hostile, protocol=2))
    with pytest.raises(ValueError, match="it uses"):
        labeled_images("cifar10", tmp_path, "test")
    assert not (tmp_path / "trace").exists()


def test_a_plain_file_is_preferred_to_a_gzipped_one(tmp_path):
    idx(tmp_path, "t10k", pictures(N, 28, 28, seed=1), LABELS, packed=True)
    idx(tmp_path, "t10k", pictures(N, 28, 28, seed=2), LABELS)
    x = labeled_images("mnist", tmp_path, "test")[0]
    assert np.array_equal(x[:, 0, 2:-2, 2:-2], pictures(N, 28, 28, seed=2))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cut", [1, 3, 8, 17, 400])
def test_truncated_idx_files_are_rejected(tmp_path, packed, cut):
    idx(tmp_path, "t10k", pictures(N, 28, 28), LABELS, packed=packed)
    (path,) = tmp_path.glob("t10k-images*")
    path.write_bytes(path.read_bytes()[: -cut if cut > 3 else cut])
    with pytest.raises(
        ValueError, match=r"t10k-images\S+ is not a complete IDX file: .*download it again"
    ):
        labeled_images("mnist", tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\0\0\x0d\x03" + bytes(12), "not an IDX file of bytes"),  # an array of floats
        (b"\0\0\x08\x00", "not an IDX file of bytes"),
        (
            b"\x08\x03\0\0" + bytes(12),
            "not an IDX file of bytes",
        ),  # the magic's bytes the wrong way round
        (b"\0\0\x08\x01\0\0\0\x02abc", "more than the 2 bytes"),
        (b"\0\0\x08\x01\0\0\0\x04abc", "fewer than the 4 bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than"),
        (b"", "unpack"),
    ],
)
def test_files_that_are_not_idx_are_rejected(tmp_path, content, line):
    for name, packed in (("a", False), ("b.gz", True)):
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
        with pytest.raises(ValueError, match=line):
            read_idx(tmp_path / name.removesuffix(".gz"))


def test_a_gzip_bomb_is_rejected(tmp_path):
    """Its header announces ten bytes, and 64 MB of zeros follow."""
    bomb = gzip.compress(b"\0\0\x08\x01\0\0\0\x0a" + bytes(2**26))
    (tmp_path / "a.gz").write_bytes(bomb)
    with pytest.raises(ValueError, match="more than the 10 bytes"):
        read_idx(tmp_path / "a")


def test_a_damaged_checksum_is_reported(tmp_path):
    idx(tmp_path, "t10k", pictures(N, 28, 28), LABELS, packed=True)
    (path,) = tmp_path.glob("t10k-labels*")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        labeled_images("mnist", tmp_path, "test")


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (pictures(N, 28, 28), LABELS[:-1], "20 images and 19 labels"),
        (pictures(N, 28, 28), LABELS + 1, r"expected one label 0\.\.9"),
        (pictures(N, 27, 28), LABELS, r"expected \(n, 28, 28\)"),
        (pictures(N, 28, 28), LABELS[:, None], r"expected \(n, 28, 28\) and \(n,\)"),
        (pictures(0, 28, 28), LABELS[:0], "0 images"),
    ],
)
def test_mismatched_images_and_labels_are_rejected(tmp_path, images, labels, line):
    idx(tmp_path, "train", images, labels)
    with pytest.raises(ValueError, match=line):
        labeled_images("kmnist", tmp_path, "train")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"y": LABELS + 1.0}, "expected X"),
        ({"X": pictures(32, 32, 3, N)}, "expected X"),
        ({"X": pictures(32, 32, 3, N), "y": LABELS + 1.0, "Z": 1.0}, "'Z'"),
        ({"X": pictures(32, 32, 3, N) / 255, "y": LABELS + 1.0}, r"\('X', 'double'\)"),
        ({"X": np.array([[1], [2.0]], dtype=object), "y": LABELS + 1.0}, r"\('X', 'cell'\)"),
        ({"X": {"a": 1.0}, "y": LABELS + 1.0}, r"\('X', 'struct'\)"),
        ({"X": pictures(32, 3, 32, N), "y": LABELS + 1.0}, "X has shape"),
        ({"X": pictures(32, 32, 3, N), "y": LABELS[:-1] + 1.0}, "20 images and 19 labels"),
        ({"X": pictures(32, 32, 3, N), "y": LABELS + 0.0}, "labels must be from 1 to 10"),
        ({"X": pictures(32, 32, 3, N), "y": LABELS + 1.5}, "labels must be from 1 to 10"),
        ({"X": pictures(32, 32, 3, N), "y": LABELS * np.nan}, "labels must be from 1 to 10"),
    ],
)
def test_files_that_are_not_svhn_are_rejected(tmp_path, variables, line):
    with pytest.raises(ValueError, match=line):
        read_svhn(mat(tmp_path / "a.mat", **variables))


def test_other_versions_of_the_matlab_format_are_rejected(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"X": np.zeros((2, 2)), "y": np.zeros(2)}, format="4")
    with pytest.raises(ValueError, match="not a MAT-file of version 5"):
        read_svhn(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(126) + b"IM" + bytes(600))
    with pytest.raises(ValueError, match="not a MAT-file of version 5"):
        read_svhn(path)


def test_a_variable_that_decompresses_to_too_many_bytes_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(small_images, "LARGEST", 2**20)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    once = zlib.compress(struct.pack("<II", 14, 2**24) + bytes(2**24))
    half = zlib.compress(struct.pack("<II", 14, 2**19 - 8) + bytes(2**19 - 8))
    for packed in ([once], [half] * 3):
        body = b"".join(struct.pack("<II", 15, len(piece)) + piece for piece in packed)
        (tmp_path / "a.mat").write_bytes(header + body)
        with pytest.raises(ValueError, match="unpacks to more than 1,048,576 bytes"):
            read_svhn(tmp_path / "a.mat")


@given(data=st.data())
def test_damaged_files_give_images_or_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("broken")
    svhn(folder, "train", LABELS[:4])
    path = folder / "train_32x32.mat"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert read_svhn(path)[0].shape[1:] == (3, 32, 32)
    except ValueError as error:
        assert "\n" not in str(error)


def test_missing_files_are_reported(tmp_path):
    idx(tmp_path, "train", pictures(N, 28, 28), LABELS, packed=True)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    missing = r"mnist: missing train-labels-idx1-ubyte, t10k-images\S+, t10k-labels\S+ \(plain or"
    for part in ("train", "test"):
        with pytest.raises(MissingFilesError, match=missing):
            labeled_images("mnist", tmp_path, part)
    with pytest.raises(MissingFilesError, match=r"missing train_32x32\.mat, test_32x32\.mat$"):
        labeled_images("svhn", tmp_path, "test")
    with pytest.raises(ValueError, match=r"no kind of images 'minst'; .*'mnist'"):
        labeled_images("minst", tmp_path, "test")
    with pytest.raises(ValueError, match=r"no part 'val'; choose"):
        labeled_images("mnist", tmp_path, "val")


@pytest.mark.parametrize("kind", ["mnist", "kmnist", "fashion-mnist", "svhn"])
def test_each_part_of_a_folder_is_checked(tmp_path, kind):
    if kind == "svhn":
        svhn(tmp_path, "train", LABELS)
    else:
        idx(tmp_path, "train", pictures(N, 28, 28), LABELS, packed=True)
    report = check(kind, tmp_path)
    (count,) = report.counts
    published = {"svhn": 73_257}.get(kind, 60_000)
    assert (count.part, count.images, count.published) == ("training", N, published)
    (missing,) = report.missing
    assert ("test_32x32" if kind == "svhn" else "t10k-labels") in missing and not report.complete


def written_digits(folder, *, images=10):
    """The files of the npm package, with pictures whose pixels all have the value of the digit."""
    folder.mkdir()
    for digit in range(10):
        pixels = [round(digit / 9, 3)] * (images * 28**2)
        (folder / f"{digit}.json").write_text(json.dumps({"data": pixels}))
    return folder


def test_converted_digits_are_read_as_mnist(tmp_path):
    counts = convert_digits(written_digits(tmp_path / "digits"), tmp_path / "mnist")
    assert counts == {"train": 70, "test": 30}
    for part, n in counts.items():
        images, y = labeled_images("mnist", tmp_path / "mnist", part)
        assert len(images) == n and y.bincount().tolist() == [n // 10] * 10
        ink = images[:, 0, 2:-2, 2:-2].float()
        expected = (255 * y / 9)[:, None, None].expand_as(ink)
        torch.testing.assert_close(ink, expected, atol=0.7, rtol=0)
    with pytest.raises(ValueError, match="already has train-images-idx3-ubyte"):
        convert_digits(tmp_path / "digits", tmp_path / "mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no .*4.json; give the folder src/digits"),
        ("{}", "4.json is not a file of digits"),
        ('{"data": [0.5]}', "it has 1 numbers, not a multiple of 28 x 28"),
        (json.dumps({"data": [2] * 28**2}), "pixels must be in"),
    ],
)
def test_damaged_digits_are_reported(tmp_path, content, message):
    folder = written_digits(tmp_path / "digits")
    (folder / "4.json").unlink()
    if content is not None:
        (folder / "4.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_digits(folder, tmp_path / "mnist")
