"""The causes of OOD failure that an audit tests, one file each.

A cause holds its test and its words; its remedies come from `contam.remedies.effects`. To add one,
write a subclass of `Cause` in a file of its own and list it in `CAUSES`; the ledger, the verdict,
the page, the tables and `--fail-on` then include it.
"""

from contam.auditing.causes.artifact_shortcut import (
    CompressionShortcut,
    SizeShortcut,
    TagShortcut,
)
from contam.auditing.causes.background import BackgroundShortcut, NewBackgrounds
from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.causes.corruption import Corruption
from contam.auditing.causes.geometry import Geometry
from contam.auditing.causes.head import Head
from contam.auditing.causes.input_mismatch import InputMismatch
from contam.auditing.causes.label_mismatch import LabelMismatch
from contam.auditing.causes.label_noise import LabelNoise, SeenInTraining
from contam.auditing.causes.label_shift import LabelShift
from contam.auditing.causes.metadata import MetadataShortcut
from contam.auditing.causes.missing import MissingInformation
from contam.auditing.causes.shortcut import ColorShortcut
from contam.auditing.causes.subtypes import NewSubtypes
from contam.auditing.causes.undertrained import Undertrained
from contam.auditing.records import HEALTHY, UNEXPLAINED

__all__ = ["CAUSES", "NAMES", "Cause", "CauseTest"]

CAUSES: tuple[Cause, ...] = (
    InputMismatch(),
    LabelMismatch(),
    SeenInTraining(),
    LabelShift(),
    Head(),
    Geometry(),
    ColorShortcut(),
    SizeShortcut(),
    CompressionShortcut(),
    TagShortcut(),
    BackgroundShortcut(),
    NewBackgrounds(),
    MetadataShortcut(),
    Corruption(),
    MissingInformation(),
    NewSubtypes(),
    LabelNoise(),
    Undertrained(),
)
"""The causes in the order in which they are tested: faults of files, labels and preprocessing
first. Later tests are made with those faults repaired."""

NAMES = (*(cause.name for cause in CAUSES), HEALTHY, UNEXPLAINED)
"""The names of all verdicts, except that of missing evidence."""
