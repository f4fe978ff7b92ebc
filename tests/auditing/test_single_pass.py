"""One pass keeps what several would have found, and leaves out what it has to."""

import pytest
import torch
from PIL import Image
from support.audit_subjects import cnn, noise_subject, sample
from support.generators import result_of
from torch import Tensor, nn

from contam.auditing.audit_inputs import Sample
from contam.auditing.single_pass import balanced, looking, picked, running_layers
from contam.batch import Batch, Domain
from contam.data.images import FolderDomain, resized
from contam.measures.accuracy import accuracy
from contam.measures.class_profiles import class_profiles
from contam.models.observe import observe
from contam.models.readings import over_space

RELUS = ("encoder.relu1", "encoder.relu2", "encoder.relu3")


def test_a_pass_finds_the_profiles_and_the_accuracy_that_passes_of_their_own_find():
    subject = noise_subject(cnn(), (3, 8, 8))
    found = result_of(looking(subject.model, subject.id, RELUS, classes=3, batch_size=7))
    wanted = class_profiles(subject.model, subject.id.domain, RELUS, classes=3).layers
    counts = found.counts.sum(dim=(0, 1))
    for layer, profile in wanted.items():
        table = found.tables[layer]
        means = table.means.sums / counts[:, None]
        torch.testing.assert_close(means, profile.means)
        torch.testing.assert_close(table.fires / counts[:, None], profile.rates)
    right = int((found.predicted == found.y).sum())
    assert right == accuracy(subject.model, subject.id.domain).correct


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_kept_features_are_those_of_the_rows_asked_for(batch_size):
    subject = noise_subject(cnn(), (3, 8, 8))
    keep = torch.tensor([0, 4, 5, 6, 17, 23])
    found = result_of(
        looking(
            subject.model, subject.id, RELUS, classes=3, keep=keep, keep_in=RELUS[-1:],
            batch_size=batch_size,
        )
    )  # fmt: skip
    (seen,) = observe(subject.model, subject.id.domain.batches(24), RELUS, over_space)
    assert list(found.features) == [RELUS[-1]]
    torch.testing.assert_close(found.features[RELUS[-1]], seen.layers[RELUS[-1]][keep])
    torch.testing.assert_close(found.logits, seen.logits[keep])


def test_parts_and_domains_add_up_to_the_whole_and_have_every_class():
    y = torch.arange(60) % 3
    domain = torch.arange(60) // 30
    subject = noise_subject(cnn(), (3, 8, 8), each=20)
    own = sample("ID", subject.id.domain.data.x, y, domain)
    found = result_of(looking(subject.model, own, RELUS, classes=3, by_domain=True, batch_size=9))
    assert found.counts.shape == (2, 10, 3)
    assert found.counts.sum(dim=(0, 1)).tolist() == [20, 20, 20]
    assert found.counts.sum(dim=(1, 2)).tolist() == [30, 30]
    assert set(found.counts.flatten().tolist()) == {1}
    plain = result_of(looking(subject.model, own, RELUS, classes=3))
    for layer in RELUS:
        torch.testing.assert_close(found.tables[layer].means.sums, plain.tables[layer].means.sums)


def test_domains_whose_tables_are_too_large_are_one(monkeypatch):
    monkeypatch.setattr("contam.auditing.single_pass.MOST", 300)
    subject = noise_subject(cnn(), (3, 8, 8))
    batch = subject.id.domain.data
    own = sample("ID", batch.x, batch.y, torch.arange(24) % 2)
    found = result_of(looking(subject.model, own, RELUS, classes=3, by_domain=True))
    assert found.counts.shape[0] == 1
    assert int(found.counts.sum()) == 24
    assert any("domains of ID" in line for line in found.left_out)


class Moody(nn.Module):
    """Runs a layer only for batches whose first pixel is dark, or changes its size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.relu, self.other, self.head = nn.ReLU(), nn.ReLU(), nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.relu(x.flatten(1))
        moody = bool(x.flatten()[0] > 0.5)
        if self.kind == "skips" and not moody:
            self.other(flat)
        if self.kind == "grows":
            self.other(flat[:, : 2 + moody])
        if self.kind == "nan":
            self.other(flat / (0 if moody else 1) * 0)
        return self.head(flat)


@pytest.mark.parametrize("kind", ["skips", "grows", "nan"])
def test_a_layer_that_is_not_the_same_on_all_batches_is_left_out_with_a_sentence(kind):
    x = torch.full((12, 1, 2, 2), 0.25)
    x[6:] = 0.75
    model = Moody(kind)
    model(x)
    data = sample("ID", x, torch.arange(12) % 3)
    found = result_of(looking(model, data, ("relu", "other"), classes=3, batch_size=3))
    assert list(found.tables) == ["relu"]
    assert len(found.left_out) == 1
    assert "other" in found.left_out[0] and "ID" in found.left_out[0]
    assert int(found.counts.sum()) == 12


class Greedy(nn.Module):
    """Has memory for two examples at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 3)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        self.sizes.append(len(x))
        return self.head(self.relu(x))


def test_where_memory_runs_out_batches_are_halved_and_nothing_is_lost():
    x = torch.rand(11, 4)
    model = Greedy()
    data = sample("ID", x, torch.arange(11) % 3)
    found = result_of(looking(model, data, ("relu",), classes=3, batch_size=8))
    assert sum(model.sizes) == 11
    assert max(model.sizes) == 2
    torch.testing.assert_close(found.tables["relu"].means.sums.sum(dim=0), x.double().sum(dim=0))


def test_what_never_fits_in_memory_is_an_error():
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("too much")

    data = sample("ID", torch.rand(3, 4), torch.arange(3))
    with pytest.raises(torch.OutOfMemoryError):
        result_of(looking(Full(), data, (), classes=3))


def test_a_balanced_choice_has_as_many_of_every_class_and_does_not_move():
    y = torch.tensor([0] * 50 + [1] * 8 + [2] * 3)
    some = balanced(y, 15, seed=3, purpose="test")
    assert torch.bincount(y[some]).tolist() == [6, 6, 3]
    assert some.tolist() == sorted(set(some.tolist()))
    torch.testing.assert_close(some, balanced(y, 15, seed=3, purpose="test"))
    assert some.tolist() != balanced(y, 15, seed=4, purpose="test").tolist()
    assert balanced(y, 100, seed=3, purpose="test").tolist() == list(range(61))


def test_images_in_folders_are_picked_without_reading_the_others(tmp_path):
    files = [tmp_path / f"{k}.png" for k in range(4)]
    for k in (1, 3):
        Image.new("RGB", (4, 4), (50 * k, 0, 0)).save(files[k])
    folder = FolderDomain("disk", files, torch.arange(4), torch.arange(4), resized(4))
    found = picked(Sample("disk", folder), torch.tensor([3, 1]))
    (batch,) = found.domain.batches(2)
    assert batch.domain.tolist() == [3, 1]
    assert (255 * batch.x[:, 0, 0, 0]).round().tolist() == [150, 50]


class Reading(Domain):
    """A domain of a kind that nobody knows, which can only be read in order."""


def test_examples_are_picked_from_any_domain_in_the_order_asked_for():
    x = torch.arange(200.0)[:, None]
    batch = Batch(x, torch.arange(200) % 3, torch.zeros(200, dtype=torch.int64))
    which = torch.tensor([150, 3, 64, 63, 199])
    for kind in (Domain, Reading):
        data = picked(sample("any", x, batch.y), which)
        whole = type(data)("any", kind("any", batch))
        (found,) = picked(whole, which).domain.batches(10)
        assert found.x[:, 0].tolist() == which.tolist()
        assert found.y.tolist() == (which % 3).tolist()


def test_all_activations_run_in_their_order():
    subject = noise_subject(cnn(), (3, 8, 8))
    assert running_layers(subject.model, subject.id) == RELUS
