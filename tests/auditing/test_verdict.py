"""The decision table, asked with evidence whose cause is plain."""

import importlib
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contam.auditing.records import (
    BackgroundLabel,
    BackgroundOnly,
    Cause,
    HeadRecord,
    Interval,
    OracleRecord,
    Score,
    SetScores,
    Verdict,
)
from contam.auditing.remedies import REMEDIES
from contam.auditing.verdict import THRESHOLDS, Thresholds, verdict
from contam.measures.accuracy import clopper_pearson

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MANY = 4000


def near(share: float, count: int = MANY) -> Interval:
    """A share of so many examples, with its interval."""
    correct = round(share * count)
    low, high = clopper_pearson(correct, count)
    return Interval(value=correct / count, low=low, high=high)


def score(share: float, count: int = MANY) -> Score:
    found = near(share, count)
    return Score(correct=round(found.value * count), count=count, accuracy=found)


def scores(name: str, share: float, count: int = MANY, classes: int = 10) -> SetScores:
    each = {str(k): score(share, count // classes) for k in range(classes)}
    overall = score(share, count // classes * classes)
    return SetScores(
        name=name, role="id" if name == "ID" else "ood", overall=overall, by_class=each
    )


def evidence(
    *,
    inside: float = 0.95,
    outside: float = 0.5,
    fresh: float | None = None,
    fresh_outside: float | None = None,
    bare: float = 0.1,
    oracle: float = 0.9,
    control: float = 0.95,
    count: int = MANY,
    classes: int = 10,
) -> dict[str, Any]:
    """What an audit finds; by default of a contaminated network."""
    own = {"ID": inside, "OOD": outside}
    new = {
        "ID": inside if fresh is None else fresh,
        "OOD": outside if fresh_outside is None else fresh_outside,
    }
    gain = {name: new[name] - own[name] for name in own}
    return {
        "sets": [scores(name, share, count, classes) for name, share in own.items()],
        "head": HeadRecord(
            own={name: near(share, count) for name, share in own.items()},
            fresh={name: near(share, count) for name, share in new.items()},
            gain={n: Interval(value=g, low=g - 0.01, high=g + 0.01) for n, g in gain.items()},
            p_value={name: 1e-6 if more > 0 else 1.0 for name, more in gain.items()},
        ),
        "oracles": [
            OracleRecord(
                encoder="a reference",
                accuracy={"ID": near(control, count), "OOD": near(oracle, count)},
            )
        ],
        "background_only": BackgroundOnly(
            made_from="masks", accuracy=near(bare, count), chance=1 / classes
        ),
    }


def other(found: dict[str, Any], **instead: Any) -> dict[str, Any]:
    """The same evidence with some of it exchanged."""
    return {**found, **instead}


PLAIN: dict[Cause, dict[str, Any]] = {
    "healthy": {"outside": 0.9},
    "undertrained": {"inside": 0.4, "outside": 0.2},
    "spurious correlation": {"bare": 0.8, "outside": 0.1},
    "core information missing": {"outside": 0.12, "oracle": 0.2},
    "head": {"inside": 0.8, "fresh": 0.93, "outside": 0.75, "fresh_outside": 0.9},
    "contaminated": {},
}


@pytest.mark.parametrize("cause", PLAIN)
def test_plain_evidence_has_a_plain_cause(cause: Cause) -> None:
    told = verdict(**evidence(**PLAIN[cause]))
    assert told.cause == cause
    [decisive] = [step for step in told.steps if step.why == told.reasons[0]]
    assert decisive.leads_to == cause
    assert decisive.answer == "yes"
    assert not told.missing
    assert told.remedies == REMEDIES[cause]
    assert Verdict.model_validate_json(told.model_dump_json()) == told


def test_every_cause_has_evidence_and_remedies() -> None:
    assert {*PLAIN, "undecided"} == {*get_args(Cause)} == {*REMEDIES}
    assert all(REMEDIES.values())


@pytest.mark.parametrize("cause", PLAIN)
@pytest.mark.parametrize("classes", [2, 100])
def test_accuracies_count_from_chance(cause: Cause, classes: int) -> None:
    def same(share: float) -> float:
        return 1 / classes + (share - 0.1) / 0.9 * (1 - 1 / classes)

    names = ("inside", "outside", "fresh", "fresh_outside", "bare", "oracle", "control")
    usual = {"inside": 0.95, "outside": 0.5, "bare": 0.1, "oracle": 0.9, "control": 0.95}
    given_shares: Any = {k: same(v) for k, v in (usual | PLAIN[cause]).items() if k in names}
    assert verdict(**evidence(**given_shares, classes=classes)).cause == cause


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("undertrained", "spurious correlation"),
        ("spurious correlation", "core information missing"),
        ("core information missing", "head"),
    ],
)
def test_of_two_causes_the_first_is_named_and_the_second_stands_behind(
    first: Cause, second: Cause
) -> None:
    told = verdict(**evidence(**(PLAIN[second] | PLAIN[first])))
    assert told.cause == first
    assert told.behind == (second,)


def test_behind_a_head_the_table_is_asked_about_the_fresh_one() -> None:
    poor = evidence(inside=0.8, fresh=0.95, outside=0.4, fresh_outside=0.5)
    assert (verdict(**poor).cause, verdict(**poor).behind) == ("head", ("contaminated",))
    sound = evidence(**PLAIN["head"])
    assert verdict(**sound).behind == ()


@pytest.mark.parametrize(
    ("open_evidence", "word"),
    [
        ({"inside": 0.68, "outside": 0.3}, "ID examples"),
        ({"bare": 0.33}, "masks"),
        ({"oracle": 0.66, "outside": 0.2}, "reference"),
        ({"outside": 0.7}, "OOD examples"),
    ],
)
def test_few_examples_near_a_threshold_leave_the_verdict_open(
    open_evidence: dict[str, Any], word: str
) -> None:
    told = verdict(**evidence(**open_evidence, count=100))
    assert told.cause == "undecided"
    assert any(word in sentence for sentence in told.missing), told.missing
    assert verdict(**evidence(**PLAIN["contaminated"], count=400)).cause == "contaminated"


def test_a_large_gain_that_may_be_chance_is_no_answer() -> None:
    found = evidence(fresh=0.99)
    head = found["head"]
    by_chance = head.model_copy(update={"p_value": {"ID": 0.3, "OOD": 1.0}})
    assert verdict(**found).cause == "head"
    told = verdict(**other(found, head=by_chance))
    assert told.cause == "undecided"
    assert "contaminated" in told.sentence
    assert "head" in told.sentence


def test_a_sure_gain_that_is_small_does_not_count() -> None:
    assert verdict(**evidence(fresh=0.96)).cause == "contaminated"


@pytest.mark.parametrize(
    ("absent", "brings"),
    [("background_only", "Masks"), ("head", "linear layer"), ("oracles", "reference")],
)
def test_what_is_absent_is_asked_for(absent: str, brings: str) -> None:
    found = evidence(outside=0.2)
    told = verdict(**other(found, **{absent: () if absent == "oracles" else None}))
    assert told.cause == "undecided"
    assert any(brings in sentence for sentence in told.missing), told.missing


def test_without_ood_data_nothing_is_known_about_failure() -> None:
    found = evidence()
    told = verdict(**other(found, sets=found["sets"][:1]))
    assert told.cause == "undecided"
    assert "OOD" in told.missing[0]
    spurious = evidence(**PLAIN["spurious correlation"])
    assert verdict(**other(spurious, sets=spurious["sets"][:1])).cause == "spurious correlation"


def test_a_background_that_says_nothing_can_not_be_used() -> None:
    found = other(evidence(), background_only=None)
    for p_value, cause in ((0.6, "contaminated"), (0.005, "undecided")):
        label = BackgroundLabel(known_from="border", bits=Interval(value=0.1), p_value=p_value)
        assert verdict(**found, background_label=label).cause == cause


def test_who_sees_the_object_proves_that_it_is_there() -> None:
    # A reference that knows nothing of such images says nothing about them.
    assert verdict(**evidence(outside=0.9, oracle=0.15)).cause == "healthy"


def test_an_oracle_that_can_not_even_read_id_images_is_not_believed() -> None:
    told = verdict(**evidence(outside=0.15, oracle=0.12, control=0.2))
    assert told.cause == "undecided"
    assert "reference" in told.missing[0]


def test_features_that_lost_the_object_are_weaker_evidence_than_a_reference() -> None:
    share = (THRESHOLDS.missing + THRESHOLDS.missing_alone) / 2
    found = evidence(outside=0.15, oracle=0.1 + share * 0.85)
    assert THRESHOLDS.missing_alone < THRESHOLDS.missing
    assert verdict(**found).cause == "core information missing"
    own = [found["oracles"][0].model_copy(update={"encoder": "own"})]
    assert verdict(**other(found, oracles=own)).cause == "contaminated"


def test_the_worst_ood_set_is_judged() -> None:
    found = evidence(outside=0.93)
    assert verdict(**found).cause == "healthy"
    worse = scores("elsewhere", 0.3)
    oracle = found["oracles"][0]
    more = oracle.model_copy(update={"accuracy": oracle.accuracy | {"elsewhere": near(0.9)}})
    told = verdict(**other(found, sets=[*found["sets"], worse], oracles=[more]))
    assert told.cause == "contaminated"
    assert "elsewhere" in told.sentence


def test_naming_the_commonest_class_is_chance() -> None:
    found = evidence(inside=0.9, outside=0.9)
    uneven = {"0": score(1.0, 3600), "1": score(0.0, 400)}
    sets = [each.model_copy(update={"by_class": uneven}) for each in found["sets"]]
    assert verdict(**other(found, sets=sets)).cause == "undertrained"


def test_an_id_set_is_needed() -> None:
    with pytest.raises(ValueError, match="ID set"):
        verdict([scores("OOD", 0.5)])


shares = st.floats(0.0, 1.0)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {name: shares for name in ("inside", "outside", "fresh", "bare", "oracle", "control")}
    ),
    st.sampled_from([20, 200, MANY]),
    st.lists(st.sampled_from(["head", "oracles", "background_only"]), unique=True),
)
def test_the_first_yes_is_named_unless_an_earlier_answer_is_open(
    found: dict[str, float], count: int, absent: list[str]
) -> None:
    shares_and_count: Any = {**found, "count": count}
    left: Any = {name: () if name == "oracles" else None for name in absent}
    told = verdict(**other(evidence(**shares_and_count), **left))
    answers = [step.answer for step in told.steps]
    first = next((step for step in told.steps if step.answer in ("yes", "undecided")), None)
    assert first is not None, answers
    assert told.cause == (first.leads_to if first.answer == "yes" else "undecided")
    assert told.reasons
    assert told.cause != "undecided" or told.missing
    assert told.cause not in told.behind


@given(st.sampled_from(sorted(PLAIN)), st.sampled_from(sorted(Thresholds.model_fields)))
def test_thresholds_decide(cause: Any, field: str) -> None:
    # Each cause is a matter of its own threshold: moved out of reach, it is no longer named.
    unreachable = {"undertrained": -9, "spurious": 9, "missing": -9, "head": 9, "healthy": -9}
    unreachable["missing_alone"] = -9
    moved = THRESHOLDS.model_copy(update={field: float(unreachable[field])})
    own = {
        "undertrained": "undertrained",
        "spurious": "spurious correlation",
        "missing": "core information missing",
    }.get(field, field)
    told = verdict(**evidence(**PLAIN[cause]), thresholds=moved)
    assert (told.cause == cause) == (own != cause)


def test_the_benchmark_judges_these_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    zoo = importlib.import_module("audit_zoo")
    try:
        assert zoo.THRESHOLDS is THRESHOLDS
        first, *judged = zoo.PARTS
        groups = [group for part in judged for group in zoo.PARTS[part]]
        assert not set(groups) & set(zoo.PARTS[first])
        values = [(0.1, True), (0.2, True), (0.6, False), (0.7, False), (0.8, True)]
        assert zoo.cut(values) == pytest.approx(0.4)
    finally:
        for name in ("audit_zoo", "zoo_networks"):
            sys.modules.pop(name, None)
