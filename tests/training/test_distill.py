"""Distillation: a student comes to match its teacher, and an interruption leaves no trace."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from support.generators import last
from support.networks import assert_same_weights
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.models.small import small_cnn
from contam.rng import seeded
from contam.training.distill import PUBLISHED, Distillation, distance, distill
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe

RECIPE = Distillation(1e-2, 0.05, batch_size=16, epochs=3)


def toy(n: int = 90, parts: int = 1) -> Shift:
    """Noise on plain colors, of which every image has its own."""
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(n, 3, 1, 1, generator=generator)
    x = color + 0.1 * torch.randn(n, 3, 16, 16, generator=generator)
    y = torch.arange(n) % 3
    domains = tuple(
        Domain(str(i), Batch(*part))
        for i, part in enumerate(
            zip(x.chunk(parts), y.chunk(parts), torch.zeros_like(y).chunk(parts), strict=True)
        )
    )
    return Shift("toy", ("r", "g", "b"), train=domains, id_test=domains[0], ood_tests=())


def encoder(seed: int = 0) -> nn.Sequential:
    """With what a checkpoint can forget: running statistics and dropout."""
    network = small_cnn(3, width=4, seed=seed).encoder
    network.add_module("drop", nn.Dropout(0.1))
    assert isinstance(network, nn.Sequential)
    return network


def blocks(model: nn.Module, x: torch.Tensor):
    """The features, and the first two convolutions' outputs with their channels last."""
    outputs = []
    for name, layer in model.named_children():
        x = layer(x)
        if name in ("conv1", "conv2"):
            outputs.append(x.flatten(2).mT)
    return x, outputs


def with_noise(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.rand_like(x)


def test_distance_by_hand():
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.zeros(2, 2)
    assert distance(student, teacher).item() == (25 + 1) / 2
    assert distance(student[None], teacher[None]).item() == (25 + 1) / 2


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 7)])
def test_distance_is_the_width_times_the_torch_loss(shape):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, *shape, generator=generator)
    expected = 7 * F.mse_loss(student, teacher)
    torch.testing.assert_close(distance(student, teacher), expected)


def test_the_student_approaches_the_teacher():
    x = toy().train[0].data.x
    teacher, student = (small_cnn(3, width=4, seed=seed).encoder for seed in (5, 0))
    for _ in range(50):  # running statistics of these data, as if it had been trained on them
        teacher.train()(x)
    recipe = replace(RECIPE, epochs=60, weight_decay=0.0)
    last(distill(student, teacher.eval(), toy(), recipe, seed=0, report_every=100))
    with torch.no_grad():
        wanted, outputs = teacher(x), student.eval()(x)
    spread = distance(wanted, wanted.mean(dim=0).expand_as(wanted))
    assert distance(outputs, wanted) < 0.1 * spread
    assert distance(small_cnn(3, width=4).encoder.eval()(x).detach(), wanted) > spread


@pytest.mark.parametrize(
    ("recipe", "given"),
    [
        (RECIPE, {}),
        (replace(RECIPE, clip=0.5), {"augment": with_noise}),
        (replace(RECIPE, blocks=0.1, cosine=False), {"read": blocks}),
    ],
    ids=["plain", "clipped and augmented", "blocks"],
)
@pytest.mark.parametrize("stop", [1, 5, 15])
def test_an_interrupted_distillation_continues_bit_for_bit(recipe, given, stop):
    teacher = encoder(seed=5)
    whole, begun, resumed = encoder(), encoder(), encoder(seed=1)
    ends = [
        s.losses for s in distill(whole, teacher, toy(), recipe, seed=0, report_every=1, **given)
    ]
    file = b""
    for stage in distill(begun, teacher, toy(), recipe, seed=0, report_every=1, **given):
        if stage.step == stop:
            file = save(stage.checkpoint())
            break
    torch.rand(3)
    rest = distill(
        resumed, teacher, toy(), recipe, seed=0, report_every=1, resume=load(file), **given
    )
    assert [s.losses for s in rest] == ends[stop:]
    assert_same_weights(whole, resumed)


def test_cached_teacher_features_equal_those_of_every_step():
    """An augmentation that changes nothing makes the teacher work anew in each step."""
    teacher = encoder(seed=5)
    kept, anew = encoder(), encoder()
    last(distill(kept, teacher, toy(), RECIPE, seed=0, report_every=100))
    last(distill(anew, teacher, toy(), RECIPE, seed=0, report_every=100, augment=lambda x: x))
    for a, b in zip(kept.parameters(), anew.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_every_step_draws_a_new_augmentation_from_the_seed():
    draws = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        draws.append(torch.rand(1).item())
        return x

    for seed in (0, 0, 1):
        stages = distill(
            encoder(), encoder(5), toy(), RECIPE, seed=seed, report_every=100, augment=watched
        )
        assert last(stages).step == 15
    assert len(set(draws)) == 30
    assert draws[:15] == draws[15:30]


@pytest.mark.parametrize("average", [True, False])
def test_distillation_equals_plain_pytorch_with_clipping_and_blocks(average):
    recipe = replace(RECIPE, clip=0.5, blocks=0.1, cosine=False, average=average)
    teacher, ours, plain = encoder(seed=5), encoder(), encoder()
    last(distill(ours, teacher, toy(), recipe, seed=0, report_every=100, read=blocks))
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-2, weight_decay=0.05)
    teacher.eval()
    plain.train()
    data = toy().train[0].data
    picks = TrainingExamples(toy().train).minibatches(16, purpose="distill", seed=0, start=0)
    for step, (numbers, _) in zip(range(15), picks, strict=False):
        batch = data.pick(numbers)
        wanted, wanted_blocks = blocks(teacher, batch.x)
        with seeded(0, f"distill/step {step}"):
            output, found_blocks = blocks(plain, batch.x)
        pairs = zip(found_blocks, wanted_blocks, strict=True)
        apart = [F.mse_loss(one, other.detach()) for one, other in pairs]
        loss = F.mse_loss(output, wanted.detach()) + 0.1 * sum(apart) / len(apart)
        loss = loss if average else 16 * loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_is_unchanged(training):
    teacher = encoder(seed=5).train(training)
    teacher.get_submodule("norm2").train(not training)
    modes = [module.training for module in teacher.modules()]
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    stages = distill(encoder(), teacher, toy(), RECIPE, seed=0, report_every=1, augment=with_noise)
    next(stages)
    assert not any(module.training for module in teacher.modules())
    stages.close()  # pyright: ignore[reportAttributeAccessIssue], it is a generator
    assert [module.training for module in teacher.modules()] == modes
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_distillation_depends_only_on_the_seed_and_pools_domains():
    teacher = encoder(seed=5)
    models = [encoder() for _ in range(3)]
    for model, seed, parts in zip(models, (0, 0, 1), (1, 3, 1), strict=True):
        torch.rand(seed + parts)
        before = torch.get_rng_state()
        last(distill(model, teacher, toy(parts=parts), RECIPE, seed=seed, report_every=100))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(models[0], models[1])
    weights = [m.get_parameter("conv1.weight") for m in models]
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("average", [True, False])
def test_blocks_weigh_as_published_relative_to_the_features(average):
    """A tenth of the features' mean squared error, whatever the widths and the number of blocks."""
    shift, teacher, student = toy(), nn.Linear(3, 4), nn.Linear(3, 4)

    def read(model: nn.Module, x: torch.Tensor):
        apart = 0.0 if model is teacher else 2.0
        shapes = ((len(x), 5, 8), (len(x), 3, 8), (len(x), 1, 2))
        features = torch.full((len(x), 4), apart) + 0 * model(x[:, :, 0, 0])
        return features, [torch.full(shape, apart) for shape in shapes]

    recipe = replace(RECIPE, blocks=0.1, average=average)
    stages = distill(student, teacher, shift, recipe, seed=0, report_every=1, read=read)
    scale = 1 if average else 4
    expected = {"distance": pytest.approx(4 * scale), "blocks": pytest.approx(0.4 * scale)}
    assert next(stages).losses == expected


def test_published_training_lengths():
    """ImageNet's 1 281 167 training images fill 5004 minibatches of 256."""
    assert PUBLISHED["imagenet", "RN50"].length(1_281_167) == 100 * 5004
    assert PUBLISHED["domainnet", "RN50"].length(20_000) == 95_000
    for recipe in PUBLISHED.values():
        steps = recipe.length(30_000)
        sizes = [recipe.size(step, steps=steps) for step in (0, steps // 2, steps - 1)]
        assert max(sizes) <= recipe.step_size
        assert (sizes[-1] < 1e-3 * recipe.step_size) == recipe.cosine


def test_the_step_size_follows_the_warm_up_of_the_recipe():
    recipe = Recipe(0.5, 0.0, 16, steps=100, warmup=50)
    assert recipe.size(0, steps=100) == pytest.approx(0.01)
    assert recipe.size(50, steps=100) == 0.5
    assert replace(recipe, warmup=None).size(10, steps=100) == 0.5
    assert replace(recipe, warmup=0).size(0, steps=100) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 91}, "choose a batch size between 1 and 90"),
        ({"steps": 4}, "epochs or steps, got epochs=3 and steps=4"),
        ({"epochs": None, "steps": 0}, "at least 1 step, got 0"),
        ({"step_size": 1e30}, "not finite at step"),
        ({"blocks": 0.1}, "give a `read`"),
    ],
)
def test_invalid_arguments_are_rejected(change, message):
    recipe = replace(RECIPE, **change)
    with pytest.raises(ValueError, match=message):
        last(distill(encoder(), encoder(5), toy(), recipe, seed=0, report_every=1))


def test_networks_of_different_width_are_rejected():
    with pytest.raises(ValueError, match=r"\(16, 16\) and the teacher's \(16, 8\)"):
        other = small_cnn(3, width=2).encoder
        last(distill(encoder(), other, toy(), RECIPE, seed=0, report_every=1))
