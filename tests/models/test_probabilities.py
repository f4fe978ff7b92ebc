"""Networks that return probabilities are read like the networks with their logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.noise import noise
from torch import nn

import contam
from contam.auditing.prepare import prepare
from contam.models.logits_adapter import LogitsAdapter
from contam.models.probabilities import logits_of_probabilities, output_kind

X = noise(30, 6)


class Head(nn.Module):
    """A linear layer, and a function of its outputs."""

    def __init__(self, width: int, form) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear = nn.Linear(6, width)
        self.form = form

    def forward(self, x):
        return self.form(self.linear(x))


def shifted(logits: torch.Tensor) -> torch.Tensor:
    """Logits with a mean of 0, which all softmaxes of the same probabilities share."""
    return logits - logits.mean(1, keepdim=True)


SINGLE = {
    "sigmoid": torch.sigmoid,
    "sigmoid without its axis": lambda z: torch.sigmoid(z)[:, 0],
    "squeezed": lambda z: torch.sigmoid(z).squeeze(),
    "a module": nn.Sigmoid(),
    "in place": lambda z: (z * 1).sigmoid_(),
    "clamped": lambda z: torch.sigmoid(z).clamp(1e-5, 1 - 1e-5),
    "as a map of one pixel": lambda z: torch.sigmoid(z)[:, :, None, None],
    "in a dict": lambda z: {"logits": torch.sigmoid(z)},
    "stacked with its complement": lambda z: torch.cat(
        [1 - torch.sigmoid(z), torch.sigmoid(z)], dim=1
    ),
}


@pytest.mark.parametrize("case", SINGLE)
def test_a_probability_of_the_second_class(case):
    adapter = LogitsAdapter(Head(1, SINGLE[case]))
    logits, plain = adapter(X), LogitsAdapter(Head(1, nn.Identity()))(X)
    torch.testing.assert_close(shifted(logits), shifted(plain), rtol=1e-3, atol=1e-4)
    assert adapter.output in ("sigmoid", "softmax")


SEVERAL = {
    "softmax": lambda z: z.softmax(1),
    "a module": nn.Softmax(dim=1),
    "normalized by hand": lambda z: z.exp() / z.exp().sum(1, keepdim=True),
    "the mean of two": lambda z: torch.stack([z.softmax(1), z.softmax(1)]).mean(0),
    "log-softmax": lambda z: z.log_softmax(1),
    "logits": lambda z: z,
}


@pytest.mark.parametrize("case", SEVERAL)
def test_probabilities_of_all_classes(case):
    adapter, plain = LogitsAdapter(Head(4, SEVERAL[case])), LogitsAdapter(Head(4, nn.Identity()))
    torch.testing.assert_close(shifted(adapter(X)), shifted(plain(X)), rtol=1e-3, atol=1e-4)
    assert adapter.output == ("logits" if case.startswith("log") else "softmax")


def test_a_probability_of_each_class():
    adapter = LogitsAdapter(Head(4, torch.sigmoid))
    torch.testing.assert_close(adapter(X), LogitsAdapter(Head(4, nn.Identity()))(X))
    assert adapter.output == "sigmoid"


# Outputs in [0, 1] that are no probabilities
LOGITS = {
    "small logits": lambda z: z * 0.01 + 0.5,
    "clamped logits": lambda z: z.clamp(0, 1),
    "a gate": lambda z: z.abs().clamp(max=1) * torch.sigmoid(z),
    "one-hot": lambda z: nn.functional.one_hot(z.argmax(1), 3).float(),
    "a softmax of attention inside": lambda z: z.abs() * 0 + z.softmax(1).amax(1, keepdim=True) * z,
}


@pytest.mark.parametrize("case", LOGITS)
def test_logits_in_the_unit_interval_stay_logits(case):
    head = Head(3, LOGITS[case])
    adapter = LogitsAdapter(head)
    torch.testing.assert_close(adapter(X), head(X))
    assert adapter.output == "logits"


def test_the_first_batch_decides_for_all():
    adapter = LogitsAdapter(Head(1, torch.sigmoid))
    whole = LogitsAdapter(Head(1, torch.sigmoid))(X)
    parts = torch.cat([adapter(X[:1]), adapter(X[1:2]), adapter(X[2:])])
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("kind", ["exported", "scripted", "compiled inside", "bfloat16"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sigmoids_are_found_in_networks_of_every_kind(kind):
    model: nn.Module = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
    if kind == "exported":
        batch = torch.export.Dim("batch", min=1, max=4096)
        model = torch.export.export(model, (X,), dynamic_shapes=({0: batch},)).module()
    elif kind == "scripted":
        model = torch.jit.script(model)
    elif kind == "compiled inside":
        model[0] = torch.compile(model[0], backend="eager")  # pyright: ignore
    else:
        model = model.to(torch.bfloat16)
    adapter = LogitsAdapter(model)
    with torch.no_grad():
        assert adapter(X).shape == (30, 2)
    assert adapter.output == "sigmoid"


def test_gradients_pass_through():
    x = X.clone().requires_grad_()
    LogitsAdapter(Head(1, torch.sigmoid))(x)[:, 1].sum().backward()
    plain = X.clone().requires_grad_()
    LogitsAdapter(Head(1, nn.Identity()))(plain)[:, 1].sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)


def test_functions_that_take_a_network_agree_and_an_audit_says_so():
    y = (LogitsAdapter(Head(1, nn.Identity()))(X).argmax(1)).long()
    assert 5 < int(y.sum()) < 25
    model = Head(1, torch.sigmoid)
    assert contam.accuracy(model, (X, y)).share == 1.0
    notes = prepare(model, id=(X, y), reference=None).notes
    assert any("returns probabilities (of a sigmoid)" in note for note in notes)
    plain = prepare(Head(1, nn.Identity()), id=(X, y), reference=None).notes
    assert not any("probabilities" in note for note in plain)


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=1,
                max_size=5))  # fmt: skip
def test_logits_of_probabilities_are_the_logits(rows):
    logits = torch.tensor(rows)
    again = logits_of_probabilities(logits.softmax(1), exclusive=True)
    torch.testing.assert_close(shifted(again), shifted(logits), rtol=1e-3, atol=1e-3)
    again = logits_of_probabilities(logits.double().sigmoid(), exclusive=False)
    torch.testing.assert_close(again, logits, rtol=1e-3, atol=1e-2)
    assert output_kind(logits.softmax(1), True) == "softmax"


def test_extreme_probabilities_have_finite_logits():
    for exclusive in (False, True):
        extreme = torch.tensor([[0.0, 1.0]])
        assert logits_of_probabilities(extreme, exclusive=exclusive).isfinite().all()
