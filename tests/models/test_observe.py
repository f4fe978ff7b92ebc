"""Observed values are those of the forward pass, and the network is unchanged."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.noise import noise
from torch import Tensor, nn

from contam.batch import Batch
from contam.models.observe import layers_of, observe
from contam.models.readings import (
    channel_moments,
    flat,
    over_space,
    over_tokens,
    rate_over_space,
    rate_over_tokens,
)
from contam.models.small import small_cnn
from contam.models.sources import load


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.int64))


def layers_observed(model: nn.Module, x: Tensor, *args, **kwargs) -> dict[str, Tensor]:
    (observation,) = observe(model, [batch_of(x)], *args, **kwargs)
    return observation.layers


class Reused(nn.Module):
    """One ReLU, in place, used three times; what it made first is overwritten at once."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x.clone())
        x = self.relu(x.sub_(0.5))
        return self.relu(x.sub_(0.5))


class Functional(nn.Module):
    """Every way to call an activation as a function, inside a named child."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.activation(x) - 0.5)


class Through(nn.Module):
    """A forward pass written as a function, with named parts."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.way = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x, *self.children())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.drop(self.norm(self.conv(x))), inplace=True)


@pytest.fixture
def blocks() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(Block(), Block(), nn.Flatten(), nn.Linear(3 * 36, 5))


# What is read


def test_readings_by_hand():
    maps = torch.tensor([[[[1.0, -1.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    assert over_space(maps).tolist() == [[1.0, 0.5]]
    assert rate_over_space(maps).tolist() == [[0.75, 0.25]]
    assert flat(maps).tolist() == [[1.0, -1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 2.0]]
    tokens = torch.tensor([[[1.0, 0.0], [2.0, -3.0], [0.0, 6.0]]])
    assert over_tokens(tokens).tolist() == [[1.0, 1.0]]
    assert rate_over_tokens(tokens).tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]]


@pytest.mark.parametrize(
    ("last", "first"), [(over_tokens, over_space), (rate_over_tokens, rate_over_space)]
)
def test_readings_differ_only_in_the_neuron_axis(last, first):
    maps = noise(2, 3, 4, 5)
    torch.testing.assert_close(last(maps.movedim(1, -1)), first(maps))
    vectors = noise(2, 3)
    assert torch.equal(last(vectors), first(vectors))


def test_tokens_are_rejected_as_maps():
    with pytest.raises(ValueError, match="read it with over_tokens"):
        over_space(noise(2, 3, 4))


def test_values_agree_with_layers_run_one_by_one():
    model = small_cnn(width=4).eval()
    x = noise(6, 3, 16, 16)
    observed = layers_observed(model, x, ["encoder.relu1", "encoder.relu3", "encoder"])
    with torch.no_grad():
        stem = model.get_submodule("encoder.norm1")(model.get_submodule("encoder.conv1")(x))
        features = model.encoder(x)
    torch.testing.assert_close(observed["encoder.relu1"], F.relu(stem).mean(dim=(2, 3)))
    torch.testing.assert_close(observed["encoder.relu3"], features)
    torch.testing.assert_close(observed["encoder"], features)


def test_the_input_of_an_inplace_relu_is_read_before_it_is_overwritten():
    model = small_cnn(width=4).eval()
    x = noise(6, 3, 16, 16)
    values = layers_observed(model, x, ["encoder.norm1"], flat)["encoder.norm1"]
    assert values.min() < 0
    with torch.no_grad():
        stem = model.get_submodule("encoder.norm1")(model.get_submodule("encoder.conv1")(x))
    torch.testing.assert_close(values, stem.flatten(1))


def test_each_run_of_a_reused_module_has_a_name_and_the_plain_name_is_the_last_run():
    x = noise(4, 3)
    first = F.relu(x)
    second = F.relu(first - 0.5)
    third = F.relu(second - 0.5)
    automatic = layers_observed(Reused(), x)
    assert list(automatic) == ["relu#0", "relu#1", "relu#2"]
    for value, expected in zip(automatic.values(), (first, second, third), strict=True):
        torch.testing.assert_close(value, expected)
    chosen = layers_observed(Reused(), x, ["relu", "relu#1"])
    torch.testing.assert_close(chosen["relu"], third)
    torch.testing.assert_close(chosen["relu#1"], second)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (F.relu, "relu()"),
        (torch.relu, "relu()"),
        (Tensor.relu, "relu()"),
        (lambda x: x.relu(), "relu()"),
        (lambda x: F.relu(x.clone(), inplace=True), "relu()"),
        (lambda x: x.clone().relu_(), "relu()"),
        (lambda x: torch.relu_(x.clone()), "relu()"),
        (F.gelu, "gelu()"),
        (lambda x: F.gelu(x, approximate="tanh"), "gelu()"),
        (F.leaky_relu, "leaky_relu()"),
        (F.relu6, "relu6()"),
        (F.silu, "silu()"),
    ],
)
def test_activations_called_as_functions_are_recorded(activation, name):
    x = noise(4, 3)
    model = nn.Sequential(Functional(activation))
    observed = layers_observed(model, x)
    assert list(observed) == [f"0.{name}#0", f"0.{name}#1"]
    torch.testing.assert_close(observed[f"0.{name}#0"], activation(x))
    torch.testing.assert_close(observed[f"0.{name}#1"], activation(activation(x) - 0.5))
    torch.testing.assert_close(
        layers_observed(model, x, [f"0.{name}"])[f"0.{name}"], observed[f"0.{name}#1"]
    )
    assert list(layers_observed(Functional(activation), x)) == [f"{name}#0", f"{name}#1"]


def test_an_activation_module_is_one_layer_and_not_two():
    class QuickGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(x)

    model = nn.Sequential(nn.ReLU(), QuickGELU(), nn.GELU(), nn.Tanh())
    assert layers_of(model, noise(2, 3)) == ["0", "1", "2"]


def test_a_network_named_like_an_activation_is_not_a_layer():
    class ReLUNetwork(Functional):
        pass

    assert layers_of(ReLUNetwork(F.relu), noise(2, 3)) == ["relu()#0", "relu()#1"]


def test_functions_inside_a_reading_are_not_recorded():
    observed = layers_observed(
        nn.Sequential(nn.ReLU(), nn.ReLU()), noise(2, 3), reduce=lambda z: F.relu(z - 1)
    )
    assert list(observed) == ["0", "1"]


def test_a_fused_transformer_block_is_recorded():
    with torch.random.fork_rng(devices=[]):
        block = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    x = noise(3, 5, 8)
    assert layers_of(block, x) == ["gelu()"]
    observed = layers_observed(block, x, ["linear1", "gelu()"], over_tokens)
    assert observed["gelu()"].shape == (3, 16)
    rates = layers_observed(block, x, ["linear1", "gelu()"], rate_over_tokens)
    # GELU is positive exactly where what comes into it is.
    assert torch.equal(rates["gelu()"], rates["linear1"])


def test_rates_of_a_conv_net_are_rates_of_its_preactivations():
    model = small_cnn(width=4)
    x = noise(6, 3, 16, 16)
    rates = layers_observed(model, x, ["encoder.norm2", "encoder.relu2"], rate_over_space)
    assert torch.equal(rates["encoder.norm2"], rates["encoder.relu2"])


def test_batches_can_be_of_any_size(blocks):
    x = noise(7, 3, 6, 6)
    whole = layers_observed(blocks, x)
    parts = list(observe(blocks, [batch_of(part) for part in x.split(3)]))
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([p.layers[name] for p in parts]), value)
    assert torch.equal(torch.cat([p.batch.x for p in parts]), x)
    blocks.eval()
    torch.testing.assert_close(torch.cat([p.logits for p in parts]), blocks(x).detach())


# What is refused


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("block.conf", r"no layer 'block.conf'; did you mean one of \['block.conv'"),
        ("block.relu", r"no layer 'block.relu'; did you mean one of \['block.relu\(\)'"),
        (
            "block.conv#1",
            r"'block.conv' ran 1 times, numbered from #0 to #0; there is no 'block.conv#1'",
        ),
        ("spare", r"'spare' did not run on this batch"),
    ],
)
def test_a_missing_layer_is_rejected(layer, message):
    model = Through(lambda x, block, _: block(x), block=Block(), spare=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=message):
        layers_observed(model, noise(2, 3, 6, 6), [layer])


def test_one_name_instead_of_a_list_is_rejected(blocks):
    with pytest.raises(ValueError, match=r"for one layer give \['0.conv'\]"):
        layers_observed(blocks, noise(2, 3, 6, 6), "0.conv")


def test_an_output_other_than_a_tensor_is_rejected():
    model = Through(lambda x, part: part(x, x, x)[0], attention=nn.MultiheadAttention(4, 1))
    with pytest.raises(ValueError, match="'attention' returns a tuple, not a tensor"):
        layers_observed(model, noise(2, 3, 4), ["attention"])


def test_a_token_axis_before_the_batch_axis_is_rejected():
    model = Through(lambda x, relu: relu(x.transpose(0, 1)).mean(dim=0), relu=nn.ReLU())
    with pytest.raises(ValueError, match=r"5 rows for 3 examples.*puts the examples first"):
        layers_observed(model, noise(3, 5, 4), ["relu"], over_tokens)
    observed = layers_observed(
        model, noise(3, 5, 4), ["relu"], lambda z: over_tokens(z.transpose(0, 1))
    )
    assert observed["relu"].shape == (3, 4)


# State that is restored


def state(model: nn.Module) -> tuple:
    return (
        [m.training for m in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        torch.get_rng_state(),
        torch.is_grad_enabled(),
    )


def assert_unchanged(model: nn.Module, before: tuple) -> None:
    for now, then in zip(state(model), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)


@pytest.fixture
def peculiar(blocks) -> nn.Sequential:
    """In training mode but for one frozen layer, with a gradient and a hook of the user's."""
    blocks.train()
    blocks[1].norm.eval()
    blocks[0].conv.bias.requires_grad_(False)
    blocks[3].weight.grad = torch.ones_like(blocks[3].weight)
    blocks[3].register_forward_hook(lambda *_: None)
    return blocks


def test_the_model_is_unchanged_between_batches_and_at_the_end(peculiar):
    before = state(peculiar)
    for _ in observe(peculiar, [batch_of(noise(2, 3, 6, 6, seed=s)) for s in range(3)]):
        assert_unchanged(peculiar, before)
    assert_unchanged(peculiar, before)


def test_the_model_is_unchanged_after_an_early_stop(peculiar):
    before = state(peculiar)
    stopped = observe(peculiar, [batch_of(noise(2, 3, 6, 6))] * 3)
    next(stopped)
    del stopped
    assert_unchanged(peculiar, before)
    next(observe(peculiar, [batch_of(noise(2, 3, 6, 6))] * 3))
    assert_unchanged(peculiar, before)


@pytest.mark.parametrize("where", ["model", "reading", "name"])
def test_the_model_is_unchanged_after_an_error(peculiar, where):
    before = state(peculiar)

    def broken(_: Tensor) -> Tensor:
        torch.rand(1)
        raise RuntimeError("broken")

    x = noise(2, 4, 6, 6) if where == "model" else noise(2, 3, 6, 6)
    layers = ["nowhere"] if where == "name" else ["0.conv"]
    with pytest.raises((RuntimeError, ValueError)):
        layers_observed(peculiar, x, layers, broken if where == "reading" else over_space)
    assert_unchanged(peculiar, before)


def test_what_is_no_network_is_refused():
    model: Any = None
    with pytest.raises(ValueError, match="the model is a NoneType; expected"):
        layers_observed(model, noise(2, 3), ())


def test_the_random_state_is_preserved_for_a_network_that_draws():
    model = Through(lambda x: F.dropout(x, 0.5, training=True))
    before = torch.get_rng_state()
    layers_observed(model, noise(2, 3), ())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_can_be_trained_while_it_is_observed(blocks):
    optimizer = torch.optim.SGD(blocks.parameters(), 0.1)
    blocks.train()
    losses = []
    for observation in observe(blocks, [batch_of(noise(8, 3, 6, 6))] * 20, ()):
        loss = F.cross_entropy(blocks(observation.batch.x), observation.batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_readings_can_train_a_probe(blocks):
    values = layers_observed(blocks, noise(4, 3, 6, 6))["1.relu()"]
    probe = nn.Linear(3, 2)
    probe(values).sum().backward()
    assert probe.weight.grad is not None and probe.weight.grad.any()


def test_maps_are_freed_once_they_are_read():
    model = small_cnn(width=4)
    maps: list[weakref.ref] = []

    def reading(z: Tensor) -> Tensor:
        maps.append(weakref.ref(z))
        return over_space(z)

    kept = list(observe(model, [batch_of(noise(2, 3, 16, 16))] * 3, reduce=reading))
    gc.collect()
    assert len(maps) == 9 and all(ref() is None for ref in maps)
    stored = [
        v.untyped_storage().nbytes() for observation in kept for v in observation.layers.values()
    ]
    assert stored == [4 * 2 * neurons for _ in kept for neurons in (4, 8, 16)]


# Moments: mean and rate at once, wherever the neurons are


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7, 4), (2, 3, 2, 3, 4), (0, 3, 4, 4)])
@pytest.mark.parametrize("at_once", [1, 50, 2**18])
def test_moments_are_the_mean_and_the_rate(shape, at_once, monkeypatch):
    monkeypatch.setattr("contam.models.readings.VALUES_AT_ONCE", at_once)
    maps = noise(*shape)
    moments = channel_moments(maps)
    torch.testing.assert_close(moments[:, 0], over_space(maps))
    torch.testing.assert_close(moments[:, 1], rate_over_space(maps))


def test_moments_by_hand():
    maps = torch.tensor([[[[1.0, -1.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    assert channel_moments(maps).tolist() == [[[1.0, 0.5], [0.75, 0.25]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_moments_of_other_precisions_are_summed_in_single_or_better(dtype):
    maps = noise(4, 3, 20, 20).to(dtype)
    moments = channel_moments(maps)
    assert moments.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(moments[:, 0].double(), maps.double().mean(dim=(2, 3)))
    torch.testing.assert_close(moments[:, 1].double(), (maps > 0).double().mean(dim=(2, 3)))


def test_moments_of_maps_in_any_memory_order_and_with_gradients():
    maps = noise(4, 3, 6, 5)
    expected = channel_moments(maps)
    for same in (
        maps.to(memory_format=torch.channels_last),
        maps.clone().requires_grad_(),
        maps.transpose(2, 3),
        torch.stack([maps, maps], dim=-1)[..., 0],
    ):
        torch.testing.assert_close(channel_moments(same), expected)
        assert not channel_moments(same).requires_grad


def test_an_exported_program_has_the_names_of_its_functions(tmp_path):
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = noise(3, 3, 2, 2)
    program = torch.export.export(model, (x,), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "encoder.pt2")
    encoder = load(str(tmp_path / "encoder.pt2")).encoder
    (layer,) = layers_observed(encoder, x, "auto", "moments").items()
    assert layer[0] == "program.relu()"
    torch.testing.assert_close(layer[1], channel_moments(F.relu(model[0](x))))


class WithTable(nn.Module):
    """Adds the sum of an activation of a fixed table, which has no axis of examples."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.table, self.fixed, self.relu = torch.ones(rows, 3), nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(x) + self.fixed(self.table).sum()


@pytest.mark.parametrize(("rows", "examples"), [(2, 5), (5, 5), (2, 2), (3, 3), (3, 2), (1, 1)])
def test_a_table_as_long_as_the_batch_is_no_layer(rows, examples):
    """Whichever number of examples the table's rows equal, the other number shows it."""
    batches = [Batch(torch.ones(examples, 3), torch.zeros(examples).long(),
                     torch.zeros(examples).long())] * 2  # fmt: skip
    for observation in observe(WithTable(rows), batches, reduce="moments"):
        assert list(observation.layers) == ["relu"]
        assert "one row for each example: fixed" in " ".join(observation.left_out)
