import math
from dataclasses import replace

import pytest
import torch

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel, Sample
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.network import (
    ACTIVATIONS,
    MLP,
    empirical_loss,
    hidden_gradient,
    linear,
    output,
    sgd_step,
)
from contam.theory.projections import gradient_projections
from contam.theory.setting import Setting

CORE, BACKGROUND = slice(0, 6), slice(6, 12)


def small_network(seed, scale=0.05):
    """Weights small enough that every example is inside the hinge."""
    generator = torch.Generator().manual_seed(seed)
    W = scale * torch.randn(40, 12, generator=generator, dtype=torch.float64)
    a = (2.0 * torch.randint(0, 2, (40,), generator=generator) - 1).double() / 40
    return W, a


def mirrored_examples(seed, pairs=512):
    """Every weight draw appears once with each label, so backgrounds are exactly uncorrelated."""
    z = torch.rand(pairs, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.tensor([1, -1]).repeat(pairs)
    f = z.repeat_interleave(2, dim=0)
    f[:, CORE] *= y[:, None]
    return f, y


def test_eq_2_by_hand():
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    a = torch.tensor([0.5, -0.5])
    f = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [3.0, -1.0]])
    assert output(W, a, f).tolist() == [0.5 - 1, -1.0, 1.5]
    assert output(W, a, f, "identity").tolist() == [0.5 - 1, -0.5 - 1, 1.5 + 1]


def test_eq_3_by_hand():
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    a, f = torch.tensor([0.5, -0.5]), torch.tensor([[1.0, 1.0], [4.0, -1.0]])
    y = torch.tensor([1, 1])  # outputs -0.5 and 2, losses 1.5 and 0
    assert float(empirical_loss(W, a, f, y)) == pytest.approx(0.75)
    assert float(empirical_loss(W, a, f, y, weight_decay=0.1)) == pytest.approx(0.75 + 0.05 * 5)


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("scale", [0.05, 3.0, 30.0])
def test_lemma_a1_and_c1_the_closed_form_is_the_gradient(activation, scale):
    W, a = small_network(0, scale)
    f, y = mirrored_examples(0)
    W.requires_grad_()
    loss = empirical_loss(W, a, f, y, activation=activation)
    (expected,) = torch.autograd.grad(loss, W)
    torch.testing.assert_close(hidden_gradient(W.detach(), a, f, y, activation), expected)


def test_lemma_a1_one_example_by_hand():
    W, a = torch.tensor([[1.0, -1.0], [0.0, 1.0]]), torch.tensor([0.5, -0.5])
    f, y = torch.tensor([[0.5, 1.0]]), torch.tensor([1])  # only the second neuron is active
    assert hidden_gradient(W, a, f, y).tolist() == [[0, 0], [0.25, 0.5]]
    assert hidden_gradient(W, a, f, y, "identity").tolist() == [[-0.25, -0.5], [0.25, 0.5]]
    outside = torch.tensor([[0.5, -4.0]])  # output 2.25, beyond the hinge
    assert hidden_gradient(W, a, outside, y).abs().sum() == 0


def test_eq_4_minimizes_eq_3_with_its_l2_term():
    W, a = small_network(1, 1.0)
    f, y = mirrored_examples(1)
    W.requires_grad_()
    loss = empirical_loss(W, a, f, y, weight_decay=0.3)
    (gradient,) = torch.autograd.grad(loss, W)
    W = W.detach()
    updated = sgd_step(W, hidden_gradient(W, a, f, y), step_size=0.7, weight_decay=0.3)
    torch.testing.assert_close(updated, W - 0.7 * gradient)


@pytest.mark.parametrize("seed", range(5))
def test_theorem_4_4_linear_networks_have_no_gradient_along_the_background(seed):
    W, a = small_network(seed)
    f, y = mirrored_examples(seed)
    pull = -hidden_gradient(W, a, f, y, "identity")[:, BACKGROUND]
    torch.testing.assert_close(pull, torch.zeros_like(pull), rtol=0, atol=1e-16)


@pytest.mark.parametrize("seed", range(5))
def test_theorem_4_2_relu_gradients_raise_background_weights(seed):
    W, a = small_network(seed)
    f, y = mirrored_examples(seed)
    active = (f @ W.T >= 0).double()
    own = torch.where(a > 0, active[y > 0].mean(dim=0), active[y < 0].mean(dim=0))
    other = torch.where(a > 0, active[y < 0].mean(dim=0), active[y > 0].mean(dim=0))
    chosen = (own > 0.9) & (other < 0.5)
    assert chosen.sum() >= 3
    pull = -hidden_gradient(W, a, f, y)[:, BACKGROUND]
    assert (pull[chosen].sum(dim=1) > 0).all()


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_lemma_a3_is_the_gradient_while_all_margins_are_below_one(activation):
    W, a = small_network(2)
    f, y = mirrored_examples(2)
    projections = gradient_projections(W, a, Sample(f, y, f[:, CORE]), activation)
    torch.testing.assert_close(projections, -hidden_gradient(W, a, f, y, activation))


def test_closed_forms_reject_other_activations():
    W, a = small_network(0)
    f, y = mirrored_examples(0, pairs=2)
    with pytest.raises(ValueError, match="not 'tanh'"):
        hidden_gradient(W, a, f, y, "tanh")
    with pytest.raises(ValueError, match="not 'tanh'"):
        gradient_projections(W, a, Sample(f, y, f), "tanh")
    with pytest.raises(ValueError, match=r"no example of class -1"):
        gradient_projections(W, a, Sample(f[y > 0], y[y > 0], f), "relu")


FEATURES = FeatureModel(6, 6, 48)
SMALL = Setting(data=DataModel(FEATURES))


def test_the_module_is_equation_2():
    network = initial_network(replace(SMALL, width=9), 0)
    f, _, _ = DataModel(FEATURES).sample(20, bit_generator_for(0, "test"))
    torch.testing.assert_close(network(f), output(network.projections, network.head.weight[0], f))


@pytest.mark.parametrize("initialization", ["gaussian", "uniform"])
def test_weights_start_at_the_scale_of_their_fan_in(initialization):
    shape = Setting(
        data=DataModel(FEATURES, classes=3), width=400, depth=2, bias="all", head="trained",
        initialization=initialization,
    )  # fmt: skip
    network = initial_network(shape, 0)
    unit = 1.0 if initialization == "gaussian" else 1 / math.sqrt(3)
    first, second, head = (layer.weight.detach() for layer in network.layers)
    bias = network.first.bias.detach()
    assert float(first.std()) == pytest.approx(unit / math.sqrt(48), rel=0.05)
    assert float(second.std()) == pytest.approx(unit / math.sqrt(400), rel=0.05)
    assert float(head.std()) == pytest.approx(unit / math.sqrt(400), rel=0.1)
    if initialization == "gaussian":
        assert bias.abs().max() == 0
    else:
        assert float(bias.abs().max()) == pytest.approx(1 / math.sqrt(48), rel=0.05)
        assert float(first.abs().max()) <= 1 / math.sqrt(48)


def test_a_fixed_head_is_plus_or_minus_one_over_m_and_is_not_trained():
    network = initial_network(replace(SMALL, width=400), 3)
    a = network.head.weight[0]
    assert set((a * 400).tolist()) == {-1.0, 1.0}
    assert abs(float(a.sum())) < 4.5 / math.sqrt(400)
    assert not network.head.weight.requires_grad


@pytest.mark.parametrize("initialization", ["gaussian", "uniform"])
@pytest.mark.parametrize(
    "features",
    [FEATURES, FeatureModel(6, 6, 48, "rotated"), FeatureModel(6, 6, 48, "coherent", 0.3)],
    ids=lambda features: features.dictionary,
)
def test_ambient_networks_start_as_the_same_function(initialization, features):
    shape = Setting(
        data=DataModel(features), width=30, depth=2, bias="all", initialization=initialization,
        precision="float64",
    )  # fmt: skip
    inside = initial_network(shape, 7)
    ambient = initial_network(replace(shape, ambient=True), 7)
    assert ambient.first.weight.shape == (30, 48)
    torch.testing.assert_close(ambient.projections, inside.projections)
    f = DataModel(features).sample(10, bit_generator_for(0, "test"), dtype=torch.float64).f
    torch.testing.assert_close(ambient(f), inside(f))
    # The weights outside the features' span start at the same scale as the others.
    scale = 1 / math.sqrt(48) if initialization == "gaussian" else 1 / math.sqrt(3 * 48)
    assert float(ambient.first.weight.detach().std()) == pytest.approx(scale, rel=0.07)


def test_a_copy_shares_no_weights():
    network = initial_network(replace(SMALL, width=5, depth=2, bias="all"), 0)
    twin = network.copy()
    for name, value in network.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])
        assert value.data_ptr() != twin.state_dict()[name].data_ptr()
    assert [p.requires_grad for p in twin.parameters()] == [
        p.requires_grad for p in network.parameters()
    ]


def test_the_global_random_state_is_preserved():
    before = torch.random.get_rng_state()
    initial_network(replace(SMALL, depth=3, bias="all"), 0).copy()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "leaky_relu"])
def test_activations_agree_with_torch(activation):
    W = torch.tensor([[1.0]])
    network = MLP([linear(W)], linear(W), activation=activation, slope=0.2)
    f = torch.linspace(-3, 3, 13)[:, None]
    twin = {
        "relu": torch.nn.ReLU(),
        "identity": torch.nn.Identity(),
        "leaky_relu": torch.nn.LeakyReLU(0.2),
        "gelu": torch.nn.GELU(),
        "sigmoid": torch.nn.Sigmoid(),
        "tanh": torch.nn.Tanh(),
    }[activation]
    torch.testing.assert_close(network(f), twin(f)[:, 0])
