"""The ledger and the verdict, on networks of a few lines whose failure was built in."""

import sys
from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import contam
from contam.auditing.causes import CAUSES, NAMES, Cause, CauseTest
from contam.auditing.causes.corruption import Corruption, undoings
from contam.auditing.causes.geometry import Geometry
from contam.auditing.causes.input_mismatch import input_variants
from contam.auditing.causes.label_mismatch import LabelMismatch
from contam.auditing.comparison import Comparison, Treatment
from contam.auditing.ledger import shapley
from contam.auditing.records import (
    HEALTHY,
    UNDECIDED,
    UNEXPLAINED,
    AuditRecord,
    Interval,
    Ledger,
    LostPoints,
    SetScores,
)
from contam.auditing.scores import share_correct
from contam.auditing.verdict import loses, verdict
from contam.batch import Batch, Domain
from contam.models.torchvision_import import import_torchvision

SIDE = 16
COLORS = torch.eye(3)

Data = tuple[Tensor, Tensor, Tensor]
"""Images, labels and masks."""


def squares(
    n: int, *, behind: float | Tensor = 0.2, seed: int = 0, rows: slice = slice(6, 10)
) -> Data:
    """Squares of the color of their class in front of a gray or colored background."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.zeros(n, 3, SIDE, SIDE) + behind
    x[:, :, rows, 6:10] = (0.1 + 0.8 * COLORS[y])[:, :, None, None]
    x = (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    mask = torch.zeros(n, 1, SIDE, SIDE)
    mask[:, :, rows, 6:10] = 1
    return x, y, mask


class Middle(nn.Module):
    """Names the color of the middle, and a fixed class in front of bright backgrounds."""

    def __init__(self, *, distracted: bool = False) -> None:
        super().__init__()
        self.distracted = distracted

    def forward(self, x: Tensor) -> Tensor:
        logits = 10 * x[:, :, 7:9, 7:9].mean((2, 3))
        bright = x[:, :, 0].mean((1, 2)) > 0.5
        if self.distracted:
            logits[bright] = torch.tensor([9.0, 0.0, 0.0])
        return logits


class Corner(nn.Module):
    """Names the color of the corner."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x[:, :, :2, :2].mean((2, 3))


def with_labels(data: Data, change: Callable[[Tensor], Tensor]) -> Data:
    x, y, masks = data
    return x, change(y), masks


def with_images(data: Data, change: Callable[[Tensor], Tensor]) -> Data:
    x, y, masks = data
    return change(x), y, change(masks).clamp(0, 1)


def tinted(linked: bool, n: int, seed: int) -> Data:
    """Backgrounds in the color of the class, or in any color."""
    y = torch.arange(n) % 3
    sign = y if linked else torch.arange(n) // 3 % 3
    return squares(n, behind=(0.1 + 0.7 * COLORS[sign])[:, :, None, None], seed=seed)


ID, OOD = squares(300), squares(300, seed=1)
CASES: dict[str, tuple[nn.Module, Data, Data, str]] = {
    "nothing": (Middle(), ID, OOD, HEALTHY),
    "labels shifted by one": (
        Middle(), ID, with_labels(OOD, lambda y: (y + 1) % 3), "label mismatch",
    ),
    "two labels swapped": (
        Middle(), ID, with_labels(OOD, lambda y: torch.tensor([1, 0, 2])[y]), "label mismatch",
    ),
    "BGR": (Middle(), ID, with_images(OOD, lambda x: x.flip(1)), "input mismatch"),
    "inverted": (Middle(), ID, (1 - OOD[0], *OOD[1:]), "input mismatch"),
    "new backgrounds": (
        Middle(distracted=True), ID, squares(300, behind=0.8, seed=1), "new backgrounds",
    ),
    "background of the class": (
        Corner(), tinted(True, 300, 0), tinted(False, 300, 1), "background shortcut",
    ),
}  # fmt: skip


def audited(model: nn.Module, inside: Data, outside: Data, *, masks: bool = True) -> AuditRecord:
    given = {"ID": inside[2], "OOD": outside[2]} if masks else None
    return contam.audit(
        model, id=inside[:2], ood=outside[:2], masks=given, reference=None, untrained=False,
        altered=False, progress=False,
    ).evidence  # fmt: skip


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("case", CASES)
def test_the_built_in_cause_is_named(case: str, masks: bool) -> None:
    model, inside, outside, cause = CASES[case]
    record = audited(model, inside, outside, masks=masks)
    assert record.verdict.cause == cause
    if cause == HEALTHY:
        assert not record.ledgers
        return
    (ledger,) = record.ledgers
    assert sum(entry.points.value for entry in ledger.entries) == pytest.approx(ledger.loss.value)
    assert ledger.entries[0].cause == cause
    assert ledger.entries[0].points.value > 0.8 * ledger.loss.value
    assert ledger.entries[0].fix
    assert f"{100 * ledger.loss.value:.1f} points" in record.verdict.sentence


@pytest.mark.parametrize("case", ["BGR", "labels shifted by one"])
def test_a_plumbing_fault_is_not_answered_with_training(case: str) -> None:
    model, inside, outside, _ = CASES[case]
    record = audited(model, inside, outside)
    assert not record.verdict.remedies
    asked = {step.leads_to: step.answer for step in record.ledgers[0].steps}
    assert asked["new backgrounds"] == "not asked"


def test_two_causes_share_the_loss() -> None:
    """Half of the backgrounds are new, and all labels are shifted by one."""
    behind = torch.where(torch.arange(300) < 150, 0.2, 0.8)[:, None, None, None]
    outside = with_labels(squares(300, behind=behind, seed=1), lambda y: (y + 1) % 3)
    (ledger,) = audited(Middle(distracted=True), ID, outside).ledgers
    shares = {entry.cause: entry.points.value for entry in ledger.entries}
    assert shares["label mismatch"] > shares["new backgrounds"] > 0.2 * ledger.loss.value
    assert shares[UNEXPLAINED] < 0.1


class Dim(nn.Module):
    """Reads color and place of squares of six classes, and names one class in dark images."""

    def forward(self, x: Tensor) -> Tensor:
        logits = 10 * torch.cat([x[:, :, rows, 7:9].mean((2, 3)) for rows in PLACES], 1)
        logits[x.mean((1, 2, 3)) < 0.12] = torch.eye(6)[0]
        return logits


PLACES = slice(2, 6), slice(10, 14)


def placed_squares(n: int, seed: int) -> Data:
    """Squares of three colors in two places, which are six classes."""
    y = torch.arange(n) % 6
    upper, lower = (squares(n, seed=seed, rows=rows) for rows in PLACES)
    below = (y >= 3)[:, None, None, None]
    return torch.where(below, lower[0], upper[0]), y, torch.where(below, lower[2], upper[2])


def test_another_numbering_is_found_behind_another_cause() -> None:
    """Dark images of which all predictions are one class, and two classes are swapped."""
    x, y, masks = placed_squares(300, 1)
    outside = 0.3 * x, torch.tensor([0, 1, 2, 4, 3, 5])[y], masks
    (ledger,) = audited(Dim(), placed_squares(300, 0), outside).ledgers
    shares = {entry.cause: entry for entry in ledger.entries}
    assert shares["new backgrounds"].points.value > shares["label mismatch"].points.value > 0.1
    assert "[0, 1, 2, 4, 3, 5]" in shares["label mismatch"].fix
    assert shares[UNEXPLAINED].points.value < 0.1


def test_each_cause_of_the_second_round_is_tested_with_those_before_it_treated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of three causes shows only once those before it are treated."""
    treated: dict[str, list[list[str]]] = {}

    def shown_after(cause: type[Cause], others: int) -> None:
        def test(self: Cause, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
            treated.setdefault(self.name, []).append([treatment.cause for treatment in base])
            n = len(comparison.judged)
            wrong, right = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
            nothing = Treatment(self.name, "nothing", 1, lambda x, rows: x)
            after = right if len(base) == others else wrong
            return self.judged(comparison, nothing, wrong, after, method="")

        monkeypatch.setattr(cause, "test", test)

    order = (Corruption, LabelMismatch, Geometry)
    for others, cause in enumerate(order):
        shown_after(cause, others)
    for other in {type(cause) for cause in CAUSES} - {*order}:
        monkeypatch.setattr(other, "test", lambda self, *_: self.not_tested("left out"))
    x, y, masks = squares(60, seed=1)
    (ledger,) = audited(Middle(), squares(60), (x, (y + 1) % 3, masks)).ledgers
    first, second, third = (cause.name for cause in order)
    assert treated[second] == [[], [first]]
    assert treated[third] == [[], [first, second]]
    assert {step.leads_to for step in ledger.steps if step.answer == "yes"} >= {
        first,
        second,
        third,
    }


def scores(name: str, role: Literal["id", "ood"], share: float) -> SetScores:
    whole = share_correct(torch.arange(1000) < 1000 * share)
    half = whole.model_copy(update={"count": 500})
    return SetScores(name=name, role=role, overall=whole, by_class={"a": half, "b": half})


def test_a_loss_that_nothing_gives_back_is_unexplained() -> None:
    sets = scores("ID", "id", 0.95), scores("OOD", "ood", 0.6)
    rest = LostPoints(cause=UNEXPLAINED, what="", points=Interval(value=0.35), how="rest")
    ledger = Ledger(on="OOD", loss=Interval(value=0.35), entries=(rest,))
    result = verdict(sets, [ledger])
    assert result.cause == UNEXPLAINED
    assert "35.0 points are lost on OOD, and no test accounts for a fifth" in result.sentence
    small = rest.model_copy(
        update={"cause": "geometry", "how": "given back", "points": Interval(value=0.05)}
    )
    few = ledger.model_copy(update={"entries": (small, rest)})
    assert verdict(sets, [few]).cause == UNEXPLAINED
    large = small.model_copy(update={"points": Interval(value=0.08)})
    assert verdict(sets, [ledger.model_copy(update={"entries": (large, rest)})]).cause == "geometry"


def test_a_negligible_loss_has_no_cause() -> None:
    sets = scores("ID", "id", 0.95), scores("OOD", "ood", 0.93)
    assert verdict(sets).cause == HEALTHY
    assert not loses(*sets)


@pytest.mark.parametrize("follows", [True, False])
def test_predictions_that_follow_a_column_are_a_metadata_shortcut(follows: bool) -> None:
    """Features of the class and of the site; ID classes go with sites in nine of ten examples."""
    generator = torch.Generator().manual_seed(0)

    def made(n: int, linked: float) -> Domain:
        y = torch.arange(n) % 3
        site = torch.where(
            torch.rand(n, generator=generator) < linked,
            y,
            torch.randint(3, (n,), generator=generator),
        )
        x = torch.cat([COLORS[y], COLORS[site]], 1)
        return Domain("", Batch(x + 0.05 * torch.randn(n, 6, generator=generator), y, site))

    model = nn.Linear(6, 3, bias=False)
    weights = torch.cat([torch.eye(3), (2.0 if follows else 0.0) * torch.eye(3)], 1)
    model.weight = nn.Parameter(weights)
    # Without a linear layer at the end there is no fresh head, which would repair this network.
    model = nn.Sequential(model, nn.Tanh())
    record = contam.audit(model, id=made(600, 0.9), ood=made(600, 0.0), progress=False).evidence
    assert (record.verdict.cause == "metadata shortcut") is follows
    if not follows:
        assert record.verdict.cause == HEALTHY


def test_both_sets_may_be_preprocessed_wrongly() -> None:
    """The network was trained on RGB; the ID and the OOD images are BGR."""
    inside, outside = (with_images(data, lambda x: x.flip(1)) for data in (ID, OOD))
    record = audited(Middle(), inside, outside)
    assert record.verdict.cause == "input mismatch"
    sentence = record.verdict.sentence
    assert "channels exchanged (BGR), accuracy on ID goes from 33.0 % to 100.0 % (" in sentence
    # Nothing is lost between two equal sets, so no share of a loss comes back.
    assert "lost accuracy" not in sentence
    step = next(step for step in record.verdict.steps if step.leads_to == record.verdict.cause)
    assert step.observed is not None
    assert step.observed.value == pytest.approx(0.67)
    assert not record.verdict.remedies


def test_two_examples_in_each_set_are_enough_to_run() -> None:
    (x, y, _), (new, labels, _) = ID, with_labels(OOD, lambda y: (y + 1) % 3)
    small = (x[:2], y[:2], ID[2][:2]), (new[:2], labels[:2], OOD[2][:2])
    assert audited(Middle(), *small).verdict.cause == UNDECIDED


@pytest.mark.parametrize("corner", [True, False], ids=["relies", "does not rely"])
def test_reliance_on_the_background_that_does_not_explain_the_loss_is_said(corner: bool) -> None:
    """White objects get one answer, on any background."""

    class White(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            named = Corner()(x) if corner else Middle()(x)
            white = (x[:, :, 8, 8] > 0.6).all(1)
            return torch.where(white[:, None], torch.tensor([9.0, 0.0, 0.0]), named)

    x, y, masks = tinted(True, 300, 1)
    white = x + masks * (0.9 - x)
    (ledger,) = audited(White(), tinted(True, 300, 0), (white, y, masks)).ledgers
    step = next(step for step in ledger.steps if step.leads_to == "background shortcut")
    assert step.answer == "no"
    assert ("relies on the background of the class, which does not" in step.why) is corner
    assert ("does not rely" in step.why) is not corner


def test_reliance_without_loss_is_a_side_finding() -> None:
    (x, y, _), (new, labels, _) = tinted(True, 300, 0), tinted(True, 300, 1)
    record = contam.audit(
        Corner(), id=(x, y), ood=(new, labels), reference=None, untrained=False, progress=False
    ).evidence  # fmt: skip
    assert record.verdict.cause == HEALTHY
    assert "relies on the background" in record.verdict.findings[0]


def test_without_ood_data_nothing_is_explained() -> None:
    record = contam.audit(Middle(), id=ID[:2], reference=None, progress=False).evidence
    assert record.verdict.cause == UNDECIDED
    assert "OOD set" in record.verdict.missing[0]


def test_features_have_the_tests_that_need_no_images() -> None:
    y = torch.arange(300) % 3
    x = COLORS[y] + 0.1 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    record = contam.audit(
        nn.Linear(3, 3, bias=False).requires_grad_(False), id=(x, y), ood=(x, (y + 1) % 3),
        progress=False,
    ).evidence  # fmt: skip
    assert record.verdict.cause in (*NAMES, UNDECIDED)
    model = nn.Linear(3, 3, bias=False)
    model.weight = nn.Parameter(torch.eye(3))
    shifted = contam.audit(model, id=(x, y), ood=(x, (y + 1) % 3), progress=False).evidence
    assert shifted.verdict.cause == "label mismatch"


def test_the_network_and_the_random_state_stay_as_they_were() -> None:
    model = Middle(distracted=True).train()
    state = torch.get_rng_state()
    audited(model, ID, squares(300, behind=0.8, seed=1))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("what", [0, 1])
def test_the_code_that_matches_contrast_runs_and_matches_it(what: int) -> None:
    x, _, _ = ID
    dark = 0.2 * x + 0.1
    edit, code = list(undoings(x, dark).values())[what]
    names = {"x": dark, "torch": torch}
    exec(code, names)
    torch.testing.assert_close(names["x"], edit(dark), atol=0.02, rtol=0)
    torch.testing.assert_close(names["x"].mean((0, 2, 3)), x.mean((0, 2, 3)), atol=0.02, rtol=0)


def test_the_code_of_input_variants_is_valid_and_does_what_it_says() -> None:
    import_torchvision()
    x = ID[0]
    for what, edit, code, _ in input_variants(x, lambda change: change):
        names = {"x": x, "torch": torch, "torchvision": sys.modules["torchvision"]}
        names |= {"low": x.amin((0, 2, 3))[:, None, None], "high": x.amax((0, 2, 3))[:, None, None]}
        exec(code, names)
        if "before" in code:  # of images that are normalized afterwards
            continue
        torch.testing.assert_close(
            names["x"], edit(x), msg=lambda text, what=what: f"{what}: {text}"
        )


def test_every_cause_has_its_words() -> None:
    for cause in CAUSES:
        assert cause.name and cause.noun and cause.heading
        assert cause.question.endswith("?")
        assert cause.meaning.endswith(".")
    assert len(set(NAMES)) == len(NAMES) == len(CAUSES) + 2


# Shapley values


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_shapley_values_are_efficient_symmetric_and_ignore_dummies(players: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    everyone = range(players)
    worth = {
        frozenset(some): torch.rand(5, generator=generator)
        for size in range(players + 1)
        for some in combinations(everyone, size)
    }
    values = shapley(worth, players)
    total = worth[frozenset(everyone)] - worth[frozenset()]
    torch.testing.assert_close(sum(values, torch.zeros(5)), total)
    # A player who adds nothing gets nothing.
    with_dummy = {
        frozenset((*some, *extra)): value
        for some, value in worth.items()
        for extra in ((), (players,))
    }
    *same, nothing = shapley(with_dummy, players + 1)
    assert nothing.abs().max() < 1e-5
    for one, other in zip(same, values, strict=True):
        torch.testing.assert_close(one, other)


def test_shapley_values_are_means_over_all_orders() -> None:
    """Against the definition: the mean gain of a player over all orders of joining."""
    worth = {
        frozenset(some): torch.tensor([float(len(some) ** 2 + sum(some))])
        for size in range(4)
        for some in combinations(range(3), size)
    }
    expected = torch.zeros(3)
    orders = list(permutations(range(3)))
    for order in orders:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            expected[player] += (worth[before | {player}] - worth[before])[0] / len(orders)
    torch.testing.assert_close(torch.cat(shapley(worth, 3)), expected)


def test_domains_need_no_names() -> None:
    x, y, _ = OOD
    domain = Domain("any", Batch(x, (y + 1) % 3, torch.zeros_like(y)))
    record = contam.audit(
        Middle(), id=ID[:2], ood=domain, reference=None, untrained=False, progress=False
    ).evidence
    assert record.ledgers[0].on == "any"


def test_brightness_is_a_corruption_although_no_object_is_cut_out() -> None:
    """The class is the third of the image with stripes, which reach its border."""
    generator = torch.Generator().manual_seed(0)
    thirds = slice(0, 5), slice(5, 10), slice(10, 15)

    def striped(n: int, *, bright: bool) -> Data:
        y = torch.arange(n) % 3
        x = 0.4 + 0.02 * torch.randn(n, 3, SIDE, SIDE, generator=generator)
        for k, rows in enumerate(thirds):
            x[y == k, :, rows] += 0.2 * (-1.0) ** torch.arange(SIDE)
        if bright:
            x = 0.6 * x + 0.4 + 0.2 * torch.rand(n, 1, 1, 1, generator=generator)
        return x, y, x[:, :1]

    class Stripes(nn.Module):
        """Names the third with the most contrast, in images that are dark enough."""

        def forward(self, x: Tensor) -> Tensor:
            contrast = torch.stack([x[:, :, rows].std((1, 2, 3)) for rows in thirds], 1)
            dark = x.mean((1, 2, 3)) < 0.55
            return torch.where(dark[:, None], 30 * contrast, torch.tensor([1.0, 0.0, 0.0]))

    record = audited(Stripes(), striped(300, bright=False), striped(300, bright=True), masks=False)
    assert record.verdict.cause == "corruption", record.verdict.sentence


def scored(name: str, role: Literal["id", "ood"], correct: float) -> SetScores:
    return SetScores(
        name=name, role=role, overall=share_correct(torch.arange(200) < 200 * correct),
        by_class={str(k): share_correct(torch.ones(100).bool()) for k in range(2)},
    )  # fmt: skip


@pytest.mark.parametrize("low", [-0.01, 0.05])
def test_a_share_that_may_be_zero_is_not_named_in_the_verdict(low: float) -> None:
    entries = [
        LostPoints(cause=cause, what=f"a change of {cause}", how="given back",
                   points=Interval(value=value, low=start, high=0.4))
        for cause, value, start in (("head", 0.3, 0.2), ("corruption", 0.1, low))
    ]  # fmt: skip
    ledger = Ledger(on="night", loss=Interval(value=0.4), entries=tuple(entries))
    result = verdict([scored("ID", "id", 0.9), scored("night", "ood", 0.5)], [ledger])
    assert result.cause == "head"
    assert ("corruption" in result.sentence) is (low > 0)
    assert ("corruption" in result.behind) is (low > 0)


def test_an_accuracy_below_chance_is_named_so() -> None:
    result = verdict([scored("ID", "id", 0.9), scored("night", "ood", 0.2)])
    (reason,) = result.reasons
    assert "falls below chance (50.0 %) there, so it loses all of its above-chance" in reason
