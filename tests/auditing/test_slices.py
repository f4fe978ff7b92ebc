"""Slices with the largest losses: by hand, their order, and the classes that carry a loss."""

import pytest

from contam.auditing.records import Interval, Score, SetScores
from contam.auditing.slices import LEAST_EXAMPLES, carriers, difference, worst_slices


def score(correct: int, count: int) -> Score:
    return Score(correct=correct, count=count, accuracy=Interval(value=correct / count))


def scores(role, by_class, **groups) -> SetScores:
    total = [sum(getattr(one, name) for one in by_class.values()) for name in ("correct", "count")]
    return SetScores(name=role, role=role, overall=score(*total), by_class=by_class, **groups)


ID = scores("id", {"coat": score(45, 50), "shoe": score(50, 50)},
            by_domain={"day": score(90, 90), "dusk": score(5, 10)})  # fmt: skip
OOD = scores("ood", {"coat": score(5, 50), "shoe": score(45, 50)},
             by_domain={"day": score(50, 50), "night": score(0, 50)},
             by_group={"camera": {"old": score(1, 5), "new": score(49, 95)}})  # fmt: skip


def test_losses_by_hand():
    slices = {(one.column, one.value): one for one in worst_slices([ID, OOD])}
    assert slices["class", "coat"].loss.value == pytest.approx(0.8)
    assert slices["class", "coat"].carried == pytest.approx(0.4)
    assert slices["class", "shoe"].loss.value == pytest.approx(0.1)
    # A value that the ID set does not have is compared with all of it.
    assert slices["domain", "night"].loss.value == pytest.approx(0.95)
    assert slices["camera", "new"].loss.value == pytest.approx(0.95 - 49 / 95)


def test_the_largest_loss_comes_first_without_small_slices_and_those_that_lose_nothing():
    slices = worst_slices([ID, OOD])
    losses = [one.loss.value for one in slices]
    assert losses == sorted(losses, reverse=True)
    assert all(loss > 0 for loss in losses)
    assert ("camera", "old") not in {(one.column, one.value) for one in slices}
    assert min(one.ood_score.count for one in slices) >= LEAST_EXAMPLES
    assert worst_slices([ID, OOD], most=1) == slices[:1]


def test_the_classes_cost_what_the_set_loses():
    costs = [one.carried for one in worst_slices([ID, OOD]) if one.column == "class"]
    lost = ID.overall.accuracy.value - OOD.overall.accuracy.value
    assert sum(costs) == pytest.approx(lost)


def test_one_class_carries_most_of_the_loss():
    assert carriers(ID, OOD) == (["coat"], pytest.approx(8 / 9))
    assert carriers(ID, ID) == ([], 0.0)


def test_without_an_ood_set_there_is_no_slice():
    assert worst_slices([ID]) == []


@pytest.mark.parametrize("other", [Interval(value=0.2), Interval(value=0.2, low=0.1, high=0.4)])
def test_the_interval_of_a_difference_contains_it_and_is_wider_than_both(other):
    one = Interval(value=0.7, low=0.6, high=0.75)
    result = difference(one, other)
    assert result.value == pytest.approx(0.5)
    if other.low is None:
        assert result.low is None
        return
    assert result.low is not None
    assert result.high is not None
    assert result.low < result.value < result.high
    assert result.high - result.low >= max(0.15, 0.3)
