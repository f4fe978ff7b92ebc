"""Weights in several files: the shards of an index, and the files of a model's folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contam.text_files import printable, read_json

INDEX = ".index.json"
"""End of the name of an index, such as `model.safetensors.index.json`."""
KINDS = (".safetensors", f".safetensors{INDEX}", ".bin", f".bin{INDEX}", ".pt", ".pth", ".ckpt")
"""Ends of names of weights; of files with the same stem, the first kind is read."""
USUAL = ("model", "pytorch_model")
"""Stems of the weights in a folder of Hugging Face or Accelerate."""
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.\w+")
"""Names of shards, which are read through their index."""
OTHER = re.compile(r"optim|sched|scaler|sampler|rng_state|random_states|training_args")
"""Names of files in a trainer's folder that hold no weights."""


def weights_in(folder: Path) -> tuple[Path, str]:
    """Return the file of weights, or the index of shards, in a folder.

    Of several, the files that Hugging Face and Accelerate write are read, safetensors first.

    Args:
        folder: a folder of Hugging Face's `save_pretrained` or `Trainer`, of Accelerate, or any
            other with one file of weights.

    Returns:
        The file, and a sentence about the files of weights that are not read.

    Raises:
        ValueError: the folder has no file of weights, it has several of other names, or it is a
            checkpoint in shards of several processes.

    Source: ours, since each trainer writes other folders.

    >>> Path("run").mkdir()
    >>> for name in ("model.safetensors", "pytorch_model.bin", "optimizer.bin"):
    ...     _ = Path("run", name).write_bytes(b"")
    >>> weights_in(Path("run"))[1]
    "run: 'model.safetensors' is read, 'pytorch_model.bin' is not."
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise ValueError(f"{folder}: can't be read ({error.strerror or error})") from None
    _refuse_processes(folder, names, inner)
    ends = {name: _end(name) for name in names if not OTHER.search(name)}
    files = sorted(
        (name for name, end in ends.items() if end and not SHARD.fullmatch(name)),
        key=lambda name: (_rank(name.removesuffix(ends[name])), KINDS.index(ends[name]), name),
    )
    usual = [name for name in files if name.removesuffix(ends[name]) in USUAL]
    if len(files) > 1 and not usual:
        raise ValueError(f"{folder} has several files of weights; give one of {_listed(files)}")
    if not files:
        shards = [name for name in names if SHARD.fullmatch(name)]
        if shards:
            raise ValueError(
                f"{folder} has shards such as {shards[0]!r}, but not their index, such as "
                f"'model.safetensors{INDEX}'"
            )
        has = f" (it has {_listed(inner + names)})" if inner or names else " (it is empty)"
        raise ValueError(
            f"{folder} has no file of weights{has}; expected model.safetensors, "
            "pytorch_model.bin, or the index of their shards"
        )
    chosen, *others = files
    verb = "is" if len(others) == 1 else "are"
    said = (
        f"{folder.name or folder}: {chosen!r} is read, {_listed(others)} {verb} not."
        if others
        else ""
    )
    return folder / chosen, printable(said)


def shards_of(index: Path) -> dict[str, list[str]]:
    """Return the names of weights by shard, as an index of Hugging Face lists them.

    Args:
        index: a file such as `model.safetensors.index.json`; its shards lie beside it.

    Returns:
        The names of weights that each shard holds, by the name of the shard.

    Raises:
        ValueError: the file is no index, a shard is not named by a plain file name, or shards are
            missing.

    >>> _ = Path("model.bin.index.json").write_text('{"weight_map": {"fc.bias": "../x.bin"}}')
    >>> shards_of(Path("model.bin.index.json"))
    Traceback (most recent call last):
        ...
    ValueError: model.bin.index.json: '../x.bin' is not the name of a file beside the index
    """
    content: Any = read_json(index)
    places: Any = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(places, Mapping) or not places:
        raise ValueError(
            f"{index}: is not the index of a sharded checkpoint; expected the key 'weight_map', "
            "with the shard of each weight"
        )
    shards: dict[str, list[str]] = {}
    for name, shard in places.items():
        plain = isinstance(shard, str) and re.fullmatch(r"[^/\\\0]+", shard)
        if not plain or shard in (".", "..") or shard.endswith(INDEX):
            raise ValueError(
                f"{index}: {str(shard)[:80]!r} is not the name of a file beside the index"
            )
        shards.setdefault(shard, []).append(name)
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise ValueError(
            f"{index}: {len(missing)} of {len(shards)} shards are missing beside it: "
            f"{_listed(missing)}"
        )
    return shards


def _refuse_processes(folder: Path, names: list[str], inner: list[str]) -> None:
    """Raise an error for a folder that only its own trainer can put together."""
    distributed = next(folder.glob("*.distcp"), None) or next(folder.glob("*/*.distcp"), None)
    if distributed is not None:
        raise ValueError(
            f"{distributed.parent} is a checkpoint in shards of several processes "
            "(torch.distributed.checkpoint); make one file of it with python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE, and give that file"
        )
    if "zero_to_fp32.py" in names or any(re.search("zero_pp_rank_", name) for name in names):
        raise ValueError(
            f"{folder} is a checkpoint in shards of DeepSpeed; make one file of it with its "
            "zero_to_fp32.py, and give that file"
        )


def _end(name: str) -> str:
    """The kind of a file of weights; empty for all others."""
    return max((end for end in KINDS if name.endswith(end)), key=len, default="")


def _rank(stem: str) -> int:
    return USUAL.index(stem) if stem in USUAL else len(USUAL)


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(map(repr, names[:most])) + more)
