"""Image files that are decoded in the first pass and kept in memory up to a limit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from contam.batch import Batch, Domain
from contam.data.images import Augmentation, FolderDomain
from contam.inputs.duplicates import fingerprints
from contam.inputs.image_conversion import change_notes, read
from contam.inputs.indexed import CHUNK, Unreadable
from contam.inputs.parts import transformed
from contam.inputs.pixel_range import PixelRange, Transform

MAX_BYTES = 2**29
"""Maximum number of bytes of inputs that are kept in memory."""
AHEAD = 2
"""Number of batches that are decoded ahead."""


class FileDecoder:
    """Decodes image files by number with threads; keeps what fits in memory.

    Args:
        name: name of the set, for messages.
        files: image files.
        transform: function from an image to the network's input.
        workers: number of threads.
        max_bytes: maximum number of bytes of inputs that are kept, by default `MAX_BYTES`; other
            files are decoded again in later passes.
        reader: function from a file to an RGB image, such as that of a published data set; by
            default `contam.inputs.image_conversion.read`.

    Source: ours, so that an audit decodes each file once in its main pass.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        transform: Transform,
        *,
        workers: int = 4,
        max_bytes: int | None = None,
        reader: Callable[[Path], Image.Image] | None = None,
    ) -> None:
        self.reader = reader
        self.name, self.files, self.transform = name, tuple(files), transform
        self.workers = workers
        self.max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self.strict = False
        """Whether an unreadable file raises instead of being left out."""
        self.unreadable: dict[int, Unreadable] = {}
        """Files that were left out, by number."""
        self.changes: dict[int, str] = {}
        """What the conversion to RGB changed, by number of the file."""
        self.prints: dict[int, Tensor] = {}
        """Fingerprints of the images in [0, 1], by number of the file."""
        self.shape: tuple[int, ...] | None = None
        """Shape of one input; None before the first is decoded."""
        self.low: Tensor | None = None
        """(channels,) smallest value so far."""
        self.high: Tensor | None = None
        """(channels,) largest value so far."""
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0
        self._tried: set[int] = set()

    @property
    def positions(self) -> Tensor:
        """(n,) numbers of the files that were not left out."""
        kept = torch.ones(len(self.files), dtype=torch.bool)
        kept[list(self.unreadable)] = False
        return kept.nonzero().flatten()

    @property
    def left_out(self) -> list[str]:
        """A sentence about the files that were left out so far, or nothing."""
        if not self.unreadable:
            return []
        first = self.unreadable[min(self.unreadable)]
        return [
            f"{len(self.unreadable)} of {len(self.files)} examples of {self.name!r} were left "
            f"out; the first, {first}."
        ]

    @property
    def notes(self) -> list[str]:
        """Sentences about what was left out or changed so far."""
        changes = list(self.changes.values())
        return [*self.left_out, *change_notes(self.name, changes, len(self.files))]

    def read_all(self) -> None:
        """Decode every file that was not tried yet, so that `positions` are final.

        Raises:
            ValueError: no file can be read, or inputs differ in shape.
        """
        untried = [number for number in range(len(self.files)) if number not in self._tried]
        for _ in self.read(untried, CHUNK):
            pass
        if len(self.unreadable) == len(self.files):
            first = self.unreadable[0] if self.files else None
            reason = f"none could be read; the first, {first}" if first else "it is empty"
            raise ValueError(f"{self.name!r} has no examples: {reason}")

    def pick(self, which: Tensor, name: str | None = None) -> "FileDecoder":
        """Return a decoder of the files with these numbers; inputs in memory are shared."""
        some = FileDecoder(
            name or self.name, [self.files[i] for i in which.tolist()], self.transform,
            workers=self.workers, max_bytes=self.max_bytes, reader=self.reader,
        )  # fmt: skip
        some.strict = self.strict
        for place, number in enumerate(which.tolist()):
            if number in self._kept:
                some._keep(place, self._kept[number])
        return some

    def read(self, numbers: Iterable[int], size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield number and input of the readable files, with up to two batches decoded ahead.

        Raises:
            ValueError: inputs differ in shape; or a file can't be read and `strict` is set.
        """
        for group in self.read_groups(([number] for number in numbers), ahead=AHEAD * size):
            yield from group

    def read_groups(
        self, groups: Iterable[Sequence[int]], *, ahead: int = AHEAD
    ) -> Iterator[list[tuple[int, Tensor]]]:
        """Yield numbers and inputs of the readable files of each group, and decode groups ahead.

        Raises:
            ValueError: as for `read`.
        """
        pool = ThreadPoolExecutor(max(1, self.workers))
        waiting: deque[list[tuple[int, Future[Tensor | str] | Tensor]]] = deque()
        try:
            for numbers in groups:
                waiting.append([(number, self._input_of(number, pool)) for number in numbers])
                if len(waiting) > ahead:
                    yield self._results(waiting.popleft())
            while waiting:
                yield self._results(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            # Keep what was decoded ahead for the next pass.
            for number, image in chain.from_iterable(waiting):
                if isinstance(image, Future) and not image.cancelled() and not image.exception():
                    decoded = image.result()
                    if isinstance(decoded, Tensor):
                        self._keep(number, decoded)

    def _input_of(self, number: int, pool: ThreadPoolExecutor) -> Future[Tensor | str] | Tensor:
        kept = self._kept.get(number)
        return pool.submit(self._decode, number) if kept is None else kept

    def _results(
        self, group: Sequence[tuple[int, Future[Tensor | str] | Tensor]]
    ) -> list[tuple[int, Tensor]]:
        return [pair for number, waiting in group for pair in self._result(number, waiting)]

    def _decode(self, number: int) -> Tensor | str:
        """Return the network's input, or the reason why it is left out."""
        file = self.files[number]
        try:
            image, change = read(file) if self.reader is None else (self.reader(file), "")
        except ValueError:
            missing = not file.exists()
            return "is missing: there is no such file" if missing else "can't be read"
        try:
            x = transformed(image, self.transform)
        except Exception as error:  # The transform is the user's.
            message = " ".join(str(error).split())[:200]
            return f"makes transform= raise {type(error).__name__}: {message}"
        if change:
            self.changes[number] = change
        return x if x.isfinite().all() else "holds values that are not finite"

    def _result(
        self, number: int, waiting: "Future[Tensor | str] | Tensor"
    ) -> Iterator[tuple[int, Tensor]]:
        x = waiting.result() if isinstance(waiting, Future) else waiting
        if isinstance(x, str):
            if self.strict:
                raise ValueError(f"example {number} of {self.name!r}: {self.files[number]} {x}")
            self._tried.add(number)
            self.unreadable[number] = Unreadable(number, x, self.files[number].name)
            return
        if self.shape not in (None, tuple(x.shape)):
            raise ValueError(
                f"inputs have the shape {self.shape}, and then {tuple(x.shape)}; expected one "
                "shape, so resize them in the transform"
            )
        self.shape = tuple(x.shape)
        if number not in self._tried:
            self._tried.add(number)
            self._widen(x)
        self._keep(number, x)
        yield number, x

    def _widen(self, x: Tensor) -> None:
        """Widen the range of values by this input."""
        if x.ndim != 3 or x.shape[0] not in (1, 3):
            return
        low, high = x.amin((1, 2)), x.amax((1, 2))
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def _keep(self, number: int, x: Tensor) -> None:
        size = x.numel() * x.element_size()
        if number not in self._kept and self._bytes + size <= self.max_bytes:
            self._kept[number] = x
            self._bytes += size


class LazyFolderDomain(Domain):
    """Image files as a domain; labels are known without reading a file.

    Unreadable files and non-finite inputs are left out in the first pass over `batches`. Until that
    pass ends, `y` and the length also count the files that were not tried yet, so take labels from
    its batches. Afterwards an index is a position among the readable examples.
    """

    decoder: FileDecoder
    labels: Tensor
    """(files,) class index of every file, also of those left out."""
    origins: Tensor
    """(files,) index of the domain of every file."""
    pixel_range: PixelRange | None

    def __init__(
        self,
        decoder: FileDecoder,
        labels: Tensor,
        origins: Tensor,
        pixel_range: PixelRange | None = None,
    ) -> None:
        # The fields of a frozen record are set once.
        vars(self).update(
            name=decoder.name, decoder=decoder, labels=labels, origins=origins,
            pixel_range=pixel_range,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"LazyFolderDomain({self.name!r}, {len(self)} images)"

    @property
    def y(self) -> Tensor:
        """(n,) class index of every example that was not left out, without reading it."""
        return self.labels[self.decoder.positions]

    @property
    def origin(self) -> Tensor:
        """(n,) index of the domain of every example that was not left out."""
        return self.origins[self.decoder.positions]

    @property
    def data(self) -> Batch:
        """All examples in one batch."""
        (batch,) = self.batches(max(1, len(self)))
        return batch

    def pick(self, which: Tensor, name: str | None = None) -> "LazyFolderDomain":
        """Return the examples with these indices, in this order; images in memory are shared."""
        numbers = self.decoder.positions[which]
        return LazyFolderDomain(
            self.decoder.pick(numbers, name), self.labels[numbers], self.origins[numbers],
            self.pixel_range,
        ).with_classes(self.classes)  # fmt: skip

    def augmented(self, augment: Augmentation) -> FolderDomain:
        """Return the images with an augmentation for training; every pass decodes them again."""
        numbers = self.decoder.positions
        reader = self.decoder.reader or _rgb
        return FolderDomain(
            self.name, [self.decoder.files[i] for i in numbers.tolist()], self.labels[numbers],
            self.origins[numbers], self.decoder.transform, workers=self.decoder.workers,
            augment=augment, reader=reader,
        ).with_classes(self.classes)  # fmt: skip

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Make one pass over the examples, in order or in an order drawn from the generator.

        Raises:
            ValueError: no file can be read, or images differ in shape.
        """
        if size < 1:
            raise ValueError(f"batch size must be at least 1, not {size}")
        numbers = self.decoder.positions
        if generator is not None:
            numbers = numbers[torch.randperm(len(numbers), generator=generator)]
        yield from self._read(numbers.tolist(), size)
        self.decoder.read_all()

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Yield a batch for each pair of (n,) indices and (n,) draws; the draws are not used.

        The next two batches are decoded ahead.
        """
        positions = self.decoder.positions
        picked = (positions[which].tolist() for which, _ in picks)
        yield from map(self._stacked, self.decoder.read_groups(picked))

    def _read(self, numbers: list[int], size: int) -> Iterator[Batch]:
        some: list[tuple[int, Tensor]] = []
        for pair in self.decoder.read(numbers, size):
            some.append(pair)
            if len(some) == size:
                yield self._stacked(some)
                some = []
        if some:
            yield self._stacked(some)

    def _stacked(self, some: list[tuple[int, Tensor]]) -> Batch:
        which = torch.tensor([number for number, _ in some], dtype=torch.int64)
        if not some:
            return Batch(torch.empty(0), self.labels[which], self.origins[which])
        x = torch.stack([image for _, image in some])
        x = x if self.pixel_range is None else self.pixel_range.pictures(x)
        if any(number not in self.decoder.prints for number, _ in some):
            self.decoder.prints.update(zip(which.tolist(), fingerprints(x), strict=True))
        return Batch(x, self.labels[which], self.origins[which])


def _rgb(path: Path) -> Image.Image:
    return read(path).image
