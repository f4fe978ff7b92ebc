"""Networks that can only be observed in part, or in another way than the usual ones."""

import warnings
from typing import cast

import pytest
import torch
from support.noise import noise
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

import contam
from contam.auditing.prepare import prepare
from contam.auditing.result import Audit
from contam.measures.class_profiles import class_profiles
from contam.models.hooks import LayerError
from contam.models.logits_adapter import LogitsAdapter, fitting_output
from contam.models.normalization import without_running_statistics
from contam.models.observe import find_layers, layers_of, observe
from contam.models.preserve import evaluating
from contam.models.untrained import untrained

SIDE = 16
Y = torch.arange(24) % 3


def images(n: int = 24) -> Tensor:
    return noise(n, 3, SIDE, SIDE).abs()


def convolutions(width: int = 6) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )  # fmt: skip


class Tokens(nn.Module):
    """A transformer over patches; the tokens or the examples come first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)
        self.act = nn.GELU()
        self.head = nn.Linear(8, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        return self.head(self.act(self.encoder(tokens).mean(1 if self.batch_first else 0)))


class Flat(nn.Module):
    """Examples and positions on one axis inside, as in MobileViT, TNT and windows of Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.GELU()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        rows = self.act(maps.movedim(1, -1).flatten(0, 2))
        return self.head(self.last(rows.unflatten(0, (len(x), -1)).mean(1)))


class Fixed(nn.Module):
    """An activation that does not depend on the examples, as in the position biases of Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(1, 6))
        self.bias, self.body, self.head = nn.ReLU(), convolutions(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) + self.bias(self.table))


class Scripted(nn.Module):
    """A network with a part that TorchScript runs."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = torch.jit.script(convolutions())
        self.act, self.head = nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.body(x)))


# case: the network, the layers that are observed, and what is said about the others
PARTLY = {
    "tokens first": (
        lambda: Tokens(batch_first=False), ["act"],
        "2 layers are left out, because their outputs do not have one row for each example: "
        "encoder.layers.0.relu(), encoder.layers.1.relu()."),
    "examples and positions on one axis": (
        Flat, ["last"], "1 layer is left out, because its output does not have one row for each "
        "example: act."),
    "an activation without examples": (
        Fixed, ["body.1"], "1 layer is left out, because its output does not have one row for each "
        "example: bias."),
    "a scripted part": (
        Scripted, ["act"], "Layers inside body are left out, because TorchScript calls no hooks."),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTLY)
def test_layers_that_cannot_be_observed_are_left_out_with_a_note(case):
    make, names, note = PARTLY[case]
    torch.manual_seed(0)
    model = make().eval()
    x = images()
    for some in (x[:1], x[:2], x[:4]):
        assert layers_of(model, some) == names
    layers = find_layers(model, x)
    assert (list(layers.names), layers.left_out) == (names, (note,))
    profiles = class_profiles(model, (x, Y), classes=3)
    assert ([*profiles.layers], profiles.left_out) == (names, (note,))
    prepared = prepare(model, id=(x, Y), control=False, reference=None)
    assert list(prepared.inputs.layers) == names
    assert note in prepared.notes
    with contam.watch(model, (x, Y), show=False, per_class=2, k=2) as monitor:
        assert list(monitor.config.layers) == names
        assert note in monitor.snapshots[0].left_out


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_tokens_are_not_taken_for_examples_where_there_are_as_many(rows):
    # There are four tokens.
    model = Tokens(batch_first=False).eval()
    [observation] = observe(model, [(images(rows), Y[:rows])], "auto", "moments")
    assert [*observation.layers] == ["act"]


@pytest.mark.parametrize(
    ("make", "layer", "message"),
    [
        (lambda: Tokens(batch_first=False), "encoder.layers.0.relu()", "rows for 2 examples"),
        (Flat, "act", "has 8 rows for 2 examples"),
        (Fixed, "bias", "has 1 rows for 2 examples"),
        (Scripted, "body.1", "'body.1' is run by TorchScript, which calls no hooks"),
    ],
)
def test_a_layer_that_is_named_and_cannot_be_observed_is_rejected(make, layer, message):
    model = make().eval()
    with pytest.raises(LayerError, match=message) as caught:
        find_layers(LogitsAdapter(model), images(), [layer, "head"])
    assert caught.value.layers == (layer,)


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "convolutions": nn.Sequential(convolutions(), nn.Linear(6, 3)),
        "transformer": Tokens(batch_first=True),
        "tokens first": Tokens(batch_first=False),
        "batch statistics": nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), convolutions_after(),
        ),
        "scripted part": Scripted(),
    }  # fmt: skip


def convolutions_after() -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize("name", networks())
def test_hooks_do_not_change_the_logits(name):
    model, x = networks()[name].eval(), images(5)
    with evaluating(model):
        expected = model(x)
    for layers, head in (("auto", True), ([], True), ([], False), ("auto", False)):
        [observation] = observe(model, [(x, Y[:5])], layers, "moments", head=head)
        assert torch.equal(observation.logits, expected)


def test_a_network_that_changes_with_its_hooks_is_noted():
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = convolutions(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            hooked = any(len(module._forward_hooks) for module in self.modules())
            return self.head(self.body(x)) + 5 * hooked

    layers = find_layers(Moody(), images())
    assert layers.names == ("body.1",)
    assert "The logits change by up to 5 while layers are observed" in layers.left_out[0]


def test_attention_is_measured_without_the_fast_path_and_the_setting_is_restored():
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError, match="inside"), evaluating(nn.ReLU()):
        assert not torch.backends.mha.get_fastpath_enabled()
        raise RuntimeError("inside")
    assert torch.backends.mha.get_fastpath_enabled()


# Heads


@pytest.mark.parametrize("side", [1, 4])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_a_head_that_is_a_convolution_reads_the_means_of_its_maps(side, relu, inplace):
    torch.manual_seed(0)
    activation = nn.ReLU(inplace=inplace) if relu else nn.Identity()
    head = nn.Sequential(nn.Conv2d(6, 3, 1), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    body = nn.Sequential(nn.Conv2d(3, 6, SIDE // side, stride=SIDE // side), nn.ReLU())
    model, x = nn.Sequential(body, head).eval(), images(4)
    [observation] = observe(model, [(x, Y[:4])], (), head=True)
    assert observation.head is not None
    torch.testing.assert_close(observation.head, body(x).mean((2, 3)))


def test_logits_that_come_from_no_linear_map_have_no_head():
    model = nn.Sequential(convolutions(), nn.Linear(6, 3), nn.Tanh()).eval()
    [observation] = observe(model, [(images(4), Y[:4])], (), head=True)
    assert observation.head is None


# Outputs of several tensors

FEATURES, LOGITS, AUXILIARY = torch.ones(2, 8), torch.zeros(2, 3), torch.full((2, 3), 2.0)
MAPS = torch.zeros(2, 3, 1, 1)

# case: the output, the tensor that is chosen, and what is said
OUTPUTS = {
    "features first": ((FEATURES, LOGITS), LOGITS, "number 2 is taken for the logits."),
    "logits first": ((LOGITS, FEATURES), LOGITS, "number 1 is taken for the logits."),
    "two heads": (
        [LOGITS, AUXILIARY, FEATURES], LOGITS, "number 1 is taken for the logits; 1 more would fit"
    ),
    "a loss first": ((torch.tensor(0.5), LOGITS), (torch.tensor(0.5), LOGITS), ""),
    "a dict without known names": (
        {"features": FEATURES, "prediction": LOGITS}, LOGITS, "'prediction' is taken"),
    "a dict of logits": ({"features": FEATURES, "logits": LOGITS}, None, ""),
    "nothing fits": ((FEATURES, torch.ones(2, 5)), None, "none has a column for each of the 3"),
    "one tensor": (FEATURES, None, ""),
    "a tuple of one": ((FEATURES,), None, ""),
    "maps of one position": ((FEATURES, MAPS), MAPS, "number 2 is taken"),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTPUTS)
def test_the_tensor_whose_width_fits_the_labels_is_taken(case):
    output, chosen, said = OUTPUTS[case]
    taken, note = fitting_output(output, 3)
    assert taken is (output if chosen is None or not said else chosen)
    assert said in note and bool(said) == bool(note)


def test_one_number_for_each_example_fits_two_classes():
    assert fitting_output((FEATURES, torch.ones(2, 1)), 2)[1].endswith("taken for the logits.")
    assert fitting_output((FEATURES, torch.ones(2)), 2)[1].endswith("taken for the logits.")


class Pair(nn.Module):
    """Returns its features and its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = convolutions(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def audited(model: nn.Module, y: Tensor = Y, **settings) -> Audit:
    x = images()
    return contam.audit(
        model, id=(x, y), ood=(x.flip(3), y), reference=None, progress=False, altered=False,
        **settings,
    )  # fmt: skip


def test_audit_and_watch_say_which_output_is_taken():
    note = (
        "The network returns 2 tensors, of shapes (6,), (3,) for each example; number 2 is taken "
        "for the logits."
    )
    model = Pair()
    assert note in audited(model, untrained=False).evidence.left_out
    with contam.watch(model, (images(), Y), show=False, per_class=2, k=2) as monitor:
        assert note in monitor.snapshots[0].left_out


# Batch statistics


@pytest.mark.parametrize(
    ("classes", "closing", "kind"),
    [(1, nn.Sigmoid(), "sigmoid"), (2, nn.Softmax(dim=1), "softmax"), (2, nn.LogSoftmax(1), "")],
    ids=["binary sigmoid", "softmax", "log-softmax"],
)
def test_a_fresh_head_is_compared_before_a_closing_sigmoid_or_softmax(classes, closing, kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(convolutions(), nn.Linear(6, classes))
    networks = (body, nn.Sequential(body, closing))
    plain, closed = (audited(net, Y % 2, untrained=False) for net in networks)
    before, after = (
        next(cause for cause in audit.evidence.evidence if cause.cause == "head")
        for audit in (plain, closed)
    )
    assert before.effect is not None
    assert (before.effect, before.numbers) == (after.effect, after.numbers)
    said = f"The head is taken to be the last linear layer, before the closing {kind}."
    assert (said in closed.evidence.left_out) == bool(kind)
    assert not any("before the closing" in line for line in plain.evidence.left_out)


def test_batch_norms_without_running_statistics_are_noted_and_get_no_batch_of_one():
    model = nn.Sequential(
        convolutions(), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 3)
    )
    assert without_running_statistics(model) == ["1"]
    n = 257  # one more than a batch
    x = images(n)
    result = contam.audit(
        model, id=(x, torch.arange(n) % 3), reference=None, progress=False, altered=False,
        untrained=False,
    )  # fmt: skip
    assert any("Batch norm without running statistics (1, 1 in all)" in line
               for line in result.evidence.left_out)  # fmt: skip


# Inference mode


@pytest.mark.parametrize("data_inside", [True, False])
def test_an_audit_runs_inside_inference_mode(data_inside):
    model, x = nn.Sequential(convolutions(), nn.Linear(6, 3)), images()
    with torch.inference_mode():
        if data_inside:
            x = images() * 1
        result = contam.audit(model, id=(x, Y), ood=(x.flip(3), Y), reference=None, progress=False)
        assert torch.is_inference_mode_enabled()
    assert not any("incomplete" in line for line in result.evidence.left_out)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_monitor_runs_inside_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(convolutions(), nn.Linear(6, 3))
        with contam.watch(model, (images(), Y), show=False, per_class=2, k=2) as monitor:
            assert "accuracy" in monitor.snapshots[0].network


# The untrained control


class Magnitude(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.abs()


def custom(module: nn.Module) -> nn.Module:
    return register_parametrization(module, "weight", Magnitude())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.Sequential, parametrizations.weight_norm, parametrizations.spectral_norm,
        parametrizations.orthogonal, weight_norm, lambda m: weight_norm(m, dim=cast(int, None)),
        spectral_norm, lambda m: prune.l1_unstructured(m, "weight", 0.5),
    ],
    ids=["plain", "weight norm", "spectral norm", "orthogonal", "old weight norm",
         "old weight norm of the whole", "old spectral norm", "pruned"],
)  # fmt: skip
def test_weights_that_are_computed_are_drawn_anew_in_the_control(wrap):
    torch.manual_seed(0)
    linear = nn.Linear(16, 12)
    with torch.no_grad():
        linear.bias.fill_(70.0)
        nn.init.eye_(linear.weight).mul_(30.0)
    model = nn.Sequential(wrap(linear), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = noise(8, 16)
    with torch.no_grad():
        before = model(x)
        control, note = untrained(LogitsAdapter(model), 0)
        again, _ = untrained(LogitsAdapter(model), 0)
        assert control is not None and again is not None and note == ""
        assert torch.equal(control(x), again(x)), "the seed determines the control"
        assert torch.equal(model(x), before), "the network is as it was"
        weight = torch.cat([value.flatten() for name, value in control.named_parameters()])
    assert weight.abs().max() < 2, "nothing is left of what was learned"


def test_without_an_inverse_of_the_parametrization_there_is_no_control():
    model = nn.Sequential(custom(nn.Linear(16, 12)), nn.ReLU(), nn.Linear(12, 3))
    control, note = untrained(LogitsAdapter(model), 0)
    assert control is None
    assert "most weights can't be drawn anew (0.parametrizations.weight.original)" in note


def test_a_scripted_part_has_no_control():
    control, note = untrained(LogitsAdapter(Scripted()), 0)
    assert control is None
    assert "TorchScript runs body, whose weights can't be drawn" in note


# Quantized networks


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_a_quantized_network_is_observed(way):
    quantization = torch.ao.quantization
    if way == "dynamic":
        plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 8), nn.ReLU(), nn.Linear(8, 3))
        model = quantization.quantize_dynamic(plain.eval(), {nn.Linear}, dtype=torch.qint8)
    else:
        stubs = quantization.QuantStub(), quantization.DeQuantStub()
        model = nn.Sequential(stubs[0], convolutions(), nn.Linear(6, 3), stubs[1]).eval()
        model.qconfig = quantization.get_default_qconfig("x86")  # pyright: ignore
        quantization.prepare(model, inplace=True)(images())
        quantization.convert(model, inplace=True)
    result = audited(model).evidence
    assert len(result.layers) == 1
    assert any("No control by an untrained network" in line for line in result.left_out)


# The monitor's arguments


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "the model is a NoneType; expected the torch.nn.Module that is trained"),
        ("timm:resnet18", "the model is a str; expected the torch.nn.Module"),
        (lambda x: x, "the model is a function; expected the torch.nn.Module"),
        (nn.LazyLinear(3), "has no values yet"),
    ],
)
def test_watch_rejects_what_it_cannot_monitor_in_one_line(model, message):
    with pytest.raises(ValueError, match=message):
        contam.watch(model, (images(), Y), show=False)


def test_other_sets_are_one_set_a_list_or_a_dict():
    model, x = nn.Sequential(convolutions(), nn.Linear(6, 3)), images()

    def names(others) -> tuple[str, ...]:
        with contam.watch(model, (x, Y), others=others, show=False, per_class=2, k=2) as monitor:
            return monitor.config.others

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, Y), 8)
    assert names((x, Y)) == ("other",)
    assert names([loader, loader]) == ("other 1", "other 2")
    assert names({"night": (x, Y)}) == ("night",)
    assert names(None) == ()
