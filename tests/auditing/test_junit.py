"""JUnit XML that CI systems read."""

from xml.etree import ElementTree

import pytest
from support import audit_records
from support.small_audits import small_audit

from contam.auditing.fail_rules import FailRules
from contam.auditing.multilabel import MultilabelAudit
from contam.auditing.result import Audit

SCHEMA = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "classname", "time"}, {"failure", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}
"""Attributes and children by element, a part of the schema of Jenkins' xUnit plugin."""
HOSTILE = "<fog> & \"q\" 'a' \x00\x1b\ud800 ]]> 日本"
ANSWERS = {"ID": [True] * 10, HOSTILE: [True, False] * 5}
RULES = FailRules(floor=0.9, verdicts=("any",), loss=True)


def checked(text: str) -> ElementTree.Element:
    """Parse XML, and assert that elements, attributes and counts are those of the schema."""
    root = ElementTree.fromstring(text.encode())
    for element in root.iter():
        attributes, children = SCHEMA[element.tag]
        assert element.attrib.keys() <= attributes
        assert {child.tag for child in element} <= children
    for group in (root, *root.iter("testsuite")):
        assert int(group.attrib["tests"]) == len(list(group.iter("testcase")))
        assert int(group.attrib["failures"]) == len(list(group.iter("failure")))
    return root


AUDIT = small_audit(ANSWERS, cause="head", model=HOSTILE)
WRITTEN = {
    "an audit": AUDIT,
    "an audit of a network": Audit(audit_records.audit(layers=1, count=10, examples=1)),
    "a comparison": AUDIT.compare(AUDIT),
    "several labels": MultilabelAudit({"red": AUDIT, "green": AUDIT}),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_the_file_fits_the_schema(case):
    root = checked(WRITTEN[case].junit(RULES))
    failures = [failure.attrib["message"] for failure in root.iter("failure")]
    assert failures == [one.failure.replace("\x00", "?").replace("\x1b", "?").replace("\ud800", "?")
                        for one in WRITTEN[case].check(RULES) if one.failure]  # fmt: skip
    names = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert case == "several labels" or len(set(names)) == len(names)


def test_without_rules_every_ood_set_is_a_case_that_passes():
    root = checked(AUDIT.junit())
    (only,) = root.iter("testcase")
    assert only.attrib["name"].startswith("accuracy on <fog>")
    assert not list(root.iter("failure"))
