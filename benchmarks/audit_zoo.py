"""How often the audit's decision table names a cause that was built in.

Thresholds are chosen on one part of the networks; on the others, with other seeds and widths, other
objects or another architecture, they are judged and not chosen again. Undecided counts as wrong.
The first run trains for some ten minutes on two cores (`--part` trains one part, so several can run
side by side); what it made is kept in `--folder`, and a broken run goes on from there.
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
from typing import TypeVar, get_args

import zoo_networks
from zoo_networks import Group, Plan, cases

from contam.auditing import background, causes
from contam.auditing.background import background_only
from contam.auditing.causes import Causes, reading
from contam.auditing.records import BackgroundOnly, Cause, Verdict
from contam.auditing.verdict import THRESHOLDS, Thresholds, verdict

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
ASKED: dict[str, tuple[Cause, bool]] = {
    "undertrained": ("undertrained", True),
    "spurious": ("spurious correlation", False),
    "missing": ("core information missing", True),
    "missing_alone": ("core information missing", True),
    "head": ("head", False),
    "healthy": ("healthy", True),
}
"""For each threshold the cause it is about, and whether that lies below."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """A case with its evidence."""

    part: str
    group: Group
    plan: Plan
    found: Causes
    by_border: BackgroundOnly | None
    """What is answered without the object, had there been no masks."""

    def told(
        self, thresholds: Thresholds = THRESHOLDS, *, reference: bool = True, masks: bool = True
    ) -> Verdict:
        """The verdict, also with other thresholds or less evidence."""
        found = self.found
        return verdict(
            found.sets,
            head=found.head,
            oracles=found.oracles if reference else found.oracles[:1],
            background_only=found.background_only if masks else self.by_border,
            background_label=found.background_label,
            thresholds=thresholds,
        )


def finished(work: Generator[float, None, Result]) -> Result:
    """What a long piece of work returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


def look(parts: Iterable[str], folder: Path) -> Iterator[Looked]:
    """All cases with their evidence, which is taken again when the code that takes it changes."""
    sources = (zoo_networks, background, causes)
    code = b"".join(Path(module.__file__ or "").read_bytes() for module in sources)
    digest = hashlib.sha256(code).hexdigest()[:12]
    for part in parts:
        for group in PARTS[part]:
            path = folder / group.name / f"found-{digest}.json"
            if not path.exists():
                rows = []
                for plan, subject in cases(group, folder):
                    found = finished(causes.causes(subject))
                    bare = replace(subject, id=replace(subject.id, masks=None))
                    seen = [finished(reading(bare.model, bare.id))]
                    border, _ = finished(background_only(bare, seen))
                    rows.append([plan.kind, found.model_dump(), border and border.model_dump()])
                    print(f"{group.name}, {plan.kind}: {plan.cause}", file=sys.stderr)
                path.with_suffix(".part").write_text(json.dumps(rows))
                path.with_suffix(".part").replace(path)
            plans = {plan.kind: plan for plan in zoo_networks.plans(group)}
            for kind, found, border in json.loads(path.read_text()):
                by_border = border and BackgroundOnly.model_validate(border)
                yield Looked(part, group, plans[kind], Causes.model_validate(found), by_border)


def chosen(looked: Sequence[Looked]) -> dict[str, float]:
    """For each question the threshold with the fewest errors, in the middle of the widest gap.

    A question is asked of the networks that no earlier one is about.
    """
    # With no least gain, every gain is shown that is no chance.
    open_to_all = THRESHOLDS.model_copy(update={"head": 0.0})
    judged = [each for each in looked if each.plan.strength != "near"]
    found: dict[str, float] = {}
    done: set[Cause] = set()
    for name, (cause, below) in ASKED.items():
        values = []
        for each in judged:
            told = each.told(open_to_all, reference=name != "missing_alone")
            step = next(step for step in told.steps if step.leads_to == cause)
            if each.plan.cause not in done - {cause} and step.found is not None:
                values.append((step.found.value, (each.plan.cause == cause) == below))
        found[name] = cut(values)
        done.add(cause)
    return found


def cut(values: Sequence[tuple[float, bool]]) -> float:
    """Where numbers are parted into those that belong below and those that do not."""
    ordered = sorted(values)
    best = (len(values) + 1, 0.0, 0.0)
    for (low, _), (high, _) in pairwise(ordered):
        middle = (low + high) / 2
        errors = sum((value < middle) != below for value, below in ordered)
        best = min(best, (errors, low - high, middle))
    return best[2]


def table(looked: Sequence[Looked], told: Callable[[Looked], Verdict]) -> str:
    """What was built in, by row, and what was found, by column, as Markdown."""
    names = get_args(Cause)
    counts = Counter((each.plan.cause, told(each).cause) for each in looked)
    rows = [f"| built in | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for truth in names[:-1]:
        cells = [str(counts[truth, name] or "") for name in names]
        rows.append(f"| {truth} | {' | '.join(cells)} |")
    return "\n".join(rows)


def share(looked: Sequence[Looked], told: Callable[[Looked], Verdict] = Looked.told) -> float:
    """How many verdicts are right."""
    return sum(told(each).cause == each.plan.cause for each in looked) / len(looked)


LESS: dict[str, Callable[[Looked], Verdict]] = {
    "all evidence": Looked.told,
    "no reference encoder": lambda each: each.told(reference=False),
    "no masks": lambda each: each.told(masks=False),
    "neither": lambda each: each.told(reference=False, masks=False),
}
"""What the verdict is made from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/.zoo"))
    parser.add_argument("--part", choices=tuple(PARTS), help="make this part only, judge nothing")
    options = parser.parse_args()
    if options.part:
        made = sum(1 for _ in look([options.part], options.folder))
        print(f"{made} cases of {options.part!r} are ready")
        return
    everything = list(look(PARTS, options.folder))
    networks = {(each.group, each.plan.network, each.plan.head) for each in everything}
    trained = {(group, network) for group, network, _ in networks}
    looked = [each for each in everything if each.plan.strength != "near"]
    of = {part: [each for each in looked if each.part == part] for part in PARTS}
    first, *judged = PARTS

    print(f"{len(trained)} trained networks, {len(networks)} with the bad heads,")
    print(f"{len(everything)} cases\n\nThresholds: written, and chosen here again")
    again = chosen(of[first])
    for name, value in THRESHOLDS.model_dump().items():
        print(f"  {name:14s} {value:.2f}  {again[name]:.3f}")
    for part, cased in of.items():
        print(f"\n### {part}: {share(cased):.1%} of {len(cased)} right\n")
        print(table(cased, Looked.told))
        for each in cased:
            said = each.told()
            if said.cause != each.plan.cause:
                print(f"\n{each.group.name}, {each.plan.kind} ({each.plan.cause}): {said.sentence}")
                for step in said.steps:
                    print("   ", step.answer, step.why)
    print("\n### What each evidence is worth (share right)\n")
    print(f"| verdict from | {' | '.join(PARTS)} |\n|---|" + "---|" * len(PARTS))
    for name, told in LESS.items():
        print(f"| {name} | {' | '.join(f'{share(of[part], told):.1%}' for part in PARTS)} |")
    print("\n### By strength, on the judged parts\n")
    rest = [each for part in judged for each in of[part]]
    for strength in ("strong", "mild", "mixed"):
        some = [each for each in rest if each.plan.strength == strength]
        print(f"{strength}: {share(some):.1%} of {len(some)} right")
    mixed = [each for each in rest if each.plan.behind]
    seconds = sum(each.plan.behind in each.told().behind for each in mixed)
    print(f"second causes found behind the first: {seconds} of {len(mixed)}")
    print("\nOn the border, not judged: networks that saw two of the new families, asked on others")
    near = Counter(each.told().cause for each in everything if each.plan.strength == "near")
    print(", ".join(f"{cause}: {count}" for cause, count in near.most_common()))
    losses = [each.told().steps[4].found for each in everything if each.plan.strength == "near"]
    values = [found.value for found in losses if found]
    print(f"they lose {min(values):.0%} to {max(values):.0%} of what is above chance")

    written = share(of[first])
    assert len(trained) >= LEAST, f"want {LEAST} networks, trained {len(trained)}"
    anew = share(of[first], lambda each: each.told(Thresholds(**again)))
    assert written >= anew, f"the thresholds {again} do better where thresholds are chosen"
    for part in judged:
        assert share(of[part]) >= RIGHT, f"{part}: {share(of[part]):.1%} right, want {RIGHT:.0%}"
        healthy = [each for each in of[part] if each.plan.cause == "healthy"]
        assert 1 - share(healthy) <= FALSE_ALARMS, f"{part}: false alarms on healthy networks"
    print(
        f"\nok: at least {RIGHT:.0%} right on each judged part, no more false alarms than allowed"
    )


if __name__ == "__main__":
    main()
