"""Features on disk: a network reads each image once, however often and by whom they are wanted.

    <folder>/<key>/
      entry.json           whose features they are, for people; the program does not read it
      00000.safetensors    the features of the first examples, and a digest of them
      00001.safetensors

The key stands for all that decides a feature's value: the network (its modules, their settings,
every parameter and buffer), the inputs, the batch size, the kind of device, the precision, and the
features of the first few examples, which are computed at each look. That answer gives away what no
description does: other code under an old name, hooks, attributes, kernels that round in another
way. Labels and file names are left out, since no encoder sees them.

A file counts only if its digest says that it was written whole, for this key and this place. One
process extracts while others follow it and take over if it dies.
"""

import hashlib
import inspect
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import PIL
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from contam.batch import Domain
from contam.data import images
from contam.data.images import FolderDomain
from contam.models import preparation
from contam.models.preparation import Preparation
from contam.models.sources import Source
from contam.run import UNFINISHED, write_atomically
from contam.training.probe import extracting

FORMAT = 1
ANSWERED = 8
"""Examples at whose features the key looks."""
TOGETHER = 256
"""Examples in a file, in whole batches; a larger batch has a file to itself."""
READER = hashlib.sha256(
    (inspect.getsource(images) + inspect.getsource(preparation)).encode()
).hexdigest()
"""The code that makes of an image file what an encoder sees."""
PAUSE = 0.05
"""Seconds between two looks at what another process has written."""


def features(
    encoder: nn.Module | Source, domain: Domain, *, folder: Path, batch_size: int = 256
) -> Float[Tensor, "examples width"]:
    """The features of a domain's examples, in order: read from below `folder`, or put there.

    They are bit for bit those of `extract` with this batch size, also after an interruption.
    `features_in_parts` shows how far it has come.

    Source: ours, so that extraction can be stopped, repeated and shared.

    Raises:
        ValueError: no example, an encoder that returns no features, an image that can't be read
            or is changed meanwhile, or a folder that can't be written.
    """
    return torch.cat(
        tuple(features_in_parts(encoder, domain, folder=folder, batch_size=batch_size))
    )


def features_in_parts(
    encoder: nn.Module | Source, domain: Domain, *, folder: Path, batch_size: int = 256
) -> Iterator[Float[Tensor, "batch width"]]:
    """The same features part by part, in order, each as soon as this or another process has it.

    What was written stays when the iteration stops. Until then the entry is this iterator's to
    write, and others wait for what they lack.

    Raises:
        ValueError: as for `features`.
    """
    entry = _entry(encoder, domain, folder, batch_size)
    lock = FileLock(entry.folder / ".lock", thread_local=False)
    done = 0
    try:
        while done < entry.parts:
            part = entry.read(done)
            if part is not None:
                yield part
                done += 1
            elif lock.is_locked:
                for part in entry.extract(done):
                    entry.write(done, part)
                    yield part
                    done += 1
            elif _taken(lock):
                # Only then is nobody else's file unfinished; what was missing may be there by now.
                entry.begin()
            else:
                time.sleep(PAUSE)
    finally:
        lock.release()


@dataclass(frozen=True)
class _Entry:
    """The features of one domain by one encoder."""

    folder: Path
    key: str
    about: dict[str, Any]
    encoder: nn.Module
    domain: Domain
    batch_size: int
    width: int
    stamps: tuple[tuple[int, ...], ...]
    """How each image file was found before its content was looked at."""

    @property
    def rows(self) -> int:
        """Examples in each file but the last."""
        return self.batch_size * max(1, TOGETHER // self.batch_size)

    @property
    def parts(self) -> int:
        return -(-len(self.domain) // self.rows)

    def file(self, part: int) -> Path:
        return self.folder / f"{part:05}.safetensors"

    def read(self, part: int) -> Tensor | None:
        """A part that is there, whole, and nothing else."""
        if not self.file(part).is_file():
            return None
        try:
            content = load(self.file(part).read_bytes())
            found = content["features"]
            whole = torch.equal(content["digest"], self._digest(part, found))
        except Exception:  # what stands there may be anything, and the cure is always the same
            return None
        return found if whole else None

    def begin(self) -> None:
        """Say whose features follow, and clear away what a killed process left half written."""
        for left in self.folder.glob(f"{UNFINISHED}*"):
            left.unlink()
        told = json.dumps(self.about, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.folder / "entry.json", told.encode())

    def extract(self, first: int) -> Iterator[Tensor]:
        """This part, and those after it up to the next that has a file."""
        last = first + 1
        while last < self.parts and not self.file(last).exists():
            last += 1
        span = _span(self.domain, first * self.rows, last * self.rows)
        batches = extracting(self.encoder, span, batch_size=self.batch_size)
        while group := list(islice(batches, self.rows // self.batch_size)):
            yield torch.cat(group)

    def write(self, part: int, found: Tensor) -> None:
        here = slice(part * self.rows, (part + 1) * self.rows)
        files = self.domain.files[here] if isinstance(self.domain, FolderDomain) else ()
        for file, stamp in zip(files, self.stamps[here], strict=True):
            if _stamp(file) != stamp:
                raise ValueError(
                    f"{file} was changed while features were extracted; run again when nothing "
                    "writes to the images any more"
                )
        content = {"features": found, "digest": self._digest(part, found)}
        write_atomically(self.file(part), save(content))

    def _digest(self, part: int, found: Tensor) -> Tensor:
        told = hashlib.sha256(f"{self.key} {part} ".encode())
        _tell(told, "features", found)
        return torch.tensor(list(told.digest()), dtype=torch.uint8)


def _entry(encoder: nn.Module | Source, domain: Domain, folder: Path, batch_size: int) -> _Entry:
    if type(domain) not in (Domain, FolderDomain):
        raise ValueError(
            f"domain {domain.name!r} is a {type(domain).__name__}; want a Domain or a "
            "FolderDomain, whose examples can be picked; read others with extract"
        )
    if len(domain) == 0:
        raise ValueError(f"domain {domain.name!r} has no examples; want at least one")
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, not {batch_size}")
    name = type(encoder).__name__
    if isinstance(encoder, Source):
        name, encoder = encoder.name, encoder.encoder
    stamps = tuple(map(_stamp, domain.files)) if isinstance(domain, FolderDomain) else ()
    (answer,) = extracting(encoder, _span(domain, 0, ANSWERED), batch_size=ANSWERED)
    told = hashlib.sha256()
    _tell(told, "answer", answer)
    decided = {
        "format": FORMAT,
        "network": _network(encoder),
        **_inputs(domain, batch_size),
        "answer": told.hexdigest(),
        "batch_size": batch_size,
        **_arithmetic(encoder),
    }
    key = hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
    about = {"encoder": name, "domain": domain.name, "examples": len(domain)}
    return _Entry(
        folder / key[:16], key, about | {"width": answer.shape[1], "key": decided},
        encoder, domain, batch_size, answer.shape[1], stamps,
    )  # fmt: skip


def _network(encoder: nn.Module) -> str:
    """A digest of an encoder's modules and of all tensors that they hold."""
    told = hashlib.sha256()
    for name, module in encoder.named_modules():
        kind = type(module)
        # An address in memory is another in every process.
        settings = re.sub(r" at 0x[0-9a-f]+", "", module.extra_repr())
        line = [name, kind.__module__, kind.__qualname__, settings]
        told.update(json.dumps(line).encode())
    # A state dict lacks the buffers that are not saved, and may be made up by a hook.
    tensors = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    for name, value in (encoder.state_dict() | tensors).items():
        _tell(told, name, value)
    return told.hexdigest()


def _inputs(domain: Domain, batch_size: int) -> dict[str, str]:
    """What stands for all that an encoder is shown, as a digest."""
    told = hashlib.sha256()
    if type(domain) is FolderDomain and type(domain.transform) is Preparation:
        with ThreadPoolExecutor(max(1, domain.workers)) as pool:
            for file, content in zip(domain.files, pool.map(_content, domain.files), strict=True):
                # Pillow looks at the suffix, too.
                told.update(f"{file.suffix.lower()} {content}\n".encode())
        return {
            "images": told.hexdigest(),
            "transform": repr(domain.transform),
            "reader": READER,
            "pillow": PIL.__version__,
        }
    # No other transform says in full what it does, so what it makes of the images has to stand
    # for it. That costs their decoding, and still spares the network.
    for batch in domain.batches(batch_size):
        _tell(told, "inputs", batch.x)
    return {"inputs": told.hexdigest()}


def _arithmetic(encoder: nn.Module) -> dict[str, str]:
    """By whom and in which precision is computed."""
    device = next((p.device for p in encoder.parameters()), torch.device("cpu")).type
    cast = torch.is_autocast_enabled(device)
    return {
        "torch": torch.__version__,
        "device": device,
        "autocast": str(torch.get_autocast_dtype(device)) if cast else "off",
    }


def _tell(told: Any, name: str, value: Any) -> None:
    """Add a named value to a hash: a tensor with its kind, its shape and every bit."""
    if not isinstance(value, Tensor):
        told.update(json.dumps([name, repr(value)]).encode())
        return
    told.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
    told.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _span(domain: Domain, start: int, stop: int) -> Domain:
    """The examples with these numbers, or as many of them as there are."""
    if isinstance(domain, FolderDomain):
        return domain.pick(torch.arange(start, min(stop, len(domain))))
    return Domain(domain.name, domain.data.pick(slice(start, stop)))


def _stamp(file: Path) -> tuple[int, ...]:
    """What no change of a file leaves as it was."""
    try:
        found = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> ValueError:
    return ValueError(
        f"can't read the image {file}: {error.strerror or error}; put it back, or leave it out of "
        "the domain"
    )


def _taken(lock: FileLock) -> bool:
    """Whether the lock is ours now."""
    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        raise ValueError(
            f"{folder}: features can't be kept there ({error.strerror or error}); choose another "
            "folder, or change its permissions"
        ) from None
    return True
