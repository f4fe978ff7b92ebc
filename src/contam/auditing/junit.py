"""JUnit XML, which CI systems show as test results."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from contam.auditing.fail_rules import RuleCheck

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


@dataclass(frozen=True)
class JUnitSuite:
    """The checks of one audit."""

    name: str
    checks: Sequence[RuleCheck]
    properties: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    date: str = ""
    """Date and time in ISO 8601, without a time zone."""


def junit(suites: Sequence[JUnitSuite]) -> str:
    """Return JUnit XML with a test case for each check.

    Args:
        suites: one for each audit.

    Source: ours; the schema of Jenkins' xUnit plugin, which other CI systems read as well.

    >>> print(junit([JUnitSuite("audit", [RuleCheck("accuracy on <fog>", failure="Too low.")])]))
    <?xml version='1.0' encoding='utf-8'?>
    <testsuites tests="1" failures="1" errors="0" time="0.0">
      <testsuite name="audit" tests="1" failures="1" errors="0" skipped="0" time="0.0">
        <testcase name="accuracy on &lt;fog&gt;" classname="audit" time="0">
          <failure message="Too low." type="FailRule">Too low.</failure>
        </testcase>
      </testsuite>
    </testsuites>
    <BLANKLINE>
    """
    root = ElementTree.Element("testsuites", _counts(*suites))
    for suite in suites:
        counts = _counts(suite)
        time = counts.pop("time")
        given = {"name": suite.name, **counts, "skipped": "0", "time": time}
        given |= {"timestamp": suite.date} if suite.date else {}
        element = _add(root, "testsuite", given)
        if suite.properties:
            properties = _add(element, "properties", {})
            for name, value in suite.properties.items():
                _add(properties, "property", {"name": name, "value": value})
        for check in suite.checks:
            named = {"name": check.name, "classname": suite.name, "time": "0"}
            case = _add(element, "testcase", named)
            if check.failure:
                failure = {"message": check.failure, "type": "FailRule"}
                _add(case, "failure", failure, check.failure)
            if check.details:
                _add(case, "system-out", {}, check.details)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode()
    return text + "\n"


def _counts(*suites: JUnitSuite) -> dict[str, str]:
    checks = [check for suite in suites for check in suite.checks]
    return {
        "tests": str(len(checks)), "failures": str(sum(bool(check.failure) for check in checks)),
        "errors": "0", "time": f"{sum(suite.seconds for suite in suites):.1f}",
    }  # fmt: skip


def _add(
    parent: ElementTree.Element, tag: str, attributes: Mapping[str, str], text: str | None = None
) -> ElementTree.Element:
    """Add an element; characters that XML cannot hold become question marks."""
    allowed = {name: NOT_XML.sub("?", value) for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, allowed)
    element.text = None if text is None else NOT_XML.sub("?", text)
    return element
