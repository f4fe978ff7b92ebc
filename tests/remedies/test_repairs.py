"""Each repair helps in a world that it is made for, and does not in another."""

import copy

import pytest
import torch
from support.networks import assert_same_weights
from support.noise import noise
from torch import Tensor, nn

from contam.batch import Batch
from contam.measures.accuracy import accuracy
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies import (
    REPAIRS,
    BatchNormStatistics,
    CenteredMaps,
    CoreProjection,
    DomainErasure,
    FreshHead,
    GroupBalancedHead,
    LastLayerRetraining,
    PriorCorrection,
    Repair,
    WeightInterpolation,
    cross_fit,
)
from contam.remedies.core_projection import core_basis
from contam.remedies.domain_erasure import fit_eraser
from contam.remedies.fresh_head import fit_linear_head
from contam.remedies.last_layer import balanced_rows
from contam.remedies.prior_correction import class_shares

CENTERS = 2 * torch.eye(3, 6)
"""Class means of features; the last three coordinates carry no information about the class."""


def features(n: int, *, seed: int, shift: Tensor | None = None, y: Tensor | None = None) -> Batch:
    """Gaussian features around the mean of their class."""
    y = torch.arange(n) % 3 if y is None else y
    x = CENTERS[y] + noise(len(y), 6, seed=seed)
    return Batch(x if shift is None else x + shift, y, 0 * y)


def network(head: LinearHead) -> nn.Sequential:
    """A network whose features are its inputs."""
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 3))
    model[1].load_state_dict({"weight": head.weight, "bias": head.bias})
    return model.eval()


def right_head() -> LinearHead:
    known = features(3000, seed=9)
    return fit_linear_head(known.x, known.y, classes=3)


def gain(repair: Repair, model: nn.Module, id: Batch, ood: Batch) -> float:
    return cross_fit(repair, LogitsAdapter(model), id, ood).gain().value


def test_a_fresh_head_repairs_a_wrong_head_and_no_right_one():
    own, new = features(300, seed=1), features(300, seed=2)
    wrong = LinearHead(right_head().weight.roll(1, 0), right_head().bias)
    assert gain(FreshHead(), network(wrong), own, new) > 0.4
    assert abs(gain(FreshHead(), network(right_head()), own, new)) < 0.05


def test_a_few_ood_labels_repair_a_turned_representation():
    own, new = features(300, seed=1), features(300, seed=2)
    turned = new._replace(x=new.x.roll(1, 1))
    model = network(right_head())
    few, more = (gain(LastLayerRetraining(k), model, own, turned) for k in (8, 32))
    assert more > few > 0.2
    assert abs(gain(FreshHead(), model, own, turned)) < 0.05


def test_the_number_of_labels_is_that_of_one_fit():
    own, new = features(300, seed=1), features(300, seed=2)
    effect = cross_fit(LastLayerRetraining(8), LogitsAdapter(network(right_head())), own, new)
    assert effect.labels == 24
    assert cross_fit(FreshHead(), LogitsAdapter(network(right_head())), own, new).labels == 0


def test_too_few_ood_examples_for_last_layer_retraining_are_named():
    few = features(30, seed=1)
    reason = LastLayerRetraining(32).applies(LogitsAdapter(network(right_head())), few, few)
    assert reason == "30 OOD examples of 3 classes are fewer than half of 32 per class"


def correlated(n: int, *, agree: float, seed: int) -> Batch:
    """Two classes; a strong feature agrees with a weak one in a share of the examples."""
    y = torch.arange(n) % 2
    draws = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    group = torch.where(draws < agree, y, 1 - y)
    signs = 2 * torch.stack([y, group], dim=1) - 1
    x = signs * torch.tensor([1.0, 3.0]) + noise(n, 2, seed=seed)
    return Batch(x, y, group)


def test_balanced_groups_remove_a_shortcut():
    own, new = correlated(2000, agree=0.95, seed=1), correlated(500, agree=0.05, seed=2)
    head = fit_linear_head(own.x, own.y, classes=2)
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    model[1].load_state_dict({"weight": head.weight, "bias": head.bias})
    assert gain(GroupBalancedHead(), model, own, new) > 0.3
    assert abs(gain(FreshHead(), model, own, new)) < 0.1


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (torch.zeros(40).long(), "the ID examples have no groups"),
        (torch.arange(40) // 2 % 2, "the groups of the ID examples are balanced already"),
    ],
)
def test_balance_needs_groups_that_are_not_balanced(group, reason):
    batch = Batch(noise(40, 6), torch.arange(40) % 2, group)
    adapter = LogitsAdapter(network(right_head()))
    assert GroupBalancedHead().applies(adapter, batch, batch) == reason


def test_rows_of_unequal_groups_are_balanced_within_the_limit():
    group = torch.tensor([0] * 10 + [1] * 2 + [2])
    assert torch.bincount(group[balanced_rows(group)]).tolist() == [10, 10, 10]
    many = torch.cat([torch.zeros(1000).long(), torch.arange(1, 100)])
    counts = torch.bincount(many[balanced_rows(many)])
    assert counts.unique().numel() == 1 and counts.sum() <= 4 * len(many)


def test_prior_correction_helps_under_label_shift_only():
    own = features(600, seed=1)
    shifted = torch.tensor([0] * 570 + [1] * 15 + [2] * 15)
    model = network(right_head())
    under_shift = cross_fit(
        PriorCorrection(), LogitsAdapter(model), own, features(600, seed=2, y=shifted)
    ).gain()
    assert under_shift.low > 0
    assert abs(gain(PriorCorrection(), model, own, features(600, seed=2))) < 0.02


def test_class_shares_are_those_of_calibrated_probabilities():
    y = torch.tensor([0] * 4000 + [1] * 500 + [2] * 500)
    x = features(0, seed=0, y=y).x
    # The exact posterior of equal classes.
    logits = x @ CENTERS.T - CENTERS.square().sum(dim=1) / 2
    shares = class_shares(logits.double(), torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(
        shares, torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64), rtol=0, atol=0.02
    )


def test_erasing_the_domain_helps_where_it_is_mixed_with_a_class_only():
    own = features(600, seed=1)
    # The fourth coordinate goes with the first class in the ID data, and with the domain in others.
    own.x[:, 3] += 2.0 * (own.y == 0)
    model = network(fit_linear_head(own.x, own.y, classes=3))
    new = features(600, seed=2, shift=torch.tensor([0.0, 0, 0, 6, 0, 0]))
    assert gain(DomainErasure(), model, own, new) > 0.3
    assert gain(FreshHead(), model, own, new) < 0.05
    assert gain(DomainErasure(), network(right_head()), features(600, seed=3), own) < 0.05


def test_a_core_projection_helps_where_a_head_reads_the_background_only():
    def images(seed: int, shift: float = 0.0) -> Batch:
        """Features with a background that is added to the first coordinate and to the fourth."""
        data = features(600, seed=seed)
        background = 2 * noise(600, 1, seed=seed + 50)[:, 0]
        data.x[:, 0] += background
        data.x[:, 3] = background + shift
        return data

    own = images(1)
    # The best ID head subtracts the fourth coordinate from the first.
    model = network(fit_linear_head(own.x, own.y, classes=3))
    assert gain(CoreProjection(), model, own, images(2, shift=6.0)) > 0.1
    assert gain(FreshHead(), model, own, images(2, shift=6.0)) < 0.05
    assert gain(CoreProjection(), model, own, images(3)) < 0
    # A shift of the core features reaches every head.
    moved = features(600, seed=4, shift=CENTERS[1] - CENTERS[0])
    assert abs(gain(CoreProjection(), network(right_head()), features(600, seed=5), moved)) < 0.05


def test_the_core_subspace_holds_the_class_means_and_no_more():
    known = features(300, seed=1)
    basis = core_basis(known.x, known.y)
    assert basis.shape == (6, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    means = torch.stack([known.x[known.y == label].mean(0) for label in range(3)])
    offsets = means - means.mean(0)
    torch.testing.assert_close(offsets @ basis @ basis.T, offsets, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [400, 30], ids=["more examples than features", "fewer"])
def test_no_linear_probe_reads_an_erased_domain(n):
    x, domain = noise(n, 50, seed=3), torch.arange(n) % 3
    x[:, 0] += 2 * domain
    erased = fit_eraser(x, domain)(x).float()
    means = torch.stack([erased[domain == k].mean(dim=0) for k in range(3)])
    torch.testing.assert_close(means, means[:1].expand(3, -1), rtol=0, atol=1e-4)
    probe = fit_linear_head(erased, domain, classes=3)
    assert (probe(erased).argmax(1) == domain).float().mean() < 0.5 + 1 / n
    known = fit_linear_head(x, domain, classes=3)
    assert (known(x).argmax(1) == domain).float().mean() > 0.6


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_erasing_is_that_of_the_concept_erasure_package():
    package = pytest.importorskip("concept_erasure")
    x, domain = noise(20_000, 5, seed=4).double(), torch.arange(20_000) % 2
    x[:, 0] += 3 * domain
    x = x @ noise(5, 5, seed=5).double()
    fitter = package.LeaceFitter.fit(
        x, nn.functional.one_hot(domain).double(), shrinkage=False, constrain_cov_trace=False
    )
    # Ledoit and Wolf's shrinkage, which the package is without here, is small.
    torch.testing.assert_close(fit_eraser(x, domain)(x), fitter.eraser(x), rtol=0, atol=0.02)


def image_world(n: int, *, seed: int, change: str = "") -> Batch:
    """Images of three classes: which third of the columns is bright."""
    y = torch.arange(n) % 3
    x = 0.1 * noise(n, 1, 6, 6, seed=seed) + 0.5
    for k in range(3):
        x[y == k, :, :, 2 * k : 2 * k + 2] += 0.3
    x = {"": x, "contrast": 0.3 + 0.2 * x, "brightness": x - 1}[change]
    return Batch(x, y, 0 * y)


def convolutional(*, pool: int = 3, seed: int = 0) -> nn.Sequential:
    """A small network with batch norm, trained on the images."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, padding_mode="replicate"), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(pool), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * pool**2, 3),
    )  # fmt: skip
    data, optimizer = image_world(300, seed=7), torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    return model.eval()


def test_batch_norm_statistics_help_under_a_contrast_shift_only():
    own, model = image_world(90, seed=1), convolutional()
    changed = image_world(90, seed=2, change="contrast")
    assert gain(BatchNormStatistics(), model, own, changed) > 0.3
    assert abs(gain(BatchNormStatistics(), model, own, image_world(90, seed=2))) < 0.05


def test_centered_maps_help_under_a_brightness_shift_only():
    own, model = image_world(90, seed=1), convolutional()
    changed = image_world(90, seed=2, change="brightness")
    assert gain(CenteredMaps(), model, own, changed) > 0.3
    assert abs(gain(CenteredMaps(), model, own, image_world(90, seed=2))) < 0.05


def test_centering_does_not_fit_maps_of_one_position():
    data = image_world(9, seed=1)
    reasons = [
        CenteredMaps().applies(LogitsAdapter(model), data, data)
        for model in (convolutional(pool=1), nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))
    ]
    assert reasons == ["some maps have a single position", "the network has no batch norm of maps"]


def test_weights_half_way_to_the_base_undo_half_of_a_change():
    own, new = features(300, seed=1), features(300, seed=2, shift=torch.ones(6))
    tuned = LinearHead(right_head().weight + 3 * noise(3, 6, seed=6), right_head().bias)
    repair = WeightInterpolation(network(right_head()))
    assert gain(repair, network(tuned), own, new) > 0.05
    assert gain(WeightInterpolation(network(tuned)), network(tuned), own, new) == 0


def test_a_base_of_another_shape_is_named():
    own = features(9, seed=1)
    other = nn.Sequential(nn.Identity(), nn.Linear(6, 4))
    with pytest.raises(ValueError, match=r"no '1\.weight' of the same shape"):
        WeightInterpolation(other).fit(network(right_head()), id=own)


@pytest.mark.parametrize("repair", REPAIRS, ids=[repair.title for repair in REPAIRS])
def test_a_repair_changes_a_copy_and_its_code_runs(repair):
    data = image_world(60, seed=1, change="contrast")
    id_data = data._replace(domain=torch.arange(60) // 30 * (data.y == 0))
    model = convolutional().train()
    before, modes = copy.deepcopy(model), [module.training for module in model.modules()]
    names = {"model": model, "id_data": id_data, "ood_data": data}
    if isinstance(repair, LastLayerRetraining) and repair.per_class > 8:
        with pytest.raises(ValueError, match="fewer than half"):
            exec(repair.code.replace("32", "64"), names)
    exec(repair.code, names)
    assert_same_weights(model, before)
    assert [module.training for module in model.modules()] == modes
    repaired = names["repaired"]
    assert repaired is not model and isinstance(repaired, nn.Sequential)
    assert accuracy(repaired, (data.x, data.y)).count == 60


REJECTED = {
    "a label without a logit": (
        FreshHead(), {"id": (torch.eye(6), torch.arange(6))}, r"labels 0\.\.5 don't fit 3 logits",
    ),
    "no OOD data": (DomainErasure(), {"id": features(9, seed=1)}, "needs OOD data"),
    "no OOD examples": (
        LastLayerRetraining(8), {"id": features(9, seed=1), "ood": features(0, seed=1)},
        "0 OOD examples of 0 classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("repair", "data", "line"), REJECTED.values(), ids=REJECTED)
def test_data_that_do_not_fit_are_rejected_in_one_line(repair, data, line):
    with pytest.raises(ValueError, match=line) as error:
        repair.fit(network(right_head()), **data)
    assert "\n" not in str(error.value)


def test_ood_inputs_need_no_labels_where_a_repair_reads_none():
    own, new = features(60, seed=1), features(60, seed=2)
    labeled, bare = (
        DomainErasure().fit(network(right_head()), id=own, ood=ood) for ood in (new, new.x)
    )
    assert_same_weights(labeled, bare)
