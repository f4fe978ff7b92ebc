"""An audit measures repairs on the audited network, and returns repaired copies of it."""

from dataclasses import dataclass

import pytest
import torch
from support.audit_inputs import cnn
from support.networks import assert_same_weights
from support.noise import noise
from torch import nn

import contam
from contam.auditing.records import Interval, MeasuredRemedy
from contam.auditing.what_helps import RepairInputs, best_remedy, measure_repairs
from contam.batch import Batch
from contam.measures.accuracy import accuracy
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies import REPAIRS, HeadRepair

SETTINGS = {
    "reference": None, "untrained": False, "altered": False, "progress": False
}  # fmt: skip
Y = torch.arange(120) % 3


def images(seed: int, *, scale: float = 1.0) -> torch.Tensor:
    """Images of three classes: which third of the columns is bright."""
    x = 0.05 * noise(len(Y), 3, 9, 9, seed=seed) + 0.4
    for k in range(3):
        x[k == Y, :, :, 3 * k : 3 * k + 3] += 0.4
    return (0.5 + scale * (x - 0.5)).clamp(0, 1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    model, x = cnn(), images(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), Y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def audit(model: nn.Module) -> contam.Audit:
    gray, plain = images(2, scale=0.1), images(3)
    return contam.audit(model, id=(images(1), Y), ood={"gray": (gray, Y), "plain": (plain, Y)},
                        **SETTINGS)  # fmt: skip


def rows(audit: contam.Audit, on: str) -> dict[str, MeasuredRemedy]:
    return {row.name: row for row in audit.evidence.helps if row.on == on}


def test_repairs_that_fit_are_measured_on_every_ood_set(audit):
    fitting = {repair.title for repair in REPAIRS} - {"group-balanced head"}
    assert set(rows(audit, "gray")) == set(rows(audit, "plain")) == fitting
    gains = [row.gain.value for row in rows(audit, "gray").values()]
    assert gains == sorted(gains, reverse=True)


def test_the_accuracies_before_are_those_of_the_audit(audit):
    for scores in audit.evidence.sets[1:]:
        row = rows(audit, scores.name)["fresh head"]
        assert row.ood_before == scores.overall.accuracy
        assert row.id_before == audit.evidence.sets[0].overall.accuracy
        assert row.gain.value == pytest.approx(row.ood_after.value - row.ood_before.value)


def test_a_repaired_network_has_about_the_measured_accuracy(audit, model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = images(4, scale=0.1), Y
    for name, row in rows(audit, "gray").items():
        repaired = audit.repair(name, on="gray")
        assert abs(accuracy(repaired, data).share - row.ood_after.value) < 0.25
        assert type(repaired) is type(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_best_repair_beyond_chance_is_named(audit):
    best = best_remedy(audit.evidence.helps)
    assert best is not None and best.on == "gray"
    assert f"helps most: {best.name}" in repr(audit)
    row = best.model_copy(update={"gain": Interval(value=0.5, low=-0.1, high=0.9)})
    assert best_remedy([row]) is None and best_remedy([]) is None


def test_a_loaded_audit_asks_to_run_it_again(audit, tmp_path):
    loaded = contam.Audit.load(audit.save(tmp_path))
    assert loaded.evidence.helps == audit.evidence.helps
    with pytest.raises(ValueError, match=r"run contam\.audit again"):
        loaded.repair("fresh head")


@pytest.mark.parametrize(
    ("name", "on", "line"),
    [
        ("new head", None, "no repair 'new head'; possible: "),
        ("fresh head", "blue", "no repair 'fresh head' on 'blue'; possible: none"),
    ],
)
def test_an_unknown_repair_is_rejected_in_one_line(audit, name, on, line):
    with pytest.raises(ValueError) as error:
        audit.repair(name, on=on)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_every_effect_is_in_the_flat_records(audit):
    flat = [row for row in audit.records() if row["what"] == "remedy: gain"]
    assert [row["value"] for row in flat] == [row.gain.value for row in audit.evidence.helps]


def test_repairs_can_be_switched_off(model):
    result = contam.audit(model, id=(images(1), Y), ood=(images(2), Y), remedies=False, **SETTINGS)
    assert result.evidence.helps == ()


def test_without_ood_data_only_repairs_by_id_data_are_made(model):
    result = contam.audit(model, id=(images(1), Y), **SETTINGS)
    assert result.evidence.helps == ()
    assert accuracy(result.repair("fresh head"), (images(4), Y)).share > 0.9
    with pytest.raises(ValueError, match="no repair 'batch-norm statistics'; possible: 'fresh"):
        result.repair("batch-norm statistics")


def test_a_head_that_needs_no_ood_data_is_fitted_once_for_all_ood_sets(model):
    fits: list[int] = []

    @dataclass(frozen=True)
    class Counting(HeadRepair):
        name = "counting"
        needs = frozenset({"ID labels"})

        def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
            fits.append(len(id.y))
            return head

    data = Batch(torch.eye(3)[Y], Y, 0 * Y)
    names = ("ID", "gray", "plain")
    inputs = RepairInputs(
        LogitsAdapter(nn.Sequential(nn.Linear(3, 3))), 3, "network.0", dict.fromkeys(names, data),
        predicted=dict.fromkeys(names, Y), repairs=(Counting(),),
    )  # fmt: skip
    helps, _ = measure_repairs(inputs)
    assert [row.on for row in helps] == ["gray", "plain"]
    assert sorted(fits) == [60, 60, 120]


def test_a_network_without_a_linear_head_or_batch_norm_is_offered_nothing():
    class Squared(nn.Module):
        def forward(self, x):
            return x.flatten(2).mean(2) ** 2

    result = contam.audit(Squared(), id=(images(1), Y), ood=(images(2), Y), **SETTINGS)
    assert result.evidence.helps == ()


def test_without_a_linear_head_batch_norm_can_still_be_repaired(model):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return 2 * self.model(x)

    result = contam.audit(Doubled(), id=(images(1), Y), ood=(images(2), Y), **SETTINGS)
    assert [row.name for row in result.evidence.helps] == ["batch-norm statistics"]
    assert not any(line.startswith("The repair") for line in result.evidence.left_out)


def test_features_without_a_network_have_repairs_of_the_head():
    x = torch.eye(3)[Y] + 0.3 * noise(len(Y), 3)
    result = contam.audit(None, id=(x, Y), ood=(x.roll(1, 1), Y), progress=False)
    names = {row.name for row in result.evidence.helps}
    assert {"fresh head", "prior correction", "domain erasure"} <= names
    assert not any(name in names for name in ("centered maps", "batch-norm statistics"))


def test_backgrounds_are_the_groups_of_a_balanced_head(model):
    background = torch.where(torch.arange(len(Y)) % 10 > 0, Y, (Y + 1) % 3)
    result = contam.audit(
        model, id=(images(1), Y), ood=(images(2), Y), background=background, **SETTINGS
    )
    row = {row.name: row for row in result.evidence.helps}["group-balanced head"]
    assert row.cause == "background shortcut"


def test_measuring_repairs_leaves_the_network_as_it_was(model):
    state = [module.training for module in model.train().modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    contam.audit(model, id=(images(1), Y), ood=(images(2, scale=0.2), Y), **SETTINGS)
    assert [module.training for module in model.modules()] == state
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert_same_weights(model, model.eval())


def test_examples_with_the_content_of_id_examples_are_judged_by_fits_to_others(model):
    x = images(1)
    result = contam.audit(model, id=(x, Y), ood=(x.flip(0) * 0.5, Y.flip(0)), **SETTINGS)
    notes = {row.note for row in result.evidence.helps}
    assert len(notes) == 1 and notes.pop().endswith("both were kept in one half.")


@pytest.mark.parametrize("kind", ["network", "file"])
def test_weights_before_fine_tuning_are_a_repair(model, tmp_path, kind):
    base, file = cnn(seed=1), tmp_path / "base.pt"
    torch.save(base.state_dict(), file)
    given = {"network": base, "file": file}[kind]
    result = contam.audit(model, id=(images(1), Y), ood=(images(2), Y), base=given, **SETTINGS)
    repaired = result.repair("weight interpolation").state_dict()
    own, old = model.state_dict(), base.state_dict()
    weight = next(name for name, value in own.items() if value.is_floating_point())
    torch.testing.assert_close(repaired[weight], (own[weight] + old[weight]) / 2)


def test_a_base_of_another_network_is_reported(model):
    result = contam.audit(
        model, id=(images(1), Y), ood=(images(2), Y), base=nn.Linear(2, 2), **SETTINGS
    )
    assert any("'weight interpolation' was not measured" in n for n in result.evidence.left_out)
