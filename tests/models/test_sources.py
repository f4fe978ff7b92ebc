"""Encoders by name: widths, weights from files, evaluation transforms, and what is refused."""

import contextlib
import importlib.util
import os
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.command_line import run_python
from torch import nn

from contam.models import sources
from contam.models.preparation import Preparation
from contam.models.small import small_cnn
from contam.models.sources import Source, load, transform_of, with_blocks
from contam.models.torchvision_import import import_torchvision

needs_models = pytest.mark.skipif(
    not all(importlib.util.find_spec(n) for n in ("torchvision", "timm", "open_clip")),
    reason="needs contam[models]",
)


@pytest.fixture
def image():
    """Noise with odd sides, on which every shifted pixel shows."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (301, 417, 3), dtype=np.uint8))


def toy() -> Source:
    """An encoder of one's own, as a user would write it."""
    return Source("toy", small_cnn(3, width=4).encoder, 16, Preparation(16, 16))


@pytest.mark.slow
@needs_models
def test_the_workaround_imports_torchvision_timm_and_open_clip():
    said = run_python(
        "from contam.models.torchvision_import import import_torchvision as patch\n"
        "patch(); patch()\n"
        "import torchvision, timm, open_clip\n"
        "print(torchvision.transforms.CenterCrop(2), torchvision.models.resnet18().fc)\n"
    )
    assert "CenterCrop" in said
    assert "out_features=1000" in said


@pytest.mark.slow
@needs_models
def test_the_workaround_removes_the_failed_import_and_is_needed_here():
    said = run_python(
        "import sys\n"
        "try:\n    import torchvision\nexcept RuntimeError as e:\n    print('broken', e)\n"
        "from contam.models.torchvision_import import _declared, import_torchvision\n"
        "import_torchvision()\n"
        "print(len(_declared), sys.modules['torchvision'].__version__)\n"
    )
    # Where the wheel fits torch, nothing is patched.
    assert said.startswith("broken operator torchvision::nms") == (said.splitlines()[-1][0] == "1")


def test_other_errors_of_torchvision_are_raised(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('another fault')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="another fault"):
        import_torchvision()


@needs_models
@pytest.mark.parametrize(
    ("name", "side", "width"),
    [
        ("RN50", 224, 1024),
        ("RN101", 224, 512),
        ("RN50x4", 288, 640),
        ("RN50x16", 384, 768),
        ("ViT-B-16", 224, 512),
        ("ViT-B-32", 224, 512),
    ],
)
def test_widths_of_clips_towers(name, side, width):
    with torch.device("meta"):
        source = load(f"open_clip:{name}/openai", seed=0)
        features = source.encoder(torch.zeros(2, 3, side, side))
    assert features.shape == (2, source.width) == (2, width)
    transform = source.transform
    assert isinstance(transform, Preparation)
    assert (transform.resize, transform.crop) == (side, side)
    assert source.head is None


@needs_models
@pytest.mark.parametrize(
    ("name", "width"),
    [("timm:resnet50", 2048), ("torchvision:resnet50", 2048), ("torchvision:vit_b_16", 768)],
)
def test_widths_of_other_networks(name, width):
    with torch.device("meta"):
        source = load(name, seed=0)
        assert source.encoder(torch.zeros(2, 3, 224, 224)).shape == (2, source.width) == (2, width)
    assert source.head is None, "a head that has learned nothing is none"


@needs_models
def test_weights_depend_on_the_seed_and_equal_the_open_clip_initialization():
    import_torchvision()
    import open_clip

    before = torch.get_rng_state()
    first, again, other = (load("open_clip:RN50", seed=s).encoder for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    key = "layer4.2.conv3.weight"
    assert torch.equal(first.get_parameter(key), again.get_parameter(key))
    assert not torch.equal(first.get_parameter(key), other.get_parameter(key))
    with sources.seeded(0, "load/open_clip"):
        whole = open_clip.create_model("RN50", load_weights=False).visual  # pyright: ignore
    for name, tensor in whole.state_dict().items():  # pyright: ignore
        assert torch.equal(tensor, first.state_dict()[name]), name


@needs_models
def test_openai_towers_have_their_own_activation():
    with torch.device("meta"):
        kinds = [
            {type(m).__name__ for m in load(name, seed=0).encoder.modules()}
            for name in ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32")
        ]
    assert "QuickGELU" in kinds[0]
    assert "QuickGELU" not in kinds[1]


@needs_models
@pytest.mark.parametrize("kind", ["whole", "tower"])
def test_clip_weights_from_a_file(tmp_path, kind):
    tower = load("open_clip:RN50", seed=3).encoder
    state = {k: v.contiguous() for k, v in tower.state_dict().items()}
    if kind == "whole":
        state = {f"visual.{k}": v for k, v in state.items()} | {"logit_scale": torch.ones(())}
    save_file(state, tmp_path / "clip.safetensors")
    encoder = load("open_clip:RN50/openai", weights=tmp_path / "clip.safetensors").encoder
    for name, tensor in tower.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor)


@needs_models
@pytest.mark.parametrize(
    ("name", "head"), [("timm:resnet18", "fc"), ("torchvision:resnet18", "fc")]
)
def test_a_classifier_is_split_into_encoder_and_head(tmp_path, name, head):
    import_torchvision()
    from torchvision.models import resnet18

    torch_model = resnet18(num_classes=7).eval()
    torch.save({"state_dict": torch_model.state_dict()}, tmp_path / "weights.pt")
    source = load(name, weights=tmp_path / "weights.pt")
    assert source.classes == 7
    assert source.head is not None
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(source.head(source.encoder(x)), torch_model(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(source.head.weight, torch_model.get_parameter(f"{head}.weight"))


@needs_models
def test_transforms_agree_with_the_libraries(image):
    import_torchvision()
    import open_clip
    import timm
    from torchvision.models import ResNet50_Weights

    with torch.device("meta"):
        ours = {
            name: load(name, seed=0)
            for name in ("open_clip:RN50/openai", "timm:resnet50", "torchvision:resnet50")
        }
    config = timm.data.resolve_model_data_config(ours["timm:resnet50"].encoder)  # pyright: ignore
    theirs = {
        "open_clip:RN50/openai": open_clip.image_transform(  # pyright: ignore
            224, is_train=False, resize_mode="shortest", interpolation="bicubic"
        ),
        "timm:resnet50": timm.data.create_transform(**config),  # pyright: ignore
        "torchvision:resnet50": ResNet50_Weights.DEFAULT.transforms(),
    }
    for name, source in ours.items():
        expected = theirs[name](image)
        prepared = source.transform(image)
        assert prepared.shape == expected.shape
        # torchvision's preset resizes Pillow images alike; the rest is the same arithmetic.
        torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-5, msg=name)


def test_preparation_by_hand():
    row = np.arange(6, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    prepared = Preparation(4, 2, mean=(0.0,) * 3, std=(1 / 255,) * 3)(Image.fromarray(row))
    assert prepared[0].tolist() == pytest.approx(np.array([[2, 3], [2, 3]]), abs=1e-4)
    squashed = Preparation(4, 4, squash=True)(Image.fromarray(row))
    assert squashed.shape == (3, 4, 4)
    with pytest.raises(ValueError, match="can't crop 5 pixels from 4"):
        Preparation(4, 5)
    with pytest.raises(ValueError, match="no interpolation 'cubic'"):
        Preparation(4, 4, interpolation="cubic")


@needs_models
@pytest.mark.parametrize("kind", ["open_clip", "timm"])
def test_blocks_of_vision_transformers(kind):
    name = "open_clip:ViT-B-32" if kind == "open_clip" else "timm:vit_tiny_patch16_224"
    source = load(name, seed=0)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, blocks = with_blocks(source.encoder, x)
        torch.testing.assert_close(features, source.encoder(x))
    assert len(blocks) == 12
    tokens, width = {"open_clip": (50, 768), "timm": (197, 192)}[kind]
    assert {tuple(block.shape) for block in blocks} == {(1, tokens, width)}
    with pytest.raises(ValueError, match="can't read the blocks of a Sequential"):
        with_blocks(toy().encoder, x)


def test_a_user_function_is_imported_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "mynetworks.py").write_text(
        "from torch import nn\n"
        "from contam.models.sources import Source\n"
        "def flat():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))\n"
        "    return Source('flat', net, 5, lambda image: None)\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    places = list(sys.path)
    first, again = load("mynetworks:flat", seed=1), load("mynetworks:flat", seed=1)
    assert sys.path == places
    assert first.width == 5
    weight = first.encoder.get_parameter("1.weight")
    assert torch.equal(weight, again.encoder.get_parameter("1.weight"))
    save_file({"1.weight": torch.ones(5, 12), "1.bias": torch.zeros(5)}, "w.safetensors")
    filled = load("mynetworks:flat", weights="w.safetensors").encoder
    assert filled.get_parameter("1.weight").eq(1).all()
    with pytest.raises(ValueError, match="returned a int; expected a contam Source"):
        load("mynetworks:wrong")
    with pytest.raises(ValueError, match="can't find mynetworks:none"):
        load("mynetworks:none")
    sys.modules.pop("mynetworks")


def plain() -> nn.Module:
    """Like the toy, without the channels-last layout, of which `torch.export.save` warns."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(generator=torch.Generator().manual_seed(0))
    return network.eval()


def test_an_exported_program_is_an_encoder(tmp_path):
    network = plain()
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (x,), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "net.pt2")
    source = load(str(tmp_path / "net.pt2"))
    assert source.width == 16
    torch.testing.assert_close(source.encoder.eval()(x[:2]), network(x[:2]))
    shown = source.transform(Image.new("RGB", (40, 20), (255, 0, 0)))
    assert shown.shape == (3, 16, 16)
    assert shown[0].eq(1).all()
    torch.export.save(torch.export.export(network, (x,)), tmp_path / "fixed.pt2")
    with pytest.raises(ValueError, match="only batches of 3; export a dynamic batch"):
        load(str(tmp_path / "fixed.pt2"))


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def test_an_exported_program_runs_no_code_when_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = torch.export.export(plain(), (torch.rand(3, 3, 16, 16),))
    torch.export.save(program, "good.pt2")
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("bad.pt2", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if "sample_inputs" in name:
                torch.save(Trap(), "trap")
                data = Path("trap").read_bytes()
            bad.writestr(name, data)
    before = dict(os.environ)
    with pytest.raises(ValueError, match=r"can't read bad\.pt2"):
        load("bad.pt2")
    assert not Path("sprung").exists()
    assert os.environ == before
    with contextlib.suppress(Exception):
        torch.export.load("bad.pt2")
    assert Path("sprung").exists(), "the trap works where nothing guards"


@needs_models
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("RN50", {}, "no encoder 'RN50'; expected open_clip:NAME"),
        ("none.pt2", {}, "no exported program"),
        ("open_clip:RN50/openai", {}, "safetensors of 'timm/resnet50_clip.openai'"),
        ("timm:resnet50", {}, r"no weights for timm:resnet50: fetch its state dict"),
        ("open_clip:RN51", {"seed": 0}, "open_clip knows no 'RN51'"),
        ("open_clip:RN50/nobody", {"seed": 0}, "knows no RN50/nobody; choose from .*openai"),
        ("open_clip:RN50", {"download": True}, "which weights of open_clip:RN50"),
        ("timm:resnet51", {"seed": 0}, "timm knows no 'resnet51'"),
        ("torchvision:resnet51", {"seed": 0}, "torchvision knows no 'resnet51'"),
        ("timm:resnet18", {"weights": "w", "download": True}, "leave out download"),
        ("nowhere_at_all:net", {}, "can't find nowhere_at_all:net"),
    ],
)
def test_bad_names_and_weights_are_rejected(name, given, message):
    with pytest.raises(ValueError, match=message):
        load(name, **given)


@needs_models
def test_mismatched_weights_are_rejected(tmp_path):
    save_file({"fc.weight": torch.ones(3, 512), "odd": torch.ones(1)}, tmp_path / "w.safetensors")
    for name in ("timm:resnet18", "torchvision:resnet18"):
        with pytest.raises(
            ValueError,
            match=r"don't fit .*resnet18: 101 of its 122 weights are missing, 1 are unexpected; "
            r"it wants 'conv1.weight', the file has 'odd'",
        ):
            load(name, weights=tmp_path / "w.safetensors")


def test_a_missing_library_is_reported_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm .*pip install -e '\.\[models\]'"):
        load("timm:resnet50", seed=0)


@needs_models
@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "torchvision:regnet_y_400mf", "open_clip:RN50/openai"]
)
def test_the_preprocessing_is_that_of_the_whole_source(name):
    assert transform_of(name) == load(name, seed=0).transform
