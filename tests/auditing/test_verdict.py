"""The verdict, from evidence whose cause is plain."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contam.auditing.causes import CAUSES, NAMES, Cause, head, missing, shortcut
from contam.auditing.records import (
    UNDECIDED,
    CauseEvidence,
    Interval,
    Number,
    Score,
    SetScores,
    Verdict,
)
from contam.auditing.verdict import verdict
from contam.measures.accuracy import clopper_pearson

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


def of_cause(cause: str, numbers: Sequence[Number], effect: Interval | None) -> CauseEvidence:
    return CauseEvidence(
        cause=cause, title="?", method="", effect=effect, n=100, numbers=tuple(numbers)
    )


def table(what: str, values: dict[str, Interval], part: str = "") -> list[Number]:
    return [Number(what=what, on=on, part=part, value=value) for on, value in values.items()]


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
    """Scores and evidence by cause; by default of a contaminated network."""
    own = {"ID": inside, "OOD": outside}
    new = {
        "ID": inside if fresh is None else fresh,
        "OOD": outside if fresh_outside is None else fresh_outside,
    }
    gain = {name: new[name] - own[name] for name in own}
    alone = near(bare, count)
    return {
        "sets": [scores(name, share, count, classes) for name, share in own.items()],
        "undertrained": of_cause("undertrained", [], near(new["ID"], count)),
        "spurious correlation": of_cause(
            "spurious correlation",
            [
                *table(shortcut.WITHOUT, {"ID": alone}, "masks"),
                *table(shortcut.GUESSING, {"ID": Interval(value=1 / classes)}, "masks"),
            ],
            alone,
        ),
        "core information missing": probes(
            "a reference", near(control, count), near(oracle, count)
        ),
        "head": heads(
            {name: near(share, count) for name, share in own.items()},
            {name: near(share, count) for name, share in new.items()},
            gain,
            {name: 1e-6 if more > 0 else 1.0 for name, more in gain.items()},
        ),
    }


def heads(
    own: dict[str, Interval],
    fresh: dict[str, Interval],
    gain: dict[str, float],
    p_value: dict[str, float],
) -> CauseEvidence:
    gains = {n: Interval(value=g, low=g - 0.01, high=g + 0.01) for n, g in gain.items()}
    numbers = [
        *table(head.OWN, own),
        *table(head.FRESH, fresh),
        *table(head.GAIN, gains),
        *table(head.P_VALUE, {name: Interval(value=p) for name, p in p_value.items()}),
    ]
    return of_cause("head", numbers, max(gains.values(), key=lambda each: each.value))


def probes(encoder: str, on_id: Interval, on_ood: Interval, **more: Interval) -> CauseEvidence:
    values = {"ID": on_id, "OOD": on_ood} | more
    numbers = table(missing.PROBE, values, encoder)
    return of_cause("core information missing", numbers, on_ood)


def judged(
    found: dict[str, Any],
    instead: dict[str, Any] | None = None,
    *,
    causes: Sequence[Cause] = CAUSES,
) -> Verdict:
    """The verdict from the evidence, with some of it exchanged or left out."""
    used = {**found, **(instead or {})}
    records = [record for name, record in used.items() if name != "sets" and record is not None]
    return verdict(used["sets"], records, causes=causes)


def with_threshold(name: str, field: str, value: float) -> tuple[Cause, ...]:
    return tuple(replace(c, **{field: value}) if c.name == name else c for c in CAUSES)


PLAIN: dict[str, dict[str, Any]] = {
    "healthy": {"outside": 0.9},
    "undertrained": {"inside": 0.4, "outside": 0.2},
    "spurious correlation": {"bare": 0.8, "outside": 0.1},
    "core information missing": {"outside": 0.12, "oracle": 0.2},
    "head": {"inside": 0.8, "fresh": 0.93, "outside": 0.75, "fresh_outside": 0.9},
    "contaminated": {},
}


THRESHOLDS = {
    "undertrained": "threshold",
    "spurious correlation": "threshold",
    "core information missing": "threshold",
    "head": "threshold",
    "healthy": "threshold",
}


@pytest.mark.parametrize("cause", PLAIN)
def test_clear_evidence_gives_its_cause(cause: str) -> None:
    result = judged(evidence(**PLAIN[cause]))
    assert result.cause == cause
    [decisive] = [step for step in result.steps if step.why == result.reasons[0]]
    assert decisive.leads_to == cause
    assert decisive.answer == "yes"
    assert not result.missing
    [own] = [c for c in CAUSES if c.name == cause]
    assert result.remedies == own.remedies
    assert result.heading == own.heading
    assert Verdict.model_validate_json(result.model_dump_json()) == result


def test_every_cause_has_evidence_words_and_remedies() -> None:
    assert set(PLAIN) == set(NAMES)
    assert len(set(NAMES)) == len(NAMES)
    for cause in CAUSES:
        assert cause.remedies
        assert all((cause.noun, cause.heading, cause.measured))
        assert cause.question.endswith("?")


@pytest.mark.parametrize("cause", PLAIN)
@pytest.mark.parametrize("classes", [2, 100])
def test_accuracies_are_relative_to_chance(cause: str, classes: int) -> None:
    def same(share: float) -> float:
        return 1 / classes + (share - 0.1) / 0.9 * (1 - 1 / classes)

    names = ("inside", "outside", "fresh", "fresh_outside", "bare", "oracle", "control")
    usual = {"inside": 0.95, "outside": 0.5, "bare": 0.1, "oracle": 0.9, "control": 0.95}
    shares: Any = {k: same(v) for k, v in (usual | PLAIN[cause]).items() if k in names}
    assert judged(evidence(**shares, classes=classes)).cause == cause


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("undertrained", "spurious correlation"),
        ("spurious correlation", "core information missing"),
        ("core information missing", "head"),
    ],
)
def test_the_first_of_two_causes_is_named_and_the_second_follows(first: str, second: str) -> None:
    result = judged(evidence(**(PLAIN[second] | PLAIN[first])))
    assert result.cause == first
    assert result.behind == (second,)


def test_after_a_head_failure_later_questions_use_the_refitted_head() -> None:
    poor = judged(evidence(inside=0.8, fresh=0.95, outside=0.4, fresh_outside=0.5))
    assert (poor.cause, poor.behind) == ("head", ("contaminated",))
    assert judged(evidence(**PLAIN["head"])).behind == ()


@pytest.mark.parametrize(
    ("open_evidence", "word"),
    [
        ({"inside": 0.68, "outside": 0.3}, "ID examples"),
        ({"bare": 0.33}, "masks"),
        ({"oracle": 0.66, "outside": 0.2}, "reference"),
        ({"outside": 0.7}, "OOD examples"),
    ],
)
def test_few_examples_near_a_threshold_give_an_undecided_verdict(
    open_evidence: dict[str, Any], word: str
) -> None:
    result = judged(evidence(**open_evidence, count=100))
    assert result.cause == UNDECIDED
    assert any(word in sentence for sentence in result.missing), result.missing
    assert judged(evidence(**PLAIN["contaminated"], count=400)).cause == "contaminated"


def test_a_large_but_insignificant_gain_is_undecided() -> None:
    found = evidence(fresh=0.99)
    by_chance = heads(
        {"ID": near(0.95), "OOD": near(0.5)}, {"ID": near(0.99), "OOD": near(0.5)},
        {"ID": 0.04, "OOD": 0.0}, {"ID": 0.3, "OOD": 1.0},
    )  # fmt: skip
    assert judged(found).cause == "head"
    result = judged(found, {"head": by_chance})
    assert result.cause == UNDECIDED
    assert result.sentence == (
        "Undecided: the classifier head or the representation. The evidence cannot separate them."
    )


def test_a_significant_but_small_gain_does_not_count() -> None:
    assert judged(evidence(fresh=0.96)).cause == "contaminated"


@pytest.mark.parametrize(
    ("absent", "needed"),
    [
        ("spurious correlation", "Masks"),
        ("head", "linear layer"),
        ("core information missing", "reference"),
    ],
)
def test_absent_evidence_is_requested(absent: str, needed: str) -> None:
    result = judged(evidence(outside=0.2), {absent: None})
    assert result.cause == UNDECIDED
    assert any(needed in sentence for sentence in result.missing), result.missing


def test_without_ood_data_failure_is_undecided() -> None:
    found = evidence()
    result = judged(found, {"sets": found["sets"][:1]})
    assert result.cause == UNDECIDED
    assert "OOD" in result.missing[0]
    spurious = evidence(**PLAIN["spurious correlation"])
    assert judged(spurious, {"sets": spurious["sets"][:1]}).cause == "spurious correlation"


def test_an_uninformative_background_cannot_be_used() -> None:
    for p_value, cause in ((0.6, "contaminated"), (0.005, UNDECIDED)):
        numbers = [
            *table(shortcut.BITS, {"ID": Interval(value=0.1)}, "border"),
            *table(shortcut.P_VALUE, {"ID": Interval(value=p_value)}, "border"),
        ]
        label = of_cause("spurious correlation", numbers, None)
        assert judged(evidence(), {"spurious correlation": label}).cause == cause


def test_a_network_that_recognizes_the_object_shows_that_it_is_visible() -> None:
    # A reference that knows nothing of such images says nothing about them.
    assert judged(evidence(outside=0.9, oracle=0.15)).cause == "healthy"


def test_a_probe_that_fails_on_id_images_is_not_used() -> None:
    result = judged(evidence(outside=0.15, oracle=0.12, control=0.2))
    assert result.cause == UNDECIDED
    assert "reference" in result.missing[0]


def test_features_of_the_network_are_weaker_evidence_than_a_reference() -> None:
    at = missing.MissingInformation()
    assert at.threshold_own < at.threshold
    share = 0.1 + (at.threshold + at.threshold_own) / 2 * 0.85
    found = evidence(outside=0.15, oracle=share)
    assert judged(found).cause == "core information missing"
    own = probes(missing.OWN, near(0.95), near(share))
    assert judged(found, {"core information missing": own}).cause == "contaminated"


def test_the_worst_ood_set_is_judged() -> None:
    found = evidence(outside=0.93)
    assert judged(found).cause == "healthy"
    worse = scores("elsewhere", 0.3)
    more = probes("a reference", near(0.95), near(0.9), elsewhere=near(0.9))
    result = judged(found, {"sets": [*found["sets"], worse], "core information missing": more})
    assert result.cause == "contaminated"
    assert "elsewhere" in result.sentence


def test_predicting_the_most_frequent_class_is_chance() -> None:
    found = evidence(inside=0.9, outside=0.9)
    uneven = {"0": score(1.0, 3600), "1": score(0.0, 400)}
    sets = [each.model_copy(update={"by_class": uneven}) for each in found["sets"]]
    assert judged(found, {"sets": sets}).cause == "undertrained"


def test_an_id_set_is_required() -> None:
    with pytest.raises(ValueError, match="ID set"):
        verdict([scores("OOD", 0.5)])


shares = st.floats(0.0, 1.0)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {name: shares for name in ("inside", "outside", "fresh", "bare", "oracle", "control")}
    ),
    st.sampled_from([20, 200, MANY]),
    st.lists(
        st.sampled_from(["head", "core information missing", "spurious correlation"]), unique=True
    ),
)
def test_the_first_yes_decides_unless_an_earlier_answer_is_undecided(
    found: dict[str, float], count: int, absent: list[str]
) -> None:
    arguments: Any = {**found, "count": count}
    left_out: Any = dict.fromkeys(absent)
    result = judged(evidence(**arguments), left_out)
    answers = [step.answer for step in result.steps]
    first = next((step for step in result.steps if step.answer in ("yes", "undecided")), None)
    assert first is not None, answers
    assert result.cause == (first.leads_to if first.answer == "yes" else UNDECIDED)
    assert result.reasons
    assert result.cause != UNDECIDED or result.missing
    assert result.cause not in result.behind


@given(st.sampled_from(sorted(PLAIN)), st.sampled_from(sorted(THRESHOLDS)))
def test_changing_a_threshold_changes_the_verdict(cause: str, moved: str) -> None:
    # Each cause depends on its own threshold: out of reach, the cause is no longer named.
    out_of_reach = 9.0 if moved in ("spurious correlation", "head") else -9.0
    causes = with_threshold(moved, THRESHOLDS[moved], out_of_reach)
    result = judged(evidence(**PLAIN[cause]), causes=causes)
    assert (result.cause == cause) == (moved != cause)
