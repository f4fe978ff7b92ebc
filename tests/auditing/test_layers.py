"""Records of layers and neurons: the measures themselves, for any kind of network."""

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from support.audit_inputs import CLASSES, cnn, noise_inputs, sample, scenes_inputs
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.alterations import STYLES, altered
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.audited_layers import running_layers
from contam.auditing.layers import LayerEvidence, layer_evidence
from contam.auditing.passes import Budget, run_passes
from contam.auditing.records import AuditRecord
from contam.data.counterfactual import CHANGES
from contam.experiment import Stage
from contam.measures.activation import activation_asymmetry
from contam.measures.class_profiles import class_profiles
from contam.measures.selectivity import selectivity
from contam.models.small import resnet8
from contam.models.torchvision_import import import_torchvision

FEW = Budget(fitted=100, queries=40, control=80, changed=40, per_class=4, probed_layers=2, share=1)


def steps(inputs: AuditInputs, budget: Budget) -> Generator[Stage, None, LayerEvidence]:
    layers = inputs.layers or running_layers(inputs.model, inputs.id)
    passes = yield from run_passes(inputs, layers, budget)
    return returned(layer_evidence(passes, layers, budget))


def examined(inputs: AuditInputs, budget: Budget = FEW) -> LayerEvidence:
    return returned(steps(inputs, budget))


@pytest.fixture(scope="module")
def scenes():
    """An untrained network on the embedded benchmark, and the records of its layers."""
    inputs = scenes_inputs()
    return inputs, examined(inputs, replace(FEW, probed_layers=4))


def test_layer_numbers_agree_with_the_measures(scenes):
    inputs, evidence = scenes
    assert tuple(record.name for record in evidence.layers) == inputs.layers
    for data in (inputs.id, *inputs.ood):
        profiles = class_profiles(inputs.model, data.domain, inputs.layers, classes=10).layers
        for record in evidence.layers:
            profile = profiles[record.name]
            assert record.neurons == profile.means.shape[1]
            expected = {
                "selectivity": selectivity(profile.means).mean(),
                "asymmetry": activation_asymmetry(profile.rates).mean(),
                "rate": profile.rates.mean(),
                "density": profile.density.mean(),
            }
            for kind, value in expected.items():
                assert getattr(record, kind)[data.name] == pytest.approx(float(value)), kind
            rates = record.class_rates[data.name]
            assert rates == pytest.approx(profile.rates.mean(dim=1).tolist(), abs=1e-4)


def test_every_number_has_a_control(scenes):
    _, evidence = scenes
    keys = {"ID", "checker", "untrained"}
    for record in evidence.layers:
        for kind in ("selectivity", "asymmetry", "rate", "density"):
            assert set(getattr(record, kind)) == keys, kind
        assert set(record.counterfactual) == set(CHANGES)
        assert set(record.untrained_attenuation) >= set(CHANGES)
    probed = [record for record in evidence.layers if record.probe]
    assert len(probed) == 4 and probed[-1] is evidence.layers[-1]
    for record in probed:
        for kind in ("probe", "decided", "information"):
            assert set(getattr(record, kind)) == keys, kind
        assert record.domain_error is not None
        assert record.untrained_domain_error is not None
        assert 0 < (record.domain_chance or 0) < 1


def test_a_network_is_its_own_control_on_the_same_examples(scenes):
    inputs, _ = scenes
    same = replace(inputs, untrained=inputs.model)
    evidence = examined(same, replace(FEW, control=1000, fitted=1000))
    for record in evidence.layers:
        assert record.selectivity["untrained"] == pytest.approx(record.selectivity["ID"])
        assert record.rate["untrained"] == pytest.approx(record.rate["ID"])
        assert record.probe.get("untrained") == record.probe.get("ID")
        for change in CHANGES:
            own, control = record.counterfactual, record.untrained_attenuation
            assert (change in own) == (change in control)
            if change in own:
                assert own[change].value == pytest.approx(control[change].value)


def variances(model: nn.Module, norm: str) -> Tensor:
    return model.get_submodule(norm).get_buffer("running_var")


def test_the_batch_norms_of_the_control_have_statistics_of_the_inputs():
    control = resnet8(width=4, seed=3)
    weights = [value.clone() for value in control.parameters()]
    inputs = replace(scenes_inputs(), untrained=control, calibrated=True)
    examined(inputs, replace(FEW, probed_layers=1))
    assert (variances(control, "encoder.norm") != 1).all()
    assert all(map(torch.equal, control.parameters(), weights))
    given = resnet8(width=4, seed=3)
    examined(replace(inputs, untrained=given, calibrated=False), replace(FEW, probed_layers=1))
    assert (variances(given, "encoder.norm") == 1).all()


def test_inputs_too_few_for_statistics_leave_the_control_as_it_was_drawn():
    control = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    inputs = noise_inputs(mlp(), (6,), untrained=control)
    evidence = examined(replace(inputs, calibrated=True), replace(FEW, statistics=1))
    assert (variances(control, "1") == 1).all()
    assert any("no statistics of the inputs" in line for line in evidence.left_out)


def test_shares_lie_between_0_and_1_and_decisions_accumulate(scenes):
    _, evidence = scenes
    probed = [record for record in evidence.layers if record.probe]
    for record in probed:
        for share in [*record.decided.values(), *(e.value for e in record.probe.values())]:
            assert 0 <= share <= 1
        for interval in [*record.probe.values(), *record.information.values()]:
            assert interval.low is not None and interval.high is not None
            assert interval.low <= interval.value <= interval.high
    for key in ("ID", "checker"):
        # A prediction that is decided at one layer is decided at all later ones.
        rising = [record.decided[key] for record in probed]
        assert rising == sorted(rising)


def test_neurons_are_those_of_the_layers(scenes):
    inputs, evidence = scenes
    table = evidence.neurons
    assert table is not None
    assert len(table.layer) == sum(record.neurons for record in evidence.layers)
    profiles = class_profiles(inputs.model, inputs.id.domain, inputs.layers, classes=10).layers
    for row in range(0, len(table.layer), 7):
        profile = profiles[table.layer[row]]
        k = table.index[row]
        assert table.favorite[row] == CLASSES[int(profile.means[:, k].argmax())]
        assert table.selectivity_id[row] == pytest.approx(
            float(selectivity(profile.means)[k]), abs=1e-3
        )
        assert table.rate_id[row] == pytest.approx(float(profile.rates[:, k].mean()), abs=1e-3)


def test_the_projection_shows_examples_of_every_data_set(scenes):
    inputs, evidence = scenes
    assert evidence.projection is not None
    assert set(evidence.projection.data) == {"ID", "checker"}
    assert evidence.projection.layer == inputs.layers[-1]
    axes = ("x", "y", "data", "domain", "label")
    sizes = {len(getattr(evidence.projection, axis)) for axis in axes}
    assert sizes == {len(evidence.projection.data)}


def test_the_model_is_unchanged_when_collection_stops_early():
    inputs = scenes_inputs()
    inputs.model.train()
    before = {name: value.clone() for name, value in inputs.model.state_dict().items()}
    state = torch.random.get_rng_state()
    work = steps(inputs, FEW)
    for _ in range(7):
        next(work)
    work.close()
    assert inputs.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[n], v) for n, v in inputs.model.state_dict().items())
    assert not any(module._forward_hooks for module in inputs.model.modules())


def test_without_ood_data_neurons_are_ranked_by_changed_backgrounds():
    evidence = examined(scenes_inputs(ood=False))
    assert evidence.neurons is not None
    assert any(value is not None for value in evidence.neurons.attenuation)
    assert all(not record.attenuation for record in evidence.layers)
    assert any(record.counterfactual for record in evidence.layers)


def test_without_masks_the_style_of_whole_images_is_changed():
    evidence = examined(scenes_inputs(masks=False))
    changes = {key for record in evidence.layers for key in record.counterfactual}
    assert changes == set(STYLES)
    assert any("masks=" in line for line in evidence.left_out)


def test_without_an_untrained_network_there_is_no_control():
    evidence = examined(replace(scenes_inputs(), untrained=None))
    assert all(set(record.selectivity) == {"ID", "checker"} for record in evidence.layers)
    assert all(not record.untrained_attenuation for record in evidence.layers)
    assert any("untrained=" in line for line in evidence.left_out)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_inputs_other_than_images_have_all_evidence_but_changed_backgrounds():
    torch.manual_seed(0)
    evidence = examined(noise_inputs(mlp(), (6,), untrained=mlp()))
    (record,) = evidence.layers
    assert record.neurons == 8
    assert record.probe and record.selectivity and not record.counterfactual
    assert any("not images" in line for line in evidence.left_out)


def test_gray_images_get_the_changes_that_need_no_color():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    evidence = examined(noise_inputs(net, (1, 8, 8)))
    keys = set(evidence.layers[0].counterfactual)
    assert keys == {"contrast", "darkened"}


def test_a_network_without_activations_is_reported():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    evidence = examined(noise_inputs(net, (6,)))
    assert evidence.layers == () and evidence.neurons is None
    assert any("layers=" in line for line in evidence.left_out)


@pytest.mark.parametrize("per_class", [1, 2])
def test_few_examples_give_partial_layer_records(per_class):
    evidence = examined(noise_inputs(cnn(), (3, 8, 8), per_class=per_class, untrained=cnn(1)))
    assert [record.neurons for record in evidence.layers] == [4, 8, 16]
    assert all(record.rate for record in evidence.layers)
    assert evidence.left_out
    assert not any("\n" in line for line in evidence.left_out)


def test_a_missing_class_is_reported_and_the_others_are_compared():
    inputs = noise_inputs(cnn(), (3, 8, 8), untrained=cnn(1))
    ood = inputs.ood[0].domain.data
    lacking = sample("OOD", ood.x[ood.y > 0], ood.y[ood.y > 0])
    evidence = examined(replace(inputs, ood=(lacking,)))
    assert any("OOD has no example" in line and "(a)" in line for line in evidence.left_out)
    for record in evidence.layers:
        assert "OOD" in record.selectivity
        assert record.class_rates["OOD"][0] is None


class Broken(nn.Module):
    """Its second layer is not finite wherever the first pixel is dark, and the head ignores it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.first(x.flatten(1))
        self.second(flat / (x.flatten(1)[:, :1] > 0.5).float())
        return self.head(flat)


def test_a_layer_with_non_finite_activations_is_left_out():
    torch.manual_seed(0)
    evidence = examined(noise_inputs(Broken(), (3, 2, 2), untrained=Broken()))
    assert [record.name for record in evidence.layers] == ["first"]
    assert any("second" in line and "not finite" in line for line in evidence.left_out)


def test_layer_records_are_json_serializable(scenes):
    _, evidence = scenes
    schema = AuditRecord.model_fields
    assert {"layers", "neurons", "projection", "left_out"} <= set(schema)
    for record in evidence.layers:
        assert "NaN" not in record.model_dump_json()


def test_neurons_of_a_vision_transformer_are_on_the_last_axis():
    import_torchvision()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=24, num_heads=2, num_classes=3
    )
    evidence = examined(noise_inputs(model, (3, 32, 32)))
    assert [record.neurons for record in evidence.layers] == [96, 96]
    assert all(record.probe and record.counterfactual for record in evidence.layers)


@pytest.mark.slow
def test_a_resnet_50_has_all_its_neurons():
    from contam.models.sources import load

    encoder = load("torchvision:resnet50", seed=0).encoder
    model = nn.Sequential(encoder, nn.Linear(2048, 3))
    budget = replace(FEW, probed_layers=16)
    evidence = examined(noise_inputs(model, (3, 64, 64), per_class=6), budget)
    assert evidence.neurons is not None
    assert len(evidence.neurons.index) == 22720
    assert sum(record.neurons for record in evidence.layers) == 22720
    assert sum(bool(record.probe) for record in evidence.layers) == 16


def test_changes_keep_the_object():
    inputs = scenes_inputs()
    x, masks = inputs.id.domain.data.x[:20], inputs.id.masks
    assert masks is not None
    masks = masks[:20]
    for change in CHANGES:
        new = altered(x, masks, change)
        inside = (masks > 0).expand_as(x)
        assert torch.equal(new[inside], x[inside])
        assert not torch.equal(new, x)
    for style in STYLES:
        new = altered(x, None, style)
        assert new.shape == x.shape
        assert float(new.min()) >= 0 and float(new.max()) <= 1
        assert not torch.equal(new, x)


@pytest.mark.parametrize("n", [12, 60, 400])
def test_the_budget_is_a_share_of_small_sets(n):
    budget = Budget()
    assert budget.limited(64, n) <= max(1, n // 4)
    assert budget.limited(64, 10_000) == 64
