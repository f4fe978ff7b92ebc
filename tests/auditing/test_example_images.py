"""The images of an audit are the examples that they claim to be, in groups of two."""

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from support.audit_inputs import CLASSES, cnn, noise_inputs, sample, scenes_inputs, teach
from support.generators import returned
from torch import nn

from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.audited_layers import running_layers
from contam.auditing.example_images import NEURONS, PAIRS, SIDE, example_images
from contam.auditing.layers import LayerEvidence, layer_evidence
from contam.auditing.passes import Budget, Passes, run_passes
from contam.auditing.records import Example
from contam.measures.gradcam import grad_cam_plus_plus, heat_maps, heat_on_object

FEW = Budget(fitted=100, queries=40, control=20, changed=40, per_class=4, probed_layers=2, share=1)


def examined(
    inputs: AuditInputs,
) -> tuple[Passes, LayerEvidence, tuple[Example, ...], tuple[str, ...]]:
    layers = inputs.layers or running_layers(inputs.model, inputs.id)
    passes = returned(run_passes(inputs, layers, FEW))
    evidence = returned(layer_evidence(passes, layers, FEW))
    return passes, evidence, *example_images(passes, evidence)


def opened(picture: str) -> np.ndarray:
    image = Image.open(BytesIO(base64.b64decode(picture)))
    assert image.format == "WEBP"
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def shown():
    """A network that learned a little of the ID images, and the examples that it fails on."""
    inputs = scenes_inputs(width=8)
    teach(inputs.model, inputs.id, 25)
    return examined(inputs)


def test_failing_ood_examples_are_paired_with_correct_id_examples_of_their_class(shown):
    passes, _, examples, _ = shown
    failing = [example for example in examples if "fails after the shift" in example.group]
    assert len(failing) == 2 * PAIRS
    for before, after in zip(failing[::2], failing[1::2], strict=True):
        assert before.group == after.group
        assert f"“{after.label}”" in after.group
        assert (before.data, after.data) == ("ID", "checker")
        assert before.label == after.label == before.predicted != after.predicted
        for example in (before, after):
            result = passes.sets[example.data]
            assert CLASSES[int(result.y[example.index])] == example.label
            assert CLASSES[int(result.predicted[example.index])] == example.predicted
        own, new = passes.sets["ID"], passes.sets["checker"]
        assert float(new.loss[after.index]) > float(own.loss[before.index])
    assert len({example.index for example in failing[::2]}) == PAIRS


def test_the_highest_loss_is_shown_first(shown):
    passes, _, examples, _ = shown
    new, own = passes.sets["checker"], passes.sets["ID"]
    known = own.y[own.kept][own.correct[own.kept]]
    wrong = ~new.correct & torch.isin(new.y, known)
    kept = new.kept[wrong[new.kept]]
    assert examples[1].index == int(kept[new.loss[kept].argmax()])


def test_heat_is_for_the_class_at_the_last_layer_with_maps(shown):
    passes, _, examples, left_out = shown
    inputs = passes.inputs
    assert not any("heat maps" in line for line in left_out)
    first = examples[0]
    batch = inputs.id.domain.data
    x, y = batch.x[first.index][None], batch.y[first.index][None]
    heat = heat_maps(inputs.model, x, inputs.layers[-1], y, formula=grad_cam_plus_plus)
    mask = inputs.id.masks[first.index, 0][None] > 0.5
    assert first.heat_on_object == pytest.approx(float(heat_on_object(heat, mask)), rel=1e-4)
    assert 0 <= first.heat_share <= 1


def test_images_show_the_examples_at_a_small_size(shown):
    passes, _, examples, _ = shown
    inputs = passes.inputs
    assert sum(1 + (example.heat is not None) for example in examples) <= 24
    for example in examples:
        data = inputs.id if example.data == "ID" else inputs.ood[0]
        x = data.domain.data.x[example.index].permute(1, 2, 0).numpy()
        # WebP is lossy: the image has to be nearer to its example than to the same example's mean.
        error = np.abs(opened(example.picture) / 255 - x).mean()
        assert error < np.abs(x - x.mean(axis=(0, 1))).mean()
        if example.heat is not None:
            assert opened(example.heat).shape == x.shape


def test_a_neuron_example_has_a_larger_activation_on_id_than_on_ood_data(shown):
    passes, evidence, examples, _ = shown
    last = passes.inputs.layers[-1]
    pairs = [example for example in examples if example.group.startswith("Neuron")]
    assert len(pairs) == 2 * NEURONS
    table = evidence.neurons
    first = next(k for k, layer in enumerate(table.layer) if layer == last)
    assert f"Neuron {table.index[first]} of {last}" in pairs[0].note
    for most, least in zip(pairs[::2], pairs[1::2], strict=True):
        assert most.label == least.label
        neuron = int(most.note.split()[1])
        for example, end in ((most, torch.max), (least, torch.min)):
            result = passes.sets[example.data]
            own = result.y[result.kept] == CLASSES.index(example.label)
            expected = end(result.features[last][own, neuron])
            assert float(example.note.rsplit(" ", 1)[1]) == pytest.approx(float(expected), rel=1e-2)


def test_without_ood_data_changed_images_are_shown():
    inputs = scenes_inputs(ood=False, width=8)
    teach(inputs.model, inputs.id, 25)
    examples = examined(inputs)[2]
    assert examples
    for before, after in zip(examples[::2], examples[1::2], strict=True):
        assert before.index == after.index and before.data == after.data == "ID"
        assert before.predicted == before.label != after.predicted
        assert inputs.id.masks is not None
        mask = inputs.id.masks[before.index, 0].numpy() > 0.99
        moved = np.abs(opened(before.picture).astype(int) - opened(after.picture)).mean(axis=2)
        assert moved[mask].mean() < moved[~mask].mean()


def test_large_images_are_downsized():
    for example in examined(noise_inputs(cnn(), (3, 40, 130)))[2]:
        assert max(opened(example.picture).shape) == SIDE


def test_inputs_other_than_images_are_not_shown():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    examples, left_out = examined(noise_inputs(net, (6,)))[2:]
    assert examples == ()
    assert any("not images" in line for line in left_out)


def test_maps_of_one_position_have_no_heat():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    inputs = noise_inputs(net, (3, 8, 8))
    teach(net, inputs.id, 30)
    examples, left_out = examined(inputs)[2:]
    assert any("fails" in example.group for example in examples)
    assert all(example.heat is None for example in examples)
    assert any("heat maps" in line for line in left_out)


def test_a_network_without_errors_has_no_failing_examples():
    inputs = noise_inputs(cnn(), (3, 8, 8))
    own = inputs.id.domain.data
    inputs = replace(inputs, ood=(sample("OOD", own.x, own.y),))
    teach(inputs.model, inputs.id, 60)
    examples, left_out = examined(inputs)[2:]
    assert not any("fails" in example.group for example in examples)
    assert any("No misclassified example" in line for line in left_out)


class Reused(nn.Module):
    """Runs one ReLU after each of two convolutions, as torchvision's residual blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.early, self.relu, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.relu(self.first(self.early(x)))
        return self.head(self.relu(self.second(x)).mean(dim=(2, 3)))


def test_heat_is_that_of_the_last_run_of_a_layer():
    torch.manual_seed(0)
    inputs = noise_inputs(Reused(), (3, 12, 12))
    teach(inputs.model, inputs.id, 60)
    masks = torch.zeros(len(inputs.id), 1, 12, 12)
    masks[..., :6] = 1
    inputs = replace(inputs, id=replace(inputs.id, masks=masks))
    first = examined(inputs)[2][0]
    x, y = (part[first.index][None] for part in inputs.id.domain.data[:2])
    heat = heat_maps(inputs.model, x, "relu", y, formula=grad_cam_plus_plus)
    expected = heat_on_object(heat, masks[first.index] > 0.5)
    assert first.heat_on_object == pytest.approx(float(expected), rel=1e-4)
