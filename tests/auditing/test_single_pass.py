"""One pass gives what separate passes give, and leaves out what it must."""

import pytest
import torch
from support.audit_inputs import cnn, noise_inputs, sample
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.audited_layers import layers_with_positions, running_layers
from contam.auditing.layer_tables import PARTS, table_rows
from contam.auditing.single_pass import Keep, balanced, run_pass
from contam.measures.accuracy import accuracy
from contam.measures.class_profiles import class_profiles
from contam.models.classifier import Classifier
from contam.models.observe import observe
from contam.models.readings import over_space

RELUS = ("encoder.relu1", "encoder.relu2", "encoder.relu3")


def test_class_means_and_accuracy_agree_with_separate_passes():
    inputs = noise_inputs(cnn(), (3, 8, 8))
    result = returned(run_pass(inputs.model, inputs.id, RELUS, classes=3, batch_size=7))
    expected = class_profiles(inputs.model, inputs.id.domain, RELUS, classes=3).layers
    for layer, profile in expected.items():
        torch.testing.assert_close(result.tables[layer].profile.means, profile.means)
        torch.testing.assert_close(result.tables[layer].profile.rates, profile.rates)
    assert int(result.correct.sum()) == accuracy(inputs.model, inputs.id.domain).correct


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_features_and_inputs_are_kept_of_the_chosen_examples(batch_size):
    inputs = noise_inputs(cnn(), (3, 8, 8))
    rows = torch.tensor([0, 4, 5, 6, 17, 23])
    keep = Keep(rows=rows, layers=RELUS[-1:], inputs=rows[1:])
    result = returned(
        run_pass(inputs.model, inputs.id, RELUS, classes=3, keep=keep, batch_size=batch_size)
    )
    (expected,) = observe(inputs.model, inputs.id.domain.batches(24), RELUS, over_space)
    assert list(result.features) == [RELUS[-1]]
    torch.testing.assert_close(result.features[RELUS[-1]], expected.layers[RELUS[-1]][rows])
    torch.testing.assert_close(result.logits, expected.logits[rows])
    assert result.inputs is not None
    assert torch.equal(result.inputs.x, inputs.id.domain.data.x[rows[1:]])


def test_head_features_and_reference_features_come_from_the_same_pass():
    inputs = noise_inputs(cnn(), (3, 8, 8))
    reference = nn.Flatten()
    keep = Keep(head=True, border=True, reference=reference)
    result = returned(run_pass(inputs.model, inputs.id, (), classes=3, keep=keep, batch_size=7))
    x = inputs.id.domain.data.x
    assert isinstance(inputs.model, Classifier)
    assert result.head is not None and result.reference is not None and result.border is not None
    torch.testing.assert_close(result.head, inputs.model.eval().encoder(x).detach())
    torch.testing.assert_close(result.reference, x.flatten(1))
    edge = torch.ones(8, 8, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    torch.testing.assert_close(result.border[:, :3], x[:, :, edge].mean(dim=2))


def test_the_network_runs_once_on_every_example():
    counted = Counted(cnn())
    inputs = noise_inputs(counted, (3, 8, 8))
    rows = torch.arange(3)
    keep = Keep(rows=rows, layers=("model.encoder.relu3",), inputs=rows, subset=rows, head=True)
    layers = tuple(f"model.{name}" for name in RELUS)
    returned(run_pass(counted, inputs.id, layers, classes=3, keep=keep, batch_size=7))
    assert counted.shown == len(inputs.id)


class Counted(nn.Module):
    """Counts the examples that its network sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.shown = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.model(x)


def test_parts_and_domains_sum_to_the_whole_and_contain_every_class():
    y = torch.arange(60) % 3
    domain = torch.arange(60) // 30
    inputs = noise_inputs(cnn(), (3, 8, 8), per_class=20)
    own = sample("ID", inputs.id.domain.data.x, y, domain)
    split = returned(
        run_pass(inputs.model, own, RELUS, classes=3, keep=Keep(by_domain=True), batch_size=9)
    )
    plain = returned(run_pass(inputs.model, own, RELUS, classes=3))
    for layer in RELUS:
        means = split.tables[layer].means
        assert means.cell_counts.shape == (2, PARTS, 3)
        assert means.cell_counts.sum(dim=(1, 2)).tolist() == [30, 30]
        assert means.cell_counts.sum(dim=0).tolist() == [[2, 2, 2]] * PARTS
        torch.testing.assert_close(means.sums, plain.tables[layer].means.sums)


def test_a_subset_has_its_own_class_means():
    inputs = noise_inputs(cnn(), (3, 8, 8))
    rows = torch.tensor([1, 2, 4, 5, 22])  # classes 1 and 2 alone
    result = returned(
        run_pass(inputs.model, inputs.id, RELUS, classes=3, keep=Keep(subset=rows), batch_size=7)
    )
    alone = returned(run_pass(inputs.model, inputs.id.pick(rows), RELUS, classes=3, compact=True))
    for layer in RELUS:
        means, expected = result.subset_tables[layer].means, alone.tables[layer].means
        torch.testing.assert_close(means.cell_sums, expected.cell_sums, check_dtype=False)
        assert torch.equal(means.cell_counts, expected.cell_counts)
        assert means.counts.tolist() == [3, 2]


def test_few_examples_of_many_classes_are_distributed_over_the_parts():
    y = torch.arange(10)
    spread = returned(
        run_pass(
            nn.Sequential(nn.ReLU(), nn.Linear(4, 10)), sample("ID", torch.rand(10, 4), y), ("0",),
            classes=10,
        )
    )  # fmt: skip
    assert spread.tables["0"].means.cell_counts.sum(dim=(0, 2)).tolist() == [1] * PARTS


def test_domains_are_merged_when_their_tables_are_too_large(monkeypatch):
    monkeypatch.setattr("contam.auditing.layer_tables.LARGEST_TABLE", 300)
    inputs = noise_inputs(cnn(), (3, 8, 8))
    batch = inputs.id.domain.data
    own = sample("ID", batch.x, batch.y, torch.arange(24) % 2)
    result = returned(run_pass(inputs.model, own, RELUS, classes=3, keep=Keep(by_domain=True)))
    counts = result.tables[RELUS[0]].means.cell_counts
    assert counts.shape[0] == 1
    assert int(counts.sum()) == 24
    assert any("domains of ID" in line for line in result.left_out)


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
def test_a_layer_that_varies_between_batches_is_left_out_with_a_reason(kind):
    x = torch.full((12, 1, 2, 2), 0.25)
    x[6:] = 0.75
    model = Moody(kind)
    model(x)
    data = sample("ID", x, torch.arange(12) % 3)
    result = returned(run_pass(model, data, ("relu", "other"), classes=3, batch_size=3))
    assert list(result.tables) == ["relu"]
    assert len(result.left_out) == 1
    assert "other" in result.left_out[0] and "ID" in result.left_out[0]
    assert int(result.tables["relu"].means.counts.sum()) == 12


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


def test_batches_are_halved_when_memory_runs_out_and_results_are_the_same():
    x = torch.rand(11, 4)
    model = Greedy()
    data = sample("ID", x, torch.arange(11) % 3)
    result = returned(run_pass(model, data, ("relu",), classes=3, batch_size=8))
    assert sum(model.sizes) == 11
    assert max(model.sizes) == 2
    sums = result.tables["relu"].means.sums.sum(dim=0)
    torch.testing.assert_close(sums, x.double().sum(dim=0))


def test_one_example_that_does_not_fit_in_memory_is_an_error():
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("too much")

    data = sample("ID", torch.rand(3, 4), torch.arange(3))
    with pytest.raises(torch.OutOfMemoryError, match="single example"):
        returned(run_pass(Full(), data, (), classes=3))


@pytest.mark.parametrize(
    ("model", "n", "word"),
    [(nn.Identity(), 0, "no examples"), (nn.Unflatten(1, (1, 5)), 6, "batch, classes")],
)
def test_empty_data_and_logits_of_another_shape_are_rejected(model, n, word):
    data = sample("ID", torch.randn(n, 5), torch.zeros(n).long())
    with pytest.raises(ValueError, match=word):
        returned(run_pass(model, data, (), classes=5))


def test_layers_with_positions_are_those_with_maps():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.ReLU())
    assert layers_with_positions(model, torch.rand(1, 3, 8, 8), ["1", "3"]) == ["1"]


def test_a_balanced_selection_has_equal_class_counts_and_is_deterministic():
    y = torch.tensor([0] * 50 + [1] * 8 + [2] * 3)
    some = balanced(y, 15, seed=3, purpose="test")
    assert torch.bincount(y[some]).tolist() == [6, 6, 3]
    assert some.tolist() == sorted(set(some.tolist()))
    torch.testing.assert_close(some, balanced(y, 15, seed=3, purpose="test"))
    assert some.tolist() != balanced(y, 15, seed=4, purpose="test").tolist()
    assert balanced(y, 100, seed=3, purpose="test").tolist() == list(range(61))


def test_activations_are_listed_in_the_order_in_which_they_run():
    inputs = noise_inputs(cnn(), (3, 8, 8))
    assert running_layers(inputs.model, inputs.id) == RELUS


@pytest.mark.parametrize(
    ("own", "others", "most", "wanted"),
    [
        pytest.param([0, 2], [], 9, [0, 2], id="classes that occur"),
        pytest.param([0, 2], [[4]], 9, [0, 2, 4], id="in any set"),
        pytest.param([1, 1, 2, 3, 3], [], 2, [1, 3], id="the most frequent"),
        pytest.param([1, 1, 1, 2, 3], [[2, 3]], 2, [2, 3], id="in both ID and OOD"),
        pytest.param([1, 2, 3], [[1], [3]], 2, [1, 3], id="in any OOD set"),
        pytest.param([4, 3, 2], [], 2, [2, 3], id="equal numbers: the first"),
        pytest.param([4, 3, 2], [], 0, [2, 3], id="never fewer than two"),
    ],
)
def test_classes_with_rows_in_the_tables(own, others, most, wanted):
    y, new = torch.tensor(own), [torch.tensor(other) for other in others]
    rows = table_rows(y, new, classes=6, most=most)
    assert (rows >= 0).nonzero().flatten().tolist() == wanted
    assert rows[rows >= 0].tolist() == list(range(len(wanted)))


def test_tables_with_few_rows_hold_the_same_means():
    y = torch.tensor([7, 3, 7, 5, 3, 7])
    x = torch.arange(6.0)[:, None].repeat(1, 4)
    data = sample("ID", x, y)
    network = nn.Sequential(nn.ReLU(), nn.Linear(4, 9))
    whole = returned(run_pass(network, data, ("0",), classes=9))
    rows = table_rows(y, (), classes=9, most=2)
    few = returned(run_pass(network, data, ("0",), classes=9, rows=rows))
    assert torch.equal(few.tables["0"].means.sums, whole.tables["0"].means.sums[[3, 7]])
    assert few.tables["0"].means.counts.tolist() == [2, 3]
    # The class without a row has no part in the squares, either.
    assert few.tables["0"].means.squares.tolist() == [(x[y != 5, 0] ** 2).sum().item()] * 4
    assert torch.equal(few.predicted, whole.predicted)
