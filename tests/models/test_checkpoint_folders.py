"""Weights in several files: shards with an index, and the folders that trainers write."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from contam.models.checkpoints import fill, read_weights
from contam.models.find_network import find_network
from contam.models.torchvision_import import import_torchvision

STATE = {
    "0.weight": torch.full((4, 3), 1.0), "0.bias": torch.full((4,), 2.0),
    "2.weight": torch.full((2, 4), 3.0), "2.bias": torch.full((2,), 4.0),
}  # fmt: skip


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def sharded(
    folder: Path, kind: str = "safetensors", prefix: str = "", index: object = None
) -> Path:
    """Write a checkpoint in two shards as Hugging Face does, and return its index."""
    folder.mkdir(exist_ok=True)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    places = {}
    for number in (1, 2):
        shard = f"{stem}-0000{number}-of-00002.{kind}"
        part = {prefix + k: v for k, v in STATE.items() if (k[0] == "0") == (number == 1)}
        places |= dict.fromkeys(part, shard)
        if kind == "safetensors":
            save_file(part, folder / shard)
        else:
            torch.save(part, folder / shard)
    path = folder / f"{stem}.{kind}.index.json"
    path.write_text(json.dumps(index or {"metadata": {"total_size": 104}, "weight_map": places}))
    return path


def check(path: Path) -> tuple[str, ...]:
    """Read a checkpoint into a network; return the notes."""
    model = network()
    notes = fill(model, read_weights(path), "net")
    torch.testing.assert_close(dict(model.state_dict()), STATE)
    return tuple(notes)


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_through_their_index_or_their_folder(kind, prefix, tmp_path):
    index = sharded(tmp_path / "shards", kind, prefix)
    assert check(index) == check(index.parent) == ()


def test_shards_may_be_links_as_in_the_cache_of_the_hub(tmp_path):
    index = sharded(tmp_path / "blobs")
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for file in index.parent.iterdir():
        (cache / file.name).symlink_to(file)
    assert check(cache) == ()


@pytest.mark.slow
def test_a_sharded_model_of_transformers_is_read(tmp_path):
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3
    )
    theirs, ours = (transformers.ResNetForImageClassification(config).eval() for _ in range(2))
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 1
    assert fill(ours, read_weights(tmp_path), "net") == ()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def write(folder: Path, *names: str) -> None:
    """Write the weights under several names; files of other parts hold a marker."""
    folder.mkdir(exist_ok=True)
    for name in names:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if name.endswith((".json", ".md", ".distcp", ".py", ".h5", ".metadata")):
            file.write_text("{}")
        elif name.endswith("safetensors"):
            save_file(STATE, file)
        else:
            torch.save(STATE if "model" in name or "last" in name else {"step": 3}, file)


TRAINER = ("config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
ACCELERATE = ("optimizer.bin", "scheduler.bin", "sampler.bin", "random_states_0.pkl")

# case: names of the files, and what is said
FOLDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "a model of Hugging Face": (("config.json", "README.md", "model.safetensors"), ""),
    "an older model of Hugging Face": (("config.json", "pytorch_model.bin"), ""),
    "the Trainer": ((*TRAINER, "model.safetensors"), ""),
    "Accelerate": ((*ACCELERATE, "model.safetensors"), ""),
    "Accelerate without safetensors": ((*ACCELERATE, "pytorch_model.bin"), ""),
    "Lightning": (("last.ckpt", "hparams.json"), ""),
    "open_clip": (("open_clip_model.safetensors", "open_clip_config.json"), ""),
    "both formats": (
        ("model.safetensors", "pytorch_model.bin", "tf_model.h5"),
        "f: 'model.safetensors' is read, 'pytorch_model.bin' is not."),
    "two models of Accelerate": (
        ("model.safetensors", "model_1.safetensors", "model_2.safetensors"),
        "f: 'model.safetensors' is read, 'model_1.safetensors', 'model_2.safetensors' are not."),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_of_trainers_are_read(case, tmp_path):
    names, said = FOLDERS[case]
    write(tmp_path / "f", *names)
    assert check(tmp_path / "f") == ((said,) if said else ())


REFUSED_FOLDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "empty": ((), "f has no file of weights .it is empty.; expected model.safetensors"),
    "a folder of checkpoints": (
        ("checkpoint-500/model.safetensors", "trainer_state.json"),
        "no file of weights .it has 'checkpoint-500', 'trainer_state.json'."),
    "another framework": (("config.json", "tf_model.h5"), "no file of weights .it has 'config"),
    "several checkpoints": (
        ("a-model.pt", "b-model.pt", "c-model.pt", "d-model.pt", "e-model.pt"),
        "several files of weights; give one of 'a-model.pt', 'b-model.pt', 'c-model.pt' and 2 mor"),
    "shards of processes": (
        (".metadata", "__0_0.distcp", "meta-model.pt"),
        "f is a checkpoint in shards of several processes .*format_utils dcp_to_torch"),
    "Accelerate with FSDP": (
        ("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp", *ACCELERATE),
        "f/pytorch_model_fsdp_0 is a checkpoint in shards of several processes"),
    "DeepSpeed": (("latest.json", "zero_to_fp32.py"), "shards of DeepSpeed.*its zero_to_fp32.py"),
    "shards without their index": (
        ("model-00001-of-00002.safetensors",), "has shards such as 'model-00001-of-00002.safetensor"
        "s', but not their index"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_FOLDERS)
def test_other_folders_are_refused_in_one_line(case, tmp_path):
    names, message = REFUSED_FOLDERS[case]
    write(tmp_path / "f", *names)
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(tmp_path / "f")
    assert "\n" not in str(caught.value)


FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def removed(index: Path) -> None:
    (index.parent / SECOND).unlink()


def without_a_key(index: Path) -> None:
    shard = index.parent / SECOND
    save_file({k: v for k, v in load_file(shard).items() if k != "2.bias"}, shard)


def outside(index: Path) -> None:
    (index.parent / FIRST).rename(index.parent.parent / FIRST)
    index.write_text(index.read_text().replace(FIRST, f"../{FIRST}"))


def cut(index: Path) -> None:
    shard = index.parent / SECOND
    shard.write_bytes(shard.read_bytes()[:-8])


def a_pipe(index: Path) -> None:
    removed(index)
    os.mkfifo(index.parent / SECOND)


def pointer(index: Path) -> None:
    (index.parent / FIRST).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def holds(text: str) -> Callable[[Path], object]:
    return lambda index: index.write_text(text)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (removed, f"1 of 2 shards are missing beside it: '{SECOND}'"),
    "a missing weight": (without_a_key, f"{SECOND} lacks '2.bias', which .* lists .*1 of 2"),
    "a shard of another folder": (outside, f"'../{FIRST}' is not the name of a file beside"),
    "an absolute path": (
        lambda index: index.write_text(index.read_text().replace(FIRST, "/etc/passwd")),
        "'/etc/passwd' is not the name of a file beside the index"),
    "a cut shard": (cut, f"can't read weights from .*{SECOND}"),
    "a pipe": (a_pipe, "1 of 2 shards are missing"),
    "a pointer of Git LFS": (pointer, f"{FIRST}: it is a pointer of Git LFS"),
    "itself": (holds('{"weight_map": {"a": "model.safetensors.index.json"}}'), "not the name of"),
    "a number": (holds('{"weight_map": {"a": 3}}'), "'3' is not the name of a file"),
    "no map": (holds('{"metadata": {}}'), "is not the index of a sharded checkpoint"),
    "an empty map": (holds('{"weight_map": {}}'), "is not the index of a sharded checkpoint"),
    "a list": (holds("[]"), "is not the index of a sharded checkpoint"),
    "text": (holds("weights"), "is not JSON"),
    "deep nesting": (holds("[" * 100_000), "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_and_hostile_shards_are_refused_in_one_line(case, tmp_path):
    change, message = DAMAGED[case]
    index = sharded(tmp_path / "f")
    change(index)
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(index.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["f", "f/model.safetensors.index.json"])
def test_weights_in_place_of_a_network_are_refused_with_what_to_give(name, tmp_path, monkeypatch):
    sharded(tmp_path / "f")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="of weights; give the network by name, such as timm"):
        find_network(name)
