"""The pictures of an audit are those they say they are, in groups that can be compared."""

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from support.audit_subjects import CLASSES, cnn, noise_subject, sample, scenes_subject, teach
from support.generators import result_of
from torch import nn

from contam.auditing.layer_evidence import Bounds
from contam.auditing.layers import look_inside
from contam.auditing.panels import NEURONS, PAIRS, SIDE, panels
from contam.measures.gradcam import grad_cam_plus_plus, heat_maps, heat_on_object

FEW = Bounds(fitted=100, queries=40, control=20, altered=40, per_class=4, read=2)


def opened(picture: str) -> np.ndarray:
    image = Image.open(BytesIO(base64.b64decode(picture)))
    assert image.format == "WEBP"
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def shown():
    """A network that learned a little of the ID pictures, and the examples that it changed on."""
    subject = scenes_subject(width=8)
    teach(subject.model, subject.id, 25)
    inside = result_of(look_inside(subject, FEW))
    return subject, inside, *panels(subject, inside)


def test_ood_examples_that_went_wrong_stand_beside_id_examples_of_the_class_that_did_not(shown):
    _, inside, examples, _ = shown
    changed = [each for each in examples if each.group.startswith("changed")]
    assert len(changed) == 2 * PAIRS
    looks = inside.looks
    for before, after in zip(changed[::2], changed[1::2], strict=True):
        assert before.group == after.group
        assert (before.data, after.data) == ("ID", "checker")
        assert before.label == after.label == before.predicted != after.predicted
        for each in (before, after):
            look = looks[each.data]
            assert CLASSES[int(look.y[each.index])] == each.label
            assert CLASSES[int(look.predicted[each.index])] == each.predicted
        assert float(looks["checker"].loss[after.index]) > float(looks["ID"].loss[before.index])
    assert len({each.index for each in changed[::2]}) == PAIRS


def test_the_worst_of_all_wrong_answers_is_shown_first(shown):
    _, inside, examples, _ = shown
    look, own = inside.looks["checker"], inside.looks["ID"]
    known = own.y[own.kept][own.predicted[own.kept] == own.y[own.kept]]
    wrong = (look.predicted != look.y) & torch.isin(look.y, known)
    kept = look.kept[wrong[look.kept]]
    assert examples[1].index == int(kept[look.loss[kept].argmax()])


def test_heat_is_that_of_the_class_at_the_last_layer_with_maps(shown):
    subject, _, examples, left_out = shown
    assert not any("heat" in line for line in left_out)
    first = examples[0]
    batch = subject.id.domain.data
    x, y = batch.x[first.index][None], batch.y[first.index][None]
    heat = heat_maps(subject.model, x, subject.layers[-1], y, formula=grad_cam_plus_plus)
    mask = subject.id.masks[first.index, 0][None] > 0.5
    assert first.heat_on_object == pytest.approx(float(heat_on_object(heat, mask)), rel=1e-4)
    assert 0 <= first.heat_share <= 1


def test_pictures_show_their_examples_and_are_few(shown):
    """WebP loses detail, but less than separates any two examples of a data set."""
    subject, _, examples, _ = shown
    assert sum(1 + (each.heat is not None) for each in examples) <= 24
    for each in examples:
        data = subject.id if each.data == "ID" else subject.ood[0]
        pixels = data.domain.data.x.permute(0, 2, 3, 1).numpy()
        errors = np.abs(opened(each.picture) / 255 - pixels).mean((1, 2, 3))
        assert errors.argmin() == each.index
        if each.heat is not None:
            assert opened(each.heat).shape == pixels[0].shape


def test_a_coupled_neuron_fires_for_its_class_on_id_data_and_less_on_ood_data(shown):
    subject, inside, examples, _ = shown
    pairs = [each for each in examples if each.group.startswith("neuron")]
    assert len(pairs) == 2 * NEURONS
    table = inside.neurons
    first = next(k for k, layer in enumerate(table.layer) if layer == subject.layers[-1])
    assert f"neuron {table.index[first]} of {subject.layers[-1]}" in pairs[0].note
    for most, least in zip(pairs[::2], pairs[1::2], strict=True):
        assert most.label == least.label
        neuron = int(most.note.split()[1])
        for each, end in ((most, torch.max), (least, torch.min)):
            look = inside.looks[each.data]
            own = look.y[look.kept] == CLASSES.index(each.label)
            wanted = end(look.features[subject.layers[-1]][own, neuron])
            assert float(each.note.rsplit(" ", 1)[1]) == pytest.approx(float(wanted), rel=1e-2)


def test_without_ood_data_the_changed_pictures_are_shown():
    subject = scenes_subject(ood=False, width=8)
    teach(subject.model, subject.id, 25)
    inside = result_of(look_inside(subject, FEW))
    examples, _ = panels(subject, inside)
    assert examples
    for before, after in zip(examples[::2], examples[1::2], strict=True):
        assert before.index == after.index and before.data == after.data == "ID"
        assert before.predicted == before.label != after.predicted
        assert subject.id.masks is not None
        mask = subject.id.masks[before.index, 0].numpy() > 0.99
        moved = np.abs(opened(before.picture).astype(int) - opened(after.picture)).mean(axis=2)
        assert moved[mask].mean() < moved[~mask].mean()


def test_large_pictures_are_made_small():
    found = panels(*_looked(noise_subject(cnn(), (3, 40, 130))))
    for each in found[0]:
        assert max(opened(each.picture).shape) == SIDE


def test_without_pictures_there_are_no_panels_and_that_is_said():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    examples, left_out = panels(*_looked(noise_subject(net, (6,))))
    assert examples == ()
    assert any("no pictures" in line for line in left_out)


def test_maps_of_one_position_have_no_heat():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    subject = noise_subject(net, (3, 8, 8))
    teach(net, subject.id, 30)
    examples, left_out = panels(*_looked(subject))
    assert any(each.group.startswith("changed") for each in examples)
    assert all(each.heat is None for each in examples)
    assert any("heat" in line for line in left_out)


def test_a_network_that_got_all_right_has_nothing_that_changed():
    subject = noise_subject(cnn(), (3, 8, 8))
    own = subject.id.domain.data
    subject = replace(subject, ood=(sample("OOD", own.x, own.y),))
    teach(subject.model, subject.id, 60)
    examples, left_out = panels(*_looked(subject))
    assert not any(each.group.startswith("changed") for each in examples)
    assert any("went wrong" in line for line in left_out)


def _looked(subject):
    return subject, result_of(look_inside(subject, FEW))
