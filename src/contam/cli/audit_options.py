"""Convert the flags of `contam audit` to the arguments of `contam.audit`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from contam.inputs.pixel_range import Transform
    from contam.models.find_network import FoundNetwork


@dataclass(frozen=True)
class Gray:
    """A transform to three channels as one to a single channel."""

    transform: "Transform"

    def __call__(self, image: "Image.Image") -> "Tensor":
        """The gray image as the network's input."""
        return self.transform(image.convert("L").convert("RGB"))[:1]


def as_flags(text: str) -> str:
    """Write the parameters of `contam.audit` in a message as flags.

    Args:
        text: a message.

    >>> as_flags("give classes= or layers=")
    'give --classes or --layer'
    """
    others = {"layers": "layer", "only": "labels"}
    # Not untrained=, because no flag takes a network.
    named = (
        "background|baseline|batch_size|budget|classes|columns|device|domain|epochs|id|keys|labels|"
        "layers|masks|only|ood|reference|remedies|root|seed|seeds|step_size|train|transform|"
        "unlabeled|weights|workers"
    )
    return re.sub(
        rf"\b({named})=(?=[\s,.;:)]|$)",
        lambda match: f"--{others.get(match[1], match[1])}".replace("_", "-"),
        text,
    )


def flat(values: Sequence[Sequence[str]]) -> list[str]:
    """Return the values of a flag that was given several times.

    Args:
        values: the values of each time.

    >>> flat([["a", "b"], ["c"]])
    ['a', 'b', 'c']
    """
    return [value for some in values for value in some]


def named_data(words: Sequence[str], *, root: Path | None = None) -> list[tuple[str | None, Any]]:
    """Return the data sets that `PATH`, `NAME=PATH` and patterns with a star mean.

    Args:
        words: the values of a flag.
        root: folder of the relative paths in tables.

    Returns:
        Pairs of a name, or None, and a folder or a table.

    Raises:
        ValueError: no folder matches a pattern.

    >>> named_data(["night=data/night", "data/fog"])
    [('night', 'data/night'), (None, 'data/fog')]
    """
    from contam.inputs.table_files import matching, table_of

    sets: list[tuple[str | None, Any]] = []
    for word in words:
        named = re.match(r"([^=/:*]+)=(.+)", word)
        name, path = (named[1], named[2]) if named and not Path(word).exists() else (None, word)
        table = table_of(path)
        if table is not None:
            sets.append((name, table if root is None else replace(table, root=root)))
        elif "*" in path:
            folders = [folder for folder in matching(path) if folder.is_dir()]
            if not folders:
                raise ValueError(f"no folder matches {path}")
            sets += [(folder.name, str(folder)) for folder in folders]
        else:
            sets.append((name, path))
    return sets


def by_set(words: Sequence[str]) -> Any:
    """Return one path for the ID set, or a dict by set for values `NAME=PATH`.

    Args:
        words: the values of a flag.

    >>> by_set(["masks"]), by_set(["masks", "night=night-masks"]), by_set([])
    ('masks', {'id': 'masks', 'night': 'night-masks'}, None)
    """
    pairs = [(name or "id", path) for name, path in named_data(words)]
    if not pairs:
        return None
    return pairs[0][1] if len(pairs) == 1 and pairs[0][0] == "id" else dict(pairs)


def listed(text: str | None, flag: str) -> list[str] | None:
    """Return the entries of a file or of a comma-separated list.

    Args:
        text: a list, or a file with an entry on each line, a JSON list, or a JSON dict by index.
        flag: the flag, for messages.

    Raises:
        ValueError: the file can't be read, or there is no entry.

    >>> listed("cat, dog", "--classes")
    ['cat', 'dog']
    """
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() in (".txt", ".json", ".csv") or path.is_file():
        entries = _of_file(path, flag)
    else:
        entries = text.split(",")
    entries = [entry.strip() for entry in entries if entry.strip()]
    if not entries:
        raise ValueError(f"{flag} {text}: holds no entry; give names, separated by commas")
    return entries


def _of_file(path: Path, flag: str) -> list[str]:
    from contam.text_files import read_json, read_text

    if path.suffix.lower() != ".json":
        return read_text(path).splitlines()
    content = read_json(path)
    if isinstance(content, dict):
        pairs = list(content.items())
        # Hugging Face writes id2label and label2id, ImageNet's index has [wnid, name].
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        if not all(str(key).isdigit() for key, _ in pairs):
            raise ValueError(f"{flag} {path}: expected names by index, or a list of names")
        content = [value for _, value in sorted(pairs, key=lambda pair: int(pair[0]))]
    if not isinstance(content, list):
        raise ValueError(f"{flag} {path}: expected a list of names")
    return [str(value[0]) if isinstance(value, list) and value else str(value) for value in content]


def columns_of(text: str | None) -> Any:
    """Return the logits that `labeled`, a file or a list of indices, ranges and names mean.

    Args:
        text: the value of `--columns`.

    Raises:
        ValueError: a range ends before it begins.

    >>> columns_of("0-2,7"), columns_of("cat,dog"), columns_of("labeled")
    ([0, 1, 2, 7], ['cat', 'dog'], 'labeled')
    """
    if text is None or text in ("labeled", "labelled"):
        return None if text is None else "labeled"
    chosen: list[int | str] = []
    for entry in listed(text, "--columns") or []:
        limits = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", entry)
        if limits is None:
            chosen.append(entry)
            continue
        first, last = int(limits[1]), int(limits[2] or limits[1])
        if last < first:
            raise ValueError(f"--columns: the range {entry} ends before it begins")
        if last - first > 10**6:
            raise ValueError(f"--columns: the range {entry} is longer than any list of logits")
        chosen += range(first, last + 1)
    return chosen


def keys_of(words: Sequence[str]) -> dict[str, str]:
    """Return the names of parts or columns from `PART=NAME`.

    Args:
        words: the values of `--keys`.

    Raises:
        ValueError: a value has no equals sign.

    >>> keys_of(["y=diagnosis"])
    {'y': 'diagnosis'}
    """
    pairs = [word.partition("=") for word in words]
    for word, (part, equals, name) in zip(words, pairs, strict=True):
        if not (part and equals and name):
            raise ValueError(f"--keys {word}: expected PART=COLUMN, such as y=diagnosis")
    return {part: name for part, _, name in pairs}


def with_transform(
    network: "FoundNetwork",
    *,
    transform: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    in_chans: int | None = None,
) -> "FoundNetwork":
    """Return a network with the preprocessing of the flags.

    Args:
        network: the network with its own preprocessing.
        transform: `package.module:function` from a Pillow image to a tensor; replaces all else.
        image_size: pixels of the square that the network takes.
        mean: mean of each channel of the pixels in [0, 1], or of all.
        std: their standard deviation.
        in_chans: channels of the input; by default those of the first weight.

    Raises:
        ValueError: flags contradict each other, a value is out of range, or the network takes other
            channels than images have.
    """
    if transform is not None:
        if image_size is not None or mean or std:
            raise ValueError("--transform replaces --image-size, --mean and --std; leave them out")
        return replace(network, transform=_imported_transform(transform))
    own = network.transform
    if image_size is not None or mean or std:
        own = _prepared(own, image_size, mean, std)
    channels = in_chans or input_channels(network.model)
    if channels not in (None, 1, 3):
        raise ValueError(
            f"the network takes {channels} channels, and images have 1 or 3; give --transform "
            "package.module:function, from an image to its input"
        )
    if channels == 1:
        own = _gray(own)
    return replace(network, transform=own)


def input_channels(model: "nn.Module") -> int | None:
    """Return the number of channels that the first convolution of a network takes.

    Args:
        model: the network.

    Returns:
        The number; None if the network has no convolution.

    >>> from torch import nn
    >>> input_channels(nn.Sequential(nn.Conv2d(1, 4, 3)))
    1
    """
    from torch import nn

    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _gray(transform: "Transform | None") -> "Transform":
    from contam.data.images import pixels
    from contam.models.preparation import Preparation

    if isinstance(transform, Preparation):
        return transform if len(transform.mean) == 1 else transform.for_channels(1)
    return Gray(transform or pixels)


def _prepared(
    own: "Transform | None", image_size: int | None, mean: Sequence[float], std: Sequence[float]
) -> "Transform":
    from contam.models.preparation import Preparation

    for flag, values in (("--mean", mean), ("--std", std)):
        if len(values) not in (0, 1, 3):
            raise ValueError(f"{flag} takes 1 or 3 numbers, not {len(values)}")
        if any(not abs(value) < 1e6 for value in values):
            raise ValueError(f"{flag} takes finite numbers in units of pixels in [0, 1]")
    if any(value <= 0 for value in std):
        raise ValueError("--std takes positive numbers")
    if any(abs(value) > 2 for value in (*mean, *std)):
        raise ValueError(
            "--mean and --std are in units of pixels in [0, 1]; divide those of bytes by 255"
        )
    if image_size is not None and not 1 <= image_size <= 10_000:
        raise ValueError(f"--image-size is a number of pixels from 1 to 10000, not {image_size}")
    if not isinstance(own, Preparation):
        if image_size is None:
            raise ValueError(
                "--mean and --std need --image-size, because this network has no input size"
            )
        own = Preparation(image_size, image_size, mean=(0.0,) * 3, std=(1.0,) * 3)
    size = image_size or own.crop
    return replace(
        own,
        resize=max(size, round(own.resize * size / own.crop)),
        crop=size,
        mean=tuple(mean) * (3 // len(mean)) if mean else own.mean,
        std=tuple(std) * (3 // len(std)) if std else own.std,
    )


def _imported_transform(name: str) -> "Transform":
    from contam.models.black_box import takes_a_batch
    from contam.models.sources import imported

    if ":" not in name:
        raise ValueError(f"--transform {name}: expected package.module:function")
    function = imported(name)
    if isinstance(function, type) or (callable(function) and not takes_a_batch(function)):
        function = function()  # a function or class that makes the transform
    if not callable(function):
        raise ValueError(f"--transform {name}: is a {type(function).__name__}, not a function")
    transform: Any = function
    return transform
