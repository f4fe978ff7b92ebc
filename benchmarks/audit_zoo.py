"""How often the audit's verdict names a cause that was built in.

Thresholds are chosen on one part of the networks. The other parts, with other seeds and widths,
other objects or another architecture, are judged without choosing again. Undecided counts as wrong.
The first run trains for some ten minutes on two cores (`--part` trains one part, so several can run
side by side). Networks and evidence are kept in `--folder`, and an interrupted run resumes.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import zoo_networks
from outcome import conclude
from zoo_networks import Group, Plan, cases

from contam.auditing import head_probes, object_removal, passes, single_pass
from contam.auditing.api import accuracies, cause_evidence
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.causes import (
    CAUSES,
    NAMES,
    Cause,
    cause,
    head,
    healthy,
    missing,
    shortcut,
    undertrained,
)
from contam.auditing.passes import BUDGET, run_passes
from contam.auditing.records import UNDECIDED, CauseEvidence, SetScores, Verdict
from contam.auditing.verdict import verdict

PARTS: dict[str, tuple[Group, ...]] = {
    "chosen on": tuple(Group("shapes", "resnet8", 12, seed) for seed in (0, 1, 2)),
    "other seeds, wider": tuple(Group("shapes", "resnet8", 16, seed) for seed in (10, 11)),
    "digits": tuple(Group("digits", "resnet8", 16, seed) for seed in (20, 21)),
    "other architecture": tuple(Group("shapes", "small_cnn", 12, seed) for seed in (30, 31)),
}
"""The first part chooses, the others judge."""
RIGHT = 0.9
"""The share of verdicts that has to be right on each judged part."""
FALSE_ALARMS = 0.05
"""The share of healthy networks that may be called anything else."""
LEAST = 60
"""Networks that have to be trained."""


class Threshold(NamedTuple):
    """A threshold of a cause."""

    cause: str
    field: str
    below: bool
    """Whether the cause lies below it."""

    @property
    def written(self) -> float:
        """The value in the code."""
        return next(getattr(c, self.field) for c in CAUSES if c.name == self.cause)


THRESHOLDS = (
    Threshold("undertrained", "threshold", True),
    Threshold("spurious correlation", "threshold", False),
    Threshold("core information missing", "threshold", True),
    Threshold("core information missing", "threshold_own", True),
    Threshold("head", "threshold", False),
    Threshold("healthy", "threshold", True),
)
"""In the order in which the questions are asked."""
ONLY_CAUSES = replace(BUDGET, changed=0, control=0)
"""Evidence of the layers is not used here."""
Result = TypeVar("Result")
SHORTCUT = shortcut.Shortcut.name


@dataclass(frozen=True)
class Case:
    """A network with its evidence."""

    part: str
    group: Group
    plan: Plan
    sets: tuple[SetScores, ...]
    evidence: tuple[CauseEvidence, ...]
    by_border: CauseEvidence
    """The evidence of a shortcut if there were no masks."""

    def judged(
        self, causes: Sequence[Cause] = CAUSES, *, reference: bool = True, masks: bool = True
    ) -> Verdict:
        """The verdict, also with other thresholds or less evidence."""
        evidence = {record.cause: record for record in self.evidence}
        if not masks:
            evidence[self.by_border.cause] = self.by_border
        probes = evidence.get("core information missing")
        if probes is not None and not reference:
            own = tuple(number for number in probes.numbers if number.part == missing.OWN)
            evidence[probes.cause] = probes.model_copy(update={"numbers": own})
        return verdict(self.sets, evidence.values(), causes=causes)


def with_threshold(
    causes: Sequence[Cause], threshold: Threshold, value: float
) -> tuple[Cause, ...]:
    """The causes with another threshold."""
    return tuple(
        replace(c, **{threshold.field: value}) if c.name == threshold.cause else c for c in causes
    )


def drained(work: Generator[Any, None, Result]) -> Result:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def evidence_of(inputs: AuditInputs) -> tuple[tuple[SetScores, ...], tuple[CauseEvidence, ...]]:
    """Accuracies, and the evidence of the causes."""
    results = drained(run_passes(inputs, (), ONLY_CAUSES))
    return accuracies(results, {}), cause_evidence(results)


def examined(parts: Iterable[str], folder: Path) -> Iterator[Case]:
    """All cases with their evidence, which is measured again when the code changes."""
    sources = (
        zoo_networks, cause, head, head_probes, healthy, missing, object_removal, passes, shortcut,
        single_pass, undertrained,
    )  # fmt: skip
    code = b"".join(Path(module.__file__ or "").read_bytes() for module in sources)
    digest = hashlib.sha256(code).hexdigest()[:12]
    for part in parts:
        for group in PARTS[part]:
            path = folder / group.name / f"evidence-{digest}.json"
            if not path.exists():
                rows = []
                for plan, inputs in cases(group, folder):
                    sets, evidence = evidence_of(inputs)
                    own = replace(inputs.id, masks=None)
                    bare = replace(inputs, id=own, ood=(), reference=None)
                    by_border = next(e for e in evidence_of(bare)[1] if e.cause == SHORTCUT)
                    rows.append(
                        [plan.kind, [s.model_dump() for s in sets],
                         [e.model_dump() for e in evidence], by_border.model_dump()]
                    )  # fmt: skip
                    print(f"{group.name}, {plan.kind}: {plan.cause}", file=sys.stderr)
                path.with_suffix(".part").write_text(json.dumps(rows))
                path.with_suffix(".part").replace(path)
            plans = {plan.kind: plan for plan in zoo_networks.plans(group)}
            for kind, sets, evidence, by_border in json.loads(path.read_text()):
                yield Case(
                    part, group, plans[kind], tuple(map(SetScores.model_validate, sets)),
                    tuple(map(CauseEvidence.model_validate, evidence)),
                    CauseEvidence.model_validate(by_border),
                )  # fmt: skip


def chosen(examples: Sequence[Case]) -> dict[Threshold, float]:
    """For each question the threshold with the fewest errors, in the middle of the widest gap.

    Each question applies to the networks to which no earlier question applies.
    """
    # Without a least gain, every significant gain counts.
    (gain,) = (threshold for threshold in THRESHOLDS if threshold.cause == "head")
    causes = with_threshold(CAUSES, gain, 0.0)
    judged = [case for case in examples if case.plan.strength != "near"]
    values: dict[Threshold, float] = {}
    done: set[str] = set()
    for threshold in THRESHOLDS:
        pairs = []
        for case in judged:
            steps = case.judged(causes, reference=threshold.field != "threshold_own").steps
            step = next(step for step in steps if step.leads_to == threshold.cause)
            if case.plan.cause not in done - {threshold.cause} and step.found is not None:
                is_cause = case.plan.cause == threshold.cause
                pairs.append((step.found.value, is_cause == threshold.below))
        values[threshold] = cut(pairs)
        done.add(threshold.cause)
    return values


def cut(values: Sequence[tuple[float, bool]]) -> float:
    """The threshold with the fewest errors between numbers that belong below and those above.

    Args:
        values: numbers, and whether each belongs below the threshold.
    """
    ordered = sorted(values)
    best = (len(values) + 1, 0.0, 0.0)
    for (low, _), (high, _) in pairwise(ordered):
        middle = (low + high) / 2
        errors = sum((value < middle) != below for value, below in ordered)
        best = min(best, (errors, low - high, middle))
    return best[2]


def table(examples: Sequence[Case], judge: Callable[[Case], Verdict]) -> str:
    """The built-in cause by row and the verdict by column, as Markdown."""
    columns = (*NAMES, UNDECIDED)
    counts = Counter((case.plan.cause, judge(case).cause) for case in examples)
    rows = [f"| built in | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for truth in NAMES:
        cells = [str(counts[truth, name] or "") for name in columns]
        rows.append(f"| {truth} | {' | '.join(cells)} |")
    return "\n".join(rows)


def share(examples: Sequence[Case], judge: Callable[[Case], Verdict] = Case.judged) -> float:
    """The share of verdicts that are right."""
    return sum(judge(case).cause == case.plan.cause for case in examples) / len(examples)


LESS: dict[str, Callable[[Case], Verdict]] = {
    "all evidence": Case.judged,
    "no reference encoder": lambda case: case.judged(reference=False),
    "no masks": lambda case: case.judged(masks=False),
    "neither": lambda case: case.judged(reference=False, masks=False),
}
"""What the verdict is made from."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/.zoo"))
    parser.add_argument("--part", choices=tuple(PARTS), help="make this part only, judge nothing")
    options = parser.parse_args()
    if options.part:
        made = sum(1 for _ in examined([options.part], options.folder))
        print(f"{made} cases of {options.part!r} are ready")
        return 0
    everything = list(examined(PARTS, options.folder))
    of = {
        part: [c for c in everything if c.part == part and c.plan.strength != "near"]
        for part in PARTS
    }
    again = chosen(of[next(iter(PARTS))])
    describe(everything, of, again)
    return judge(everything, of, again)


def trained(examples: Iterable[Case]) -> int:
    """The number of networks that were trained."""
    return len({(case.group, case.plan.network) for case in examples})


def describe(
    everything: Sequence[Case], of: dict[str, list[Case]], again: dict[Threshold, float]
) -> None:
    """Print the verdicts of all cases."""
    heads = {(case.group, case.plan.network, case.plan.head) for case in everything}
    print(f"{trained(everything)} trained networks, {len(heads)} with the bad heads,")
    print(f"{len(everything)} cases\n\nThresholds: written, and chosen here again")
    for threshold, value in again.items():
        name = f"{threshold.cause}, {threshold.field}"
        print(f"  {name:40s} {threshold.written:.2f}  {value:.3f}")
    for part, examples in of.items():
        print(f"\n### {part}: {share(examples):.1%} of {len(examples)} right\n")
        print(table(examples, Case.judged))
        for case in examples:
            result = case.judged()
            if result.cause != case.plan.cause:
                name = f"{case.group.name}, {case.plan.kind} ({case.plan.cause})"
                print(f"\n{name}: {result.sentence}")
                for step in result.steps:
                    print("   ", step.answer, step.why)
    print("\n### Value of the evidence (share right)\n")
    print(f"| verdict from | {' | '.join(PARTS)} |\n|---|" + "---|" * len(PARTS))
    for name, judged in LESS.items():
        print(f"| {name} | {' | '.join(f'{share(of[part], judged):.1%}' for part in PARTS)} |")
    print("\n### By strength, on the judged parts\n")
    rest = [case for part in list(PARTS)[1:] for case in of[part]]
    for strength in ("strong", "mild", "mixed"):
        some = [case for case in rest if case.plan.strength == strength]
        print(f"{strength}: {share(some):.1%} of {len(some)} right")
    mixed = [case for case in rest if case.plan.behind]
    seconds = sum(case.plan.behind in case.judged().behind for case in mixed)
    print(f"second causes reported behind the first: {seconds} of {len(mixed)}")
    print("\nNot judged: networks that were trained on two of the new families, tested on others")
    near = [case.judged() for case in everything if case.plan.strength == "near"]
    counts = Counter(result.cause for result in near).most_common()
    print(", ".join(f"{name}: {count}" for name, count in counts))
    lost = [s.found.value for r in near for s in r.steps if s.leads_to == "healthy" and s.found]
    print(f"they lose {min(lost):.0%} to {max(lost):.0%} of their above-chance accuracy")


def judge(
    everything: Sequence[Case], of: dict[str, list[Case]], again: dict[Threshold, float]
) -> int:
    """Print what falls short, and return the exit code."""
    first, *others = PARTS
    causes: tuple[Cause, ...] = CAUSES
    for threshold, value in again.items():
        causes = with_threshold(causes, threshold, value)
    wrong = []
    if trained(everything) < LEAST:
        wrong.append(f"{trained(everything)} networks (wanted {LEAST})")
    if share(of[first]) < share(of[first], lambda case: case.judged(causes)):
        wrong.append("other thresholds do better where thresholds are chosen")
    for part in others:
        sound = [case for case in of[part] if case.plan.cause == "healthy"]
        if 1 - share(sound) > FALSE_ALARMS:
            wrong.append(f"{part}: more false alarms on healthy networks than {FALSE_ALARMS:.0%}")
    # The ratio is the share of right verdicts on the worst of the judged parts.
    return conclude(min(share(of[part]) for part in others), at_least=RIGHT, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
