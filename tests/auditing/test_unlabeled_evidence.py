"""What an audit says about data sets without labels."""

import csv

import pytest
import torch
from support.audit_inputs import noise_inputs
from support.trees import picture, table
from torch import Tensor, nn

import contam
from contam.auditing.records import UNDECIDED
from contam.auditing.unlabeled import DIFFERENCE, THRESHOLDED, pixel_differences
from contam.inputs.table_files import ImageTable

CLASSES = 3


class ByColor(nn.Module):
    """Classifies images by which channel is brightest, and is unsure of gray ones."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(3, 3)
        self.head.weight = nn.Parameter(40 * torch.eye(3))
        self.head.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.pool(x)))


def images(n: int, seed: int, *, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Noisy images with a tint of their class; a weak one is often wrong."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    tint = 0.08 * strength * torch.eye(3)[y] + 0.04 * torch.randn(n, 3, generator=draws)
    x = 0.4 + tint[:, :, None, None] + 0.1 * torch.rand(n, 3, 8, 8, generator=draws)
    return x.clamp(0, 1), y


@pytest.fixture(scope="module")
def audit():
    new, y = images(240, 1, strength=0.5)
    return contam.audit(
        ByColor().eval(), id=images(240, 0), unlabeled={"faint": new},
        ood={"labeled": (new, y)}, reference=None, untrained=False, remedies=False, altered=False,
        progress=False,
    )  # fmt: skip


def test_estimates_stand_beside_their_errors_on_labeled_data(audit):
    (scores,) = audit.evidence.unlabeled
    assert [e.method for e in scores.estimates] == [THRESHOLDED, DIFFERENCE]
    assert {(check.on, check.method) for check in scores.checks} == {
        (on, method) for on in ("ID", "labeled") for method in (THRESHOLDED, DIFFERENCE)
    }
    # The unlabeled set is the labeled one, so both have the same estimate.
    for one, check in zip(scores.estimates, scores.checks[2:], strict=True):
        assert one.estimate == check.estimate
    true = audit.evidence.sets[1].overall.accuracy
    assert scores.checks[2].accuracy == true
    # Correctness goes with confidence here in the same way on both sets.
    assert all(abs(one.estimate.value - true.value) < 0.15 for one in scores.estimates)


def test_the_examples_to_label_are_written_to_a_table(audit, tmp_path):
    audit.save(tmp_path)
    with (tmp_path / "to_label.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50 and {row["set"] for row in rows} == {"faint"}
    (scores,) = audit.evidence.unlabeled
    assert [int(row["index"]) for row in rows] == [one.index for one in scores.to_label]
    assert contam.Audit.load(tmp_path).evidence.unlabeled == audit.evidence.unlabeled


def test_the_text_the_records_and_the_page_hold_the_estimates(audit, tmp_path):
    (scores,) = audit.evidence.unlabeled
    assert f"UNLABELED faint: accuracy about {100 * scores.estimates[0].estimate.value:.1f} %" in (
        repr(audit)
    )
    rows = [row for row in audit.records() if row["what"] == "estimated accuracy"]
    assert [(row["on"], row["part"]) for row in rows] == [
        ("faint", THRESHOLDED), ("faint", DIFFERENCE)
    ]  # fmt: skip
    page = audit.report(tmp_path / "a.html").read_text()
    assert "Data sets without labels" in page and "50 examples to label first" in page


def test_without_labels_the_verdict_is_undecided_and_asks_for_them():
    result = contam.audit(
        ByColor().eval(), id=images(120, 0), unlabeled=images(120, 1)[0], quick=True,
        reference=None, remedies=False, progress=False,
    )  # fmt: skip
    (scores,) = result.evidence.unlabeled
    assert result.verdict.cause == UNDECIDED
    assert f"{100 * scores.estimates[0].estimate.value:.1f} %" in result.verdict.sentence
    assert result.verdict.missing[0].startswith("Labels of the 50 examples of unlabeled")
    assert "to within 14 percentage points" in result.verdict.missing[0]
    low, high = scores.widest.low, scores.widest.high
    assert (
        low is not None and high is not None and (high - low) / 2 == pytest.approx(0.145, abs=5e-3)
    )
    assert any("pixels are not compared" in line for line in result.evidence.left_out)


@pytest.mark.parametrize("exchanged", [1.0, 0.7])
def test_other_channels_are_found_by_confidence(exchanged):
    """The head is sure of color order: other channels leave it unsure."""
    head = nn.Linear(3, 2)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    # Class 0 is bright in red, class 1 dark; blue varies and does not matter.
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[30.0, 0.0, 0.0], [-30.0, 0.0, 0.0]]))
        head.bias.copy_(torch.tensor([-15.0, 15.0]))
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    x = 0.5 + 0.05 * torch.randn(240, 3, 8, 8, generator=draws)
    x[:, 0] += (0.2 - 0.4 * y)[:, None, None]
    new = x[120:].flip(1)
    # The first images look the same in both orders of the channels.
    plain = round((1 - exchanged) * len(new))
    new[:plain, 0] = new[:plain, 2]
    result = contam.audit(
        model, id=(x[:120], y[:120]), unlabeled=new, reference=None, untrained=False,
        remedies=False, altered=False, progress=False,
    )  # fmt: skip
    (scores,) = result.evidence.unlabeled
    variant = scores.variant
    assert variant is not None and "BGR" in variant.what
    assert variant.after.value > 0.9 > variant.before.value
    assert variant.fix in result.verdict.findings[-1]
    # The judged images stand for the whole set, whatever its order.
    assert scores.confidence is not None
    assert variant.before.value == pytest.approx(scores.confidence.value, abs=0.03)


def test_another_scale_is_found_by_its_pixels_although_the_network_is_confident():
    x, y = images(240, 0)
    result = contam.audit(
        ByColor().eval(), id=(x[:120], y[:120]), unlabeled=255 * x[120:], reference=None,
        untrained=False, remedies=False, altered=False, progress=False,
    )  # fmt: skip
    (scores,) = result.evidence.unlabeled
    assert scores.variant is not None and scores.variant.fix == "x = x / 255"
    assert scores.variant.before.value > 0.99 > scores.variant.after.value
    assert min(row.difference for row in scores.pixels if row.statistic == "mean") > 100


def test_images_alike_have_no_variant_and_small_differences(audit):
    (scores,) = audit.evidence.unlabeled
    assert scores.variant is None
    assert {row.channel for row in scores.pixels} == {"red", "green", "blue"}
    assert scores.domain_auc is not None and scores.domain_auc.low is not None


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_other_than_colors_are_numbered(channels):
    x = torch.rand(8, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    names = dict.fromkeys(row.channel for row in pixel_differences(x, x))
    assert [*names] == [f"channel {k}" for k in range(channels)]


def test_pixel_differences_are_in_id_standard_deviations():
    draws = torch.Generator().manual_seed(0)
    own = torch.rand(64, 1, 16, 16, generator=draws)
    levels = own.mean((1, 2, 3))
    moved = own + 2 * levels.std(correction=0)
    rows = {row.statistic: row.difference for row in pixel_differences(own, moved)}
    assert rows.pop("mean") == pytest.approx(2, abs=1e-3)
    assert all(abs(value) < 0.02 for value in rows.values())
    noisy = own + 0.5 * torch.randn(own.shape, generator=draws)
    rows = {row.statistic: row.difference for row in pixel_differences(own, noisy)}
    assert rows["noise"] > 3 and rows["spread"] > 3


def test_labels_of_an_unlabeled_set_change_nothing():
    x, y = images(60, 1)
    given = {"id": images(60, 0), "quick": True, "reference": None, "remedies": False,
             "progress": False}  # fmt: skip
    one, other = (
        contam.audit(ByColor().eval(), unlabeled={"new": data}, **given)
        for data in (x, (x, (y + 1) % 3))
    )
    assert one.evidence.unlabeled == other.evidence.unlabeled


def test_indices_and_paths_are_those_of_the_user(tmp_path):
    for k in range(4):
        picture(tmp_path / "new" / f"{k}.png", (60 * k, 0, 0), size=(8, 8))
    (tmp_path / "new" / "1.png").write_bytes(b"no image")
    x, y = images(30, 0)
    result = contam.audit(
        ByColor().eval(), id=(x, y), unlabeled=tmp_path / "new", quick=True, reference=None,
        remedies=False, progress=False,
    )  # fmt: skip
    drawn = sorted((one.index, one.path) for one in result.evidence.unlabeled[0].to_label)
    assert drawn == [(0, "0.png"), (2, "2.png"), (3, "3.png")]
    assert any("'new' were left out" in line for line in result.evidence.left_out)


def test_features_without_a_network_are_estimated_too():
    x, y = images(120, 0)
    features = x.mean((2, 3))
    result = contam.audit(None, id=(features, y), unlabeled=features[:40], progress=False)
    assert len(result.evidence.unlabeled[0].estimates) == 2


@pytest.mark.parametrize("data", [images(20, 0)[0], (images(20, 0)[0], None)])
def test_an_ood_set_without_labels_is_refused(data):
    with pytest.raises(ValueError, match="if it has no labels, give it as unlabeled=") as error:
        contam.audit(ByColor(), id=images(30, 0), ood=data, progress=False)
    assert "\n" not in str(error.value)


def test_ood_folders_and_tables_without_labels_are_refused(tmp_path):
    picture(tmp_path / "flat" / "a.png", size=(8, 8))
    file = table(tmp_path / "new.csv", ["path"], [["flat/a.png"]])
    for data in (tmp_path / "flat", str(file), ImageTable(file)):
        with pytest.raises(ValueError, match="give it as unlabeled="):
            contam.audit(ByColor(), id=images(30, 0), ood=data, progress=False)


def test_too_few_id_examples_give_no_estimate():
    x, y = images(12, 0)
    result = contam.audit(
        ByColor().eval(), id=(x, y), unlabeled=images(30, 1)[0], quick=True, reference=None,
        remedies=False, progress=False,
    )  # fmt: skip
    assert result.evidence.unlabeled[0].estimates == ()
    assert any("takes 20 ID examples" in line for line in result.evidence.left_out)


def test_other_audits_keep_no_logits():
    inputs = noise_inputs(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2))
    assert inputs.unlabeled == ()
