"""Domains of image files that are read on demand, in a reproducible order.

Nothing is downloaded or repaired. Images become RGB as in the data sets' own tools: transparency
is dropped, so a pixel has the color stored under it; gray and palette images are copied to three
channels; 16 bits are scaled to 8. The camera's orientation (EXIF) is not applied, because published
numbers do not use it.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from contam.batch import Batch, Domain
from contam.data.image_modes import to_rgb
from contam.text_files import check_file

Transform = Callable[[Image.Image], Tensor]
"""A deterministic function from an image to a tensor."""
Augmentation = Callable[[Image.Image, torch.Generator], Image.Image]
"""A random change of an image before the transform, which draws only from the generator."""

FORMATS = (
    "JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000",
)  # fmt: skip
"""Formats of image files; HEIF needs a plugin of Pillow."""
AHEAD = 2
"""Number of batches that are read ahead."""
TRIES = 10
"""Number of random boxes to try before the central one is used."""


def open_image(path: Path) -> Image.Image:
    """Open an image file and read its size and mode; use it in a `with` statement.

    Only `FORMATS` are tried, whatever the suffix: Pillow would also start other programs
    (EPS) and read formats that no data set uses, which had most of its security faults.

    Args:
        path: the file.

    Raises:
        Exception: the file is missing, is a pipe or a device, is no image, or states more than
            twice `PIL.Image.MAX_IMAGE_PIXELS`; Pillow's errors have many kinds.

    >>> Image.new("L", (4, 2)).save("gray.png")
    >>> with open_image(Path("gray.png")) as image:
    ...     image.size
    (4, 2)
    """
    check_file(path)
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def opened(path: Path) -> Image.Image:
    """Decode an image file without converting it; any error of Pillow passes through.

    Args:
        path: the file.

    >>> Image.new("L", (4, 2), 255).save("gray.png")
    >>> opened(Path("gray.png")).mode
    'L'
    """
    with open_image(path) as image:
        image.load()
        return image


def read(path: Path, *, upright: bool = False) -> Image.Image:
    """Read an image file as 8-bit RGB.

    Args:
        path: the file.
        upright: whether to apply the camera's orientation.

    Raises:
        ValueError: the file is missing, is not an image, or is damaged.

    >>> Image.new("L", (4, 2), 255).save("gray.png")
    >>> image = read(Path("gray.png"))
    >>> image.mode, image.size
    ('RGB', (4, 2))
    """
    try:
        image = opened(path)
        return to_rgb(ImageOps.exif_transpose(image) if upright else image)
    # Pillow can raise almost any error for a damaged file, and the fix is always the same.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"cannot read the image {path}: {reason}; replace the file, or remove it"
        ) from error


def pixels(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """Return an RGB image as a tensor in [0, 1].

    Args:
        image: the image.

    >>> pixels(Image.new("RGB", (4, 2), "white")).shape
    torch.Size([3, 2, 4])
    """
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def resized(side: int) -> Transform:
    """Return a transform that resizes images of any aspect ratio to a square (bilinear).

    Args:
        side: side of the square in pixels.

    >>> resized(8)(Image.new("RGB", (40, 20))).shape
    torch.Size([3, 8, 8])
    """
    return lambda image: pixels(image.resize((side, side), Image.Resampling.BILINEAR))


def centered(side: int, *, short: int | None = None) -> Transform:
    """Return a transform that resizes the short side (bicubic) and crops the center.

    Args:
        side: side of the crop in pixels.
        short: length of the short side before cropping; by default `side`.

    Raises:
        ValueError: the short side is shorter than the crop.

    >>> centered(8, short=10)(Image.new("RGB", (40, 20))).shape
    torch.Size([3, 8, 8])
    """
    short = side if short is None else short
    if short < side:
        raise ValueError(f"a crop of {side} px does not fit a short side of {short} px")

    def transform(image: Image.Image) -> Tensor:
        scale = short / min(image.size)
        width, height = (max(short, round(scale * edge)) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - side) // 2, (height - side) // 2
        return pixels(image.crop((left, top, left + side, top + side)))

    return transform


def without_border(border: int, transform: Transform) -> Transform:
    """Return a transform that removes a border and then applies another transform.

    Args:
        border: width of the border in pixels; the transform rejects smaller images.
        transform: the other transform.

    >>> without_border(2, pixels)(Image.new("RGB", (10, 8))).shape
    torch.Size([3, 4, 6])
    """

    def cropped(image: Image.Image) -> Tensor:
        width, height = image.size
        if min(width, height) <= 2 * border:
            raise ValueError(f"{width} x {height} px is too small for a border of {border} px")
        return transform(image.crop((border, border, width - border, height - border)))

    return cropped


def crop_box(
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw a random box as torchvision's RandomResizedCrop does, from a generator.

    If ten boxes do not fit, the box is the largest central one whose aspect ratio is in the range.

    Args:
        size: width and height of the image.
        generator: source of the random numbers.
        scale: range of the box's share of the area (uniform).
        ratio: range of its width over its height (log-uniform).

    Returns:
        Left, top, right and bottom of the box.

    Source: ours, with the distribution of torchvision's RandomResizedCrop.

    >>> crop_box((10, 10), torch.Generator().manual_seed(0), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    (0, 0, 10, 10)
    """
    width, height = size
    for _ in range(TRIES):
        share, bent = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** bent
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(width - w + 1, (), generator=generator))
            top = int(torch.randint(height - h + 1, (), generator=generator))
            return left, top, left + w, top + h
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cropped_and_flipped(side: int, *, scale: tuple[float, float] = (0.9, 1.0)) -> Augmentation:
    """Return an augmentation: a random box, resized (bicubic), and mirrored half of the time.

    Args:
        side: side of the result in pixels; use the network's input size, so that its transform
            only changes the colors.
        scale: range of the box's share of the area, in (0, 1].

    Raises:
        ValueError: the side or the range is invalid.

    Source: ours, the augmentation of the published code; the paper does not describe it.

    >>> augment = cropped_and_flipped(8)
    >>> augment(Image.new("RGB", (40, 40)), torch.Generator().manual_seed(0)).size
    (8, 8)
    """
    if side < 1 or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"cannot crop shares {scale} of images to {side} px; expected 0 < low <= high <= 1 and "
            "a side of at least 1, such as cropped_and_flipped(224)"
        )

    def augment(image: Image.Image, generator: torch.Generator) -> Image.Image:
        image = image.crop(crop_box(image.size, generator, scale=scale))
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        return ImageOps.mirror(image) if torch.rand((), generator=generator) < 0.5 else image

    return augment


def domainbed_augmentation(side: int) -> Augmentation:
    """Return DomainBed's augmentation: a random box, mirroring, color jitter and rare grayscale.

    The box covers 70 to 100 % of the area. Brightness, contrast and saturation are multiplied by
    0.7 to 1.3 and the hue is rotated by up to 0.3 of the circle, in random order. A tenth of the
    images become gray.

    Args:
        side: side of the result in pixels; use the network's input size.

    Raises:
        ValueError: the side is less than 1.

    Source: App. E.4; Gulrajani & Lopez-Paz (2021).

    >>> augment = domainbed_augmentation(8)
    >>> augment(Image.new("RGB", (20, 10)), torch.Generator().manual_seed(0)).size
    (8, 8)
    """
    if side < 1:
        raise ValueError(f"an image has a side of at least 1 pixel, got {side}")

    def augment(image: Image.Image, generator: torch.Generator) -> Image.Image:
        image = image.crop(crop_box(image.size, generator, scale=(0.7, 1.0)))
        image = image.resize((side, side), Image.Resampling.BILINEAR)
        if torch.rand((), generator=generator) < 0.5:
            image = ImageOps.mirror(image)
        factors = (0.6 * torch.rand(4, generator=generator) - 0.3).tolist()
        for which in torch.randperm(4, generator=generator).tolist():
            image = _recolored(image, which, factors[which])
        gray = torch.rand((), generator=generator) < 0.1
        return image.convert("L").convert("RGB") if gray else image

    return augment


def _recolored(image: Image.Image, which: int, change: float) -> Image.Image:
    """Change brightness (0), contrast (1), saturation (2) or hue (3)."""
    if which < 3:
        enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
        return enhance(image).enhance(1 + change)
    hue, saturation, value = image.convert("HSV").split()
    rotated = hue.point([(level + int(255 * change)) % 256 for level in range(256)])
    return Image.merge("HSV", (rotated, saturation, value)).convert("RGB")


class FolderDomain(Domain):
    """A domain whose images are read from files in every pass.

    It iterates like a domain in memory, and the same generator gives the same order. The batches do
    not depend on the number of `workers` (threads; 0 reads in the caller's).
    """

    files: tuple[Path, ...]
    labels: Tensor
    origins: Tensor
    transform: Transform
    workers: int
    augment: Augmentation | None
    reader: Callable[[Path], Image.Image]
    """Function from a file to an image, by default `read`."""

    def __init__(
        self,
        name: str,
        files: Iterable[Path],
        y: Int[Tensor, " n"],
        domain: Int[Tensor, " n"] | int,
        transform: Transform,
        *,
        workers: int = 4,
        augment: Augmentation | None = None,
        reader: Callable[[Path], Image.Image] = read,
    ) -> None:
        files = tuple(files)
        origin = torch.full_like(y, domain) if isinstance(domain, int) else domain
        if not len(files) == len(y) == len(origin):
            raise ValueError(
                f"domain {name!r}: {len(files)} files, {len(y)} labels and {len(origin)} domain "
                "indices; every image needs one of each"
            )
        if workers < 0:
            raise ValueError(f"domain {name!r}: workers are 0 or more, not {workers}")
        # The fields of a frozen dataclass are set once.
        vars(self).update(
            name=name, files=files, labels=y, origins=origin, transform=transform,
            workers=workers, augment=augment, reader=reader,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"FolderDomain({self.name!r}, {len(self)} images)"

    @property
    def y(self) -> Tensor:
        """(n,) class index of each image; no image is read."""
        return self.labels

    @property
    def origin(self) -> Tensor:
        """(n,) index of the domain that each image came from; no image is read."""
        return self.origins

    @property
    def augments(self) -> bool:
        """Whether `fetch` augments images."""
        return self.augment is not None

    @property
    def data(self) -> Batch:
        """All images at once, read again at each access; for sets that fit in memory."""
        (batch,) = self.batches(max(1, len(self)))
        return batch

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Iterate over the images once.

        Args:
            size: number of images per batch; the last batch may be smaller.
            generator: draws the order and the augmentation. Without it, images come in order and
                are not augmented.

        Raises:
            ValueError: an image cannot be read, or two images of a batch differ in shape.
        """
        if size < 1:
            raise ValueError(f"batch size must be at least 1, not {size}")
        order, draws = torch.arange(len(self)), torch.zeros(len(self), dtype=torch.int64)
        augment = None if generator is None else self.augment
        if generator is not None:
            order = torch.randperm(len(self), generator=generator)
        if augment is not None:
            draws = torch.randint(2**62, (len(self),), generator=generator)
        yield from self._read(zip(order.split(size), draws.split(size), strict=True), augment)

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Yield a batch for each pair of image indices and seeds of their augmentation.

        Workers read ahead of the consumer.

        Raises:
            ValueError: an image cannot be read, or two images of a batch differ in shape.
        """
        return self._read(picks, self.augment)

    def _read(
        self, picks: Iterable[tuple[Tensor, Tensor]], augment: Augmentation | None
    ) -> Iterator[Batch]:
        # Seeds are drawn before the work is distributed, so results do not depend on the threads.
        if self.workers == 0:
            for which, drawn in picks:
                yield self._stacked(
                    which, [self._load(*pair, augment) for pair in _pairs(which, drawn)]
                )
            return
        pool = ThreadPoolExecutor(self.workers)
        waiting: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        try:
            for which, drawn in picks:
                jobs = [pool.submit(self._load, *pair, augment) for pair in _pairs(which, drawn)]
                waiting.append((which, jobs))
                if len(waiting) > AHEAD:
                    yield self._collected(*waiting.popleft())
            while waiting:
                yield self._collected(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _collected(self, which: Tensor, jobs: list[Future[Tensor]]) -> Batch:
        return self._stacked(which, [job.result() for job in jobs])

    def _load(self, index: int, seed: int, augment: Augmentation | None) -> Tensor:
        image = self.reader(self.files[index])
        if augment is not None:
            image = augment(image, torch.Generator().manual_seed(seed))
        return self.transform(image)

    def _stacked(self, which: Tensor, images: list[Tensor]) -> Batch:
        for index, image in zip(which.tolist(), images, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"domain {self.name!r}: {self.files[index]} gives {tuple(image.shape)}, and "
                    f"{self.files[int(which[0])]} gives {tuple(images[0].shape)}; choose a "
                    "transform with a fixed size, such as centered(224)"
                )
        x = torch.stack(images) if images else torch.empty(0)
        return Batch(x, self.labels[which], self.origin[which])

    def pick(self, which: Int[Tensor, " some"], name: str | None = None) -> "FolderDomain":
        """Return the images with these indices, in this order, optionally under another name."""
        return FolderDomain(
            name or self.name, [self.files[i] for i in which.tolist()], self.labels[which],
            self.origin[which], self.transform,
            workers=self.workers, augment=self.augment, reader=self.reader,
        )  # fmt: skip

    def augmented(self, augment: Augmentation | None) -> "FolderDomain":
        """Return the domain with an augmentation, which passes with a generator apply, or none."""
        return FolderDomain(
            self.name, self.files, self.labels, self.origin, self.transform,
            workers=self.workers, augment=augment, reader=self.reader,
        )  # fmt: skip


def _pairs(which: Tensor, drawn: Tensor) -> Iterator[tuple[int, int]]:
    return zip(which.tolist(), drawn.tolist(), strict=True)
