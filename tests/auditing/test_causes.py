"""Evidence of causes, from networks that are a few lines long, so that their cause is known."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score
from support.generators import returned
from torch import Tensor, nn

from contam.auditing import reliance
from contam.auditing.api import accuracies, cause_tests, collect
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.causes import cause, head, missing
from contam.auditing.head_probes import correct_with_fresh_head
from contam.auditing.passes import Budget, Passes, run_passes
from contam.auditing.records import UNDECIDED, CauseEvidence
from contam.auditing.scores import set_scores
from contam.auditing.single_pass import Keep, PassResult, run_pass
from contam.auditing.verdict import verdict
from contam.batch import Batch, Domain
from contam.data.object_removal import object_boxes, without_boxes
from contam.data.shapes import scenes
from contam.inputs.input_set import InputSet
from contam.measures.accuracy import Accuracy
from contam.measures.robustness import IMAGENET_LINES
from contam.models.observe import observe
from contam.models.small import small_cnn

ALL = Budget(without_object=1000, changed=0, control=0)


def sample(
    name: str,
    x: Tensor,
    y: Tensor,
    *,
    masks: Tensor | None = None,
    background: Tensor | None = None,
) -> InputSet:
    return InputSet(name, Domain(name, Batch(x, y, torch.zeros_like(y))), masks, background)


def passes_of(inputs: AuditInputs, budget: Budget = ALL) -> Passes:
    return returned(run_passes(inputs, (), budget))


def shortcut_of(inputs: AuditInputs) -> CauseEvidence:
    return reliance.reliance(passes_of(inputs))


def value(evidence: CauseEvidence, what: str, *, on: str = "ID") -> float:
    number = evidence.find(what, on=on)
    assert number is not None
    return number.value.value


class ByCorner(nn.Module):
    """Names the color of the upper left pixel: its background."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


class ByMiddle(nn.Module):
    """Names the color of the middle: its object."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 8, 8]


def framed(n: int, *, linked: bool) -> tuple[InputSet, Tensor]:
    """A square of one of three colors on a background of the same or of any color."""
    y = torch.arange(n) % 3
    behind = y if linked else torch.arange(n) // 3 % 3
    x = torch.zeros(n, 3, 16, 16)
    x[torch.arange(n), behind] = 1
    mask = torch.zeros(n, 1, 16, 16)
    mask[:, :, 5:11, 4:12] = 1
    colors = nn.functional.one_hot(y, 3).float()[:, :, None, None]
    return sample("ID", torch.lerp(x, colors, mask), y, masks=mask), behind


def audited(model: nn.Module, inside: InputSet, *outside: InputSet) -> AuditInputs:
    return AuditInputs("a network", model, ("red", "green", "blue"), inside, outside)


# Without the object


@pytest.mark.parametrize(("model", "bare"), [(ByCorner(), 1.0), (ByMiddle(), 1 / 3)])
@pytest.mark.parametrize("masked", [True, False])
def test_only_a_network_that_uses_backgrounds_is_correct_without_objects(
    model: nn.Module, bare: float, masked: bool
) -> None:
    # The corner goes with the class in all but every tenth image, the middle always.
    inside, behind = framed(180, linked=False)
    target = inside.domain.y if isinstance(model, ByMiddle) else behind
    x = inside.domain.data.x
    data = sample("ID", x, target)
    if masked:
        data = replace(data, masks=inside.masks)
    evidence = shortcut_of(audited(model, data))
    number = evidence.find(reliance.WITHOUT)
    assert number is not None
    assert number.part == ("masks" if masked else "border")
    assert number.value == evidence.effect
    assert number.value.value == pytest.approx(bare)
    assert value(evidence, reliance.GUESSING) == pytest.approx(1 / 3)
    assert evidence.n == 180
    assert not evidence.left_out


def test_a_small_sample_without_objects_has_a_wider_interval() -> None:
    inside, behind = framed(180, linked=False)
    inputs = audited(
        ByCorner(), replace(inside, domain=sample("", inside.domain.data.x, behind).domain)
    )
    few = passes_of(inputs, replace(ALL, without_object=40))
    assert few.background_only is not None
    assert len(few.background_only.y) == 40
    small, large = reliance.reliance(few), shortcut_of(inputs)
    assert (small.n, large.n) == (40, 180)
    lows = [e.effect.low for e in (small, large) if e.effect and e.effect.low is not None]
    assert lows[0] < lows[1]


def test_background_labels_are_used_for_inputs_other_than_images() -> None:
    y = torch.arange(90) % 3
    behind = torch.where(torch.arange(90) < 60, y, (y + 1) % 3)
    x = nn.functional.one_hot(behind, 3).float()
    by_background = shortcut_of(audited(nn.Identity(), sample("ID", x, y, background=behind)))
    number = by_background.find(reliance.WITHOUT)
    assert number is not None
    assert (number.part, number.value.value) == ("labels", 1.0)
    # A network of objects never predicts what the background suggests against them.
    by_object = sample("ID", nn.functional.one_hot(y, 3).float(), y, background=behind)
    assert value(shortcut_of(audited(nn.Identity(), by_object)), reliance.WITHOUT) == 0
    unlabeled = shortcut_of(audited(nn.Identity(), sample("ID", x, y)))
    assert unlabeled.effect is None
    assert "Labels of the backgrounds" in unlabeled.left_out[0]


def test_predicting_the_most_frequent_class_without_objects_is_chance() -> None:
    inside, _ = framed(90, linked=False)
    y = (torch.arange(90) % 10 == 0).long()
    last = nn.Linear(3 * 16 * 16, 3)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    data = replace(sample("ID", inside.domain.data.x, y), masks=inside.masks)
    evidence = shortcut_of(audited(nn.Sequential(nn.Flatten(), last), data))
    chance = value(evidence, reliance.GUESSING)
    assert value(evidence, reliance.WITHOUT) == pytest.approx(chance) == pytest.approx(0.9)


def test_a_box_is_filled_with_its_mirrored_surroundings() -> None:
    x = torch.arange(8.0).expand(1, 1, 3, 8)
    filled = without_boxes(x, torch.tensor([[0, 3, 2, 6]]))
    # Columns 2 and 3 mirror 1 and 0 at the left edge, columns 4 and 5 mirror 7 and 6.
    assert filled[0, 0, 0].tolist() == [0, 1, 1, 0, 7, 6, 6, 7]
    wide = without_boxes(x, torch.tensor([[0, 3, 1, 8]]))
    assert wide[0, 0, 0].tolist() == [0] * 8
    # Six columns from two, forth and back again.
    far = without_boxes(x, torch.tensor([[0, 3, 2, 8]]))
    assert far[0, 0, 0].tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    upright = without_boxes(x.mT, torch.tensor([[2, 6, 0, 3]]))
    assert torch.equal(upright, filled.mT)


@settings(deadline=None)
@given(st.data())
def test_only_pixels_inside_the_box_change(data: st.DataObject) -> None:
    boxes = []
    for _ in range(3):
        top, left = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 11))
        boxes.append([top, data.draw(st.integers(top, 9)), left, data.draw(st.integers(left, 11))])
    x = torch.arange(3 * 2 * 10 * 12.0).reshape(3, 2, 10, 12)
    filled = without_boxes(x, torch.tensor(boxes))
    for k, (top, bottom, left, right) in enumerate(boxes):
        inside = torch.zeros(10, 12, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(filled[k][:, ~inside], x[k][:, ~inside])
        for channel in range(2):
            surroundings = set(x[k, channel][~inside].tolist())
            assert set(filled[k, channel][inside].tolist()) <= surroundings


def test_boxes_surround_masks() -> None:
    masks = torch.zeros(3, 1, 12, 10)
    masks[0, 0, 4:7, 2] = 0.1
    masks[1, 0, 0, 9] = 1
    assert object_boxes(masks, (12, 10), 3).tolist() == [[3, 8, 1, 4], [0, 2, 8, 10], [0, 0, 0, 0]]


# Backgrounds and labels


@pytest.mark.parametrize("kinds", [2, 5])
def test_background_bits_are_bias_corrected_mutual_information(kinds: int) -> None:
    generator = torch.Generator().manual_seed(kinds)
    y = torch.arange(1200) % 4
    same, p_value = reliance.shared_bits(y, y, classes=4)
    assert same.value == pytest.approx(2.0, abs=0.02)
    assert p_value == 1 / 200
    free = torch.randint(kinds, (1200,), generator=generator)
    nothing, p_value = reliance.shared_bits(free, y, classes=4)
    assert abs(nothing.value) < 0.01
    assert p_value > 0.01
    half = torch.where(torch.rand(1200, generator=generator) < 0.5, y % kinds, free)
    some, _ = reliance.shared_bits(half, y, classes=4)
    plain = mutual_info_score(half.numpy(), y.numpy()) / math.log(2)
    # What independent labels would seem to share: degrees of freedom over 2 n ln 2.
    bias = 3 * (kinds - 1) / (2 * 1200 * math.log(2))
    assert some.value == pytest.approx(plain - bias, abs=bias / 2)
    assert some.low is not None
    assert some.high is not None
    assert some.low < some.value < some.high


def test_independent_tables_have_no_information() -> None:
    y = torch.arange(60) % 3
    bits, p_value = reliance.shared_bits(torch.zeros_like(y), y, classes=3)
    assert bits.value == pytest.approx(0)
    assert p_value == 1


@pytest.mark.parametrize("linked", [True, False])
def test_image_borders_separate_backgrounds(linked: bool) -> None:
    inside, behind = framed(240, linked=linked)
    by_border = shortcut_of(audited(ByCorner(), inside))
    labeled = sample("ID", inside.domain.data.x, inside.domain.y, background=behind)
    by_label = shortcut_of(audited(ByCorner(), labeled))
    for evidence, part in ((by_border, "border"), (by_label, "labels")):
        number = evidence.find(reliance.BITS)
        assert number is not None
        assert number.part == part
    bits = value(by_label, reliance.BITS)
    assert value(by_border, reliance.BITS) == pytest.approx(bits, abs=0.05)
    assert (value(by_border, reliance.P_VALUE) < 0.01) is linked


# Heads and probes


def separable(n: int, seed: int, *, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 3
    drawn = noise * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return torch.eye(3)[y] + drawn, y


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.tensor(rows))
    return layer


SOUND = linear([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0])
WRONG = linear([0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0])


def test_a_refitted_head_gains_only_where_the_original_head_fails() -> None:
    inside, outside = (
        sample(name, *separable(n, seed)) for name, n, seed in (("ID", 300, 0), ("OOD", 240, 1))
    )
    good, bad = (
        head.head_evidence(passes_of(audited(model, inside, outside))) for model in (SOUND, WRONG)
    )
    for name in ("ID", "OOD"):
        assert value(good, head.GAIN, on=name) == pytest.approx(0, abs=0.03)
        assert value(good, head.P_VALUE, on=name) > 0.05
        assert value(bad, head.GAIN, on=name) > 0.9
        assert value(bad, head.P_VALUE, on=name) < 1e-20
        fresh, own = (value(bad, what, on=name) for what in (head.FRESH, head.OWN))
        assert value(bad, head.GAIN, on=name) == pytest.approx(fresh - own)


def test_no_head_is_evaluated_on_its_training_examples() -> None:
    # Features without any information, so many that they can be learned by heart.
    generator = torch.Generator().manual_seed(0)
    noise, y = torch.randn(120, 400, generator=generator), torch.arange(120) % 3
    correct, _ = correct_with_fresh_head((noise, y), {}, classes=3)
    assert correct.float().mean() < 0.5
    accuracy = missing.probe_accuracy({"ID": (noise, y), "OOD": (noise[:60], y[:60])}, classes=3)
    assert max(share.value for share in accuracy.values()) < 0.55


def test_a_probe_with_few_examples_has_a_wider_interval() -> None:
    x, y = separable(600, 2, noise=0.6)
    few = missing.probe_accuracy({"ID": (x, y), "OOD": (x[:12], y[:12])}, classes=3)
    many = missing.probe_accuracy({"ID": (x, y), "OOD": (x, y)}, classes=3)
    widths = [
        interval.high - interval.low
        for interval in (few["ID"], many["ID"])
        if interval.high and interval.low
    ]
    assert widths[0] > 4 * widths[1]


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1), (5, 0, 1 / 32), (1, 1, 3 / 4)])
def test_paired_p_values_by_hand(gained: int, lost: int, p: float) -> None:
    assert cause.paired_p_value(gained, lost) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_values_of_a_gain_and_its_opposite_overlap_in_one_outcome(gained: int, lost: int) -> None:
    both = gained + lost
    tie = math.comb(both, gained) / 2**both
    assert cause.paired_p_value(gained, lost) + cause.paired_p_value(lost, gained) == pytest.approx(
        1 + tie
    )


# What the head reads


class Odd(nn.Module):
    """Returns one number, scaled logits, or the output of another linear map or convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6, 1 if kind == "one" else 3)
        self.point = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x).relu()
        pooled = maps.mean((2, 3))
        if self.kind == "one":
            single = self.head(pooled)
            return torch.cat([torch.zeros_like(single), single], dim=1)
        if self.kind == "point":
            return self.point(pooled[:, :, None, None]).flatten(1)
        if self.kind == "everywhere":
            return self.point(maps).mean((2, 3))
        return self.head(pooled) * (2 if self.kind == "scaled" else 1)


@pytest.mark.parametrize("kind", ["plain", "one", "point", "scaled", "everywhere"])
def test_the_head_is_found_where_logits_are_its_output(kind: str) -> None:
    model = Odd(kind)
    batch = Batch(torch.rand(4, 3, 9, 9), torch.zeros(4).long(), torch.zeros(4).long())
    [observation] = observe(model, [batch], layers=(), head=True)
    assert torch.equal(observation.logits, model(batch.x))
    known = kind != "scaled"
    assert (observation.head is not None) is known
    if known:
        torch.testing.assert_close(
            observation.head, model.body(batch.x).relu().mean((2, 3)).detach()
        )


# Scores and the whole


def test_scores_by_hand() -> None:
    y, domain = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([4, 7, 4, 7, 4, 7])
    predicted = torch.tensor([0, 0, 1, 0, 2, 0])
    result = PassResult(y, predicted, domain, torch.zeros(6))
    scores = set_scores(result, "OOD", ("a", "b", "c", "d"), "ood")
    assert (scores.overall.correct, scores.overall.count) == (4, 6)
    assert {name: score.correct for name, score in scores.by_class.items()} == {
        "a": 2,
        "b": 1,
        "c": 1,
    }
    assert {name: score.correct for name, score in scores.by_domain.items()} == {"4": 3, "7": 1}
    assert scores.worst_domain == "7"
    assert scores.effective_robustness is None
    names = ("a", "b", "c", "d", "north")
    by_name = set_scores(result, "OOD", ("a", "b", "c"), "ood", domains=names).by_domain
    assert list(by_name) == ["north", "7"]
    sites = {"site": ["10", "9", "10", "9", "9", "9"]}
    by_group = set_scores(result, "OOD", ("a", "b", "c"), "ood", groups=sites).by_group
    counts = {name: (score.correct, score.count) for name, score in by_group["site"].items()}
    assert counts == {"9": (2, 4), "10": (2, 2)}
    assert list(counts) == ["9", "10"]
    line = IMAGENET_LINES["ImageNetV2"]
    above = set_scores(
        result, "OOD", ("a", "b", "c"), "ood", baseline=(Accuracy(50, 100), line)
    ).effective_robustness
    assert above is not None
    expected = 1 / (1 + math.exp(-line.intercept))
    assert above.value == pytest.approx(100 * (4 / 6 - expected))


@pytest.mark.slow
def test_collecting_evidence_leaves_the_network_unchanged_and_gives_every_cause() -> None:
    shown, new = scenes(("clouds",), 120), scenes(("plaid",), 60)
    model = small_cnn(width=2).train()
    inside = InputSet("ID", Domain("ID", shown.batch), shown.mask)
    outside = InputSet("OOD", Domain("OOD", new.batch), new.mask)
    inputs = AuditInputs(
        "small", model, tuple("0123456789"), inside, (outside,), batch_size=32,
        reference=small_cnn(width=3).encoder, reference_name="another",
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    collected = collect(inputs)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [scores.role for scores in collected.sets] == ["id", "ood"]
    evidence = {record.cause: record for record in collected.causes}
    assert set(evidence) >= {"undertrained", "background shortcut", "head"}
    assert verdict(collected.sets, collected.ledgers, collected.steps).cause in (
        "undertrained",
        UNDECIDED,
    )
    again = collect(replace(inputs, batch_size=50))
    assert again.causes == collected.causes


def test_unavailable_evidence_is_left_out_with_a_reason() -> None:
    y = torch.arange(60) % 3
    inside = sample("ID", torch.randn(60, 5), y)
    scaled = nn.Sequential(nn.Linear(5, 3), nn.Tanh())
    passes = passes_of(audited(scaled, inside))
    records = returned(cause_tests(passes, accuracies(passes, {}))).causes
    assert [record.cause for record in records] == ["background shortcut", "head"]
    assert all(record.effect is None and not record.numbers for record in records)
    reasons = [line for record in records for line in record.left_out]
    assert len(reasons) == 3
    assert "final linear layer" in reasons[-1]


def test_head_inputs_are_kept_for_every_example() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    inside = sample("ID", torch.randn(9, 5), torch.arange(9) % 3)
    result = returned(run_pass(model, inside, (), classes=3, keep=Keep(head=True), batch_size=4))
    assert result.head is not None
    torch.testing.assert_close(result.head, model[0](inside.domain.data.x).detach())
