"""The audit's page as text: the verdict first, whole, safe, and true to the record."""

import base64
import hashlib
import json
import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from support.audit_records import HOSTILE, LONG, audit, hostile, narrow, picture
from test_page import Parsed

from contam import report
from contam.auditing.causes import NAMES
from contam.auditing.records import UNDECIDED, AuditRecord, Interval, Score
from contam.auditing.slices import worst_slices
from contam.experiment import capitalized
from contam.measures.attenuation import ABOVE_ONE
from contam.report import audit_ledger, audit_words
from contam.report.audit_figures import of_audit, of_layers, of_projection, of_rates
from contam.report.audit_page import IMAGE_BYTES, NEURONS_SHOWN, NEURONS_WITHOUT_SCRIPT
from contam.report.figure_files import figure_file
from contam.report.strip import WIDTH

RECORDS = {"whole": audit(), "narrow": narrow(), "hostile": hostile(HOSTILE), "long": hostile(LONG)}


@pytest.fixture(scope="module", params=RECORDS)
def record(request: pytest.FixtureRequest) -> AuditRecord:
    return RECORDS[request.param]


@pytest.fixture(scope="module")
def parsed(record: AuditRecord) -> Parsed:
    return Parsed(report.audit_page(record))


def text_of(parsed: Parsed) -> str:
    return re.sub(r"\s+", " ", " ".join(parsed.text).replace("\N{NO-BREAK SPACE}", " "))


@pytest.fixture(scope="module")
def whole() -> str:
    return report.audit_page(RECORDS["whole"])


def data_of(page: str) -> dict:
    return json.loads(Parsed(page).inside["script"][1])


def test_elements_nest_ids_are_unique_and_links_have_targets(parsed: Parsed) -> None:
    ids = list(parsed.values("id"))
    assert len(ids) == len(set(ids))
    assert set(parsed.values("href")) <= {f"#{name}" for name in ids}
    assert {n for value in parsed.values("aria-labelledby") for n in value.split()} <= set(ids)


def test_headings_do_not_skip_a_level(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(parsed: Parsed) -> None:
    for value in parsed.values("src", "srcset", "action", "data", "poster", "xlink:href"):
        assert value.startswith("data:image/webp;base64,")
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in parsed.elements)
    policy = next(str(a["content"]) for _, a in parsed.elements
                  if a.get("http-equiv") == "Content-Security-Policy")  # fmt: skip
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert "unsafe" not in policy
    boot, _, *rest = parsed.inside["script"]
    sums = [hashlib.sha256(script.encode()).digest() for script in (boot, *rest)]
    assert rules["script-src"] == [f"'sha256-{base64.b64encode(s).decode()}'" for s in sums]
    for tag, attributes in parsed.elements:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag


def test_the_data_is_plain_json(parsed: Parsed) -> None:
    data = parsed.inside["script"][1]
    assert not {"<", "\u2028"} & set(data)
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_verdict_ledger_and_three_reasons_come_first_in_this_order(whole: str) -> None:
    record = RECORDS["whole"]
    verdict, entries = record.verdict, record.ledgers[0].entries
    top, rest = whole.split("<main")
    said = text_of(Parsed(top[top.index("<header") :].split('<div class="layout">')[0]))
    lines = (verdict.heading, verdict.sentence, "points of accuracy lost",
             *(f"{e.what} ({e.how})" for e in entries if e.how != "rest"), "no test accounts",
             *verdict.reasons[:3])  # fmt: skip
    places = [said.index(line) for line in lines]
    assert places == sorted(places)
    assert len(verdict.reasons) > 3
    assert verdict.reasons[3] not in said
    assert "Further cause: input mismatch" in said
    order = ["helps", "next", "findings", "missing", "where", "tests", "sets", "causes"]
    assert [rest.index(f'id="{name}"') for name in order] == sorted(
        rest.index(f'id="{name}"') for name in order
    )


def test_every_test_is_shown_with_number_threshold_and_answer(whole: str) -> None:
    said = text_of(Parsed(whole))
    for step in RECORDS["whole"].verdict.steps:
        assert f"{audit_words.badge(step)} {step.question} {step.why}" in said
        if step.observed is not None:
            number = audit_words.number(step.observed)
            ends = audit_words.ends(step.observed)
            assert f"{number} ({ends}), threshold {audit_words.number(step.threshold)}" in said


def test_each_set_has_a_bar_whose_segments_fill_the_space_between_both_accuracies() -> None:
    record = RECORDS["whole"]
    bars = audit_ledger.bars(record)
    assert [bar.scores.name for bar in bars] == [ledger.on for ledger in record.ledgers]
    for bar in bars:
        assert bar.segments[0].start == 0
        for one, other in pairwise(bar.segments):
            assert other.start == pytest.approx(one.start + one.width, abs=0.02)
        last = bar.segments[-1]
        assert last.start + last.width == pytest.approx(bar.id_at, abs=0.05)
        assert last.fill == "rest"


def test_a_cause_has_the_same_fill_and_number_in_every_bar() -> None:
    record = RECORDS["whole"]
    first, second = record.ledgers
    turned = second.model_copy(update={"entries": (*second.entries[1:3], second.entries[0])})
    bars = audit_ledger.bars(record.model_copy(update={"ledgers": (first, turned)}))
    looks = [
        {s.entry.cause: (s.fill, s.number) for s in bar.listed if s.entry and s.number}
        for bar in bars
    ]
    assert looks[0] == looks[1]
    assert len(set(looks[0].values())) == 3


def test_the_ledger_is_shown_with_points_intervals_fixes_and_in_words(whole: str) -> None:
    record, said = RECORDS["whole"], text_of(Parsed(whole))
    for ledger in record.ledgers:
        loss = audit_words.points(ledger.loss)
        assert f"{ledger.on}: {loss} points of accuracy lost" in said
        for entry in ledger.entries:
            assert f"{audit_words.points(entry.points)} points" in said
            assert audit_words.points_ends(entry.points) in said
            assert " ".join(entry.fix.split()) in said
    assert "(given back)" in said
    assert "(imitated)" in said
    described = audit_ledger.described(audit_ledger.bars(record)[0])
    assert "33.6 points new backgrounds" in described
    assert f'aria-label="{described}"' in whole


def test_code_is_set_apart_from_instructions(whole: str) -> None:
    assert "<pre>x = x[:, [2, 1, 0]]  # BGR to RGB</pre>" in whole
    assert "Fix: train on images with more varied backgrounds." in text_of(Parsed(whole))


def test_a_loss_without_a_ledger_is_drawn_as_not_split() -> None:
    record = RECORDS["whole"].model_copy(update={"ledgers": ()})
    bars = audit_ledger.bars(record)
    assert all([s.fill for s in bar.segments] == ["kept", "untested"] for bar in bars)
    said = text_of(Parsed(report.audit_page(record)))
    assert said.count("This loss is not split among causes.") == len(bars)


def test_an_ood_set_that_loses_nothing_has_no_loss_in_its_bar() -> None:
    record = RECORDS["whole"]
    own, other, *_ = record.sets
    gained = other.model_copy(update={"overall": own.overall})
    changed = record.model_copy(update={"ledgers": (), "sets": (own, gained)})
    assert [len(bar.segments) for bar in audit_ledger.bars(changed)] == [1]
    assert "textures: no accuracy lost" in text_of(Parsed(report.audit_page(changed)))


def test_sets_beyond_the_bars_are_counted() -> None:
    names = tuple(f"set {k}" for k in range(audit_ledger.BARS_SHOWN + 2))
    page = report.audit_page(audit(layers=1, count=10, examples=0, ood=names))
    assert page.count('class="bar-of-losses"') == audit_ledger.BARS_SHOWN
    assert "2 more OOD sets are in the table Data sets" in text_of(Parsed(page))


def test_the_slices_with_the_largest_losses_are_listed(whole: str) -> None:
    said = text_of(Parsed(whole))
    slices = worst_slices(RECORDS["whole"].sets)
    assert len(slices) == 8
    for one in slices:
        assert f"{one.column}: {one.value} {one.on} {audit_words.points(one.loss)}" in said


def test_the_confusion_matrix_has_a_row_for_each_class_and_sums_by_row(whole: str) -> None:
    record = RECORDS["whole"]
    table = re.search(r'<table class="confusion">.*?</table>', whole, re.S)
    assert table is not None
    assert table[0].count("<tr>") == 1 + len(record.classes)
    scores = record.sets[1]
    for pair in scores.confused:
        assert f">{pair.count}</td>" in table[0]
    for name in record.classes:
        assert re.search(f'<th scope="row">{name}</th>', table[0])


def test_many_classes_have_a_list_of_confusions_instead_of_a_matrix() -> None:
    classes = tuple(f"class {k}" for k in range(30))
    page = report.audit_page(audit(layers=1, count=10, examples=0, classes=classes))
    assert '<table class="confusion">' not in page
    assert re.search(r"class 4 is predicted as class 5 in \d+ of 40 examples",
                     text_of(Parsed(page)))  # fmt: skip


def test_remedies_missing_evidence_and_notes_are_shown(whole: str) -> None:
    record, said = RECORDS["whole"], text_of(Parsed(whole)).replace("( ", "(").replace(" )", ")")
    for remedy in record.verdict.remedies:
        for line in (remedy.what.replace("`", ""), remedy.effect, remedy.caveat):
            assert line.split("(")[0].strip() in said
    assert record.verdict.missing[0] in said
    assert "No reference encoder was named" in said
    assert "`" not in said
    assert all(value in said for value in record.provenance.values())


def test_repairs_are_shown_with_effect_interval_labels_and_code(whole: str) -> None:
    record, said = RECORDS["whole"], text_of(Parsed(whole))
    assert "What helps" in said
    assert "batch-norm statistics on textures, n = 400 40.0 % → 60.0 % +20.0 +17.0 to +23.0" in said
    for row in record.helps:
        assert row.code.strip() in said


def test_tables_contain_every_set_domain_class_and_layer(whole: str) -> None:
    record, said = RECORDS["whole"], text_of(Parsed(whole))
    for scores in record.sets:
        assert f"{scores.name} {scores.role.upper()}" in said
        for column, group, score in scores.groups():
            assert f"By {column}" in said
            assert f"{group} {scores.name} {audit_words.points(score.accuracy)} %" in said
    assert all(layer.name in said for layer in record.layers)


def test_the_numbers_of_every_cause_are_shown(whole: str) -> None:
    said = text_of(Parsed(whole))
    for evidence in RECORDS["whole"].evidence:
        assert evidence.title in said
        assert evidence.method in said
        assert f"n = {evidence.n}" in said
        assert all(line in said for line in evidence.left_out)
        table = audit_words.evidence_table(evidence)
        values = [value for _, _, row in table.rows for value in row if value is not None]
        assert len(values) == len(evidence.numbers)
        for number in evidence.numbers:
            assert capitalized(number.what) in said
            assert number.part in said


def test_attenuation_above_one_is_explained_where_it_is_shown() -> None:
    record = RECORDS["whole"]
    assert ABOVE_ONE not in text_of(Parsed(report.audit_page(record)))
    last = record.layers[-1]
    high = {name: Interval(value=1.4) for name in last.attenuation}
    layers = (*record.layers[:-1], last.model_copy(update={"attenuation": high}))
    page = report.audit_page(record.model_copy(update={"layers": layers}))
    assert text_of(Parsed(page)).count(ABOVE_ONE) == 1


def test_classes_with_the_largest_drop_come_first(whole: str) -> None:
    record = RECORDS["whole"]
    table = whole[whole.index('aria-label="Accuracy by class"') :]
    names = re.findall(r'<th scope="row">(\w+)</th>', table)[: len(record.classes)]
    inside, *outside = record.sets
    lost = {
        name: inside.by_class[name].accuracy.value
        - min(scores.by_class[name].accuracy.value for scores in outside)
        for name in record.classes
    }
    assert names == sorted(lost, key=lost.__getitem__, reverse=True)


def test_the_first_hundred_neurons_are_shown_without_scripts(whole: str) -> None:
    table = RECORDS["whole"].neurons
    assert table is not None
    rows = re.search(r'<table class="neurons">.*?</table>', whole, re.S)
    assert rows is not None
    cells = re.findall(r'<tr><th scope="row">(.*?)</th><td class="number">(\d+)</td>', rows[0])
    assert cells == [(table.layer[k], str(table.index[k])) for k in range(NEURONS_WITHOUT_SCRIPT)]


@pytest.mark.parametrize("layers", [pytest.param(10, marks=pytest.mark.slow), 50])
def test_a_large_audit_stays_below_three_megabytes(layers: int) -> None:
    record = audit(layers=layers, count=100_000, ood=("a", "b", "c", "d"), examples=60)
    page = report.audit_page(record)
    assert len(page.encode()) < 3e6
    assert len(data_of(page)["neurons"]) == NEURONS_SHOWN
    assert "The 2,000 neurons with the largest loss, of 100,000" in text_of(Parsed(page))
    assert page.count('<img src="data:') <= 120


def test_images_beyond_the_size_limit_are_left_out_and_counted() -> None:
    record = audit(examples=2, count=10)
    side = picture(np.random.default_rng(1), 64)
    large = side + "A" * (4 * (600_000 - len(side) // 4))
    # What follows a picture's end is not read.
    many = tuple(record.examples[0].model_copy(update={"picture": large, "index": k})
                 for k in range(3))  # fmt: skip
    page = report.audit_page(record.model_copy(update={"examples": many}))
    assert len(page.encode()) < 3e6
    assert IMAGE_BYTES < 3 * 2 * 600_000
    assert "3 of 3 examples are left out" in text_of(Parsed(page))


def test_absent_evidence_is_not_drawn() -> None:
    page = report.audit_page(RECORDS["narrow"])
    assert data_of(page)["charts"] == {}
    assert len(page) < 100_000
    for absent in ("layers", "neurons", "examples", "causes", "next", "where", "findings"):
        assert f'id="{absent}"' not in page
    assert of_layers(RECORDS["narrow"]) == []
    assert of_projection(RECORDS["narrow"]) == ()
    assert of_rates(RECORDS["narrow"]) is None


def test_an_audit_has_figures_of_everything_that_it_measured() -> None:
    record = RECORDS["whole"]
    loss, *layers, rates, neurons, projection = of_audit(record)
    assert [figure.title for figure in layers] == [f.title for f in of_layers(record)]
    accuracies = {row["data"]: row["accuracy"] for row in loss.rows if "accuracy" in row}
    assert accuracies == {s.name: s.overall.accuracy.value for s in record.sets}
    points = [row["points"] for row in loss.rows if row.get("data") == "textures"
              and "points" in row]  # fmt: skip
    assert sum(points) == pytest.approx(100 * record.ledgers[0].loss.value)
    assert len(rates.rows) == len(record.sets) * len(record.classes)
    assert len(neurons.panels) == 3 and len(projection.rows) == 150
    assert [figure.title for figure in of_audit(RECORDS["narrow"])] == ["Accuracy and lost points"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
def test_every_figure_of_an_audit_can_be_drawn_as_a_file(name: str) -> None:
    for figure in of_audit(RECORDS[name]):
        assert not any(panel.empty for panel in figure.panels)
        drawn = figure_file(figure, "svg", 234.0).content
        assert drawn.startswith(b"<svg") and ElementTree.fromstring(drawn).tag.endswith("svg")


def test_a_measure_without_numbers_has_no_panel() -> None:
    record = audit(count=10, layers=2)
    bare = [layer.model_copy(update={"probe": {}, "information": {}, "decided": {}})
            for layer in record.layers]  # fmt: skip
    figures = of_layers(record.model_copy(update={"layers": tuple(bare)}))
    assert [panel.title for panel in figures[1].panels] == ["Error of a domain probe"]


def test_few_curves_share_a_panel_with_their_control() -> None:
    few, many = (of_layers(audit(count=10, layers=2, ood=ood))[0] for ood in (("a",), ("a", "b")))
    titles = [[panel.title for panel in figure.panels if "under shift" in panel.title]
              for figure in (few, many)]  # fmt: skip
    title = "Class signal lost under shift"
    assert titles == [[title], [title, f"{title}, untrained"]]
    chart = few.panels[0].chart
    assert chart is not None
    assert {point["series"] for point in chart["data"]["values"]} == {
        "a", "across domains", "a, untrained", "across domains, untrained"}  # fmt: skip


def test_charts_contain_the_numbers_and_layer_names_of_the_record() -> None:
    record = RECORDS["whole"]
    panel = next(p for f in of_layers(record) for p in f.panels if p.title == "Usable information")
    assert panel.chart is not None
    for point in panel.chart["data"]["values"]:
        interval = record.layers[point["x"] - 1].information[point["series"]]
        assert (point["y"], point["low"]) == pytest.approx((interval.value, interval.low), rel=1e-3)
    assert len(panel.chart["data"]["values"]) == 30
    tips = [
        t["field"] for layer in panel.chart["layer"] for t in layer["encoding"].get("tooltip") or ()
    ]
    assert "layer" in tips


def test_hostile_names_are_escaped() -> None:
    page = report.audit_page(RECORDS["hostile"])
    assert "<script>alert" not in page
    parsed = Parsed(page)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 4
    assert text_of(parsed).count("<script>alert('x')</script>") > 50


def test_missing_and_non_finite_numbers_are_dashes() -> None:
    said = text_of(Parsed(report.audit_page(RECORDS["hostile"])))
    assert "nan" not in re.findall(r"[a-z]+", said)
    assert "inf" not in re.findall(r"[a-z]+", said)


@pytest.mark.parametrize(
    "picture",
    [
        "AAAA",
        "<script>",
        "",
        base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode(),
        base64.b64encode(b"GIF89a\xff\xff\xff\xff\0\0\0;").decode(),
    ],
    ids=["damaged", "HTML", "empty", "EPS", "a GIF of 65 535 x 65 535 pixels"],
)
def test_a_damaged_image_is_rejected(picture: str) -> None:
    broken = RECORDS["whole"].examples[0].model_copy(update={"picture": picture, "index": 7})
    record = RECORDS["whole"].model_copy(update={"examples": (broken,)})
    with pytest.raises(ValueError, match=r"example 7 of 'id' can't be read.*WebP"):
        report.audit_page(record)


def test_the_page_depends_only_on_the_record(whole: str) -> None:
    again = AuditRecord.model_validate_json(RECORDS["whole"].model_dump_json())
    assert report.audit_page(again) == whole


def test_only_healthy_is_good_and_only_undecided_is_open() -> None:
    kinds = [audit_words.kind(cause) for cause in (*NAMES, UNDECIDED)]
    assert (kinds.count("holds"), kinds.count("unjudged")) == (1, 1)


def test_a_gauge_by_hand() -> None:
    gauge = audit_words.gauge(Interval(value=0.5, low=0.25, high=0.75), 0.1)
    assert gauge == (WIDTH / 2, (WIDTH / 4, 3 * WIDTH / 4), round(WIDTH / 10, 1))
    below = audit_words.gauge(Interval(value=-1.0))
    assert below == (0.0, None, None)
    assert audit_words.gauge(Interval(value=math.nan)) is None
    assert audit_words.gauge(None, 0.5) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.1234, "0.123"), (-0.5, "−0.500"), (-0.0001, "0.000"), (None, "–"), (math.nan, "–"),
     (math.inf, "–")],
)  # fmt: skip
def test_column_numbers_have_three_decimals(value: float | None, said: str) -> None:
    assert audit_words.fixed(value) == said


@pytest.mark.parametrize("classes", [1000, 21_841])
def test_a_page_of_thousands_of_classes_lists_those_with_the_largest_drop(classes):
    names = tuple(f"class {k:05}" for k in range(classes))
    record = audit(layers=1, count=10, ood=("textures",), examples=0)
    by_class = {name: Score(correct=9, count=10, accuracy=Interval(value=0.9)) for name in names}
    worse = Score(correct=1, count=10, accuracy=Interval(value=0.1))
    changes = {"by_class": by_class, "confused": ()}
    own, new = (scores.model_copy(update=changes) for scores in record.sets)
    new = new.model_copy(update={"by_class": by_class | {names[-1]: worse}})
    layers = tuple(layer.model_copy(update={"class_rates": {}}) for layer in record.layers)
    page = report.audit_page(
        record.model_copy(update={"classes": names, "sets": (own, new), "layers": layers})
    )
    assert f"200 of {classes:,}" in page
    assert names[-1] in page and names[500] not in page
    assert len(page) < 2_000_000
