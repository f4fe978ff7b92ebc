"""Probes: the optimum that scikit-learn finds, the published recipes, the choice by validation."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.models.small import small_cnn
from contam.training.probe import (
    PUBLISHED,
    SCRIPTS,
    WIDE,
    Discriminant,
    FullBatch,
    Minibatches,
    Probe,
    SelectedHead,
    extract,
    extracting,
    fit_probe,
    probe_images,
    top1_accuracy,
)


@pytest.fixture(scope="module")
def digits():
    """Real pixels as features: 900 to learn from, 400 to choose by, the rest to judge by."""
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    x = x.float()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return [(x[part], y[part]) for part in order.split([900, 400, len(y) - 1300])]


def blobs(n: int = 60, apart: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    return torch.randn(n, 5, generator=generator) + apart * F.one_hot(y, 5), y


def accuracy(probe: Probe, data) -> float:
    return top1_accuracy(probe(data[0]), data[1])


def domain(n: int = 40) -> Domain:
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Domain("toy", Batch(x, torch.arange(n) % 3, torch.zeros(n, dtype=torch.long)))


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_full_batch_optimum_agrees_with_scikit_learn(digits, penalty):
    (x, y), _, test = digits
    ours = fit_probe(x, y, FullBatch((penalty,)))
    scaler = StandardScaler().fit(x.numpy())
    reference = LogisticRegression(C=1 / (len(x) * penalty), max_iter=5000, tol=1e-8)
    reference.fit(scaler.transform(x.numpy()), y.numpy())
    theirs = reference.score(scaler.transform(test[0].numpy()), test[1].numpy())
    assert abs(accuracy(ours, test) - theirs) < 0.005
    wanted = torch.tensor(reference.predict_proba(scaler.transform(test[0].numpy()))).float()
    torch.testing.assert_close(ours(test[0]).softmax(dim=1), wanted, rtol=0, atol=5e-3)


def test_the_optimum_has_zero_gradient():
    """Two mirrored points in one dimension: the penalty times the weight is what the loss pulls."""
    x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    probe = fit_probe(x, y, FullBatch((0.1,), standardize=False))
    half = probe.weight[1, 0].item()
    pull = 1 / (1 + torch.tensor(2 * half).exp().item())
    assert probe.weight[0, 0].item() == pytest.approx(-half, abs=1e-5)
    assert pull == pytest.approx(0.1 * half, abs=1e-5)
    assert probe.bias.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_features_that_carry_gradients_are_frozen(digits):
    (x, y), *_ = digits
    given = x.clone().requires_grad_()
    assert fit_probe(given * 1, y).weight.equal(fit_probe(x, y).weight)
    assert given.grad is None


def test_the_head_of_a_probe_has_its_logits(digits):
    (x, y), *_ = digits
    probe = fit_probe(3 + 5 * x, y)
    weight, bias = probe.double().head()
    torch.testing.assert_close(
        (3 + 5 * x).double() @ weight.T + bias, probe(3 + 5 * x), check_dtype=False,
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_minibatches_approach_the_optimum(digits):
    (x, y), _, test = digits
    recipe = Minibatches(0.02, 1e-3, 256, epochs=60, standardize=True)
    assert accuracy(fit_probe(x, y, recipe), test) > accuracy(fit_probe(x, y), test) - 0.02


def test_full_size_minibatches_equal_plain_pytorch():
    x, y = blobs()
    ours = fit_probe(x, y, Minibatches(0.1, 0.01, batch_size=len(y), epochs=7), seed=3)
    begin = fit_probe(x, y, Minibatches(0.0, 0.0, batch_size=len(y), epochs=1), seed=3)
    plain = nn.Linear(5, 3)
    plain.load_state_dict({"weight": begin.weight, "bias": begin.bias})
    optimizer = torch.optim.AdamW(plain.parameters(), 0.1, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for _ in range(7):
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(ours.weight, plain.weight.detach(), rtol=1e-4, atol=1e-5)


def test_warm_up_and_clipping_equal_plain_pytorch():
    x, y = blobs()
    recipe = Minibatches(0.5, 0.0, len(y), epochs=5, optimizer="sgd", warmup=3, clip=0.1)
    ours = fit_probe(x, y, recipe, seed=3)
    begin = fit_probe(x, y, Minibatches(0.0, 0.0, batch_size=len(y), epochs=1), seed=3)
    plain = nn.Linear(5, 3)
    plain.load_state_dict({"weight": begin.weight, "bias": begin.bias})
    optimizer = torch.optim.SGD(plain.parameters(), momentum=0.9)
    norms = []
    for share in (1 / 3, 2 / 3, 1, 1, 1 / 2):
        optimizer.param_groups[0]["lr"] = 0.5 * share
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        norms.append(nn.utils.clip_grad_norm_(plain.parameters(), 0.1))
        optimizer.step()
    assert max(norms) > 0.1
    torch.testing.assert_close(ours.weight, plain.weight.detach(), rtol=1e-4, atol=1e-5)


def test_published_scripts_differ_from_the_text_in_warm_up_and_clipping():
    for (data, network), recipe in SCRIPTS.items():
        assert replace(recipe, warmup=0, clip=None) == PUBLISHED[data, network]
        assert (data, recipe.warmup, recipe.clip) == ("imagenet", 500, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", dict.fromkeys([*PUBLISHED.values(), FullBatch()]), ids=str)
def test_every_recipe_depends_only_on_the_seed(recipe):
    x, y = blobs(n=300, apart=6.0)
    torch.rand(3)
    before = torch.get_rng_state()
    first, again, other = (fit_probe(x, y, recipe, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.weight, other.weight) == isinstance(recipe, FullBatch)
    start = F.cross_entropy(torch.zeros(300, 3), y)
    assert F.cross_entropy(first(x), y) < 1.3 * start
    if isinstance(recipe, FullBatch) or recipe.steps:
        assert accuracy(first, (x, y)) > 0.95


def test_the_best_epoch_on_validation_data_is_selected():
    """Validation data labeled at odds with training, so that the first epoch is the best."""
    x, y = blobs()
    wrong = (y + 1) % 3
    every = [
        fit_probe(x, y, Minibatches(0.01, 0.0, 20, epochs=e, cosine=False)) for e in range(1, 9)
    ]
    scores = [accuracy(probe, (x, wrong)) for probe in every]
    chosen = fit_probe(
        x, y, Minibatches(0.01, 0.0, 20, epochs=8, cosine=False), validation=(x, wrong)
    )
    assert len(set(scores)) > 1
    assert torch.equal(chosen.weight, every[scores.index(max(scores))].weight)
    assert accuracy(chosen, (x, wrong)) == max(scores) > scores[-1]


def test_the_best_penalty_on_validation_data_is_selected(digits):
    (x, y), validation, _ = digits
    penalties = (10.0, 1e-2, 1e-6)
    scores = [accuracy(fit_probe(x, y, FullBatch((p,))), validation) for p in penalties]
    chosen = fit_probe(x, y, FullBatch(penalties), validation=validation)
    assert accuracy(chosen, validation) == pytest.approx(max(scores), abs=0.003)
    assert max(scores) > min(scores) + 0.01
    least = fit_probe(
        x,
        y,
        FullBatch(penalties),
        validation=validation,
        score=lambda logits, _: -logits.std().item(),
    )
    assert accuracy(least, validation) == pytest.approx(scores[0], abs=0.003)


def test_training_can_end_within_an_epoch():
    x, y = blobs()
    short, long = (
        fit_probe(x, y, Minibatches(0.1, 0.0, 16, epochs=None, steps=s, cosine=False))
        for s in (5, 6)
    )
    assert not torch.equal(short.weight, long.weight)


def test_a_constant_feature_is_ignored(digits):
    (x, y), _, _ = digits
    dead = (x == x[0]).all(dim=0)
    assert dead.any()
    probe = fit_probe(x, y)
    assert not probe.weight[:, dead].any()
    assert probe.weight.isfinite().all()


def test_features_do_not_depend_on_the_batch_size_and_the_encoder_is_unchanged():
    encoder = small_cnn(3, width=4).encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    whole, parts = extract(encoder, domain()), extract(encoder, domain(), batch_size=7)
    assert whole.shape == (40, 16)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    torch.testing.assert_close(whole, parts)
    assert encoder.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    steps = [len(batch) for batch in extracting(encoder, domain(), batch_size=16)]
    assert steps == [16, 16, 8]


def test_features_can_be_trained_on():
    features = extract(small_cnn(3, width=4).encoder, domain())
    head = nn.Linear(16, 3)
    head(features).sum().backward()
    assert head.weight.grad is not None


def test_invalid_arguments_are_rejected():
    x, y = blobs()
    with pytest.raises(ValueError, match="pool or flatten"):
        extract(nn.Conv2d(3, 4, 3), domain())
    with pytest.raises(ValueError, match="got 0 rows and 0 classes"):
        fit_probe(x[:0], y[:0])
    with pytest.raises(ValueError, match=r"got 0\.\.2 for a probe of 2"):
        fit_probe(x, y, classes=2)
    with pytest.raises(ValueError, match="not finite"):
        fit_probe(x / 0, y)
    with pytest.raises(ValueError, match="got 2 penalties; give one, or validation"):
        fit_probe(x, y, FullBatch((1.0, 2.0)))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        fit_probe(x, y, FullBatch((-1.0,)))
    with pytest.raises(ValueError, match="either epochs or steps"):
        fit_probe(x, y, Minibatches(steps=3))
    for empty in (Minibatches(epochs=0), Minibatches(batch_size=0)):
        with pytest.raises(ValueError, match="at least one epoch"):
            fit_probe(x, y, empty)


def test_a_probe_can_have_classes_without_examples():
    x, y = blobs()
    assert fit_probe(x, y, classes=5)(x).shape == (60, 5)


def image_probe(resume=None, *, steps: int = 40, **more) -> tuple[SelectedHead, list[bytes]]:
    """A probe of blobs, which an encoder moves; and its checkpoints after every ten steps."""
    x, y = blobs()
    domains = tuple(Domain(name, Batch(x, y, torch.full_like(y, k))) for k, name in enumerate("ab"))
    shift = Shift("blobs", ("a", "b", "c"), domains, domains[0], ())
    encoder = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5))
    settings = {"optimizer": "adam", "per_domain": True} | more
    recipe = Minibatches(0.1, 0.0, 8, epochs=None, steps=steps, **settings)
    head = SelectedHead(5, 3, seed=0)
    stages = probe_images(
        head, encoder, shift, recipe, validation=(x, y), seed=0, report_every=10, resume=resume
    )
    kept = [save(stage.checkpoint()) for stage in stages]
    assert encoder.training and encoder.get_buffer("0.num_batches_tracked") == 0
    return head, kept


def test_a_probe_of_images_learns_and_resumes_to_the_same_bits():
    head, kept = image_probe()
    x, y = blobs()
    assert top1_accuracy(F.linear(x, head.best_weight, head.best_bias), y) > 0.9
    for checkpoint in kept[:-1]:
        again, _ = image_probe(load(checkpoint))
        assert torch.equal(again.best_weight, head.best_weight)


def test_a_probe_of_images_warms_up_and_clips():
    weights = [
        image_probe(steps=10, optimizer="sgd", **more)[0].weight
        for more in ({}, {"warmup": 5}, {"clip": 0.1})
    ]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])


def test_the_head_keeps_its_best_weights():
    head = SelectedHead(2, 2, seed=0)
    head.select(0.5)
    best = head.weight.detach().clone()
    for score in (0.4, 0.5):
        with torch.no_grad():
            head.weight.add_(1)
        head.select(score)
    assert torch.equal(head.best_weight, best)
    head.select(0.6)
    assert torch.equal(head.best_weight, head.weight)


def in_classes(n: int, width: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples around the center of their class, the classes in turn."""
    draws = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    spread = torch.linspace(0.5, 2, width)
    y = torch.arange(n) % classes
    return centers[y] + spread * torch.randn(n, width, generator=draws), y


@pytest.mark.parametrize(
    ("n", "width", "classes"),
    [(120, 10, 3), (600, 40, 60), (90, 200, 3), (60, 100, 30)],
    ids=["few features", "many classes", "more features than examples", "two of each class"],
)
def test_the_closed_form_agrees_with_scikit_learn(n, width, classes):
    x, y = in_classes(n, width, classes, seed=0)
    test, _ = in_classes(n, width, classes, seed=1)
    ours = fit_probe(x, y, Discriminant(standardize=False))
    rest = x - torch.stack([x[y == k].mean(dim=0) for k in range(classes)])[y]
    share = max(ledoit_wolf_shrinkage(rest.numpy(), assume_centered=True), 1e-4)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(x.numpy(), y.numpy())
    wanted = torch.from_numpy(reference.decision_function(test.numpy()))
    # scikit-learn divides by the examples, and we by the degrees of freedom.
    wanted = wanted * (n - classes) / n
    logits = ours(test).double()
    torch.testing.assert_close(
        logits - logits.mean(1, keepdim=True), wanted - wanted.mean(1, keepdim=True),
        rtol=1e-3, atol=1e-3 * float(wanted.abs().max()),
    )  # fmt: skip


def test_one_example_of_each_class_gives_the_nearest_mean():
    x, y = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1, 2])
    probe = fit_probe(x, y, Discriminant(standardize=False))
    queries = torch.tensor([[1.0, 0.5], [3.0, 1.0], [1.0, 2.5]])
    assert probe(queries).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("width", [5, 50], ids=["few features", "more features than examples"])
def test_the_closed_form_never_predicts_a_class_without_examples(width):
    x, y = in_classes(30, width, 3, seed=0)
    probe = fit_probe(x, 7 * y, Discriminant(), classes=21_841)
    assert probe.bias.isneginf().sum() == 21_841 - 3
    assert set(probe(x).argmax(dim=1).tolist()) == {0, 7, 14}


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_the_closed_form_takes_constant_features(constant):
    x, y = in_classes(60, 6, 3, seed=0)
    x[:, 2:4] = constant
    assert accuracy(fit_probe(x, y, Discriminant()), (x, y)) > 0.5


def test_an_optimum_in_the_span_of_the_examples_is_the_optimum():
    x, y = in_classes(40, 40 * WIDE + 100, 4, seed=0)
    probe = fit_probe(x, y, FullBatch((1e-2,)))
    z = ((x - probe.mean) / probe.scale).double()
    logits = z @ probe.weight.double().T + probe.bias.double()
    slope = (logits.softmax(dim=1) - F.one_hot(y, 4)) / len(y)
    gradient = slope.T @ z + 1e-2 * probe.weight.double()
    assert gradient.abs().max() < 1e-5
