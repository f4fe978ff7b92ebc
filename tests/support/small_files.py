"""Small files in the true formats of MNIST's family and of SVHN, for the tests."""

import gzip
import struct
from pathlib import Path

import numpy as np
import scipy.io


def idx(
    folder: Path, part: str, images: np.ndarray, labels: np.ndarray, *, packed: bool = False
) -> Path:
    """A part (`train` or `t10k`) of MNIST or one of its relatives."""
    for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        content += array.astype(np.uint8).tobytes()
        path = folder / f"{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def svhn(folder: Path, part: str, digits: np.ndarray) -> Path:
    """A part (`train` or `test`) of SVHN: random pictures, and labels in which 10 is a zero."""
    images = np.random.default_rng(len(part)).integers(0, 256, (32, 32, 3, len(digits)))
    labels = np.where(digits == 0, 10.0, digits)[:, None]
    path = folder / f"{part}_32x32.mat"
    scipy.io.savemat(path, {"X": images.astype(np.uint8), "y": labels}, do_compression=True)
    return folder
