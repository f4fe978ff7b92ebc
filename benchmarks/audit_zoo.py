"""How often the audit's verdict names a cause that was built in, and how well its ledger adds up.

Thresholds of the causes were chosen on one part of the cases. The other parts, with other seeds and
widths, other contents or other architectures, are judged without choosing again. "Undecided" and
"unexplained" count as wrong. The first run trains networks for some 15 minutes on two cores
(`--part` makes one part, so several can run side by side). Networks and results are kept in
`--folder`, and an interrupted run resumes. `--quick` takes a balanced subset in under 5 minutes.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import decision_table
import torch
import zoo_cases
import zoo_networks
from outcome import conclude, machine
from scipy.stats import spearmanr
from sklearn.tree import DecisionTreeClassifier
from zoo_cases import (
    CAUSES,
    HEALTHY,
    NEED_REFERENCE,
    PLUMBING,
    Case,
    Plan,
    Planner,
    accuracy,
)  # fmt: skip
from zoo_networks import Group, Networks

import contam
from contam.auditing.api import accuracies, cause_tests
from contam.auditing.causes import CAUSES as AUDITED
from contam.auditing.causes import NAMES
from contam.auditing.passes import BUDGET, run_passes
from contam.auditing.prepare import prepare
from contam.auditing.records import UNEXPLAINED
from contam.auditing.verdict import verdict
from contam.measures.accuracy import clopper_pearson

PARTS: dict[str, tuple[Group, ...]] = {
    "chosen on": (
        Group("shapes", "resnet8", 8, 0),
        Group("letters", "resnet8", 8, 1),
        Group("textures", "resnet8", 8, 2),
        Group("shapes", "resnet8", 8, 3),
    ),
    "other seeds, wider": (
        Group("shapes", "resnet8", 12, 10),
        Group("letters", "resnet8", 12, 14),
        Group("textures", "resnet8", 12, 13),
    ),
    "other contents": (
        Group("digits", "resnet8", 10, 24),
        Group("fashion", "resnet8", 10, 21),
        Group("mnist", "resnet8", 10, 22),
    ),
    "other architectures": (
        Group("shapes", "small_cnn", 10, 30),
        Group("letters", "vgg", 6, 31),
        Group("shapes", "inverted", 10, 32),
        Group("textures", "vit", 8, 33),
        Group("letters", "mlp", 32, 35),
    ),
}
"""The first part chooses, the others judge."""
QUICK = (
    Group("shapes", "resnet8", 8, 0), Group("letters", "mlp", 32, 35),
    Group("textures", "resnet8", 8, 2),
)  # fmt: skip
"""Groups of `--quick`."""
QUICK_NETWORKS, QUICK_CASES = ("plain", "all", "few"), 20
"""Networks and cases of each of these groups."""
RIGHT, FALSE_ALARMS, LEAST, SOUND = 0.9, 0.03, 300, 100
"""Wanted: the share of main causes that are right on each judged part, the share of healthy cases
with another answer, and the numbers of all cases and of healthy ones."""
TRAIN_AGAIN = (
    "undertrained", "new backgrounds", "background shortcut", "color shortcut", "size shortcut",
    "compression shortcut", "tag shortcut", "new subtypes",
    "contaminated", "spurious correlation",
)  # fmt: skip
"""Answers whose remedy is a training."""
OLD_NAMES = {
    "contaminated": ("new backgrounds",),
    "spurious correlation": ("background shortcut", "color shortcut"),
    "core information missing": ("information missing",),
}
"""What the causes of the old table are called among the built-in ones."""
ONLY_CAUSES = replace(BUDGET, without_object=0, changed=0, control=0, repaired=False)
"""Evidence of the layers and repairs are not used here."""
LEFT_OUT = ("strong", "medium")
"""Strengths of the cases that are audited again without the test of their cause."""
Returned = TypeVar("Returned")
TURNS = {group: turn for turn, group in enumerate(sum(PARTS.values(), ()))}
"""The turn of each group, which decides what strengths and pairs its cases have."""


class Entry(NamedTuple):
    """A line of the ledger."""

    cause: str
    points: float
    low: float | None
    high: float | None
    what: str


@dataclass(frozen=True)
class Result:
    """A case with its answers."""

    part: str
    group: str
    plan: Plan
    answer: str
    old: str
    """The answer of the old decision table."""
    id_accuracy: float
    ood_accuracy: float
    seconds: float
    """Processor time of the audit."""
    forward: float
    """Processor time of plain forward passes over the same images."""
    ledger: tuple[Entry, ...] = ()
    steps: tuple[str, ...] = ()
    """The answer of each test."""
    without: str = ""
    """The answer without the test of the true cause."""
    sentence: str = ""

    @property
    def right(self) -> bool:
        """Whether the main cause is named."""
        return self.answer in self.plan.right


def audited(case: Case) -> dict[str, Any]:
    """The answer of an audit, its ledger, and the answer without the test of the true cause."""
    started = time.process_time()
    ready = prepare(
        case.model, id=(case.id.x, case.id.y), ood=(case.ood.x, case.ood.y), masks=case.masks,
        reference=case.reference, control=False,
    )  # fmt: skip
    passes = drained(run_passes(ready.inputs, (), ONLY_CAUSES))
    sets = accuracies(passes, {})
    tests = drained(cause_tests(passes, sets))
    answer = verdict(sets, tests.ledgers, tests.steps, tests.findings)
    ledger = tests.ledgers[0] if tests.ledgers else None
    row: dict[str, Any] = {
        "answer": answer.cause, "seconds": time.process_time() - started,
        "sentence": answer.sentence, "without": "",
        "ledger": [] if ledger is None else [
            [e.cause, e.points.value, e.points.low, e.points.high, e.what] for e in ledger.entries
        ],
        "steps": [] if ledger is None else [
            f"{step.leads_to}: {step.answer}. {step.why}" for step in (*ledger.steps, *tests.steps)
        ],
    }  # fmt: skip
    plan = case.plan
    if plan.strength in LEFT_OUT and plan.cause in NAMES and not plan.accepted:
        others = tuple(cause for cause in AUDITED if cause.name != plan.cause)
        tests = drained(cause_tests(passes, sets, others))
        row["without"] = verdict(sets, tests.ledgers, tests.steps, tests.findings).cause
    return row


def drained(work: Generator[Any, None, Returned]) -> Returned:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def plain_cost(case: Case) -> float:
    """Processor seconds of forward passes over the same images."""
    started = time.process_time()
    for made in (case.id, case.ood):
        accuracy(case.model, made)
    return time.process_time() - started


def baseline(case: Case) -> dict[str, Any]:
    """The answer of the old decision table, both accuracies, and the cost of forward passes."""
    old = decision_table.answer(
        case.model,
        case.id[:2],
        case.ood[:2],
        masks=case.id.masks if case.plan.masks else None,
        reference=case.reference,
    )
    return {
        "old": old, "forward": plain_cost(case), "id_accuracy": accuracy(case.model, case.id),
        "ood_accuracy": accuracy(case.model, case.ood),
    }  # fmt: skip


class Lazy:
    """A case that is made at the first request."""

    def __init__(self, plan: Plan, planner: Planner) -> None:
        self.plan, self.planner, self.used = plan, planner, False

    @cached_property
    def made(self) -> Case:
        """The case with its data."""
        self.used = True
        return zoo_cases.case(self.plan, self.planner)


def digest(*files: Path) -> str:
    """Eight letters that change with the files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def sources() -> tuple[str, str]:
    """Digests of the code of the cases, and of the audit with what it computes from."""
    here = Path(__file__).parent
    zoo = [here / "zoo_cases.py", here / "zoo_networks.py"]
    package = Path(contam.__path__[0])
    audit = [package / "training" / "probe.py"]
    for part in ("auditing", "measures", "remedies"):
        audit += sorted((package / part).rglob("*.py"))
    return digest(*zoo, here / "decision_table.py"), digest(*zoo, *audit)


class Kept:
    """Answers that are kept in a file, one line for each case."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, dict[str, Any]] = dict(map(json.loads, lines))

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a case, made at the first request."""
        if name not in self.rows:
            self.rows[name] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps([name, self.rows[name]]) + "\n")
        return self.rows[name]


def examined(
    part: str, groups: Iterable[Group], folder: Path, *, quick: bool = False
) -> Iterator[Result]:
    """All cases of some groups with their answers, which are made again when the code changes."""
    of_zoo, of_audit = sources()
    for group in zoo_cases.available(list(groups)):
        networks = Networks(group, folder)
        planner = Planner(group, networks, TURNS[group], QUICK_NETWORKS if quick else ())
        audits = Kept(networks.folder / f"audits-{of_audit}.jsonl")
        others = Kept(networks.folder / f"baselines-{of_zoo}.jsonl")
        plans = zoo_cases.plans(planner)
        for plan in balanced(plans) if quick else plans:
            name = f"{plan.name}, {plan.images}, {plan.masks}, {plan.reference}"
            case = Lazy(plan, planner)
            row = audits.get(name, lambda case=case: audited(case.made))
            other = others.get(name, lambda case=case: baseline(case.made))
            row = {**row, "ledger": tuple(Entry(*entry) for entry in row["ledger"])}
            result = Result(part, group.name, plan, **row, **other)
            if case.used:
                print(f"{group.name}, {plan.name} ({plan.cause}): {result.answer}",
                      file=sys.stderr)  # fmt: skip
            yield result


def balanced(plans: Sequence[Plan]) -> list[Plan]:
    """Some plans without a reference, the causes in turn, except those that need one."""
    by_cause: dict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        if not {plan.cause, *plan.others} & set(NEED_REFERENCE):
            by_cause[plan.cause].append(plan)
    turns = [plan for row in _turns(by_cause.values()) for plan in row]
    return [Plan(**{**vars(plan), "reference": False}) for plan in turns[:QUICK_CASES]]


def _turns(columns: Iterable[list[Plan]]) -> Iterator[list[Plan]]:
    columns = list(columns)
    for k in range(max(map(len, columns), default=0)):
        yield [column[k] for column in columns if k < len(column)]


def share(rights: Sequence[bool]) -> str:
    """A share with its exact 95 % interval."""
    if not rights:
        return "no cases"
    low, high = clopper_pearson(sum(rights), len(rights))
    return f"{sum(rights) / len(rights):.1%} of {len(rights)} [{low:.1%}, {high:.1%}]"


def table(results: Sequence[Result]) -> str:
    """The built-in cause by row and the answer by column, as Markdown."""
    counts = Counter((r.plan.cause, r.plan.cause if r.right else r.answer) for r in results)
    answers = {answer for _, answer in counts}
    columns = [*(c for c in CAUSES if c in answers), *sorted(answers - set(CAUSES))]
    rows = [f"| built in | {' | '.join(columns)} | right |", "|---|" + "---|" * (len(columns) + 1)]
    for truth in CAUSES:
        own = [r.right for r in results if r.plan.cause == truth]
        if own:
            cells = [str(counts[truth, name] or "") for name in columns]
            rows.append(f"| {truth} | {' | '.join(cells)} | {sum(own)}/{len(own)} |")
    return "\n".join(rows)


def old_right(result: Result) -> bool:
    """Whether the old table names the cause, under its name."""
    return any(name in result.plan.right for name in OLD_NAMES.get(result.old, (result.old,)))


def from_accuracies(chosen: Sequence[Result], judged: Sequence[Result]) -> list[bool]:
    """Whether a small tree over both accuracies, grown on the first part, is right."""
    tree = DecisionTreeClassifier(max_leaf_nodes=8, random_state=0)
    tree.fit([[r.id_accuracy, r.ood_accuracy] for r in chosen], [r.plan.cause for r in chosen])
    answers = tree.predict([[r.id_accuracy, r.ood_accuracy] for r in judged])
    return [answer in r.plan.right for answer, r in zip(answers, judged, strict=True)]


def describe(of: dict[str, list[Result]]) -> None:
    """Print tables, wrong cases and baselines."""
    for part, results in of.items():
        print(f"\n### {part}: {share([r.right for r in results])} right\n")
        print(table(results))
        for r in results:
            if not r.right:
                print(
                    f"\n{r.group}, {r.plan.name} ({r.plan.cause}, {r.plan.strength}), "
                    f"{r.id_accuracy:.3f} -> {r.ood_accuracy:.3f}: {r.answer}. {r.sentence}"
                )
                for entry in r.ledger:
                    print(f"    {100 * entry.points:+.1f} points: {entry.cause}, {entry.what}")
                for step in r.steps:
                    print(f"        {step}")
    chosen = next(iter(of.values()))
    commonest, _ = Counter(r.plan.cause for r in chosen).most_common(1)[0]
    print("\n### Baselines (share right)\n")
    print(f"| answer from | {' | '.join(of)} |\n|---|" + "---|" * len(of))
    baselines: dict[str, Callable[[list[Result]], list[bool]]] = {
        "this audit": lambda results: [r.right for r in results],
        f"always '{commonest}'": lambda results: [commonest in r.plan.right for r in results],
        "both accuracies": lambda results: from_accuracies(chosen, results),
        "the old decision table": lambda results: [old_right(r) for r in results],
    }
    for name, right in baselines.items():
        shares = [sum(right(results)) / max(1, len(results)) for results in of.values()]
        print(f"| {name} | {' | '.join(f'{value:.1%}' for value in shares)} |")


def summarize(results: Sequence[Result]) -> None:
    """Print what all judged cases say together."""
    print("\n### All judged cases\n")
    print(f"right: {share([r.right for r in results])}")
    for strength in ("mild", "medium", "strong", "mixed"):
        print(f"  {strength}: {share([r.right for r in results if r.plan.strength == strength])}")
    print(f"false alarms: {share(alarms(results))}")
    old = share([r.old != HEALTHY for r in results if r.plan.cause == HEALTHY])
    print(f"false alarms of the old table: {old}")
    print(f"plumbing faults answered with 'train again': {share(costly(results))}")
    old = share([r.old in TRAIN_AGAIN for r in results if r.plan.cause in PLUMBING])
    print(f"  by the old table: {old}")
    left = [r for r in results if r.without]
    print("\nWithout the test of the true cause, answered 'unexplained':")
    for cause in CAUSES:
        some = [r for r in left if r.plan.cause == cause]
        if some:
            counts = Counter(r.without for r in some if r.without != UNEXPLAINED)
            print(f"  {cause}: {share([r.without == UNEXPLAINED for r in some])} "
                  f"{dict(counts) or ''}")  # fmt: skip
    mixed(results)
    seconds = [r.seconds for r in results]
    ratio = statistics.median(r.seconds / max(r.forward, 1e-3) for r in results)
    print(f"\nprocessor time of an audit: median {statistics.median(seconds):.2f} s, "
          f"{ratio:.1f} times the plain forward passes")  # fmt: skip


def alarms(results: Sequence[Result]) -> list[bool]:
    """Whether each healthy case is called anything else."""
    return [not r.right for r in results if r.plan.cause == HEALTHY]


def costly(results: Sequence[Result]) -> list[bool]:
    """Whether each plumbing fault is answered with a cause whose remedy is a training."""
    plumbing = [r for r in results if r.plan.cause in PLUMBING and not r.plan.others]
    return [r.answer in TRAIN_AGAIN for r in plumbing]


def mixed(results: Sequence[Result]) -> None:
    """Print the true and the named shares of mixed cases."""
    pairs: list[tuple[float, float]] = []
    some = [r for r in results if r.plan.shares]
    print(f"\nMixed cases, main cause right: {share([r.right for r in some])}")
    for r in some:
        named = {entry.cause: entry.points for entry in r.ledger}
        words = []
        for cause, points in r.plan.shares:
            words.append(f"{cause} {100 * points:.0f} true, {100 * named.get(cause, 0):.0f} named")
            pairs.append((points, named.get(cause, 0.0)))
        print(f"  {r.group}, {r.plan.name}: {'; '.join(words)}")
    if any(named for _, named in pairs):
        true, named = zip(*pairs, strict=True)
        off = statistics.mean(abs(true - named) for true, named in pairs)
        print(f"  mean error {100 * off:.1f} points, rank correlation "
              f"{spearmanr(true, named)[0]:.2f} of {len(pairs)} shares")  # fmt: skip


def judge(of: dict[str, list[Result]], *, quick: bool) -> int:
    """Print what falls short, and return the exit code."""
    first, *others = of
    judged = [r for part in others or [first] for r in of[part]]
    everything = [r for results in of.values() for r in results]
    wrong = []
    sound = alarms(judged)
    if sum(sound) > FALSE_ALARMS * len(sound):
        wrong.append(f"{share(sound)} false alarms (wanted at most {FALSE_ALARMS:.0%})")
    if any(costly(judged)):
        wrong.append(f"{sum(costly(judged))} plumbing faults are answered with 'train again'")
    if not quick and len(everything) < LEAST:
        wrong.append(f"{len(everything)} cases (wanted {LEAST})")
    if not quick and len(alarms(everything)) < SOUND:
        wrong.append(f"{len(alarms(everything))} healthy cases (wanted {SOUND})")
    # The ratio is the share of right answers on the worst of the judged parts.
    shares = [sum(r.right for r in of[part]) / len(of[part]) for part in others or [first]]
    return conclude(min(shares), at_least=RIGHT, wrong=wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/.zoo"))
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--part", choices=tuple(PARTS), help="make this part only, judge nothing")
    parser.add_argument("--group", help="make this group only, judge nothing")
    parser.add_argument("--quick", action="store_true", help="a balanced subset")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.mnist:
        zoo_networks.FILES["mnist"] = options.mnist
    if options.part or options.group:
        groups = PARTS[options.part] if options.part else sum(PARTS.values(), ())
        groups = [g for g in groups if options.group in (None, g.name)]
        made = sum(1 for _ in examined("", groups, options.folder))
        print(f"{made} cases are ready")
        return 0
    parts = {"quick": QUICK} if options.quick else PARTS
    of = {
        part: list(examined(part, groups, options.folder, quick=options.quick))
        for part, groups in parts.items()
    }
    everything = [r for results in of.values() for r in results]
    print(f"{machine()}\n{len(everything)} cases, {len(alarms(everything))} of them healthy")
    describe(of)
    summarize([r for part in list(of)[1:] or list(of) for r in of[part]])
    return judge(of, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
