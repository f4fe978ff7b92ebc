"""MNIST and its relatives, CIFAR-10 and SVHN from their files: color images of 32 x 32 pixels.

Nothing is downloaded and nothing in a file is run. What a file can make of the memory is bounded by
`LARGEST`, however it is packed.
"""

import difflib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor

from contam.data import cifar

SIDE = 32
LARGEST = 512 * 2**20
"""Bytes of the largest file, also unpacked, that is looked into; SVHN's has half of it."""
CLASSES = 10

_IDX = {"train": "train", "test": "t10k"}
_BYTES = 8
_MATRIX, _COMPRESSED = 14, 15
_MAT = b"MATLAB 5.0 MAT-file"
_ORDERS = {b"IM": "<", b"MI": ">"}


def labeled_images(
    kind: str, folder: Path, part: str
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """The images of a part, `train` or `test`, with their classes from 0 to 9.

    The kinds are `mnist`, `kmnist` and `fashion-mnist` (`train-images-idx3-ubyte` and so on,
    gzipped or not; gray, and two pixels of black are added on each side), `cifar10` (either
    version) and `svhn` (`train_32x32.mat`, whose label 10 is the digit 0).

    Source: ours, the data sets' own formats.

    Raises:
        ValueError: there is no such kind or part, or a file is missing or malformed.
    """
    if kind not in READERS:
        near = difflib.get_close_matches(kind, READERS, n=3) or list(READERS)
        raise ValueError(f"no kind of images {kind!r}; did you mean one of {near}?")
    if part not in _IDX:
        raise ValueError(f"no part {part!r}; choose 'train' or 'test'")
    return READERS[kind](Path(folder), part)


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """An array of bytes in the IDX format, from the file or else from its gzipped form.

    Raises:
        ValueError: there is no such file, it is damaged, or holds something else than bytes.
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
                raise ValueError("it does not begin as an array of bytes does")
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            size = math.prod(shape)
            if size > LARGEST:
                raise ValueError(f"it announces {size:,} bytes, more than {LARGEST:,}")
            content = file.read(size + 1)
        if len(content) != size:
            end = "ends before" if len(content) < size else "goes on behind"
            raise ValueError(f"it {end} the {size:,} bytes that it announces")
    # `struct.error` and `EOFError` are cut files, the others are damaged ones.
    except (ValueError, OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is no whole IDX file: {error}; fetch it again") from error
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())


def read_svhn(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """A file of SVHN's cropped digits, in MATLAB's format of version 5.

    Raises:
        ValueError: there is no such file, or it is not of this form.
    """
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise ValueError(f"no {path}; give the folder with SVHN's cropped digits")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        content = _unpacked(path.read_bytes())
        # Asked first, since cells within cells would be read without end.
        held = sorted((name, kind) for name, _, kind in whosmat(io.BytesIO(content)))
        if held not in [[("X", "uint8"), ("y", kind)] for kind in ("double", "uint8")]:
            raise ValueError(f"wanted an X of bytes and a y of numbers, and it holds {held[:5]}")
        found = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = found["X"], found["y"].ravel()
        if images.ndim != 4 or images.shape[:3] != (SIDE, SIDE, 3):
            raise ValueError(f"its X is of shape {images.shape}, not ({SIDE}, {SIDE}, 3, n)")
        if not np.isin(labels, np.arange(1, CLASSES + 1)).all():
            raise ValueError("its labels are not all from 1 to 10")
    # Bytes that are no such file make the reader raise nearly anything.
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no file of SVHN: {told}; fetch it again") from error
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1)))
    return _checked(path, x, torch.from_numpy(labels.astype(np.int64)) % CLASSES)


def _unpacked(content: bytes) -> bytes:
    """A MAT-file with each of its variables decompressed, as far as they fit into `LARGEST`."""
    if not content.startswith(_MAT) or content[126:128] not in _ORDERS:
        raise ValueError("it is no MAT-file of version 5")
    parts, place, room = [content[:128]], 128, LARGEST
    while place < len(content):
        kind, size = struct.unpack_from(f"{_ORDERS[content[126:128]]}II", content, place)
        end = place + 8 + size
        if end > len(content) or kind not in (_MATRIX, _COMPRESSED):
            raise ValueError("it is cut off or damaged")
        if kind == _COMPRESSED:
            packed = zlib.decompressobj()
            # Zero would mean no limit.
            parts.append(packed.decompress(content[place + 8 : end], max(room, 1)))
            if not packed.eof:
                raise ValueError(f"a variable is damaged, or all have more than {LARGEST:,} bytes")
        else:
            parts.append(content[place:end])
        room -= len(parts[-1])
        place = end
    return b"".join(parts)


def _idx(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    path = folder / f"{_IDX[part]}-images-idx3-ubyte"
    images, labels = read_idx(path), read_idx(folder / f"{_IDX[part]}-labels-idx1-ubyte")
    if images.shape[1:] != (28, 28) or labels.ndim != 1:
        raise ValueError(
            f"{path} and its labels have shapes {tuple(images.shape)} and {tuple(labels.shape)}; "
            "wanted (n, 28, 28) and (n,)"
        )
    return _checked(path, F.pad(images, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1), labels.long())


def _svhn(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    return read_svhn(folder / f"{part}_32x32.mat")


def _checked(path: Path, images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(images) != len(y) or len(y) == 0 or int(y.max()) >= CLASSES:
        raise ValueError(f"{path} has {len(images)} images and {len(y)} labels; wanted labels 0..9")
    return images, y


READERS: Mapping[str, Callable[[Path, str], tuple[Tensor, Tensor]]] = {
    "mnist": _idx,
    "kmnist": _idx,
    "fashion-mnist": _idx,
    "cifar10": cifar.images_of,
    "svhn": _svhn,
}
"""How a part of each kind is read."""
