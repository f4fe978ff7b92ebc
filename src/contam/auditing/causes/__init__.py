"""The causes of OOD failure that an audit tests, one file each.

A cause holds its evidence (a function of the passes over the data), its question and threshold, its
words and its remedies. To add one, write a subclass of `Cause` in a file of its own and list it in
`CAUSES`; the verdict, the page, the tables and `--fail-on` then include it.
"""

from contam.auditing.causes.background import Contaminated
from contam.auditing.causes.cause import Cause, Findings
from contam.auditing.causes.head import Head
from contam.auditing.causes.healthy import Healthy
from contam.auditing.causes.missing import MissingInformation
from contam.auditing.causes.shortcut import Shortcut
from contam.auditing.causes.undertrained import Undertrained

__all__ = ["CAUSES", "NAMES", "Cause", "Findings"]

CAUSES: tuple[Cause, ...] = (
    Undertrained(),
    Shortcut(),
    MissingInformation(),
    Head(),
    Healthy(),
    Contaminated(),
)
"""The causes in the order in which they are asked about; the first yes gives the verdict.

Their thresholds lie in the middle of the gaps between causes, among the 51 cases that
`benchmarks/audit_zoo.py` chooses on; it judges them on other cases."""

NAMES = tuple(cause.name for cause in CAUSES)
"""The names of the causes."""
