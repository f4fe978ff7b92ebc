"""Gradients without the background's directions: outputs, blocked directions, resume."""

import pytest
import torch
from torch import nn

from contam.data.object_removal import pasted, without_objects
from contam.models.projected_gradients import (
    KEPT,
    EnvironmentGradients,
    ProjectedGradients,
    background_moment,
    main_directions,
)
from contam.models.small import resnet8, small_cnn


def images(n: int = 12, seed: int = 0) -> torch.Tensor:
    """Images with a square object, and its mask as the last channel."""
    x = torch.rand(n, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    x[:, 3] = 0.0
    x[:, 3, 5:11, 5:11] = 1.0
    return x


def test_outputs_are_those_of_the_network():
    network, x = small_cnn(width=4), images()
    model = ProjectedGradients(network, directions=3)
    torch.testing.assert_close(model.eval()(x), network.eval()(x[:, :3]))
    torch.testing.assert_close(model.train()(x), network.train()(x[:, :3]))


def test_the_span_is_that_of_pairs_of_objects_on_two_backgrounds():
    network, x = small_cnn(width=4).eval(), images()
    model = ProjectedGradients(network, directions=3)
    model(x)
    behind = without_objects(x[:, :3], x[:, 3:])
    swapped = torch.stack([
        pasted(x[i : i + 1, :3], x[i : i + 1, 3:], behind[i - 1 : i] if i else behind[-1:])[0]
        for i in range(len(x))
    ])  # fmt: skip
    with torch.no_grad():
        difference = (network.encoder(swapped) - network.encoder(x[:, :3])).double()
    _, _, directions = torch.linalg.svd(difference)
    ours, expected = model.span.double(), directions[:3].T
    torch.testing.assert_close(ours @ ours.T, expected @ expected.T, rtol=1e-3, atol=1e-3)


def test_no_gradient_passes_along_the_span():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10), nn.Linear(10, 2))
    model, x = ProjectedGradients(network, directions=4), images()
    model(x).square().sum().backward()
    gradients = {name: p.grad for name, p in model.network.named_parameters()}
    # The gradients of a linear map's weights are outer products with those of its outputs.
    first, head, span = gradients["1.weight"], gradients["2.weight"], model.span
    assert first is not None and head is not None and head.norm() > 0
    assert (span.T @ first).norm() < 1e-4 * first.norm()
    weight = network.get_parameter("1.weight")
    (whole,) = torch.autograd.grad(network(x[:, :3]).square().sum(), [weight])
    assert (span.T @ whole).norm() > 1e-2 * whole.norm()
    torch.testing.assert_close(first, whole - span @ (span.T @ whole))


def test_earlier_estimates_count_less():
    """Of two estimates, made by two models of their own, the first one counts `KEPT`."""
    network = small_cnn(width=4).eval()

    def estimated(*seeds: int) -> torch.Tensor:
        model = ProjectedGradients(network, directions=2)
        model.network.eval()
        for seed in seeds:
            model.step.zero_()
            model(images(seed=seed))
        return model.second_moment

    torch.testing.assert_close(estimated(0, 1), KEPT * estimated(0) + estimated(1))


def test_a_training_continues_from_its_state():
    def trained(steps: int, state: dict | None = None) -> dict:
        model = ProjectedGradients(resnet8(width=4, seed=1), directions=4)
        if state is not None:
            model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(steps):
            step = int(model.step)
            optimizer.zero_grad()
            model(images(seed=step)).logsumexp(1).mean().backward()
            optimizer.step()
        return model.state_dict()

    whole, resumed = trained(6), trained(3, trained(3))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batch_statistics_are_those_of_the_images_alone():
    network, x = small_cnn(width=4), images()
    model = ProjectedGradients(network, directions=3)
    model(x)
    network(x[:, :3])
    ours, plain = model.network.state_dict(), network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in plain.items())


@pytest.mark.parametrize("network", [nn.Conv2d(3, 2, 3), nn.Linear(8, 2)])
def test_networks_without_enough_features_are_rejected(network):
    with pytest.raises(ValueError, match="more than 8 features"):
        ProjectedGradients(network)


def test_main_directions_are_those_of_a_singular_value_decomposition():
    draws = torch.Generator().manual_seed(0)
    plain, swapped = torch.randn(2, 40, 6, generator=draws) * torch.arange(1.0, 7.0)
    _, _, directions = torch.linalg.svd((swapped - plain).double())
    ours = main_directions(background_moment(plain, swapped), 2)
    torch.testing.assert_close(ours.abs(), directions[:2].T.abs())


def environment_pair(classes: int = 6) -> torch.Tensor:
    """Images of two environments, the second of which is darker by another amount per class."""
    x = images(2 * classes * 3)[:, :3].view(2, classes, 3, 3, 16, 16)
    x[1] *= torch.linspace(0.2, 0.8, classes)[:, None, None, None, None]
    return x


def test_the_span_of_environments_is_that_of_their_differences_of_class_means():
    network, (first, second) = small_cnn(width=4).eval(), environment_pair()
    model = EnvironmentGradients(network, first, second, directions=3)
    model(images()[:, :3])
    with torch.no_grad():
        means = [
            torch.stack([network.encoder(part).mean(dim=0) for part in environment])
            for environment in (first, second)
        ]
    _, _, directions = torch.linalg.svd((means[1] - means[0]).double())
    ours, expected = model.span.double(), directions[:3].T
    torch.testing.assert_close(ours @ ours.T, expected @ expected.T, rtol=1e-3, atol=1e-3)


def test_no_gradient_passes_where_environments_differ_and_outputs_stay():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10), nn.Linear(10, 2))
    model, x = EnvironmentGradients(network, *environment_pair(), directions=2), images()[:, :3]
    torch.testing.assert_close(model(x), network(x))
    model(x).square().sum().backward()
    first = model.network.get_parameter("1.weight").grad
    assert first is not None and (model.span.T @ first).norm() < 1e-4 * first.norm()
    assert "environments" not in model.state_dict()


def test_more_directions_than_classes_are_rejected():
    with pytest.raises(ValueError, match="of 6 classes differ in at most as many directions"):
        EnvironmentGradients(small_cnn(width=4), *environment_pair(), directions=7)
