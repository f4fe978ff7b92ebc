"""CIFAR-10 from its files, plain and with a frame of constant color."""

import io
import pickle
import pickletools
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
from contam.data.missing_files import check_files
from contam.rng import generator_for

SIDE = 32
BORDER = 8
"""Width of the frame in pixels, before the image is resized to 32 pixels."""
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PARTS = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
BINARY = ".bin"
"""Ending of the files of the binary version."""
ROW = 1 + 3 * SIDE * SIDE
LARGEST = 64 * 2**20
"""Maximum size of a file in bytes; the published files have half of it."""
JUDGED = ("green", "blue", "gray", "black")
"""Frame colors of the OOD tests, by default."""


def cifar10(folder: Path, *, seed: int = 0, validation: int = 5000) -> Shift:
    """Read CIFAR-10 without a shift.

    Args:
        folder: the files of the binary version (`data_batch_1.bin`) or of the Python version
            (`data_batch_1`), which is read without running code.
        seed: random seed of the validation split.
        validation: number of training images that become `id_val`.

    Returns:
        A `Shift` without OOD tests; pixels are in [0, 1].

    Raises:
        ValueError: a file is missing or malformed, or no training image would remain.

    Source: App. F.4.

    >>> row = bytes([6]) + bytes(ROW - 1)
    >>> for name in (*PARTS["train"], *PARTS["test"]):
    ...     _ = Path(f"{name}.bin").write_bytes(2 * row)
    >>> shift = cifar10(Path("."), validation=4)
    >>> len(shift.train[0]), len(shift.id_val), len(shift.id_test)
    (6, 4, 2)
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
    """Read CIFAR-10 with a frame of one color in training and other colors in the OOD tests.

    Training sets with different frames differ only in the color of the frame. The ID and OOD tests
    have the same images.

    Args:
        folder: as for `cifar10`.
        frame: color of the training frame; `random` draws one for each image.
        judged: colors of the OOD tests.
        seed: random seed of the validation split and of random frames.
        validation: number of training images that become `id_val`.

    Raises:
        ValueError: as for `cifar10`, or a frame is unknown.

    Source: App. F.4.

    >>> row = bytes([6]) + bytes(ROW - 1)
    >>> for name in (*PARTS["train"], *PARTS["test"]):
    ...     _ = Path(f"{name}.bin").write_bytes(2 * row)
    >>> shift = padded_cifar10(Path("."), "red", judged=("green", "red"), validation=4)
    >>> [test.name for test in shift.ood_tests]
    ['test, green frame']
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
    """Add a frame of 8 pixels to images and resize them to 32 pixels (bilinear, antialiased).

    Args:
        x: images.
        color: one color for all images, or one for each.

    Source: App. F.4.

    >>> padded(torch.zeros(2, 3, 32, 32), torch.tensor([1.0, 0.0, 0.0])).shape
    torch.Size([2, 3, 32, 32])
    """
    whole = SIDE + 2 * BORDER
    framed = color.expand(len(x), 3)[:, :, None, None].repeat(1, 1, whole, whole)
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = x
    # Resized and not cropped: a random crop would change the width of the frame.
    return F.interpolate(framed, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def read_binary(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Read a file of the binary version: rows of a label and 3072 bytes.

    Args:
        path: the file, such as `data_batch_1.bin`.

    Returns:
        Images (n, 3, 32, 32) of bytes, and labels (n,).

    Raises:
        ValueError: the file is missing or has another format.

    >>> _ = Path("batch.bin").write_bytes(bytes([6, *ROW * [0]])[:ROW])
    >>> x, y = read_binary(Path("batch.bin"))
    >>> x.shape, y.tolist()
    (torch.Size([1, 3, 32, 32]), [6])
    """
    content = _content(path)
    if not content or len(content) % ROW:
        raise ValueError(
            f"{path} has {len(content)} bytes, not rows of {ROW}; get CIFAR-10's binary version"
        )
    rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, ROW)
    return _checked(path, rows[:, 1:], rows[:, 0].long())


def read_pickled(path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Read a file of the Python version, a pickle, without running code.

    Only byte arrays and plain containers are built; any other name in the pickle is an error.

    Args:
        path: the file, such as `data_batch_1`.

    Returns:
        Images (n, 3, 32, 32) of bytes, and labels (n,).

    Raises:
        ValueError: the file is missing, has another format, or needs any other name.

    >>> batch = {"data": np.zeros((1, 3072), dtype=np.uint8), "labels": [6]}
    >>> _ = Path("batch").write_bytes(pickle.dumps(batch, protocol=2))
    >>> read_pickled(Path("batch"))[1].tolist()
    [6]
    """
    content = _content(path)
    try:
        _check_memo(content)
        entries = _Reader(content).load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in entries.items()}
        array, labels = named["data"].value, named["labels"]
        images = torch.from_numpy(array.reshape(-1, ROW - 1).copy())
        return _checked(path, images, torch.tensor(labels, dtype=torch.int64))
    # The unpickler can raise almost any error for a file of another format.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is not a batch of CIFAR-10: {reason}; get it again, or use the binary version"
        ) from error


def _check_memo(content: bytes) -> None:
    """Raise an error if a pickle numbers an object beyond the objects that it can hold.

    The unpickler allocates a table up to the largest number, so four bytes can ask for 16 GiB.
    """
    for opcode, number, position in pickletools.genops(content):
        is_put = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if is_put and isinstance(number, int) and number > (position or 0):
            raise pickle.UnpicklingError(f"byte {position} numbers an object {number}")


class _Array:
    """Stands for a pickled byte array; NumPy's own unpickling is not called."""

    __slots__ = ("value",)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, columns_first, content = state
        if not isinstance(kind, _Kind) or columns_first or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not of bytes in rows")
        self.value = np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _Kind:
    """Stands for the dtype of a pickled array; a byte dtype has no state."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None:
        pass


class _Call:
    """A callable that a pickle may use. It has no attribute that a pickle could change."""

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
    """Decodes bytes that newer versions of the old protocol write as Latin-1 text."""

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
"""Every name that a pickle may use, with its harmless replacement."""


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it uses {module}.{name}, which no image needs")
        return ALLOWED[module, name]()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"no {path}; give the folder with the files of CIFAR-10")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is too large for a batch of CIFAR-10, which has 31 MB")
    return path.read_bytes()


def _checked(path: Path, rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(rows) != len(y) or len(y) == 0 or int(y.min()) < 0 or int(y.max()) >= len(CLASSES):
        raise ValueError(f"{path} has {len(rows)} images and {len(y)} labels; expected labels 0..9")
    return rows.reshape(-1, 3, SIDE, SIDE), y


def images_of(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Read the images and labels of a part, from the version in the folder.

    Args:
        folder: as for `cifar10`.
        part: `train` or `test`.

    Returns:
        Images (n, 3, 32, 32) of bytes, and labels (n,).

    Raises:
        MissingFilesError: a file of the part is missing; the message names all missing files.
        ValueError: a file is malformed.

    Source: ours, the binary version if as many of its files are there, else the Python version.

    >>> _ = Path("test_batch.bin").write_bytes(bytes([6, *ROW * [0]])[:ROW])
    >>> images_of(Path("."), "test")[1].tolist()
    [6]
    """
    folder = Path(folder)
    files = {split: _files(folder, split) for split in PARTS}
    check_files("cifar10", folder, part, files)
    images, labels = zip(
        *(
            (read_binary if name.endswith(BINARY) else read_pickled)(folder / name)
            for name in files[part]
        ),
        strict=True,
    )
    return torch.cat(images), torch.cat(labels)


def _files(folder: Path, part: str) -> list[str]:
    """Return the file names of a part in the version of which the folder has more files."""
    plain, binary = (
        sum((folder / f"{name}{end}").is_file() for name in PARTS[part]) for end in ("", BINARY)
    )
    return [f"{name}{BINARY if binary >= max(plain, 1) else ''}" for name in PARTS[part]]


def _parts(folder: Path, *, seed: int, validation: int) -> list[tuple[Tensor, Tensor]]:
    """Return images and labels for training, validation and test."""
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
