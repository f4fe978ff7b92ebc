"""Features on disk: never another's, never half written, and extracted by one process alone."""

import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.images import FolderDomain, Transform, resized
from contam.experiments.support import feature_cache as module
from contam.experiments.support.feature_cache import features, features_in_parts
from contam.models.preparation import Preparation
from contam.models.sources import Source
from contam.rng import generator_for
from contam.training.probe import extract

BATCH = 4
SEEN = Preparation(resize=8, crop=8)


class Counting(nn.Module):
    """An encoder that knows how many examples it was shown; its gain is nobody's parameter."""

    unsaved: Tensor

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        draws = generator_for(0, "test/weights")
        self.linear = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.register_buffer("unsaved", torch.ones(()), persistent=False)
        self.linear.weight.data = torch.randn(5, 3, generator=draws)
        self.linear.bias.data = torch.randn(5, generator=draws)
        self.gain = gain
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.gain * self.norm(self.linear(self.unsaved * x)).tanh()


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Several parts out of few examples."""
    monkeypatch.setattr(module, "TOGETHER", 8)


def domain(n: int = 30, seed: int = 0) -> Domain:
    x = torch.randn(n, 3, generator=generator_for(seed, "test/inputs"))
    return Domain("noise", Batch(x, torch.arange(n) % 3, torch.zeros(n, dtype=torch.int64)))


def pictures(folder: Path, n: int = 10, transform: Transform = SEEN) -> FolderDomain:
    """Files of noise, written unless they are there."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.png" for i in range(n)]
    for i, file in enumerate(files):
        if not file.exists():
            noise = torch.randint(0, 256, (9, 12, 3), generator=generator_for(i, "test/pictures"))
            Image.fromarray(noise.to(torch.uint8).numpy()).save(file)
    return FolderDomain("pictures", files, torch.arange(n) % 2, 0, transform)


def shown(encoder: Counting, data: Domain, root: Path, batch_size: int = BATCH) -> int:
    """How many examples the encoder saw for the features' sake, which have to be right."""
    expected = extract(encoder, data, batch_size=batch_size)
    encoder.shown = 0
    found = features(encoder, data, folder=root, batch_size=batch_size)
    assert torch.equal(found, expected)
    return encoder.shown - min(len(data), module.ANSWERED)


def parts(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.safetensors"))


def test_they_are_those_of_extract_and_are_extracted_once(tmp_path):
    encoder = Counting()
    assert shown(encoder, domain(), tmp_path) == 30
    assert shown(encoder, domain(), tmp_path) == 0
    assert [len(part) for part in in_parts(domain(), tmp_path)] == [8, 8, 8, 6]
    assert len(parts(tmp_path)) == 4


def in_parts(data: Domain, root: Path) -> list[Tensor]:
    return list(features_in_parts(Counting(), data, folder=root, batch_size=BATCH))


def test_they_can_be_trained_on_and_the_encoder_stays(tmp_path):
    encoder = Counting().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for _ in range(2):
        found = features(encoder, domain(), folder=tmp_path)
        nn.Linear(5, 2)(found).sum().backward()
        found += 1  # what is in memory is not what is on disk
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(features(encoder, domain(), folder=tmp_path), extract(encoder, domain()))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.linear.weight.data[2, 1:2].mul_(1 + 1e-6),
        lambda net: net.norm.running_var.mul_(1.001),
        lambda net: net.unsaved.add_(1),
        lambda net: setattr(net.norm, "eps", 1e-4),
        lambda net: setattr(net, "gain", 0.5),
        lambda net: setattr(net, "norm", nn.Identity()),
        lambda net: net.register_forward_hook(lambda _net, _inputs, output: output.abs()),
        lambda net: net.double().register_forward_pre_hook(lambda _net, x: (x[0].double(),)),
    ],
    ids=["weight", "statistics", "unsaved buffer", "setting", "attribute", "module", "hook",
         "precision"],
)  # fmt: skip
def test_another_network_is_never_taken_for_this_one(tmp_path, change):
    shown(Counting(), domain(), tmp_path)
    other = Counting()
    change(other)
    assert shown(other, domain(), tmp_path) == 30
    assert shown(Counting(), domain(), tmp_path) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.linear.weight.data.add_(1),
        lambda net: net.unsaved.add_(1),
        lambda net: setattr(net.large, "threshold", 8.0),
    ],
    ids=["weight", "unsaved buffer", "setting"],
)
def test_what_moves_no_feature_of_the_first_examples_counts_too(tmp_path, change):
    class Late(Counting):
        """Sees large inputs alone, which the first examples lack."""

        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Threshold(4.0, 0.0)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.large(x))

    data = domain()
    data.data.x[20] = 7.0
    encoder = Late()
    shown(encoder, data, tmp_path)
    change(encoder)
    assert shown(encoder, data, tmp_path) == 30


def test_inputs_batches_and_precision_count_and_labels_do_not(tmp_path):
    encoder, data = Counting(), domain()
    shown(encoder, data, tmp_path)
    relabeled = Domain("another name", data.data._replace(y=torch.zeros(30, dtype=torch.int64)))
    assert shown(encoder, relabeled, tmp_path) == 0
    changed = data.data.x.clone()
    changed[29, 2] += 1e-6
    for other in (
        Domain("noise", data.data._replace(x=changed)),
        Domain("noise", data.data.pick(torch.arange(30).flip(0))),
        Domain("noise", data.data.pick(slice(0, 29))),
    ):
        assert shown(encoder, other, tmp_path) == len(other)
    assert shown(encoder, data, tmp_path, batch_size=5) == 30
    with torch.autocast("cpu", torch.bfloat16):
        assert shown(encoder, data, tmp_path) == 30
    assert shown(encoder, data, tmp_path) == 0


class OfImages(Counting):
    """Sees the mean color."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("transform", [SEEN, resized(8)], ids=["described", "a function"])
def test_a_changed_file_is_seen_whatever_its_time_and_size_say(tmp_path, transform):
    encoder, data = OfImages(), pictures(tmp_path / "images", transform=transform)
    assert shown(encoder, data, tmp_path) == 10
    assert shown(encoder, data, tmp_path) == 0
    # The last file, which is not among the first examples, in another's place with its date.
    (tmp_path / "elsewhere").mkdir()
    data.files[9].rename(tmp_path / "elsewhere" / "moved.png")
    moved = replaced(data, 9, tmp_path / "elsewhere" / "moved.png")
    assert shown(encoder, moved, tmp_path) == 0
    data.files[9].write_bytes(data.files[3].read_bytes())
    assert shown(encoder, data, tmp_path) == 10


def replaced(data: FolderDomain, index: int, file: Path) -> FolderDomain:
    files = list(data.files)
    files[index] = file
    return FolderDomain(data.name, files, data.y, data.origin, data.transform)


def test_another_transform_is_seen(tmp_path):
    encoder, folder = OfImages(), tmp_path / "images"
    transforms: list[Transform] = [
        SEEN,
        replace(SEEN, mean=(0.5, 0.5, 0.5)),
        replace(SEEN, resize=9),
        replace(SEEN, interpolation="bilinear"),
        # Of these nothing but what they do can be known: they are two of one name.
        resized(8),
        resized(7),
    ]
    for transform in transforms:
        assert shown(encoder, pictures(folder, transform=transform), tmp_path) == 10
    for transform in transforms:
        assert shown(encoder, pictures(folder, transform=transform), tmp_path) == 0


def test_what_the_first_examples_do_not_show_is_seen(tmp_path):
    """Only the last two images are not square, and another batch size may give other bits."""
    encoder, data = OfImages(), pictures(tmp_path / "images")
    for file in data.files[: module.ANSWERED]:
        with Image.open(file) as image:
            square = image.crop((0, 0, 9, 9))
        square.save(file)
    shown(encoder, data, tmp_path)
    squashed = pictures(tmp_path / "images", transform=replace(SEEN, squash=True))
    assert shown(encoder, squashed, tmp_path) == 10
    assert shown(encoder, data, tmp_path, batch_size=2) == 10
    assert shown(encoder, data, tmp_path) == 0


def test_other_code_that_reads_images_is_seen(tmp_path, monkeypatch):
    encoder, data = OfImages(), pictures(tmp_path / "images")
    shown(encoder, data, tmp_path)
    monkeypatch.setattr(module, "READER", "other")
    assert shown(encoder, data, tmp_path) == 10


def test_an_image_that_changes_meanwhile_is_noticed(tmp_path):
    class Vandal(OfImages):
        def forward(self, x: Tensor) -> Tensor:
            if self.shown >= 2 * module.ANSWERED:
                data.files[9].write_bytes(data.files[3].read_bytes())
            return super().forward(x)

    data, encoder = pictures(tmp_path / "images"), Vandal()
    with pytest.raises(ValueError, match=r"9\.png was changed while features were extracted"):
        features(encoder, data, folder=tmp_path / "kept", batch_size=2)
    assert len(parts(tmp_path / "kept")) == 1  # what was written before is right


def test_stopping_keeps_what_was_written_and_frees_the_entry(tmp_path):
    encoder, data = OfImages(), pictures(tmp_path / "images", n=20)
    for count, part in enumerate(features_in_parts(encoder, data, folder=tmp_path, batch_size=4)):
        assert len(part) == 8
        if count == 1:
            break
    assert len(parts(tmp_path)) == 2
    assert shown(encoder, data, tmp_path) == 4


def truncated(one: Path, _other: Path) -> None:
    one.write_bytes(one.read_bytes()[:-7])


def flipped(one: Path, _other: Path) -> None:
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)


def swapped(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def of_another_shape(one: Path, _other: Path) -> None:
    content = load(one.read_bytes())
    one.write_bytes(save(content | {"features": content["features"].T.contiguous()}))


def without_digest(one: Path, _other: Path) -> None:
    one.write_bytes(save({"features": load(one.read_bytes())["features"]}))


def text(one: Path, _other: Path) -> None:
    one.write_text("not safetensors")


def missing(one: Path, _other: Path) -> None:
    one.unlink()


def a_link_to_nowhere(one: Path, _other: Path) -> None:
    one.unlink()
    one.symlink_to("nowhere")


DAMAGES = [truncated, flipped, of_another_shape, without_digest, text, missing, a_link_to_nowhere]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_part_is_extracted_anew_and_no_other(tmp_path, damage):
    encoder = Counting()
    shown(encoder, domain(), tmp_path)
    damage(parts(tmp_path)[1], parts(tmp_path)[2])
    assert shown(encoder, domain(), tmp_path) == 8
    assert shown(encoder, domain(), tmp_path) == 0


def test_parts_in_each_other_s_place_are_not_taken(tmp_path):
    encoder = Counting()
    shown(encoder, domain(), tmp_path)
    swapped(*parts(tmp_path)[1:3])
    assert shown(encoder, domain(), tmp_path) == 16
    shown(encoder, domain(seed=1), tmp_path)
    first, second = sorted(tmp_path.iterdir())
    swapped(first / "00002.safetensors", second / "00002.safetensors")
    assert shown(encoder, domain(), tmp_path) == 8
    assert shown(encoder, domain(seed=1), tmp_path) == 8


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_are_trusted(tmp_path, data):
    expected = features(Counting(), domain(), folder=tmp_path, batch_size=BATCH)
    file = parts(tmp_path)[data.draw(st.integers(0, 3))]
    whole = file.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    file.write_bytes(whole[:start] + data.draw(st.binary(max_size=40)) + whole[stop:])
    found = features(Counting(), domain(), folder=tmp_path, batch_size=BATCH)
    assert torch.equal(found, expected)


def test_what_cannot_be_mended_gets_one_line(tmp_path):
    encoder = Counting()
    shown(encoder, domain(), tmp_path)
    broken = parts(tmp_path)[1]
    broken.unlink()
    broken.mkdir()
    with pytest.raises(ValueError, match=r"^\S+00001.safetensors: can't be written \(Is a dir.*$"):
        features(encoder, domain(), folder=tmp_path, batch_size=BATCH)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^\S+: features can't be kept there \(Not a dir.*$"):
        features(encoder, domain(), folder=tmp_path / "file")
    with pytest.raises(ValueError, match="has no examples"):
        features(encoder, domain(0), folder=tmp_path)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        features(encoder, domain(), folder=tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="pool or flatten"):
        features(nn.Unflatten(1, (3, 1)), domain(), folder=tmp_path)
    data = pictures(tmp_path / "images")
    data.files[9].unlink()
    with pytest.raises(ValueError, match=r"can't read the image \S+9.png: No such file"):
        features(OfImages(), data, folder=tmp_path)

    class Lazy(Domain):
        pass

    with pytest.raises(ValueError, match="is a Lazy; want a Domain or a FolderDomain"):
        features(encoder, Lazy("lazy", domain().data), folder=tmp_path)


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path, monkeypatch):
    encoder = Counting()
    shown(encoder, domain(), tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(module, "write_atomically", refuse)
    assert shown(encoder, domain(), tmp_path) == 0
    with pytest.raises(ValueError, match=r"kept there \(Read-only file system\); choose another"):
        features(encoder, domain(seed=1), folder=tmp_path, batch_size=BATCH)


def test_an_entry_says_whose_features_it_has(tmp_path):
    network = Source("mine:net", Counting(), 5, SEEN)
    features(network, domain(), folder=tmp_path)
    (entry,) = tmp_path.iterdir()
    told = json.loads((entry / "entry.json").read_text("utf-8"))
    assert (told["encoder"], told["domain"]) == ("mine:net", "noise")
    assert (told["examples"], told["width"]) == (30, 5)
    assert told["key"]["torch"] == torch.__version__


PREAMBLE = """
import os, random, signal, time
from pathlib import Path
import torch
from torch import nn
from contam.experiments.support import feature_cache as module
from contam.batch import Batch, Domain
from contam.rng import generator_for

torch.set_num_threads(1)
module.TOGETHER = 8
x = torch.randn(120, 3, generator=generator_for(0, "test/inputs"))
data = Domain("noise", Batch(x, torch.zeros(120).long(), torch.zeros(120).long()))

class Slow(nn.Module):
    def __init__(self, log=None):
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.linear.load_state_dict({
            "weight": torch.randn(5, 3, generator=generator_for(0, "test/weights")),
            "bias": torch.zeros(5)})
        self.log = log

    def forward(self, x):
        time.sleep(0.01)
        if self.log:
            with open(self.log, "a") as log:
                log.write(f"{len(x)}\\n")
        return self.linear(x)

def extract(root, log=None):
    return module.features(Slow(log), data, folder=Path(root), batch_size=4)
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return said


def bytes_of(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in parts(root)}


KILLED = """
draws, kills = random.Random(SEED), 0
while True:
    child = os.fork()
    if child == 0:
        extract(ROOT)
        os._exit(0)
    time.sleep(draws.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
    kills += 1
print(kills)
"""


def test_killed_at_any_moment_the_same_call_ends_with_the_same_bytes(tmp_path):
    runs = [
        start(f"SEED, ROOT = {seed}, {str(tmp_path / f'killed{seed}')!r}\n{KILLED}")
        for seed in range(2)
    ]
    finish(start(f"extract({str(tmp_path / 'whole')!r})"))
    whole = bytes_of(tmp_path / "whole")
    assert len(whole) == 15
    for seed, run in enumerate(runs):
        assert int(finish(run)) >= 3
        assert bytes_of(tmp_path / f"killed{seed}") == whole
        assert not list(tmp_path.glob(f"killed{seed}/*/.writing-*"))


def test_of_two_processes_one_extracts_and_the_other_follows(tmp_path):
    code = "\n".join(
        (
            f"found = extract({str(tmp_path / 'kept')!r}, {str(tmp_path / 'log')!r})",
            "print(found.numpy().tobytes().hex())",
        )
    )
    one, other = start(code), start(code)
    assert finish(one) == finish(other)
    shown_to_both = sum(map(int, (tmp_path / "log").read_text().split()))
    assert shown_to_both == 120 + 2 * module.ANSWERED


def test_who_waits_takes_over_from_who_dies(tmp_path):
    root = tmp_path / "kept"
    holder = start(
        f"kept = module.features_in_parts(Slow(), data, folder=Path({str(root)!r}), batch_size=4)\n"
        "next(kept), next(kept)\nprint('has two', flush=True)\ntime.sleep(120)\n"
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "has two\n"
        waiting = start(
            f"for part in module.features_in_parts(Slow({str(tmp_path / 'log')!r}), data, "
            f"folder=Path({str(root)!r}), batch_size=4):\n    print(len(part), flush=True)\n"
        )
        assert waiting.stdout is not None
        assert [waiting.stdout.readline() for _ in range(2)] == ["8\n", "8\n"]
        time.sleep(0.3)
        assert waiting.poll() is None
        assert len(parts(root)) == 2
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert finish(waiting).split() == ["8"] * 13
    assert sum(map(int, (tmp_path / "log").read_text().split())) == 120 - 16 + module.ANSWERED
