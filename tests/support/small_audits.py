"""Audits of answers that a test gives, without a network."""

from collections.abc import Mapping, Sequence

import torch

from contam.auditing.records import AuditRecord, Interval, Ledger, LostPoints, Verdict
from contam.auditing.result import Audit
from contam.auditing.scores import set_scores
from contam.auditing.single_pass import PassResult

CLASSES = ("cat", "dog")


def labels(n: int) -> list[int]:
    """Alternating labels of two classes."""
    return [k % 2 for k in range(n)]


def small_audit(
    correct: Mapping[str, Sequence[bool]],
    *,
    y: Mapping[str, Sequence[int]] | None = None,
    classes: tuple[str, ...] = CLASSES,
    cause: str = "unexplained shift",
    lost: Mapping[str, Mapping[str, float]] | None = None,
    model: str = "net",
    **changed: object,
) -> Audit:
    """An audit with these answers by data set, ID first, and these lost shares by set and cause."""
    sets = []
    for place, (name, good) in enumerate(correct.items()):
        true = torch.tensor((y or {}).get(name, labels(len(good))))
        predicted = torch.where(torch.tensor(good), true, 1 - true)
        result = PassResult(true, predicted, true * 0, true.float())
        sets.append(set_scores(result, name, classes, "ood" if place else "id"))
    ledgers = [
        Ledger(
            on=name, loss=Interval(value=sum(causes.values())),
            entries=tuple(
                LostPoints(
                    cause=one, what="a finding", points=Interval(value=value), how="imitated"
                )
                for one, value in causes.items()
            ),
        )
        for name, causes in (lost or {}).items()
    ]  # fmt: skip
    record = AuditRecord(
        contam="0.1.0", model=model, classes=classes, sets=tuple(sets), ledgers=tuple(ledgers),
        verdict=Verdict(
            cause=cause, heading=f"About {cause}", sentence="A sentence.", reasons=(), steps=()
        ),
    )  # fmt: skip
    return Audit(record.model_copy(update=changed))
