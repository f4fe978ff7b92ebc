"""Heat maps: by hand, in closed form, against the grad-cam package, and the model left as found."""

import importlib
import warnings
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.noise import noise
from torch import Tensor, nn

from contam.measures.gradcam import (
    grad_cam,
    grad_cam_plus_plus,
    heat_maps,
    heat_on_object,
    heat_share,
    normalized,
    upsampled,
)
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.models.torchvision_import import import_torchvision

FORMULAS = {"GradCAM": grad_cam, "GradCAMPlusPlus": grad_cam_plus_plus}
LAYERS = ("encoder.relu1", "encoder.relu2", "encoder.relu3")


def network(head: float = 1.0) -> Classifier:
    model = small_cnn(classes=4, width=4).double()
    with torch.no_grad():
        model.head.weight *= head
    return model


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """The grad-cam package, which needs torchvision and warns of what others deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()
        return importlib.import_module("pytorch_grad_cam")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("labels", [None, [0, 3, 1]])
def test_agrees_with_the_grad_cam_package(package: ModuleType, name, layer, labels):
    # The package adds 1e-6 to squared gradients; a steep head makes that negligible.
    model, x = network(head=1e5), noise(3, 3, 16, 16).double()
    y = None if labels is None else torch.tensor(labels)
    heat = heat_maps(model, x, layer, y, formula=FORMULAS[name])
    target = package.utils.model_targets.ClassifierOutputTarget
    targets = None if labels is None else [target(label) for label in labels]
    with getattr(package, name)(model, [model.get_submodule(layer)]) as reference:
        pictures = torch.from_numpy(reference(x, targets))
        read = reference.activations_and_grads
        maps, gradients = read.activations[0].numpy(), read.gradients[0].numpy()
        raw = torch.from_numpy(reference.get_cam_image(x, None, targets, maps, gradients))
    torch.testing.assert_close(heat, raw.relu(), rtol=1e-6, atol=1e-9)
    shown = normalized(upsampled(normalized(heat), (16, 16))).float()
    torch.testing.assert_close(shown, pictures, rtol=0, atol=2e-5)


def test_grad_cam_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])  # mean 2 and -1/2
    assert grad_cam(maps, gradients).tolist() == [[[0.5, 4.0]]]


def test_grad_cam_plus_plus_by_hand():
    # Sums 3 and 6; only positive gradients count: 1 / (2 + 3) + 2 / (2 + 6) and nothing.
    maps = torch.tensor([[[[1.0, 2.0]], [[6.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 2.0]], [[-1.0, -2.0]]]])
    weight = 1 / 5 + 2 / 8
    assert grad_cam_plus_plus(maps, gradients).flatten().tolist() == pytest.approx(
        [weight, 2 * weight]
    )


@given(st.integers(0, 1000))
def test_coefficients_equal_those_from_higher_derivatives(seed):
    """Of exp(logit) along one position, by automatic differentiation three times."""
    maps = noise(1, 1, 2, 2, seed=seed).double().abs()
    slope = noise(1, 1, 2, 2, seed=seed + 1).double()
    at = maps.clone().requires_grad_()
    score = (slope * at).sum().exp()
    order: list[Tensor] = []
    grown = score
    for _ in range(3):
        (derivative,) = torch.autograd.grad(grown.sum(), at, create_graph=True)
        order.append(derivative[0, 0, 0, 0])
        grown = order[-1]
    first, second, third = order
    alpha = second / (2 * second + maps.sum() * third)
    expected = alpha * first.relu() / score * maps
    # Of the four positions, one alone is steep.
    alone = torch.zeros_like(slope)
    alone[0, 0, 0, 0] = slope[0, 0, 0, 0]
    torch.testing.assert_close(grad_cam_plus_plus(maps, alone), expected.detach()[:, 0])


@pytest.mark.parametrize("c", range(4))
def test_heat_sums_to_the_logit_after_average_pooling_and_a_linear_head(c):
    model, x = network().eval(), noise(5, 3, 16, 16).double()
    with torch.no_grad():
        model.head.weight.abs_()
        logits = model(x)
    heat = heat_maps(model, x, "encoder.relu3", torch.full((5,), c), formula=grad_cam)
    expected = logits[:, c] - model.head.bias[c]
    torch.testing.assert_close(heat.sum(dim=(1, 2)), expected.detach())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_results_do_not_depend_on_the_batch(layer, formula):
    model, x = network(), noise(6, 3, 16, 16).double()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    whole = heat_maps(model, x, layer, y, formula=formula)
    parts = [
        heat_maps(model, x[s], layer, y[s], formula=formula) for s in (slice(2), slice(2, None))
    ]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert whole.shape[1:] == {"encoder.relu1": (16, 16), "encoder.relu2": (8, 8)}.get(
        layer, (4, 4)
    )
    assert whole.min() >= 0 and whole.max() > 0


def test_the_predicted_class_is_the_default():
    model, x = network().eval(), noise(5, 3, 16, 16).double()
    predicted = model(x).argmax(dim=1)
    expected = heat_maps(model, x, "encoder.relu2", predicted)
    assert torch.equal(heat_maps(model, x, "encoder.relu2"), expected)
    other = heat_maps(model, x, "encoder.relu2", (predicted + 1) % 4)
    assert not torch.allclose(other, expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_existing_gradients_are_unchanged(training):
    model, x = network().train(training), noise(2, 3, 16, 16).double()
    model.encoder.eval()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones(4).double()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    with torch.no_grad():
        heat = heat_maps(model, x, "encoder.relu1")
        assert not torch.is_grad_enabled()
    assert not heat.requires_grad and not x.requires_grad
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    stem = model.get_submodule("encoder.conv1")
    assert stem.weight.grad is None and not model.head.weight.requires_grad
    assert torch.equal(model.head.bias.grad, torch.ones(4).double())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_no_hook_is_left_after_an_error():
    model = network()
    with pytest.raises(RuntimeError):
        heat_maps(model, noise(2, 5, 16, 16).double(), "encoder.relu1")
    assert not any(module._forward_hooks for module in model.modules()) and model.training


def test_a_layer_before_an_inplace_layer_is_read_before_it_is_overwritten():
    x, y = noise(2, 3, 16, 16).double(), torch.tensor([0, 1])
    for inplace in (True, False):
        head = nn.Linear(768, 2).double()
        nn.init.ones_(head.weight)
        model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=inplace), nn.Flatten(), head)
        # The slope is 1 where x is positive, so each channel's weight is that share of it.
        share = (x > 0).double().mean(dim=(2, 3), keepdim=True)
        heat = heat_maps(model, x, "0", y, formula=grad_cam)
        torch.testing.assert_close(heat, (share * x).sum(dim=1).relu())


def test_a_layer_that_runs_twice_is_read_at_its_last_run():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    twice = nn.Sequential(layer, nn.ReLU(), layer, nn.Flatten(), nn.Linear(32, 3))
    last = nn.Sequential(nn.Flatten(), twice[4])
    x = noise(2, 2, 4, 4)
    maps = layer(layer(x).relu()).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(last(maps)[:, 1].sum(), maps)
    heat = heat_maps(twice, x, "0", torch.tensor([1, 1]), formula=grad_cam)
    torch.testing.assert_close(heat, grad_cam(maps.detach(), gradients))


def test_normalized_by_hand():
    heat = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    assert normalized(heat)[0].flatten().tolist() == [0, 0.5, 0.25, 1]
    assert not normalized(heat)[1].any()


def test_heat_and_masks_by_hand():
    heat = torch.tensor([[[1.0, 3.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 5.0]]])
    mask = torch.tensor([[[True, False], [False, True]], [[False, False], [True, True]]])
    assert heat_on_object(heat, mask).tolist() == [2.5, 2.5]
    assert heat_share(heat, mask).tolist() == [0.5, 1.0]


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_the_share_is_scale_invariant_and_the_mean_is_not(seed, factor):
    heat, mask = noise(3, 4, 4, seed=seed).abs(), noise(3, 16, 16, seed=seed + 1) > 1
    torch.testing.assert_close(heat_share(factor * heat, mask), heat_share(heat, mask))
    torch.testing.assert_close(
        heat_on_object(factor * heat, mask), factor * heat_on_object(heat, mask)
    )
    torch.testing.assert_close(heat_share(heat, mask) + heat_share(heat, ~mask), torch.ones(3))


def test_uniform_heat_has_the_share_of_the_area():
    mask = noise(3, 16, 16) > 1
    share = heat_share(torch.full((3, 4, 4), 0.7), mask)
    torch.testing.assert_close(share, mask.float().mean(dim=(1, 2)))


def test_zero_heat_has_no_share_and_an_empty_mask_is_rejected():
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    assert heat_share(torch.zeros(2, 4, 4), mask).isnan().all()
    mask[1] = False
    with pytest.raises(ValueError, match=r"images \[1\] are empty"):
        heat_on_object(torch.ones(2, 4, 4), mask)


@pytest.mark.parametrize(
    ("layer", "y", "said"),
    [
        ("encoder.relu9", None, "did you mean one of"),
        ("encoder.flat", None, r"returns \(2, 16\), not maps"),
        ("encoder.relu1", [0, 4], "don't fit 4 classes"),
        ("encoder.relu1", [-1, 0], "don't fit 4 classes"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(layer, y, said):
    labels = None if y is None else torch.tensor(y)
    with pytest.raises(ValueError, match=said):
        heat_maps(network(), noise(2, 3, 16, 16).double(), layer, labels)


def test_layers_without_effect_on_the_logits_are_rejected():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.head(x.mean(dim=(2, 3)))

    with pytest.raises(ValueError, match="do not depend on layer 'aside'"):
        heat_maps(Aside(), noise(2, 3, 4, 4), "aside")
    with pytest.raises(ValueError, match="'unused' did not run"):
        heat_maps(Aside(), noise(2, 3, 4, 4), "unused")


def test_negative_activations_are_rejected():
    with pytest.raises(ValueError, match="output of a ReLU"):
        heat_maps(network(), noise(2, 3, 16, 16).double(), "encoder.conv1")
