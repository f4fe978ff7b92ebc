"""Files of weights as trainers write them: what is read from each, and why others are refused."""

import argparse
import collections
import datetime
import enum
import importlib.util
import os
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from contam.models.checkpoints import fill, read_weights, unwrapped_names
from contam.models.find_network import find_network
from contam.models.sources import load
from contam.models.torchvision_import import import_torchvision

needs_models = pytest.mark.skipif(
    not all(importlib.util.find_spec(n) for n in ("torchvision", "timm")),
    reason="needs contam[models]",
)


def network(classes: int = 2, channels: int = 3, width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        collections.OrderedDict(
            conv1=nn.Conv2d(channels, width, 3), bn1=nn.BatchNorm2d(width), act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(width, classes),
        )
    )  # fmt: skip


def weights(value: float, **sizes: int) -> dict[str, torch.Tensor]:
    """A state dict in which every floating-point number is the same."""
    state = network(**sizes).state_dict()
    return {k: torch.full_like(v, value) if v.is_floating_point() else v for k, v in state.items()}


def prefixed(prefix: str, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights(value).items()}


class Kind(enum.Enum):
    BEST = 1


class AttributeDict(dict):
    """As Lightning and others subclass dict."""


class DictConfig:
    """As OmegaConf pickles its settings."""

    def __init__(self, **content: object) -> None:
        self.content = content

    def __getstate__(self) -> dict[str, object]:
        return {"_metadata": Kind.BEST, "_content": self.content}

    def __setstate__(self, state: dict[str, object]) -> None:
        raise AssertionError("this would run code of the file")


SETTINGS = argparse.Namespace(lr=0.1, output=pathlib.Path("out"))
ADAM = torch.optim.Adam(network().parameters()).state_dict()

# case: what the file holds, and what is said about it (a part of the only note, or nothing)
READ = {
    "a state dict": (prefixed(""), ""),
    "PyTorch's tutorial": (
        {"epoch": 5, "model_state_dict": prefixed(""), "optimizer_state_dict": ADAM, "loss": 0.4},
        "",
    ),
    "PyTorch's ImageNet example": (
        {"epoch": 90, "arch": "resnet18", "state_dict": prefixed("module."),
         "best_acc1": torch.tensor(69.7), "optimizer": ADAM, "scheduler": {"last_epoch": 90}},
        "",
    ),
    "torchvision's references": (
        {"model": prefixed(""), "optimizer": ADAM, "lr_scheduler": {}, "epoch": 1,
         "args": SETTINGS, "scaler": {"scale": 65536.0}},
        "",
    ),
    "torchvision's references with an average": (
        {"model": prefixed("", 0.0), "model_ema": prefixed("module.") | {"n_averaged": torch.tensor(
            7)}, "args": SETTINGS},
        "the averaged weights under 'model_ema.module' are used; 'model' would fit, too",
    ),
    "timm": (
        {"epoch": 3, "arch": "resnet18", "state_dict": prefixed(""), "optimizer": ADAM,
         "version": 2, "args": SETTINGS, "amp_scaler": {}, "metric": np.float64(71.2)},
        "",
    ),
    "timm with an average": (
        {"state_dict": prefixed("", 0.0), "state_dict_ema": prefixed(""), "args": SETTINGS},
        "the averaged weights under 'state_dict_ema' are used; 'state_dict' would fit, too",
    ),
    "Lightning": (
        {"epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.4", "loops": {},
         "state_dict": prefixed("model."), "callbacks": {"ModelCheckpoint": {
             "best_model_score": torch.tensor(0.9), "dirpath": pathlib.Path("logs")}},
         "optimizer_states": [ADAM], "lr_schedulers": [], "hparams_name": "kwargs",
         "hyper_parameters": AttributeDict(lr=0.1, kind=Kind.BEST)},
        "",
    ),
    "Lightning with a loss that has weights": (
        {"state_dict": prefixed("net.") | {"criterion.weight": torch.ones(2)}},
        "tensors outside the network are ignored (1, such as 'criterion.weight')",
    ),
    "Lightning, compiled": ({"state_dict": prefixed("model._orig_mod.")}, ""),
    "torch.compile": (prefixed("_orig_mod."), ""),
    "data-parallel": (prefixed("module."), ""),
    "data-parallel, compiled": (prefixed("module._orig_mod."), ""),
    "compiled, data-parallel": (prefixed("_orig_mod.module."), ""),
    "a compiled part": (
        {k.replace("conv1.", "conv1._orig_mod."): v for k, v in prefixed("").items()}, ""),
    "fully sharded": (prefixed("_fsdp_wrapped_module."), ""),
    "checkpointed activations": (
        {k.replace("conv1.", "conv1._checkpoint_wrapped_module."): v
         for k, v in prefixed("").items()}, ""),
    "SWA": (prefixed("module.") | {"n_averaged": torch.tensor(5)}, ""),
    "DeepSpeed": ({"module": prefixed(""), "optimizer": None, "dp_world_size": 8}, ""),
    "Accelerate with an average": (
        {"model": prefixed("", 0.0), "ema": prefixed("ema_model."), "step": torch.tensor(3)},
        "the averaged weights under 'ema.ema_model' are used; 'model' would fit, too",
    ),
    "averages beside the weights": (
        prefixed("online_model.", 0.0) | prefixed("ema_model.") | {"step": torch.tensor(1)},
        "the averaged weights under 'ema_model' are used; 'online_model' would fit, too",
    ),
    "a student and its teacher": (
        prefixed("student.") | prefixed("teacher.", 0.0),
        "the weights under 'student' are used; 'teacher' would fit, too",
    ),
    "a student and a larger teacher": (
        {"teacher": weights(0.0, width=9), "student": prefixed("")}, ""),
    "Hugging Face's wrapper of timm": (prefixed("timm_model."), ""),
    "fastai": ({"model": prefixed(""), "opt": ADAM}, ""),
    "MMEngine": (
        {"meta": {"time": datetime.datetime(2024, 1, 1)}, "state_dict": prefixed("backbone."),
         "message_hub": AttributeDict(a=Kind.BEST)},
        "",
    ),
    "Ignite": ({"trainer": {"epoch_length": 9}, "model": prefixed("")}, ""),
    "a nest of three": ({"state": {"best": {"net": prefixed("")}}}, ""),
    "counters of operations": (
        prefixed("") | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}, ""),
    "without counters of batches": (
        {k: v for k, v in prefixed("").items() if "num_batches" not in k}, ""),
    "half precision": ({k: v.half() for k, v in prefixed("").items()}, ""),
    "bfloat16": ({k: v.bfloat16() for k, v in prefixed("").items()}, ""),
    "parameters": (collections.OrderedDict(
        (k, nn.Parameter(v) if v.is_floating_point() else v) for k, v in prefixed("").items()), ""),
    "a default dict beside them": (
        {"model": prefixed(""), "log": collections.defaultdict(list, loss=[0.1])}, ""),
    "a function beside them": ({"model": prefixed(""), "metric": max}, ""),
    "OmegaConf": (
        {"state_dict": prefixed("model."), "hyper_parameters": DictConfig(lr=0.1),
         "config": [DictConfig(a=DictConfig())]}, ""),
    "extra states": (
        {"model": prefixed("") | {"_extra_state": {"lr": np.float64(0.1)},
                                  "fc._extra_state": torch.zeros(3)}}, ""),
    "random states": (
        {"state_dict": prefixed(""), "rng": torch.get_rng_state(),
         "numpy": np.random.default_rng(0).bit_generator.state}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_weights_are_found_in_what_trainers_write(case, tmp_path):
    content, said = READ[case]
    torch.save(content, tmp_path / "last.ckpt")
    model = network()
    notes = fill(model, read_weights(tmp_path / "last.ckpt"), "net")
    assert all(value.eq(1).all() for value in model.parameters())
    assert said in " ".join(notes)
    assert bool(said) == bool(notes)


def test_an_averaged_model_of_torch_is_read(tmp_path):
    model, averaged = network(), AveragedModel(network())
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    assert fill(model, read_weights(tmp_path / "swa.pt"), "net") == ()
    torch.testing.assert_close(model.state_dict(), averaged.module.state_dict())


def test_files_of_old_versions_of_torch_are_read(tmp_path):
    content = {"state_dict": prefixed("module."), "args": SETTINGS}
    torch.save(content, tmp_path / "old.tar", _use_new_zipfile_serialization=False)
    model = network()
    fill(model, read_weights(tmp_path / "old.tar"), "net")
    assert model.get_parameter("fc.bias").eq(1).all()


MARKER = "touched-by-a-pickle"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, function=exec):
        self.function = function

    def __reduce__(self):
        if self.function is os.mkdir:
            return (os.mkdir, (MARKER,))
        return (self.function, (f"open({MARKER!r}, 'w').close()",))


def saved(content, **options):
    def write(path: pathlib.Path) -> None:
        torch.save(content, path, **options)

    return write


# case: how the file is written, and what is said
REFUSED = {
    "a whole network": (saved(network()), "a whole pickled network .*Sequential.*state_dict"),
    "a whole network in a checkpoint": (
        saved({"model": network(), "epoch": 3}), "a whole pickled network .* not run here"),
    "an optimizer's state": (saved({"optimizer": ADAM}), "no named tensors .it has 'optimizer'"),
    "numbers only": (saved({"epoch": 3, "loss": 0.5}), "no named tensors .it has 'epoch', 'loss'"),
    "a tensor": (saved(torch.ones(2)), "no named tensors; save the network's state_dict"),
    "a list": (saved([torch.ones(2)]), "no named tensors"),
    "TorchScript": (lambda p: torch.jit.script(network()).save(p), "it is a TorchScript program"),
    "another protocol": (saved(prefixed(""), pickle_protocol=4), "a protocol other than torch's"),
    "code of the system": (
        saved({"state_dict": prefixed(""), "x": Trap(os.mkdir)}), "a pickle that would run code"),
    "text": (lambda p: p.write_text("weights"), "can't read weights"),
    "lines of text": (
        lambda p: p.write_text("hello\n" * 20), "it is damaged, or no file of weights;"),
    "nothing": (lambda p: p.write_bytes(b""), "it is empty"),
    "a pointer of Git LFS": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a pointer of Git LFS, not the file; run git lfs pull"),
    "a web page": (
        lambda p: p.write_text("<!DOCTYPE html><title>Sign in</title>"), "it is a web page"),
    "Keras": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 99), "an HDF5 file of Keras"),
    "a cut archive": (
        lambda p: (torch.save(prefixed(""), p), p.write_bytes(p.read_bytes()[:500])),
        "can't read weights"),
    "no file": (lambda p: None, "no file of weights"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_line(case, tmp_path, monkeypatch):
    write, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(tmp_path / "file.pt")
    said = str(caught.value)
    assert "\n" not in said and "\x1b" not in said and "weights_only" not in said
    assert "file.pt" in said
    assert not pathlib.Path(MARKER).exists()


@pytest.mark.parametrize("function", [exec, eval, getattr, os.path.join, Kind])
def test_nothing_in_a_file_is_executed_while_its_weights_are_read(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": prefixed(""), "x": Trap(function)}, "file.pt")
    assert read_weights("file.pt").state.keys() == network().state_dict().keys()
    assert not pathlib.Path(MARKER).exists()


# case: the weights that are given, and what is said
MISFITS = {
    "another number of classes": (weights(1, classes=7), "the file has 7 classes, the network 2"),
    "another number of channels": (
        weights(1, channels=1), "the file has 1 input channels, the network 3"),
    "another width": (
        weights(1, width=6), r"7 of 9 weights have another shape, such as 'conv1.weight': the file "
        r"has \(6, 3, 3, 3\), the network \(4, 3, 3, 3\)"),
    "another size of images": (
        {"pos_embed": torch.ones(1, 5, 2)} | prefixed(""),
        r"it was trained on images of another size: 'pos_embed' has the shape \(1, 5, 2\), in the "
        r"network \(1, 9, 2\)"),
    "no head": (
        {k: v for k, v in prefixed("").items() if "fc" not in k},
        "2 of its 9 weights are missing, 0 are unexpected; it wants 'fc.weight'; the file has no "
        "fc"),
    "another head": (
        {k.replace("fc", "head"): v for k, v in prefixed("").items()},
        "it wants 'fc.weight', the file has 'head.bias'"),
    "a layer too many": (
        prefixed("") | {"conv2.weight": torch.ones(1)}, "1 are unexpected; it has all it wants, "
        "the file has 'conv2.weight'"),
    "another package": (
        {f"_blocks.{k}._bn1.weight": torch.ones(1) for k in range(9)},
        "it wants 'conv1.weight', the file has '_blocks.0._bn1.weight'; its names look like "
        "efficientnet_pytorch"),
    "adapters": (
        {f"base_model.model.q.lora_{k}.weight": torch.ones(1) for k in "AB"},
        "look like peft; merge the adapters"),
    "transformers": (
        {f"vit.encoder.layer.{k}.output.dense.weight": torch.ones(1) for k in range(9)},
        "its names look like transformers"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_explained(case, tmp_path):
    state, message = MISFITS[case]
    save_file(state, tmp_path / "file.safetensors")
    before = weights(0.5)
    model = network()
    if "pos_embed" in state:
        model.register_parameter("pos_embed", nn.Parameter(torch.full((1, 9, 2), 0.5)))
        before = {"pos_embed": torch.full((1, 9, 2), 0.5)} | before
    model.load_state_dict(before)
    with pytest.raises(ValueError, match=message) as caught:
        fill(model, read_weights(tmp_path / "file.safetensors"), "net")
    assert "file.safetensors don't fit net" in str(caught.value)
    torch.testing.assert_close(model.state_dict(), before)


def test_wrappers_are_removed_from_names():
    state = {"module._orig_mod.fc.weight": torch.ones(1)}
    assert list(unwrapped_names(state)) == ["fc.weight"]
    both = {"module.fc": torch.ones(1), "fc": torch.ones(1)}
    assert unwrapped_names(both) == both, "names would collide"


@needs_models
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "torchvision:squeezenet1_1"])
def test_files_tell_the_numbers_of_classes_and_channels(name, channels, tmp_path):
    import_torchvision()
    import timm
    import torchvision

    if name.startswith("timm"):
        theirs = timm.create_model("mobilenetv3_small_050", num_classes=4, in_chans=channels)
    else:
        theirs = torchvision.models.squeezenet1_1(num_classes=4)
        theirs.features[0] = nn.Conv2d(channels, 64, 3, stride=2)
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "last.ckpt")  # fmt: skip
    network = find_network(name, tmp_path / "last.ckpt")
    x = torch.rand(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.model(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)
    assert network.transform is not None
    if channels == 6:
        with pytest.raises(ValueError, match="takes 6 channels, which image files don't have"):
            network.transform(Image.new("RGB", (300, 300)))
    else:
        assert len(network.transform(Image.new("RGB", (300, 300)))) == channels
    assert bool(network.notes) == (channels != 3)


@needs_models
def test_a_network_whose_head_is_a_convolution_has_an_encoder(tmp_path):
    import_torchvision()
    import torchvision

    theirs = torchvision.models.squeezenet1_1(num_classes=4).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    source = load("torchvision:squeezenet1_1", weights=tmp_path / "w.safetensors")
    assert source.head is None and source.network is not None
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert source.encoder(x).shape == (2, source.width) == (2, 512)


@needs_models
def test_a_network_with_two_heads_gets_the_classes_of_its_file(tmp_path):
    import_torchvision()
    import timm

    theirs = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    network = find_network("timm:deit_tiny_distilled_patch16_224", tmp_path / "w.safetensors")
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.model(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_a_network_with_an_extra_state_takes_its_weights():
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: object) -> None:
            raise AssertionError("extra states are not loaded")

    model = Extra(2, 2)
    fill(model, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "net")
    assert all(value.eq(1).all() for value in model.parameters())
