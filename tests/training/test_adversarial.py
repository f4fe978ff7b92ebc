"""L2 attacks against a reference implementation, and training on what they find."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contam.data.digits import padded_digits
from contam.models.resnet_cifar import resnet_cifar
from contam.rng import generator_for
from contam.training.adversarial import AdversarialRecipe, pgd_l2, train_adversarially

with warnings.catch_warnings():
    # foolbox imports from a namespace that scipy deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from foolbox.attacks.projected_gradient_descent import L2ProjectedGradientDescentAttack
    from foolbox.criteria import Misclassification
    from foolbox.models.pytorch import PyTorchModel

RECIPE = AdversarialRecipe(
    0.05, 1e-4, 16, epochs=3, epsilon=0.5, attack_steps=2, epsilon_warmup=2, drop_every=2
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A smooth network of color images, in evaluation mode."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32), nn.Softplus(), nn.Linear(32, 5))
    generator = generator_for(0, "test/weights")
    for parameter in model.parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
        )
    return model.eval()


def images(low: float = 0.0, high: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = generator_for(0, "test/images")
    x = low + (high - low) * torch.rand(12, 3, 8, 8, generator=generator)
    return x, torch.randint(5, (12,), generator=generator)


def reference(model, x, y, *, epsilon, steps):
    """The same attack by foolbox, without a random start."""
    attack = L2ProjectedGradientDescentAttack(
        abs_stepsize=2 * epsilon / steps, steps=steps, random_start=False
    )
    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack.run(wrapped, x, Misclassification(y), epsilon=epsilon)


def risk(model, x, y) -> float:
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_attack_agrees_with_foolbox_away_from_the_bounds(network, steps):
    x, y = images(0.4, 0.6)
    ours = pgd_l2(network, x, y, epsilon=0.3, steps=steps)
    torch.testing.assert_close(
        ours, reference(network, x, y, epsilon=0.3, steps=steps), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("epsilon", [0.1, 255 / 256, 3.0])
def test_the_attack_is_at_least_as_strong_as_foolbox_at_the_bounds(network, epsilon):
    x, y = images()
    ours = pgd_l2(network, x, y, epsilon=epsilon, steps=4)
    theirs = reference(network, x, y, epsilon=epsilon, steps=4)
    norms = [(moved - x).flatten(1).norm(dim=1) for moved in (ours, theirs)]
    # foolbox clips behind the projection, which leaves it a part of the ball.
    assert float(norms[0].max()) <= epsilon * (1 + 1e-5)
    assert bool((norms[0] >= norms[1] - 1e-4).all())
    # Scaling back behind the clipping, as published, costs less than a thousandth of the loss.
    assert risk(network, ours, y) >= 0.999 * risk(network, theirs, y)
    assert risk(network, ours, y) > risk(network, x, y)
    assert float(ours.min()) >= 0 and float(ours.max()) <= 1


def test_one_step_on_a_linear_model_follows_the_gradient():
    weights = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    moved = pgd_l2(lambda v: v @ weights.T, x, y, epsilon=0.2, steps=1)
    direction = weights[1] - weights[0]
    torch.testing.assert_close(moved - x, 0.2 * direction[None] / direction.norm())


def test_noise_is_added_to_network_inputs_and_not_to_the_result(network):
    x, y = images(0.4, 0.6)
    noise = 0.25 * torch.randn(2, *x.shape, generator=generator_for(0, "test/noise"))
    moved = pgd_l2(network, x, y, epsilon=0.1, steps=2, noise=noise)
    assert float((moved - x).flatten(1).norm(dim=1).max()) <= 0.1 * (1 + 1e-5)

    def smoothed(inputs):
        with torch.no_grad():
            probabilities = torch.stack([network(inputs + one).softmax(1) for one in noise]).mean(0)
        return F.nll_loss(probabilities.log(), y).item()

    assert smoothed(moved) > smoothed(x)


def test_repeating_one_noise_vector_changes_nothing(network):
    x, y = images(0.4, 0.6)
    noise = 0.25 * torch.randn(1, *x.shape, generator=generator_for(0, "test/noise"))
    once = pgd_l2(network, x, y, epsilon=0.1, steps=3, noise=noise)
    twice = pgd_l2(network, x, y, epsilon=0.1, steps=3, noise=noise.repeat(2, 1, 1, 1, 1))
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-5)


def test_a_zero_gradient_keeps_the_input_and_parameters_get_no_gradient():
    linear = nn.Linear(3 * 8 * 8, 5)
    nn.init.zeros_(linear.weight)
    model = nn.Sequential(nn.Flatten(), linear)
    x, y = images()
    assert pgd_l2(model, x, y, epsilon=1.0, steps=3).equal(x)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"epsilon": -1.0}, "epsilon >= 0"),
        ({"x": torch.full((1, 2), 1.5)}, r"must lie in \[0, 1\]"),
    ],
)
def test_an_invalid_attack_is_rejected_in_one_line(change, line):
    given = {"x": torch.full((1, 2), 0.5), "epsilon": 0.1, "steps": 1} | change
    x = given.pop("x")
    with pytest.raises(ValueError, match=line) as error:
        pgd_l2(lambda v: v, x, torch.tensor([0]), **given)
    assert "\n" not in str(error.value)


def test_the_published_schedule():
    recipe = AdversarialRecipe(0.1, 1e-4, 64, epochs=250)
    steps = recipe.length(50_000)
    an_epoch = steps // 250
    assert an_epoch == 50_000 // 64
    rates = [recipe.size(epoch * an_epoch, steps=steps) for epoch in (0, 49, 50, 100, 150, 249)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 1e-3, 1e-4, 1e-5])
    radii = [recipe.radius(epoch * an_epoch, steps=steps) for epoch in (0, 4, 9, 100)]
    assert radii == pytest.approx([25.5 / 256, 127.5 / 256, 255 / 256, 255 / 256])


def trained(recipe=RECIPE, *, resume_after: int | None = None):
    shift = padded_digits("red", train=64)
    model = resnet_cifar(8, width=2, stem_stride=2)
    checkpoint = None
    for stage in train_adversarially(model, shift, recipe, seed=0, report_every=1):
        if stage.step == resume_after:
            checkpoint = stage.checkpoint()
            break
    if resume_after is not None:
        model = resnet_cifar(8, width=2, stem_stride=2, seed=5)
        for _ in train_adversarially(
            model, shift, recipe, seed=0, report_every=1, resume=checkpoint
        ):
            pass
    return model.state_dict()


@pytest.mark.parametrize("step", [1, 5, 11])
def test_an_interrupted_training_resumes_bit_for_bit(step):
    whole, resumed = trained(), trained(resume_after=step)
    assert all(resumed[name].equal(tensor) for name, tensor in whole.items())


@pytest.mark.slow
def test_attack_settings_change_the_learned_weights():
    settings = [{}, {"epsilon": 0.0}, {"noise": 0.0}, {"attack_steps": 1}, {"noise_vectors": 1}]
    heads = []
    for setting in settings:
        recipe = AdversarialRecipe(**(RECIPE.__dict__ | setting))
        heads.append(trained(recipe)["head.weight"])
    for index, head in enumerate(heads):
        assert all(not head.equal(other) for other in heads[index + 1 :])


def test_every_minibatch_is_augmented_from_the_seed():
    shift = padded_digits("red", train=64)
    flips = []

    def flip(x):
        flips.append(bool(torch.rand(()) < 0.5))
        return x.flip(-1) if flips[-1] else x

    models = [resnet_cifar(8, width=2, stem_stride=2) for _ in range(2)]
    for model in models:
        list(train_adversarially(model, shift, RECIPE, seed=0, report_every=9, augment=flip))
    assert len(flips) == 2 * 3 * 4
    assert flips[:12] == flips[12:] and len(set(flips)) == 2
    weights = [model.head.weight for model in models]
    assert weights[0].equal(weights[1])


@pytest.mark.slow
def test_adversarial_training_resists_attacks_that_break_standard_training():
    """With epsilon 0 and no noise, the same loop is standard training."""
    shift = padded_digits("gray", train=600)
    accuracy = {}
    for epsilon, noise in ((0.0, 0.0), (0.5, 0.25)):
        model = resnet_cifar(8, width=8, stem_stride=2)
        recipe = AdversarialRecipe(
            0.1, 1e-4, 50, epochs=15, epsilon=epsilon, noise=noise, epsilon_warmup=1, drop_every=10
        )
        list(train_adversarially(model, shift, recipe, seed=0, report_every=1000))
        x, y, _ = shift.id_test.data.pick(slice(0, 300))
        attacked = pgd_l2(model.eval(), x, y, epsilon=0.5, steps=8)
        with torch.no_grad():
            accuracy[epsilon] = float((model(attacked).argmax(1) == y).float().mean())
    assert accuracy[0.5] > accuracy[0.0] + 0.2
