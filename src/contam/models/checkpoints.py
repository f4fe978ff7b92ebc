"""Weights from the files that trainers write, and their names matched to those of a network.

No file runs code: pickles are read by torch's restricted unpickler, in which an inert stand-in
takes the place of every class that it does not know, such as the `Namespace` of timm's arguments.
"""

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from contam.models.checkpoint_folders import INDEX, shards_of, weights_in
from contam.models.program_files import check_archive

AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|averaged?|shadow)(?:$|[_.])")
"""Names of averaged weights, which are preferred, as timm does."""
SKIPPED = re.compile(r"optim|sched|scaler|loops|callbacks|rng|hyper_parameters", re.IGNORECASE)
"""Parts of a checkpoint that hold no weights."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
"""What wrappers insert into the names of weights."""
COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params", "_extra_state")
"""Last parts of names that are no weights, and can be missing or left over."""
SMALL = 2**24
"""Bytes of a tensor that may repeat fewer bytes of a file."""
DEEPEST = 3
"""Levels of a checkpoint that are searched for weights."""
PACKAGES = (
    (r"_conv_stem\.|_blocks\.\d+\._", "efficientnet_pytorch"),
    (r"visual\.", "open_clip, or OpenAI's CLIP"),
    (r"(vision_model|vit|resnet|convnext|swin|deit|beit|dinov2)\.(encoder|embed)", "transformers"),
    (r"encoder\.layers\.encoder_layer_\d+\.", "torchvision's vision transformers"),
    (r"features\.\d+\.", "torchvision"),
    (r"(base_model\.)?.*lora_[AB]\.", "peft; merge the adapters into the network first"),
    (r"backbone\.\w+", "a network with its encoder under 'backbone'"),
    (r"patch_embed\.proj\.|blocks\.\d+\.(attn|norm1)\.", "timm's vision transformers"),
    (r"conv_stem\.|blocks\.\d+\.\d+\.", "timm's EfficientNets and MobileNets"),
    (r"stem\.|stages\.\d+\.", "timm"),
    (r"conv1\.weight$|layer[1-4]\.\d+\.", "a ResNet of timm or torchvision"),
)  # fmt: skip
"""How the names of weights begin, and whose they are."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state dicts of a file of weights."""

    path: Path
    places: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    """State dicts by their place in the file, which is empty for the file itself."""
    notes: tuple[str, ...] = ()
    """Sentences about the files of a folder that were chosen and ignored."""

    @property
    def state(self) -> dict[str, Tensor]:
        """The largest state dict, without the prefixes of wrappers; averaged weights first."""
        place = max(self.places, key=lambda name: (_is_averaged(name), len(self.places[name])))
        return unwrapped_names(self.places[place])

    def renamed(self, rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> "Checkpoint":
        """The same weights under the names that a function of a state dict gives them."""
        return replace(self, places={place: rename(state) for place, state in self.places.items()})

    def fitted(self, wanted: Mapping[str, Tensor]) -> "Fitted | None":
        """The weights under the names of a network.

        A state dict fits if it has all names, after a prefix is removed from them. Of several that
        fit, averaged weights come first.

        Args:
            wanted: the network's state dict.

        Returns:
            The weights, or None where no state dict has all names.
        """
        wanted = {name: value for name, value in wanted.items() if isinstance(value, Tensor)}
        fits = [fit for place in self.places for fit in self._fits(place, wanted)]
        if not fits:
            return None
        order = sorted(range(len(fits)), key=lambda k: (fits[k].misfits, not fits[k].averaged))
        best, *others = (fits[k] for k in order)
        notes = [*self.notes, *best.notes]
        alternatives = [other.where for other in others if other.misfits == best.misfits]
        if alternatives or best.averaged:
            kind = "averaged weights" if best.averaged else "weights"
            also = f"; {', '.join(alternatives)} would fit, too" if alternatives else ""
            notes.insert(0, f"{self.path.name}: the {kind} under {best.where} are used{also}.")
        return Fitted(best.state, tuple(notes), best.where, best.averaged, best.misfits)

    def _fits(self, place: str, wanted: Mapping[str, Tensor]) -> Iterator["Fitted"]:
        names = {name for name in wanted if not name.endswith(COUNTERS)}
        known: set[frozenset[int]] = set()
        for variant in _without_wrappers(self.places[place]):
            for prefix in _prefixes(variant, names):
                inside = {
                    key.removeprefix(prefix): value
                    for key, value in variant.items()
                    if key.startswith(prefix)
                }
                others = [key for key in inside.keys() - names if not key.endswith(COUNTERS)]
                tensors = frozenset(id(inside[name]) for name in names & inside.keys())
                if others or names - inside.keys() or tensors in known:
                    continue
                known.add(tensors)
                state = {name: inside[name] for name in wanted if name in inside}
                misfits = sum(state[name].shape != wanted[name].shape for name in state)
                left = [k for k in variant if not (k.startswith(prefix) or k.endswith(COUNTERS))]
                notes = [_ignored(left, self.path.name)] if left else []
                where = ".".join(part for part in (place, prefix.strip(".")) if part)
                yield Fitted(
                    state, tuple(notes), repr(where) if where else "the top level",
                    _is_averaged(where), misfits,
                )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights under the names of a network."""

    state: dict[str, Tensor] = field(repr=False)
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen and what was ignored."""
    where: str = ""
    """The place of the weights in the file."""
    averaged: bool = False
    """Whether the weights are averages over a training."""
    misfits: int = 0
    """Number of weights with another shape than the network's."""


def read_weights(path: str | Path) -> Checkpoint:
    """Read the weights in a `.safetensors` file or in a file of `torch.save`.

    Every state dict in the file is found, wherever a trainer put it: `state_dict`, `model`,
    `model_state_dict`, `net`, `ema`, or the file itself.

    Args:
        path: the file; the index of a checkpoint in shards, such as `model.safetensors.index.json`;
            or a folder with one of these (see `contam.models.checkpoint_folders`).

    Source: ours, since each trainer writes another layout.

    Raises:
        ValueError: there is no such file, it holds something other than named tensors, or shards or
            weights that an index lists are missing.

    >>> torch.save({"epoch": 3, "model": {"module.weight": torch.ones(2)}}, "last.pt")
    >>> read_weights("last.pt").state
    {'weight': tensor([1., 1.])}
    """
    path = Path(path)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        path, note = weights_in(path)
        notes = (note,) if note else ()
    if not path.is_file():
        raise ValueError(f"no file of weights at {path}")
    if path.name.endswith(INDEX):
        return Checkpoint(path, {"": _from_shards(path)}, notes)
    return Checkpoint(path, _places(path), notes)


def _from_shards(index: Path) -> dict[str, Tensor]:
    """The weights that an index lists, from the shards beside it."""
    state: dict[str, Tensor] = {}
    for shard, names in shards_of(index).items():
        held = _places(index.parent / shard).get("", {})
        missing = [name for name in names if name not in held]
        if missing:
            raise ValueError(
                f"{index.parent / shard} lacks {missing[0]!r}, which {index.name} lists there "
                f"({len(missing)} of {len(names)} are missing); fetch the shard again"
            )
        state |= {name: held[name] for name in names}
    return state


def _places(path: Path) -> dict[str, Mapping[str, Tensor]]:
    """The state dicts in a file by their place."""
    foreign = _foreign(path)
    if foreign:
        raise ValueError(f"can't read weights from {path}: it is {foreign}")
    try:
        check_archive(path)
        value = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # each reader raises its own kinds for a damaged file
        raise ValueError(
            f"can't read weights from {path}: {_plainly(error)}; expected safetensors, or a state "
            "dict saved by torch.save (neither a whole pickled model nor TorchScript)"
        ) from error
    whole = _whole_network(value)
    if whole:
        raise ValueError(
            f"{path} holds a whole pickled network ({whole}), whose code is not run here; load it "
            "where it was made, and save its state_dict()"
        )
    places: dict[str, Mapping[str, Tensor]] = dict(_state_dicts(value))
    if not places:
        has = f" (it has {', '.join(map(repr, list(value)[:5]))})" if _is_dict(value) else ""
        raise ValueError(f"{path} holds no named tensors{has}; save the network's state_dict()")
    limit = max(path.stat().st_size, SMALL)
    for name, tensor in ((n, t) for state in places.values() for n, t in state.items()):
        if tensor.numel() * tensor.element_size() > limit:
            raise ValueError(
                f"can't read weights from {path}: {name!r} has the shape {tuple(tensor.shape)}, "
                "which takes more bytes than the file has"
            )
    return places


def fill(model: nn.Module, weights: Checkpoint | Mapping[str, Tensor], name: str) -> Sequence[str]:
    """Load weights into a network.

    Args:
        model: the network.
        weights: what `read_weights` returned, or a state dict.
        name: what messages call the network.

    Returns:
        Sentences about what was chosen and what was ignored.

    Raises:
        ValueError: they don't fit; the message has a wanted name, a given name and the likely
            reason.

    >>> fill(nn.Linear(3, 2), {"weight": torch.ones(5, 3), "bias": torch.ones(5)}, "net")
    Traceback (most recent call last):
        ...
    ValueError: the weights don't fit net: the file has 5 classes, the network 2
    """
    wanted = {name: v for name, v in model.state_dict().items() if isinstance(v, Tensor)}
    checkpoint = weights
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(Path(), {"": checkpoint})
    fit = checkpoint.fitted(wanted)
    what = f"the weights in {checkpoint.path}" if checkpoint.path.name else "the weights"
    if fit is None:
        reason = _why_names_differ(checkpoint.state, wanted)
        raise ValueError(f"{what} don't fit {name}: {reason}")
    if fit.misfits:
        raise ValueError(f"{what} don't fit {name}: {_why_shapes_differ(fit.state, wanted)}")
    try:
        model.load_state_dict(fit.state, strict=False)
    except Exception as error:  # modules can have their own ways to load and to refuse
        raise ValueError(f"{what} don't fit {name}: {_plainly(error)}") from error
    return fit.notes


def unwrapped_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what compiled and parallel networks insert into the names of weights.

    >>> list(unwrapped_names({"module._orig_mod.fc.weight": torch.ones(1)}))
    ['fc.weight']
    """
    *_, last = _without_wrappers(state)
    return last


class _StandIn:
    """An inert object in place of one whose class is not known here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> "_StandIn":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DictStandIn:
    """Makes a dict in place of a subclass of dict that is not known here."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        # The unpickler fills no mappings but a few classes of its own.
        return OrderedDict()


def _unpickled(path: Path) -> Any:
    unknown: set[str] = set()
    # Files of torch before 1.6 are no archives; `torch.load` below judges all files.
    with suppress(Exception):
        unknown |= {*get_unsafe_globals_in_checkpoint(path)}
    while True:
        stand_ins: list[Any] = [
            (type(name, (_DictStandIn if name.lower().endswith("dict") else _StandIn,), {}), name)
            for name in unknown
        ]
        try:
            with safe_globals(stand_ins), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            named = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
            names = {str(named[1]), f"builtins.{named[1]}"} - unknown if named else set()
            if not names:
                raise
            unknown |= names


def _foreign(path: Path) -> str:
    """What a file is, if it certainly holds no weights."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file; run git lfs pull"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page; download the file itself"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file of Keras; give weights of PyTorch"
    return ""


def _plainly(error: Exception) -> str:
    """The first line of an error, without colors and without advice on unsafe loading."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if "torchscript" in text.lower():
        return "it is a TorchScript program"
    text = text.rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    if isinstance(error, KeyError | IndexError):
        return "it is damaged, or no file of weights"
    line = text.splitlines()[0].partition("Please use")[0].strip().rstrip(".")
    if line.startswith("Weights only load failed"):
        return "it is damaged, or a pickle that would run code"
    if line.startswith("Unsupported operand"):
        return "it was pickled with a protocol other than torch's"
    return line[:150]


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _whole_network(value: Any) -> str:
    """The class of a pickled network in a checkpoint."""
    parts = list(value.values()) if isinstance(value, Mapping) else [value]
    for part in parts:
        state = part.state if isinstance(part, _StandIn) else None
        if isinstance(state, Mapping) and "_modules" in state and not dict(_state_dicts(value)):
            return type(part).__name__
    return ""


def _state_dicts(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every dict of named tensors in a checkpoint, with its place."""
    if not isinstance(value, Mapping):
        return
    tensors = {key: v for key, v in value.items() if isinstance(key, str) and isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for key, part in value.items():
        if depth < DEEPEST and isinstance(key, str) and not SKIPPED.search(key):
            yield from _state_dicts(part, f"{place}.{key}" if place else key, depth + 1)


def _is_averaged(place: str) -> bool:
    return AVERAGED.search(place) is not None


def _without_wrappers(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, and then with the names of more and more wrappers removed."""
    state = dict(state)
    yield state
    for wrapper in WRAPPERS:
        inserted = re.compile(rf"(^|\.){re.escape(wrapper)}")
        plain = {inserted.sub(r"\1", key): value for key, value in state.items()}
        if plain.keys() != state.keys() and len(plain) == len(state):
            state = plain
            yield state


def _prefixes(state: Mapping[str, Tensor], wanted: set[str]) -> list[str]:
    """What may stand before the names of a network, the empty prefix first."""
    if not wanted:
        return []
    # The name that is least likely the end of another one.
    probe = max(wanted, key=lambda name: (name.count("."), len(name)))
    ends = [key.removesuffix(probe) for key in state if key.endswith(probe)]
    return sorted(dict.fromkeys(e for e in ends if not e or e.endswith(".")), key=len)


def _ignored(names: Sequence[str], file: str) -> str:
    return f"{file}: tensors outside the network are ignored ({len(names)}, such as {names[0]!r})."


def _why_shapes_differ(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The likely reason why weights of the same names have other shapes."""
    odd = [name for name in given if given[name].shape != wanted[name].shape]
    first, last = odd[0], odd[-1]
    filters = [name for name in wanted if wanted[name].ndim >= 4]
    new, old = wanted[first].shape, given[first].shape
    if filters and first == filters[0] and len(odd) == 1 and old[1] != new[1]:
        return f"the file has {old[1]} input channels, the network {new[1]}"
    matrices = [name for name in wanted if wanted[name].ndim >= 2]
    head = matrices[-1].rpartition(".")[0] if matrices else None
    if all(name.rpartition(".")[0] == head for name in odd):
        return f"the file has {len(given[last])} classes, the network {len(wanted[last])}"
    if all("pos" in name for name in odd):
        return (
            f"it was trained on images of another size: {first!r} has the shape {tuple(old)}, in "
            f"the network {tuple(new)}"
        )
    return (
        f"{len(odd)} of {len(wanted)} weights have another shape, such as {first!r}: the file has "
        f"{tuple(old)}, the network {tuple(new)}; it is another size of this network"
    )


def _why_names_differ(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """One wanted and one given name, and the likely reason why they differ."""
    missing = [n for n in wanted if n not in given and not n.endswith(COUNTERS)]
    unexpected = [n for n in given if n not in wanted and not n.endswith(COUNTERS)]
    counts = (
        f"{len(missing)} of its {len(wanted)} weights are missing, {len(unexpected)} are unexpected"
    )
    names = f"it wants {missing[0]!r}" if missing else "it has all it wants"
    names += f", the file has {unexpected[0]!r}" if unexpected else ""
    reason = ""
    if missing and not unexpected and len(missing) < len(wanted) / 2:
        reason = f"the file has no {missing[0].rpartition('.')[0] or 'such layer'}"
    elif len(missing) > len(wanted) / 2:
        ours, theirs = _package(wanted), _package(given)
        reason = f"its names look like {theirs}" if theirs and theirs != ours else "other names"
        reason = reason if theirs and theirs != ours else "it is of another network"
    return f"{counts}; {names}" + (f"; {reason}" if reason else "")


def _package(names: Mapping[str, Tensor]) -> str:
    """Whose names these are, by how most of them begin."""
    for pattern, package in PACKAGES:
        if sum(re.match(pattern, name) is not None for name in names) > len(names) / 3:
            return package
    return ""
