"""One form of inputs and outputs for any network, and the controls that are made of it."""

import dataclasses
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from support.noise import noise
from torch import Tensor, nn

import contam
from contam.inputs.pixel_range import PixelRange
from contam.models.find_network import find_network
from contam.models.logits_adapter import LogitsAdapter, PixelEncoder, unwrapped
from contam.models.observe import find_layers, layers_of, observe
from contam.models.preparation import Preparation
from contam.models.small import small_cnn
from contam.models.sources import Source
from contam.models.untrained import untrained

X = noise(12, 3, 8, 8)
Y = torch.arange(12) % 3


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("conv", nn.Conv2d(3, 4, 3))
        model.add_module("relu", nn.ReLU())
        model.add_module("pool", nn.AdaptiveAvgPool2d(1))
        model.add_module("flat", nn.Flatten())
        model.add_module("head", nn.Linear(4, 3))
        return model.eval()


LOGITS = network()(X).detach()


@dataclasses.dataclass
class Output:
    logits: Tensor


class Wrapped(nn.Module):
    """The same network with another form of output."""

    def __init__(self, form) -> None:
        super().__init__()
        self.inner, self.form = network(), form

    def forward(self, x):
        return self.form(self.inner(x))


FORMS = {
    "a record": Output,
    "a tuple": lambda z: (z, "more"),
    "a dict": lambda z: {"loss": 0, "logits": z},
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_every_form_of_output(form):
    model = Wrapped(FORMS[form])
    torch.testing.assert_close(LogitsAdapter(model)(X), LOGITS)
    assert layers_of(LogitsAdapter(model), X) == ["inner.relu"]
    # Functions that take any network read outputs alike.
    (observation,) = observe(model, (X, Y), "auto")
    torch.testing.assert_close(observation.logits, LOGITS)
    assert contam.accuracy(model, (X, Y)) == contam.accuracy(network(), (X, Y))
    assert contam.class_profiles(model, (X, Y), classes=3).accuracy is not None


def test_maps_of_one_pixel_are_logits():
    torch.testing.assert_close(LogitsAdapter(Wrapped(lambda z: z[:, :, None, None]))(X), LOGITS)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_output_is_the_logit_of_the_second_class(shape):
    logits = LogitsAdapter(Wrapped(lambda z: z[:, 0].reshape(shape)))(X)
    assert logits.shape == (12, 2) and not logits[:, 0].any()
    torch.testing.assert_close(logits[:, 1], LOGITS[:, 0])


def test_columns_of_the_chosen_classes_are_returned_in_their_order():
    assert torch.equal(LogitsAdapter(network(), classes=[2, 0])(X), LOGITS[:, [2, 0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_are_single_precision_and_weights_keep_theirs(dtype):
    model = network().to(dtype)
    assert LogitsAdapter(model)(X).dtype == torch.float32
    assert {value.dtype for value in model.parameters()} == {dtype}


def test_pictures_are_converted_to_the_network_s_range():
    low, high = torch.tensor([-2.0, -1.0, 0.0]), torch.tensor([2.0, 3.0, 4.0])
    pixel_range = PixelRange(low, high)
    pictures = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = LogitsAdapter(network(), pixel_range)(pictures)
    torch.testing.assert_close(logits, network()(pixel_range.inputs(pictures)).detach())
    features = PixelEncoder(network(), pixel_range, side=None)(pictures)
    torch.testing.assert_close(features, logits)
    in_parts = PixelEncoder(network(), pixel_range, side=None, at_once=3)
    torch.testing.assert_close(in_parts(pictures), logits)
    assert in_parts(pictures[:0]).shape == (0, *logits.shape[1:])
    gray = PixelEncoder(nn.Flatten(), None, side=4)(pictures[:, :1])
    assert gray.shape == (4, 48)


class Changing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.zeros(len(x), 2 + self.calls)


BAD = {
    "words": (Wrapped(lambda z: "cat"), "returned a str"),
    "whole numbers": (Wrapped(lambda z: z.argmax(1)), "returned one class for each example"),
    "maps": (nn.Conv2d(3, 3, 1), r"expected logits \(batch, classes\)"),
    "NaN": (Wrapped(lambda z: z * torch.nan), "holds NaN"),
    "an exception": (nn.Linear(5, 3), "can't be run on inputs of shape"),
    "another width": (Changing(), "3 logits .* and then 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_outputs_are_rejected_in_one_line(case):
    model, message = BAD[case]
    adapter = LogitsAdapter(model)
    with pytest.raises(ValueError, match=message) as error:
        for _ in range(2):
            adapter(X)
    assert "\n" not in str(error.value)


def test_nan_can_be_allowed():
    assert LogitsAdapter(Wrapped(lambda z: z * torch.nan), allow_nan=True)(X).isnan().all()


# Finding the network


@pytest.mark.parametrize("kind", ["compiled", "parallel"])
def test_wrappers_are_removed(kind):
    model = network()
    wrapped = (
        torch.compile(model, backend="eager") if kind == "compiled" else nn.DataParallel(model)
    )
    assert isinstance(wrapped, nn.Module) and unwrapped(wrapped) is model
    result = find_network(wrapped)
    assert result.model is model and result.name == "Sequential"


def test_an_exported_program_can_be_observed():
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(network(), (X,), dynamic_shapes=({0: batch},)).module()
    adapter = LogitsAdapter(find_network(program).model)
    (observation,) = observe(adapter, (X, Y))
    assert list(observation.layers) == ["relu()"]
    torch.testing.assert_close(observation.logits, LOGITS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_rejected_in_one_line():
    with pytest.raises(ValueError, match="TorchScript network can't be looked into"):
        find_network(torch.jit.script(network()))


def test_a_function_may_return_the_whole_classifier(tmp_path, monkeypatch):
    """Its weights then have the names that the classifier has, `encoder.*` and `head.*`."""
    whole = small_cnn(10, width=4, seed=1)
    state = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    preparation = Preparation(resize=16, crop=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    module = types.ModuleType("own_network")
    module.made = lambda: Source("own", small_cnn(10, width=4), 10, preparation)  # pyright: ignore
    monkeypatch.setitem(sys.modules, "own_network", module)
    network = find_network("own_network:made", tmp_path / "w.safetensors")
    x = noise(3, 3, 16, 16)
    assert torch.equal(network.model(x), whole.eval()(x))


def test_a_name_without_weights_says_how_to_give_them():
    with pytest.raises(ValueError, match=r"fetch its state dict .* after --weights"):
        find_network("timm:resnet18")


def test_layers_are_sorted_by_when_they_run():
    model = small_cnn(width=4)
    x = noise(2, 3, 16, 16)
    names = ("encoder.relu3", "encoder.relu1")
    assert find_layers(model, x, names).names == ("encoder.relu1", "encoder.relu3")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Linear(5, 3))
    assert find_layers(linear, x).names == ("1", "2")


# The untrained control


def test_the_untrained_control_is_another_network_of_the_same_class():
    model = LogitsAdapter(network())
    control, note = untrained(model, 0)
    assert control is not None and not note
    before, after = model.state_dict(), control.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv.weight"], after["conv.weight"])
    again, _ = untrained(model, 0)
    assert again is not None
    assert torch.equal(again.state_dict()["head.weight"], after["head.weight"])
    torch.testing.assert_close(model(X), LOGITS)


def test_weights_that_can_t_be_drawn_are_noted():
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.head = nn.Parameter(torch.ones(192)), nn.Linear(192, 3)

        def forward(self, x):
            return self.head(x.flatten(1) + self.token)

    control, note = untrained(LogitsAdapter(Token()), 0)
    assert control is not None
    assert "keeps token" in note
    assert untrained(LogitsAdapter(nn.ReLU()), 0)[0] is None

    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    assert "no copies" in untrained(LogitsAdapter(Stubborn(3, 3)), 0)[1]
