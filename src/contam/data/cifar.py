"""CIFAR-10 from its files, as it is and inside a frame of constant color."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.data.digits import FRAMES, frame_color
from contam.rng import generator_for

SIDE = 32
BORDER = 8
"""Pixels of frame on each side before the image is brought back to 32 pixels."""
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PARTS = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
ROW = 1 + 3 * SIDE * SIDE
LARGEST = 64 * 2**20
"""Bytes of the largest file that is looked into; the true ones have half of it."""
JUDGED = ("green", "blue", "gray", "black")
"""The frames of other colors that a network is judged in unless told otherwise."""


def cifar10(folder: Path, *, seed: int = 0, validation: int = 5000) -> Shift:
    """CIFAR-10 without any shift: a training set less some images for `id_val`, and the test set.

    The folder holds the files of the binary version (`data_batch_1.bin`) or of the Python version
    (`data_batch_1`), which is read without running anything in it. Pixels are in [0, 1].

    Source: App. F.4.

    Raises:
        ValueError: a file is missing or malformed, or no image would be left to train on.
    """
    train, validated, test = _parts(folder, seed=seed, validation=validation)
    return Shift(
        name="CIFAR-10",
        classes=CLASSES,
        train=(_domain("training", train, None),),
        id_val=_domain("validation", validated, None),
        id_test=_domain("test", test, None),
        ood_tests=(),
    )


def padded_cifar10(
    folder: Path,
    frame: str = "red",
    *,
    judged: tuple[str, ...] = JUDGED,
    seed: int = 0,
    validation: int = 5000,
) -> Shift:
    """CIFAR-10 to be learned in a frame of one color, and judged in frames of others.

    Every image is made alike, so that training sets differ in the frame's color and in nothing
    else. The ID and OOD tests hold the same images. `random` draws a color for each image.

    Source: App. F.4.

    Raises:
        ValueError: as `cifar10`, or there is no such frame.
    """
    for name in (frame, *judged):
        if name != "random":
            frame_color(name)
    train, validated, test = _parts(folder, seed=seed, validation=validation)

    def domain(part: str, picked: tuple[Tensor, Tensor], name: str) -> Domain:
        generator = generator_for(seed, f"cifar/{part} frames")
        return _domain(f"{part}, {name} frame", picked, name, generator)

    return Shift(
        name=f"padded CIFAR-10, {frame}",
        classes=CLASSES,
        train=(domain("training", train, frame),),
        id_val=domain("validation", validated, frame),
        id_test=domain("test", test, frame),
        ood_tests=tuple(domain("test", test, other) for other in judged if other != frame),
    )


def padded(
    x: Float[Tensor, "n 3 32 32"], color: Float[Tensor, "... 3"]
) -> Float[Tensor, "n 3 32 32"]:
    """Images inside a frame of 8 pixels, brought back to their size (bilinear, antialiased).

    One color for all of them, or one for each. A linear map of image and color together.

    Source: App. F.4.
    """
    whole = SIDE + 2 * BORDER
    framed = color.expand(len(x), 3)[:, :, None, None].repeat(1, 1, whole, whole)
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = x
    # Resized and not cropped: a crop would cut the frame to a width that varies by chance.
    return F.interpolate(framed, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def read_binary(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """A file of the binary version: rows of a label and of 3072 bytes.

    Raises:
        ValueError: there is no such file, or it is not of this form.
    """
    content = _content(path)
    if not content or len(content) % ROW:
        raise ValueError(
            f"{path} has {len(content)} bytes, not rows of {ROW}; fetch CIFAR-10's binary version"
        )
    rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, ROW)
    return _checked(path, rows[:, 1:], rows[:, 0].long())


def read_pickled(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """A file of the Python version, of which only arrays of bytes and plain containers are built.

    Raises:
        ValueError: there is no such file, it is not of this form, or it asks for anything else.
    """
    content = _content(path)
    try:
        found = _Reader(content).load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
        array, labels = named["data"].value, named["labels"]
        images = torch.from_numpy(array.reshape(-1, ROW - 1).copy())
        return _checked(path, images, torch.tensor(labels, dtype=torch.int64))
    # Bytes that are no such pickle make the machinery raise nearly anything.
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is no batch of CIFAR-10: {told}; fetch it again, or take the binary version"
        ) from error


class _Array:
    """What a pickled array of bytes becomes; nothing of NumPy's own machinery is called."""

    __slots__ = ("value",)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, columns_first, content = state
        if not isinstance(kind, _Kind) or columns_first or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes in rows")
        self.value = np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _Kind:
    """What a pickled array's type becomes; bytes have no state."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None:
        pass


class _Call:
    """Something that the pickle may call. It has no attribute that the pickle could change."""

    __slots__ = ()


class _NewArray(_Call):
    __slots__ = ()

    def __call__(self, *_how: Any) -> _Array:
        return _Array()


class _NewKind(_Call):
    __slots__ = ()

    def __call__(self, kind: Any, *_how: Any) -> _Kind:
        if kind not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of {kind!r}, not of bytes")
        return _Kind()


class _Encode(_Call):
    """How newer pickles of the old protocol write bytes: as text in Latin-1."""

    __slots__ = ()

    def __call__(self, text: str, _coding: Any) -> bytes:
        return text.encode("latin-1")


ALLOWED: dict[tuple[str, str], Callable[[], _Call]] = {
    ("numpy.core.multiarray", "_reconstruct"): _NewArray,
    ("numpy._core.multiarray", "_reconstruct"): _NewArray,
    ("numpy", "ndarray"): _Call,
    ("numpy", "dtype"): _NewKind,
    ("_codecs", "encode"): _Encode,
}
"""Every name that a pickle may ask for, and the harmless thing that it gets instead."""


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image needs")
        return ALLOWED[module, name]()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"no {path}; give the folder with the files of CIFAR-10")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is too large for a batch of CIFAR-10, which has 31 MB")
    return path.read_bytes()


def _checked(path: Path, rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(rows) != len(y) or len(y) == 0 or int(y.min()) < 0 or int(y.max()) >= len(CLASSES):
        raise ValueError(f"{path} has {len(rows)} images and {len(y)} labels; wanted labels 0..9")
    return rows.reshape(-1, 3, SIDE, SIDE), y


def images_of(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """The images and labels of a part (train, test), from whichever version the folder holds.

    Source: ours.

    Raises:
        ValueError: a file is missing or not as it should be.
    """
    folder = Path(folder)
    binary = (folder / f"{PARTS[part][0]}.bin").is_file()
    read, suffix = (read_binary, ".bin") if binary else (read_pickled, "")
    images, labels = zip(*(read(folder / f"{name}{suffix}") for name in PARTS[part]), strict=True)
    return torch.cat(images), torch.cat(labels)


def _parts(folder: Path, *, seed: int, validation: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels for training, validation and test."""
    images, y = images_of(folder, "train")
    if not 0 < validation < len(y):
        raise ValueError(
            f"{validation} images for validation out of {len(y)} leave nothing for one of the two"
        )
    order = torch.randperm(len(y), generator=generator_for(seed, "cifar/validation"))
    parts = order.split([len(y) - validation, validation])
    return [*((images[which], y[which]) for which in parts), images_of(folder, "test")]


def _domain(
    name: str,
    part: tuple[Tensor, Tensor],
    frame: str | None,
    generator: torch.Generator | None = None,
) -> Domain:
    images, y = part
    x = images.float() / 255
    if frame == "random":
        x = padded(x, torch.rand(len(x), 3, generator=generator))
    elif frame is not None:
        x = padded(x, frame_color(frame))
    index = 0 if frame is None else list(FRAMES).index(frame)
    return Domain(name, Batch(x, y, torch.full_like(y, index)))
