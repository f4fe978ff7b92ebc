"""Evidence about the cause of a failure: scores, the head, the oracle, and backgrounds.

A network is run once over each data set. Whether its head is to blame, and whether the object can
still be seen, is then asked of the representations that were kept.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.background import background_label, background_only
from contam.auditing.records import (
    BackgroundLabel,
    BackgroundOnly,
    HeadRecord,
    Interval,
    OracleRecord,
    Record,
    Score,
    SetScores,
)
from contam.measures.accuracy import Accuracy, clopper_pearson
from contam.measures.intervals import bootstrap
from contam.measures.robustness import Line, effective_robustness, robustness_interval
from contam.models.observe import observe
from contam.rng import generator_for
from contam.training.probe import FullBatch, extracting, fit_probe

Result = TypeVar("Result")

PROBE = FullBatch(penalties=(1e-3,), iterations=200)
"""How heads and oracles are fitted."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a network made of a data set, on the CPU."""

    name: str
    y: Int[Tensor, " n"]
    domain: Int[Tensor, " n"]
    logits: Float[Tensor, "n classes"]
    features: Float[Tensor, "n width"] | None
    """What the head read, if there is a linear head."""

    @property
    def right(self) -> Bool[Tensor, " n"]:
        """Whether each answer was right."""
        return self.logits.argmax(dim=1) == self.y


class Causes(Record):
    """What tells the causes of a failure apart."""

    sets: tuple[SetScores, ...]
    """ID first."""
    head: HeadRecord | None = None
    oracles: tuple[OracleRecord, ...] = ()
    background_only: BackgroundOnly | None = None
    background_label: BackgroundLabel | None = None
    left_out: tuple[str, ...] = ()


def causes(
    subject: AuditInputs, *, batch_size: int = 256, lines: Mapping[str, Line] | None = None
) -> Generator[float, None, Causes]:
    """Take all evidence about causes; yields the share that is done, and returns the evidence.

    `lines` are where standard models lie, by the name of the OOD set.

    Source: ours, the evidence that the decision table asks for.

    Raises:
        ValueError: a data set holds no example, or the logits are not one row for each.
    """
    samples, lines = (subject.id, *subject.ood), lines or {}
    # The network sees each set, and ID again without its objects; the reference sees each set.
    passes = len(samples) * (1 if subject.reference is None else 2) + 1
    readings, left_out = [], []
    for done, sample in enumerate(samples):
        parts = reading(subject.model, sample, batch_size=batch_size)
        readings.append((yield from _within(parts, done, passes)))
    inside, outside = readings[0], readings[1:]
    known = Accuracy(int(inside.right.sum()), len(inside.y))
    sets = [set_scores(inside, subject.classes, "id", domains=subject.domains)]
    for each in outside:
        against = (known, lines[each.name]) if each.name in lines else None
        sets.append(
            set_scores(each, subject.classes, "ood", domains=subject.domains, against=against)
        )

    head, oracles = None, []
    if inside.features is None:
        left_out.append(
            "The head was not compared with a fresh one: the logits are not the output of the last "
            "linear layer."
        )
    else:
        head = head_record(readings, classes=len(subject.classes), seed=subject.seed)
        if outside:
            oracles.append(
                oracle_record(
                    "own", [(r.name, _features(r), r.y) for r in readings],
                    classes=len(subject.classes), seed=subject.seed,
                )
            )  # fmt: skip
    if subject.reference is not None and outside:
        seen = []
        for done, sample in enumerate(samples, len(samples)):
            parts = _encoded(subject.reference, sample, batch_size)
            seen.append((sample.name, (yield from _within(parts, done, passes)), sample.domain.y))
        oracles.append(
            oracle_record(
                subject.reference_name or "reference", seen,
                classes=len(subject.classes), seed=subject.seed,
            )
        )  # fmt: skip
    only, why = yield from _within(
        background_only(subject, readings, batch_size=batch_size), passes - 1, passes
    )
    label, why_not = background_label(subject)
    left_out += [reason for reason in (why, why_not) if reason]
    return Causes(
        sets=tuple(sets),
        head=head,
        oracles=tuple(oracles),
        background_only=only,
        background_label=label,
        left_out=tuple(left_out),
    )


def reading(
    model: nn.Module, sample: Sample, *, batch_size: int = 256
) -> Generator[float, None, Reading]:
    """Show a data set to a network once, and keep its logits and what its head reads.

    Raises:
        ValueError: there is no example, or the logits are not one row for each.
    """
    if len(sample) == 0:
        raise ValueError(f"{sample.name!r} holds no example; an audit needs some of each class")
    kept: dict[str, list[Tensor]] = {"y": [], "domain": [], "logits": [], "head": []}
    done = 0
    for seen in observe(model, sample.domain.batches(batch_size), layers=(), head=True):
        logits = seen.logits
        if logits.ndim != 2 or len(logits) != len(seen.batch.y):
            raise ValueError(
                f"{sample.name!r}: want logits (batch, classes), not {tuple(logits.shape)} for "
                f"{len(seen.batch.y)} examples; wrap the model so that it returns them"
            )
        kept["y"].append(seen.batch.y.cpu())
        kept["domain"].append(seen.batch.domain.cpu())
        kept["logits"].append(logits.float().cpu())
        if seen.head is not None:
            kept["head"].append(seen.head.float().cpu())
        done += len(logits)
        yield done / len(sample)
    whole = len(kept["head"]) == len(kept["logits"])
    return Reading(
        sample.name,
        torch.cat(kept["y"]),
        torch.cat(kept["domain"]),
        torch.cat(kept["logits"]),
        torch.cat(kept["head"]) if whole else None,
    )


def set_scores(
    seen: Reading,
    classes: Sequence[str],
    role: Literal["id", "ood"],
    *,
    domains: Sequence[str] = (),
    against: tuple[Accuracy, Line] | None = None,
) -> SetScores:
    """The accuracy on a data set, of each class and each domain in it, with exact intervals.

    Domains without a name have their number; where there is but one, it is left out. `against` is
    the ID accuracy and the line of standard models that effective robustness is counted from.

    Source: ours, the first thing that anyone asks.
    """
    right = seen.right
    by_class = {
        name: _score(right[seen.y == label])
        for label, name in enumerate(classes)
        if (seen.y == label).any()
    }
    indices = [int(k) for k in seen.domain.unique()]
    named = {k: domains[k] if k in range(len(domains)) else str(k) for k in indices}
    by_domain = {
        name: _score(right[seen.domain == k]) for k, name in named.items() if len(named) > 1
    }
    worst = min(by_domain, key=lambda name: by_domain[name].accuracy.value, default=None)
    above = None
    if against is not None:
        known, line = against
        own = Accuracy(int(right.sum()), len(right))
        inside, outside = (torch.tensor([each.share]).double() for each in (known, own))
        low, high = robustness_interval(known, own, line)
        points = float(effective_robustness(inside, outside, line))
        above = Interval(value=points, low=low, high=high)
    return SetScores(
        name=seen.name, role=role, overall=_score(right), by_class=by_class,
        by_domain=by_domain, worst_domain=worst, effective_robustness=above,
    )  # fmt: skip


def head_record(readings: Sequence[Reading], *, classes: int, seed: int = 0) -> HeadRecord:
    """The network's own head beside a fresh linear one, fitted on the first set, which is ID.

    ID examples are judged by a head that was fitted on the other half of them, OOD examples by one
    that was fitted on all. A gain is taken on the same examples.

    Source: ours, a sound representation under a bad head.

    Raises:
        ValueError: no linear head was found.
    """
    inside = readings[0]
    whole = fit_probe(_features(inside), inside.y, PROBE, classes=classes)
    fresh = {inside.name: _by_other_half(_features(inside), inside.y, classes, seed)}
    fresh |= {each.name: whole(_features(each)).argmax(dim=1) == each.y for each in readings[1:]}
    gains, p_values = {}, {}
    for each in readings:
        more = fresh[each.name].double() - each.right.double()
        found = bootstrap(lambda rows, more=more: more[rows].mean(), (len(more),), seed=seed)
        gains[each.name] = Interval(value=found.value, low=found.low, high=found.high)
        p_values[each.name] = paired_p_value(int((more > 0).sum()), int((more < 0).sum()))
    return HeadRecord(
        own={each.name: _score(each.right).accuracy for each in readings},
        fresh={name: _score(right).accuracy for name, right in fresh.items()},
        gain=gains,
        p_value=p_values,
    )


def paired_p_value(gained: int, lost: int) -> float:
    """How likely as many gains are among the examples that changed, if there is no gain.

    One-sided and exact, in (0, 1]; 1 where nothing changed.

    Source: ours; McNemar (1947).
    """
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def oracle_record(
    encoder: str,
    seen: Sequence[tuple[str, Float[Tensor, "_ width"], Int[Tensor, " _"]]],
    *,
    classes: int,
    seed: int = 0,
) -> OracleRecord:
    """What linear probes read that were fitted on half of a set, on its other half; then in turn.

    The first set is ID. It is the control: as many of its examples are taken as the smallest OOD
    set has, so that where even those can't be read, too few examples are to blame.

    Source: ours, whether the information is still there.
    """
    (control, known, labels), *others = seen
    fewest = min(len(y) for _, _, y in seen)
    some = torch.randperm(len(labels), generator=generator_for(seed, "audit/control"))[:fewest]
    found = {}
    for name, features, y in [(control, known[some], labels[some]), *others]:
        found[name] = _score(_by_other_half(features, y, classes, seed)).accuracy
    return OracleRecord(encoder=encoder, accuracy=found)


def _by_other_half(
    features: Float[Tensor, "n width"], y: Int[Tensor, " n"], classes: int, seed: int
) -> Bool[Tensor, " n"]:
    """Whether each example is read rightly by a probe that was fitted on the other half."""
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/halves"))
    # Classes in turn, so that both halves have as many of each as can be.
    order = order[y[order].argsort(stable=True)]
    halves = (order[::2], order[1::2])
    right = torch.zeros(len(y), dtype=torch.bool)
    for fitted, judged in (halves, halves[::-1]):
        if len(fitted) and len(judged):
            probe = fit_probe(features[fitted], y[fitted], PROBE, classes=classes)
            right[judged] = probe(features[judged]).argmax(dim=1) == y[judged]
    return right


def _score(right: Bool[Tensor, " n"]) -> Score:
    correct, count = int(right.sum()), len(right)
    low, high = clopper_pearson(correct, count)
    share = Interval(value=correct / count, low=low, high=high)
    return Score(correct=correct, count=count, accuracy=share)


def _features(seen: Reading) -> Tensor:
    if seen.features is None:
        raise ValueError(f"{seen.name!r}: no linear head was found, so there is nothing it reads")
    return seen.features


def _encoded(encoder: nn.Module, sample: Sample, batch_size: int) -> Generator[float, None, Tensor]:
    parts: list[Tensor] = []
    for part in extracting(encoder, sample.domain, batch_size=batch_size):
        parts.append(part)
        yield sum(map(len, parts)) / len(sample)
    return torch.cat(parts)


def _within(
    parts: Generator[float, None, Result], done: int, passes: int
) -> Generator[float, None, Result]:
    """One pass of several: its shares of the whole, and then what it returns."""
    while True:
        try:
            yield (done + next(parts)) / passes
        except StopIteration as finished:
            return finished.value
