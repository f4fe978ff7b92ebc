"""Calls of functions are recorded only where that is needed, and both ways record the same."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.noise import noise
from torch import Tensor, nn

from contam.batch import Batch
from contam.models.hooks import LayerRecorder, forward_once
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import Observer, observe
from contam.models.small import resnet8, small_cnn


def batch_of(x: Tensor) -> Batch:
    y = torch.zeros(len(x), dtype=torch.int64)
    return Batch(x, y, y)


class Functional(nn.Module):
    """Calls its activation and its head as functions."""

    def __init__(self, *, head: bool, activation: bool) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)
        self.functional_head, self.functional_activation = head, activation

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        maps = F.relu(maps) if self.functional_activation else self.relu(maps)
        pooled = maps.mean((2, 3))
        if self.functional_head:
            return F.linear(pooled, self.head.weight, self.head.bias)
        return self.head(pooled)


class Tokens(nn.Module):
    """Convolution, then tokens with neurons last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(3, 5, 2, stride=2), nn.ReLU()
        self.linear, self.act, self.head = nn.Linear(5, 5), nn.GELU(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(self.conv(x)).flatten(2).transpose(1, 2)
        return self.head(self.act(self.linear(tokens)).mean(dim=1))


@pytest.fixture
def functions(monkeypatch) -> list[str]:
    """The names of functions that a recorder got to see."""
    names: list[str] = []
    plain = LayerRecorder.__torch_function__

    def counted(self, func, types, args=(), kwargs=None):
        names.append(getattr(func, "__name__", ""))
        return plain(self, func, types, args, kwargs)

    monkeypatch.setattr(LayerRecorder, "__torch_function__", counted)
    return names


NETWORKS = {
    "small_cnn": (lambda: small_cnn(width=4), 3),
    "resnet8": (lambda: resnet8(width=4), 7),
    "tokens": (Tokens, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_are_recorded_the_same_with_and_without_functions(name):
    make, count = NETWORKS[name]
    model, x = make(), noise(4, 3, 16, 16)
    both = [
        forward_once(model, x, "auto", "moments", head=True, functions=functions)
        for functions in (True, False)
    ]
    (logits, recorder), (plain, lean) = both
    assert torch.equal(logits, plain)
    assert list(recorder.outputs) == list(lean.outputs) and len(lean.outputs) == count
    assert all(torch.equal(value, lean.outputs[layer]) for layer, value in recorder.outputs.items())
    assert recorder.head is not None and lean.head is not None
    assert torch.equal(recorder.head, lean.head)
    assert not recorder.needs_functions


@pytest.mark.parametrize("name", NETWORKS)
def test_functions_are_recorded_on_the_first_batch_only(name, functions):
    observer = Observer(NETWORKS[name][0](), "auto", "moments", head=True)
    first = observer(batch_of(noise(4, 3, 16, 16)))
    assert functions
    functions.clear()
    second = observer(batch_of(noise(4, 3, 16, 16)))
    assert not functions
    assert list(first.layers) == list(second.layers)
    assert all(torch.equal(value, second.layers[layer]) for layer, value in first.layers.items())


def test_functions_are_not_recorded_when_modules_are_named(functions):
    observe_all = observe(small_cnn(width=4), [batch_of(noise(2, 3, 16, 16))], ["encoder.relu1"])
    assert list(next(observe_all).layers) == ["encoder.relu1"]
    list(observe(small_cnn(width=4), [batch_of(noise(2, 3, 16, 16))], ()))
    assert not functions


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("activation", [False, True])
def test_functions_are_recorded_on_every_batch_of_a_network_that_calls_them(head, activation):
    model = Functional(head=head, activation=activation)
    layer = "relu()" if activation else "relu"
    observer = Observer(model, "auto", head=True)
    for _ in range(2):
        observation = observer(batch_of(noise(4, 3, 8, 8)))
        assert list(observation.layers) == [layer]
        assert observation.head is not None
        torch.testing.assert_close(observation.head, observation.layers[layer])


def test_the_head_output_is_none_unless_requested():
    assert next(observe(small_cnn(width=4), [batch_of(noise(2, 3, 16, 16))])).head is None


class Closed(nn.Module):
    """A linear head, and a function of its output."""

    def __init__(self, classes: int, closing, form: type[nn.Module] = nn.Linear) -> None:
        super().__init__()
        first = nn.Conv2d(3, 4, 3) if form is nn.Conv2d else nn.Linear(5, 4)
        last = nn.Conv2d(4, classes, 1) if form is nn.Conv2d else nn.Linear(4, classes)
        self.encoder, self.last, self.closing = nn.Sequential(first, nn.ReLU()), last, closing

    def forward(self, x: Tensor) -> Tensor:
        z = self.last(self.encoder(x))
        return self.closing(z.mean((2, 3)) if z.ndim == 4 else z)


# case: number of neurons of the head, and what follows it
CLOSINGS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "sigmoid, one output": (1, nn.Sigmoid()),
    "sigmoid, one output without its axis": (1, lambda z: z.sigmoid()[:, 0]),
    "sigmoid of each class": (3, nn.Sigmoid()),
    "softmax": (3, nn.Softmax(dim=1)),
    "softmax of two classes": (2, nn.Softmax(dim=1)),
    "log-softmax": (3, nn.LogSoftmax(dim=1)),
    "softmax as a function": (3, lambda z: z.softmax(1)),
    "both probabilities of a sigmoid": (
        1, lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], dim=1)),
    "a clamped sigmoid": (1, lambda z: z.sigmoid().clamp(1e-5, 1 - 1e-5)),
}  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("form", [nn.Linear, nn.Conv2d])
@pytest.mark.parametrize("case", CLOSINGS)
def test_the_head_is_found_before_a_closing_sigmoid_or_softmax(case, form, scale):
    classes, closing = CLOSINGS[case]
    model = Closed(classes, closing, form).eval()
    x = scale * (noise(6, 3, 5, 5) if form is nn.Conv2d else noise(6, 5))
    features = model.encoder(x)
    wanted = features.mean((2, 3)) if form is nn.Conv2d else features
    observer = Observer(LogitsAdapter(model), (), head=True)
    for _ in range(2):
        head = observer(batch_of(x)).head
        assert head is not None
        torch.testing.assert_close(head, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_head_before_a_sigmoid_is_found_in_half_precision(dtype):
    model = Closed(3, nn.Sigmoid()).to(dtype)
    assert Observer(LogitsAdapter(model), (), head=True)(batch_of(noise(6, 5))).head is not None


@pytest.mark.parametrize("case", ["softmax", "log-softmax", "sigmoid of each class"])
def test_the_head_of_chosen_classes_is_found_before_the_closing(case):
    adapter = LogitsAdapter(Closed(*CLOSINGS[case]), classes=[2, 0])
    assert Observer(adapter, (), head=True)(batch_of(noise(6, 5))).head is not None


@pytest.mark.parametrize("case", ["sigmoid of each class", "softmax", "log-softmax"])
def test_the_head_of_a_bare_network_is_found_before_the_closing(case):
    [observation] = observe(Closed(*CLOSINGS[case]), [batch_of(noise(6, 5))], (), head=True)
    assert observation.head is not None


OTHERS = {
    "another scale": lambda z: (2 * z).softmax(1),
    "classes in another order": lambda z: z.flip(1).softmax(1),
    "a sum with the input": lambda z: (z + torch.arange(3.0)).sigmoid(),
    "a bounded output": nn.Tanh(),
    "a square": lambda z: z**2,
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_functions_of_the_last_linear_layer_have_no_head(case):
    adapter = LogitsAdapter(Closed(3, OTHERS[case]))
    assert Observer(adapter, (), head=True)(batch_of(noise(6, 5))).head is None
