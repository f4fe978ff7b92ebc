"""Evidence about causes, on networks whose cause is known because they are a few lines long."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score
from support.generators import result_of
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.background import (
    background_label,
    background_only,
    bounding_boxes,
    shared_bits,
    without,
)
from contam.auditing.causes import (
    Reading,
    causes,
    head_record,
    oracle_record,
    paired_p_value,
    reading,
    set_scores,
)
from contam.auditing.verdict import verdict
from contam.batch import Batch, Domain
from contam.data.shapes import scenes
from contam.measures.accuracy import Accuracy
from contam.measures.robustness import IMAGENET_LINES
from contam.models.classifier import Classifier
from contam.models.observe import observe
from contam.models.small import small_cnn


def sample(name: str, x: Tensor, y: Tensor, **more: Tensor) -> Sample:
    domain = more.pop("domain", torch.zeros_like(y))
    return Sample(name, Domain(name, Batch(x, y, domain)), **more)


class ByCorner(nn.Module):
    """Names the color of the upper left pixel: its background."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


class ByMiddle(nn.Module):
    """Names the color of the middle: its object."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 8, 8]


def framed(n: int, *, linked: bool) -> tuple[Sample, Tensor]:
    """A square of one of three colors on a background of the same or of any color."""
    y = torch.arange(n) % 3
    behind = y if linked else torch.arange(n) // 3 % 3
    x = torch.zeros(n, 3, 16, 16)
    x[torch.arange(n), behind] = 1
    mask = torch.zeros(n, 1, 16, 16)
    mask[:, :, 5:11, 4:12] = 1
    colors = nn.functional.one_hot(y, 3).float()[:, :, None, None]
    return sample("ID", torch.lerp(x, colors, mask), y, masks=mask), behind


def subject(model: nn.Module, inside: Sample, *outside: Sample) -> AuditInputs:
    return AuditInputs("a network", model, ("red", "green", "blue"), inside, outside)


# The object taken away


@pytest.mark.parametrize(("model", "bare"), [(ByCorner(), 1.0), (ByMiddle(), 1 / 3)])
@pytest.mark.parametrize("masked", [True, False])
def test_only_a_network_of_backgrounds_answers_without_objects(
    model: nn.Module, bare: float, masked: bool
) -> None:
    # The corner goes with the class in all but every tenth image, the middle always.
    inside, behind = framed(180, linked=False)
    target = inside.domain.y if isinstance(model, ByMiddle) else behind
    x = inside.domain.data.x
    asked = sample("ID", x, target)
    if masked:
        asked = replace(asked, masks=inside.masks)
    found = subject(model, asked)
    only, why = result_of(background_only(found, [result_of(reading(model, asked))], batch_size=50))
    assert only is not None
    assert not why
    assert only.made_from == ("masks" if masked else "border")
    assert only.accuracy.value == pytest.approx(bare)
    assert only.chance == pytest.approx(1 / 3)


def test_declared_backgrounds_serve_where_there_are_no_images() -> None:
    y = torch.arange(90) % 3
    behind = torch.where(torch.arange(90) < 60, y, (y + 1) % 3)
    x = nn.functional.one_hot(behind, 3).float()
    inside = sample("ID", x, y, background=behind)
    found = subject(nn.Identity(), inside)
    only, _ = result_of(background_only(found, [result_of(reading(found.model, inside))]))
    assert only is not None
    assert (only.made_from, only.accuracy.value) == ("labels", 1.0)
    # A network of objects never answers what the background suggests against them.
    by_object = replace(sample("ID", nn.functional.one_hot(y, 3).float(), y), background=behind)
    seen = result_of(reading(nn.Identity(), by_object))
    none, _ = result_of(background_only(subject(nn.Identity(), by_object), [seen]))
    assert none is not None
    assert none.accuracy.value == 0
    undeclared = subject(nn.Identity(), sample("ID", x, y))
    nothing, why = result_of(background_only(undeclared, [result_of(reading(found.model, inside))]))
    assert nothing is None
    assert "declare" in why


def test_naming_the_commonest_class_without_objects_is_chance() -> None:
    inside, _ = framed(90, linked=False)
    y = (torch.arange(90) % 10 == 0).long()
    head = nn.Linear(3 * 16 * 16, 3)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    constant = nn.Sequential(nn.Flatten(), head)
    asked = replace(sample("ID", inside.domain.data.x, y), masks=inside.masks)
    seen = result_of(reading(constant, asked))
    only, _ = result_of(background_only(subject(constant, asked), [seen]))
    assert only is not None
    assert only.accuracy.value == pytest.approx(only.chance) == pytest.approx(0.9)


def test_a_box_is_filled_with_its_mirrored_surroundings() -> None:
    x = torch.arange(8.0).expand(1, 1, 3, 8)
    filled = without(x, torch.tensor([[0, 3, 2, 6]]))
    # Columns 2 and 3 mirror 1 and 0 at the left edge, columns 4 and 5 mirror 7 and 6.
    assert filled[0, 0, 0].tolist() == [0, 1, 1, 0, 7, 6, 6, 7]
    wide = without(x, torch.tensor([[0, 3, 1, 8]]))
    assert wide[0, 0, 0].tolist() == [0] * 8
    # Six columns from two, there and back again.
    far = without(x, torch.tensor([[0, 3, 2, 8]]))
    assert far[0, 0, 0].tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    upright = without(x.mT, torch.tensor([[2, 6, 0, 3]]))
    assert torch.equal(upright, filled.mT)


@settings(deadline=None)
@given(st.data())
def test_nothing_of_a_box_is_left_and_nothing_else_changes(data: st.DataObject) -> None:
    boxes = []
    for _ in range(3):
        top, left = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 11))
        boxes.append([top, data.draw(st.integers(top, 9)), left, data.draw(st.integers(left, 11))])
    x = torch.arange(3 * 2 * 10 * 12.0).reshape(3, 2, 10, 12)
    found = without(x, torch.tensor(boxes))
    for k, (top, bottom, left, right) in enumerate(boxes):
        inside = torch.zeros(10, 12, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(found[k][:, ~inside], x[k][:, ~inside])
        for channel in range(2):
            given_values = set(x[k, channel][~inside].tolist())
            assert set(found[k, channel][inside].tolist()) <= given_values


def test_boxes_go_around_masks() -> None:
    masks = torch.zeros(3, 1, 12, 10)
    masks[0, 0, 4:7, 2] = 0.1
    masks[1, 0, 0, 9] = 1
    assert bounding_boxes(masks).tolist() == [[3, 8, 1, 4], [0, 2, 8, 10], [0, 0, 0, 0]]


# Backgrounds and labels


@pytest.mark.parametrize("kinds", [2, 5])
def test_bits_are_the_mutual_information_above_chance(kinds: int) -> None:
    generator = torch.Generator().manual_seed(kinds)
    y = torch.arange(1200) % 4
    same, p_value = shared_bits(y, y, classes=4)
    assert same.value == pytest.approx(2.0, abs=0.02)
    assert p_value == 1 / 200
    free = torch.randint(kinds, (1200,), generator=generator)
    nothing, p_value = shared_bits(free, y, classes=4)
    assert abs(nothing.value) < 0.01
    assert p_value > 0.01
    half = torch.where(torch.rand(1200, generator=generator) < 0.5, y % kinds, free)
    some, _ = shared_bits(half, y, classes=4)
    plain = mutual_info_score(half.numpy(), y.numpy()) / math.log(2)
    # What independent labels would seem to share: degrees of freedom over 2 n ln 2.
    bias = 3 * (kinds - 1) / (2 * 1200 * math.log(2))
    assert some.value == pytest.approx(plain - bias, abs=bias / 2)
    assert some.low is not None
    assert some.high is not None
    assert some.low < some.value < some.high


def test_equal_tables_are_no_evidence() -> None:
    y = torch.arange(60) % 3
    found, p_value = shared_bits(torch.zeros_like(y), y, classes=3)
    assert found.value == pytest.approx(0)
    assert p_value == 1


@pytest.mark.parametrize("linked", [True, False])
def test_borders_tell_backgrounds_apart(linked: bool) -> None:
    inside, behind = framed(240, linked=linked)
    by_border, _ = background_label(subject(ByCorner(), inside))
    declared = sample("ID", inside.domain.data.x, inside.domain.y, background=behind)
    by_label, _ = background_label(subject(ByCorner(), declared))
    assert by_border is not None
    assert by_label is not None
    assert (by_border.known_from, by_label.known_from) == ("border", "labels")
    assert by_border.bits.value == pytest.approx(by_label.bits.value, abs=0.05)
    assert (by_border.p_value < 0.01) is linked


# Heads and oracles


def separable(n: int, seed: int, *, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 3
    drawn = noise * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return torch.eye(3)[y] + drawn, y


def read(name: str, features: Tensor, y: Tensor, logits: Tensor) -> Reading:
    return Reading(name, y, torch.zeros_like(y), logits, features)


def test_a_fresh_head_gains_where_the_own_one_is_wrong_and_nowhere_else() -> None:
    inside, outside = separable(300, 0), separable(240, 1)
    sound = [read(name, x, y, x) for name, (x, y) in (("ID", inside), ("OOD", outside))]
    wrong = [read(each.name, each.logits, each.y, each.logits.roll(1, 1)) for each in sound]
    good, bad = head_record(sound, classes=3), head_record(wrong, classes=3)
    for name in ("ID", "OOD"):
        assert good.gain[name].value == pytest.approx(0, abs=0.03)
        assert good.p_value[name] > 0.05
        assert bad.gain[name].value > 0.9
        assert bad.p_value[name] < 1e-20
        gain = bad.gain[name]
        assert gain.low is not None
        assert gain.low <= gain.value == pytest.approx(bad.fresh[name].value - bad.own[name].value)


def test_no_head_is_judged_on_what_it_was_fitted_to() -> None:
    # Features without any information, so many that they can be learned by heart.
    generator = torch.Generator().manual_seed(0)
    noise, y = torch.randn(120, 400, generator=generator), torch.arange(120) % 3
    found = head_record([read("ID", noise, y, noise[:, :3])], classes=3)
    assert found.fresh["ID"].value < 0.5
    oracle = oracle_record("own", [("ID", noise, y), ("OOD", noise[:60], y[:60])], classes=3)
    assert max(each.value for each in oracle.accuracy.values()) < 0.55


def test_the_control_of_an_oracle_has_as_few_examples() -> None:
    x, y = separable(600, 2, noise=0.6)
    few = [("ID", x, y), ("OOD", x[:12], y[:12])]
    found = oracle_record("own", few, classes=3).accuracy
    enough = oracle_record("own", [("ID", x, y), ("OOD", x, y)], classes=3).accuracy
    widths = [
        each.high - each.low for each in (found["ID"], enough["ID"]) if each.high and each.low
    ]
    assert widths[0] > 4 * widths[1]


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1), (5, 0, 1 / 32), (1, 1, 3 / 4)])
def test_paired_p_values_by_hand(gained: int, lost: int, p: float) -> None:
    assert paired_p_value(gained, lost) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_gain_and_its_opposite_share_the_chance(gained: int, lost: int) -> None:
    both = gained + lost
    tie = math.comb(both, gained) / 2**both
    assert paired_p_value(gained, lost) + paired_p_value(lost, gained) == pytest.approx(1 + tie)


# What the head reads


class Odd(nn.Module):
    """Answers with one number, with a scaled answer, or behind another linear map."""

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
    [seen] = observe(model, [batch], layers=(), head=True)
    assert torch.equal(seen.logits, model(batch.x))
    known = kind in ("plain", "one", "point")
    assert (seen.head is not None) is known
    if known:
        torch.testing.assert_close(seen.head, model.body(batch.x).relu().mean((2, 3)).detach())


# Scores and the whole


def test_scores_by_hand() -> None:
    y, domain = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([4, 7, 4, 7, 4, 7])
    answers = torch.eye(3)[torch.tensor([0, 0, 1, 0, 2, 0])]
    found = set_scores(Reading("OOD", y, domain, answers, None), ("a", "b", "c", "d"), "ood")
    assert (found.overall.correct, found.overall.count) == (4, 6)
    assert {name: each.correct for name, each in found.by_class.items()} == {"a": 2, "b": 1, "c": 1}
    assert {name: each.correct for name, each in found.by_domain.items()} == {"4": 3, "7": 1}
    assert found.worst_domain == "7"
    assert found.effective_robustness is None
    line = IMAGENET_LINES["ImageNetV2"]
    known = Accuracy(50, 100)
    seen = Reading("OOD", y, domain, answers, None)
    names = ("a", "b", "c", "d", "north")
    by_name = set_scores(seen, ("a", "b", "c"), "ood", domains=names).by_domain
    assert list(by_name) == ["north", "7"]
    above = set_scores(seen, ("a", "b", "c"), "ood", against=(known, line)).effective_robustness
    assert above is not None
    expected = 1 / (1 + math.exp(-line.intercept))
    assert above.value == pytest.approx(100 * (4 / 6 - expected))


def test_an_audit_of_causes_leaves_the_network_as_it_was() -> None:
    shown, new = scenes(("clouds",), 120), scenes(("plaid",), 60)
    model = small_cnn(width=2).train()
    inside = Sample("ID", Domain("ID", shown.batch), shown.mask)
    outside = Sample("OOD", Domain("OOD", new.batch), new.mask)
    asked = AuditInputs(
        "small", model, tuple("0123456789"), inside, (outside,),
        reference=small_cnn(width=3).encoder, reference_name="another",
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = result_of(causes(asked, batch_size=32))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [each.role for each in found.sets] == ["id", "ood"]
    assert [each.encoder for each in found.oracles] == ["own", "another"]
    assert found.head is not None
    assert found.background_only is not None
    assert found.background_label is not None
    assert not found.left_out
    told = verdict(
        found.sets, head=found.head, oracles=found.oracles,
        background_only=found.background_only, background_label=found.background_label,
    )  # fmt: skip
    assert told.cause == "undertrained"
    again = result_of(causes(asked, batch_size=50))
    assert again.head == found.head
    assert again.background_label == found.background_label


def test_what_can_not_be_asked_is_left_out_with_a_reason() -> None:
    y = torch.arange(60) % 3
    inside = sample("ID", torch.randn(60, 5), y)
    scaled = nn.Sequential(nn.Linear(5, 3), nn.Softmax(dim=1))
    found = result_of(causes(subject(scaled, inside)))
    assert (found.head, found.oracles, found.background_only) == (None, (), None)
    assert len(found.left_out) == 3
    assert "last linear layer" in found.left_out[0]


@pytest.mark.parametrize(
    ("model", "n", "word"),
    [(nn.Identity(), 0, "no example"), (nn.Unflatten(1, (1, 5)), 6, "batch, classes")],
)
def test_what_can_not_be_audited_is_refused(model: nn.Module, n: int, word: str) -> None:
    asked = subject(model, sample("ID", torch.randn(n, 5), torch.zeros(n).long()))
    with pytest.raises(ValueError, match=word):
        result_of(causes(asked))


def test_a_classifier_keeps_its_features_for_the_head() -> None:
    model = Classifier(nn.Linear(5, 4), 3, 4)
    inside = sample("ID", torch.randn(9, 5), torch.arange(9) % 3)
    seen = result_of(reading(model, inside, batch_size=4))
    assert seen.features is not None
    torch.testing.assert_close(seen.features, model.encoder(inside.domain.data.x).detach())
