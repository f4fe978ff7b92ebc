"""What an audit finds by layer and neuron: the measures themselves, for any kind of network."""

from dataclasses import replace

import pytest
import torch
from support.audit_subjects import CLASSES, cnn, noise_subject, sample, scenes_subject
from support.generators import result_of
from torch import Tensor, nn

from contam.auditing.changes import STYLES, altered
from contam.auditing.layer_evidence import Bounds
from contam.auditing.layers import look_inside
from contam.auditing.records import AuditRecord
from contam.data.counterfactual import CHANGES
from contam.measures.activation import activation_asymmetry
from contam.measures.class_profiles import class_profiles
from contam.measures.selectivity import selectivity
from contam.models.torchvision_import import import_torchvision

FEW = Bounds(fitted=100, queries=40, control=80, altered=40, per_class=4, read=2)


@pytest.fixture(scope="module")
def scenes():
    """A drawn network on the embedded benchmark, and what was found in it."""
    subject = scenes_subject()
    return subject, result_of(look_inside(subject, replace(FEW, read=4)))


def test_numbers_of_a_layer_are_those_of_the_measures(scenes):
    subject, found = scenes
    assert tuple(record.name for record in found.layers) == subject.layers
    for data in (subject.id, *subject.ood):
        profiles = class_profiles(subject.model, data.domain, subject.layers, classes=10).layers
        for record in found.layers:
            profile = profiles[record.name]
            assert record.neurons == profile.means.shape[1]
            wanted = {
                "selectivity": selectivity(profile.means).mean(),
                "asymmetry": activation_asymmetry(profile.rates).mean(),
                "rate": profile.rates.mean(),
                "density": profile.density.mean(),
            }
            for kind, value in wanted.items():
                assert getattr(record, kind)[data.name] == pytest.approx(float(value)), kind
            rates = record.class_rates[data.name]
            assert rates == pytest.approx(profile.rates.mean(dim=1).tolist(), abs=1e-4)


def test_every_number_has_its_control(scenes):
    _, found = scenes
    keys = {"ID", "checker", "untrained"}
    for record in found.layers:
        for kind in ("selectivity", "asymmetry", "rate", "density"):
            assert set(getattr(record, kind)) == keys, kind
        full = {f"{change} 1" for change in CHANGES}
        assert set(record.counterfactual) >= full
        assert set(record.untrained_attenuation) >= full
    read = [record for record in found.layers if record.probe]
    assert len(read) == 4 and read[-1] is found.layers[-1]
    for record in read:
        for kind in ("probe", "decided", "information"):
            assert set(getattr(record, kind)) == keys, kind
        assert record.domain_error is not None
        assert record.untrained_domain_error is not None
        assert 0 < (record.domain_chance or 0) < 1


def test_the_untrained_network_is_the_control_of_itself(scenes):
    subject, _ = scenes
    same = replace(subject, untrained=subject.model)
    found = result_of(look_inside(same, replace(FEW, control=1000, fitted=1000)))
    for record in found.layers:
        assert record.selectivity["untrained"] == pytest.approx(record.selectivity["ID"])
        assert record.rate["untrained"] == pytest.approx(record.rate["ID"])
        assert record.probe.get("untrained") == record.probe.get("ID")
        for change in CHANGES:
            key = f"{change} 1"
            assert record.untrained_attenuation.get(key) == record.counterfactual.get(key)


def test_shares_of_what_is_decided_and_of_right_answers_lie_between_0_and_1(scenes):
    _, found = scenes
    read = [record for record in found.layers if record.probe]
    for record in read:
        for share in [*record.decided.values(), *(e.value for e in record.probe.values())]:
            assert 0 <= share <= 1
        for each in [*record.probe.values(), *record.information.values()]:
            assert each.low is not None and each.high is not None
            assert each.low <= each.value <= each.high
    for key in ("ID", "checker"):
        # What a layer has decided, those behind it have.
        rising = [record.decided[key] for record in read]
        assert rising == sorted(rising)


def test_neurons_are_those_of_the_layers_with_the_most_coupled_first(scenes):
    subject, found = scenes
    table = found.neurons
    assert table is not None
    assert table.total == len(table.layer) == sum(record.neurons for record in found.layers)
    profiles = class_profiles(subject.model, subject.id.domain, subject.layers, classes=10).layers
    for row in range(0, table.total, 7):
        profile = profiles[table.layer[row]]
        k = table.index[row]
        assert table.favorite[row] == CLASSES[int(profile.means[:, k].argmax())]
        assert table.selectivity_id[row] == pytest.approx(
            float(selectivity(profile.means)[k]), abs=1e-3
        )
        assert table.rate_id[row] == pytest.approx(float(profile.rates[:, k].mean()), abs=1e-3)


def test_the_table_of_neurons_keeps_the_first_rows_and_says_how_many_there_are(scenes):
    subject, found = scenes
    less = result_of(look_inside(subject, replace(FEW, neurons=9)))
    assert less.neurons is not None and found.neurons is not None
    assert less.neurons.total == found.neurons.total > 9
    assert less.neurons.index == found.neurons.index[:9]
    assert less.neurons.layer == found.neurons.layer[:9]


def test_the_plane_shows_examples_of_every_data_set(scenes):
    subject, found = scenes
    assert found.plane is not None
    assert set(found.plane.data) == {"ID", "checker"}
    assert found.plane.layer == subject.layers[-1]
    sizes = {len(getattr(found.plane, axis)) for axis in ("x", "y", "data", "domain", "label")}
    assert sizes == {len(found.plane.data)}


def test_the_model_is_as_it_was_found_also_after_half_of_the_audit():
    subject = scenes_subject()
    subject.model.train()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    state = torch.random.get_rng_state()
    steps = look_inside(subject, FEW)
    for _ in range(7):
        next(steps)
    steps.close()
    assert subject.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[n], v) for n, v in subject.model.state_dict().items())
    assert not any(module._forward_hooks for module in subject.model.modules())


def test_without_ood_data_neurons_are_ranked_by_changed_backgrounds():
    found = result_of(look_inside(scenes_subject(ood=False), FEW))
    assert found.neurons is not None
    assert any(value is not None for value in found.neurons.attenuation)
    assert all(not record.attenuation for record in found.layers)
    assert any(record.counterfactual for record in found.layers)


def test_without_masks_the_style_of_whole_pictures_is_changed_and_that_is_said():
    found = result_of(look_inside(scenes_subject(masks=False), FEW))
    changes = {key.split()[0] for record in found.layers for key in record.counterfactual}
    assert changes == set(STYLES)
    assert any("masks=" in line for line in found.left_out)


def test_without_an_untrained_network_there_is_no_control_and_that_is_said():
    found = result_of(look_inside(replace(scenes_subject(), untrained=None), FEW))
    assert all(set(record.selectivity) == {"ID", "checker"} for record in found.layers)
    assert all(not record.untrained_attenuation for record in found.layers)
    assert any("untrained=" in line for line in found.left_out)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_inputs_that_are_no_pictures_have_everything_but_changed_backgrounds():
    torch.manual_seed(0)
    found = result_of(look_inside(noise_subject(mlp(), (6,), untrained=mlp()), FEW))
    (record,) = found.layers
    assert record.neurons == 8
    assert record.probe and record.selectivity and not record.counterfactual
    assert any("no pictures" in line for line in found.left_out)


def test_gray_pictures_are_changed_where_no_color_is_needed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    found = result_of(look_inside(noise_subject(net, (1, 8, 8)), FEW))
    keys = {key.split()[0] for key in found.layers[0].counterfactual}
    assert keys == {"contrast", "darkened"}


def test_a_network_without_activations_says_so():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    found = result_of(look_inside(noise_subject(net, (6,)), FEW))
    assert found.layers == () and found.neurons is None
    assert any("layers=" in line for line in found.left_out)


@pytest.mark.parametrize("each", [1, 2])
def test_three_examples_or_six_give_a_narrower_audit(each):
    found = result_of(
        look_inside(noise_subject(cnn(), (3, 8, 8), each=each, untrained=cnn(1)), FEW)
    )
    assert [record.neurons for record in found.layers] == [4, 8, 16]
    assert all(record.rate for record in found.layers)
    assert found.left_out
    assert not any("\n" in line for line in found.left_out)


def test_a_class_that_a_data_set_lacks_is_named_and_the_others_are_compared():
    subject = noise_subject(cnn(), (3, 8, 8), untrained=cnn(1))
    ood = subject.ood[0].domain.data
    lacking = sample("OOD", ood.x[ood.y > 0], ood.y[ood.y > 0])
    found = result_of(look_inside(replace(subject, ood=(lacking,)), FEW))
    assert any("OOD has no example" in line and "(a)" in line for line in found.left_out)
    for record in found.layers:
        assert "OOD" in record.selectivity
        assert record.class_rates["OOD"][0] is None


class Broken(nn.Module):
    """Its second layer is not finite wherever the first pixel is dark, and nobody uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.first(x.flatten(1))
        self.second(flat / (x.flatten(1)[:, :1] > 0.5).float())
        return self.head(flat)


def test_a_layer_whose_activations_are_not_finite_is_left_out():
    torch.manual_seed(0)
    found = result_of(look_inside(noise_subject(Broken(), (3, 2, 2), untrained=Broken()), FEW))
    assert [record.name for record in found.layers] == ["first"]
    assert any("second" in line and "not finite" in line for line in found.left_out)


def test_records_are_json_of_an_audit(scenes):
    _, found = scenes
    schema = AuditRecord.model_fields
    assert {"layers", "neurons", "plane", "left_out"} <= set(schema)
    for record in found.layers:
        assert "NaN" not in record.model_dump_json()


def test_a_vision_transformer_has_its_neurons_last():
    import_torchvision()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=24, num_heads=2, num_classes=3
    )
    found = result_of(look_inside(noise_subject(model, (3, 32, 32)), FEW))
    assert [record.neurons for record in found.layers] == [96, 96]
    assert all(record.probe and record.counterfactual for record in found.layers)


@pytest.mark.slow
def test_a_resnet_50_has_all_its_neurons():
    from contam.models.sources import load

    encoder = load("torchvision:resnet50", seed=0).encoder
    model = nn.Sequential(encoder, nn.Linear(2048, 3))
    bounds = replace(FEW, read=16)
    found = result_of(look_inside(noise_subject(model, (3, 64, 64), each=6), bounds))
    assert found.neurons is not None
    assert found.neurons.total == 22720
    assert sum(record.neurons for record in found.layers) == 22720
    assert sum(bool(record.probe) for record in found.layers) == 16


def test_changes_keep_the_object_and_grow_with_their_strength():
    subject = scenes_subject()
    x, masks = subject.id.domain.data.x[:20], subject.id.masks
    assert masks is not None
    masks = masks[:20]
    for change in CHANGES:
        moved = [altered(x, masks, change, strength) for strength in (0.0, 0.5, 1.0)]
        assert torch.equal(moved[0], x)
        torch.testing.assert_close(moved[1], (x + moved[2]) / 2)
        inside = (masks > 0).expand_as(x)
        assert torch.equal(moved[2][inside], x[inside])
        assert not torch.equal(moved[2], x)
    for style in STYLES:
        full = altered(x, None, style, 1.0)
        assert full.shape == x.shape
        assert float(full.min()) >= 0 and float(full.max()) <= 1
        assert not torch.equal(full, x)
