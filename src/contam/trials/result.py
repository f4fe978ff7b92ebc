"""The result of a trial: accuracies of all arms, differences to the baseline, what moved, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from contam.atomic_files import write_atomically
from contam.auditing.intervals import points
from contam.auditing.records import Interval
from contam.measures.accuracy import mean_change
from contam.measures.paired_comparison import holm, paired_difference
from contam.run import DataFrame, Run, RunError
from contam.training.changes import CHANGES
from contam.trials.arms import BASELINE, part_of

MEAN = "OOD mean"
"""Name of the mean over OOD sets."""
FEW_SEEDS = 5
"""Number of seeds below which the result says that there are few."""
LEVEL = 0.05
"""Largest p-value, after Holm's correction, of a difference that is beyond chance."""
MOVED = 0.01
"""Smallest change of an entry of the ledger that is listed, as a share of all examples."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial: a baseline and the same training with one change each.

    >>> from contam.batch import Batch, Domain
    >>> x, y = torch.rand(32, 3, 16, 16), torch.arange(32) % 2
    >>> import contam
    >>> result = contam.trial(
    ...     "resnet8", train=(x, y), id=(x, y), ood=(x.flip(2), y), remedies=["no change"],
    ...     epochs=1, batch_size=16, seeds=1, progress=False)
    >>> result.differences[["arm", "set", "difference"]].values.tolist()
    [['no change', 'ID', 0.0], ['no change', 'OOD', 0.0]]
    """

    folder: Path
    """Folder of the run, with the audits and the tables."""
    config: Mapping[str, Any]
    """Network, data and settings."""
    accuracies: DataFrame
    """Columns `arm`, `seed`, `set`, `role`, `n`, `accuracy`; a share in [0, 1]."""
    differences: DataFrame
    """Accuracy minus that of the baseline, mean over seeds: columns `arm`, `set`, `difference`;
    `low` and `high`, the 95 % interval over seeds; `low_examples` and `high_examples`, over test
    examples for these seeds; `p`, of the paired t-test over seeds with Holm's correction for the
    number of remedies; `seeds`."""
    by_seed: DataFrame
    """The difference of each seed with its interval over test examples."""
    ledger: DataFrame
    """Lost accuracy by cause, mean over seeds: columns `arm`, `set`, `cause`, `points`."""
    verdicts: DataFrame
    """Verdict of the audit of each arm and seed."""
    cost: DataFrame
    """Columns `arm`, `seconds` of a training (processor time on a CPU), and `relative` to the
    baseline."""
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, folder: str | Path, *, arms: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None, notes: Sequence[str] = (),
    ) -> "Trial":  # fmt: skip
        """Read a trial from its folder.

        Args:
            folder: the folder of the run.
            arms: names of the arms to compare, by default all.
            seeds: seeds to compare, by default all.
            notes: sentences about the data.

        Raises:
            RunError: the folder holds no trial, or a file is damaged.
            ValueError: an arm has not been trained.
        """
        run = Run.load(Path(folder))
        if run.experiment != "trial":
            raise RunError(f"{folder}: holds a run of {run.experiment}, not a trial")
        rows = run.table("answers/")
        if not len(rows):
            raise RunError(f"{folder}: no arm is trained yet; run the trial to its end")
        known = sorted(set(rows["arm"]), key=_order)
        chosen = [BASELINE, *(a for a in known if a != BASELINE)] if arms is None else list(arms)
        missing = [arm for arm in chosen if arm not in known]
        if missing:
            raise ValueError(f"{folder}: has no arm {missing[0]!r}; it has {', '.join(known)}")
        kept = rows["arm"].isin(chosen)
        if seeds is not None:
            kept &= rows["seed"].isin(list(seeds))
        rows = rows[kept].drop(columns="part")
        order = {arm: place for place, arm in enumerate(chosen)}
        rows = rows.assign(place=rows["arm"].map(order)).sort_values(
            ["place", "seed"], kind="stable", ignore_index=True
        )
        rows = rows.drop(columns="place")
        correct = {
            (arm, seed): run.arrays(f"answers/{part_of(arm, seed)}")
            for arm, seed in dict.fromkeys(zip(rows["arm"], rows["seed"], strict=True))
        }
        differences, by_seed = _differences(correct, chosen, rows)
        ledger, verdicts, left_out = _audited(run, list(correct))
        return cls(
            Path(folder), run.config, rows, differences, by_seed, ledger, verdicts,
            _cost(run, list(correct)), (*notes, *left_out),
        )  # fmt: skip

    @property
    def arms(self) -> list[str]:
        """Names of the arms; the baseline first."""
        return list(dict.fromkeys(self.accuracies["arm"]))

    @property
    def seeds(self) -> list[int]:
        """The seeds that were compared."""
        return sorted(set(self.accuracies["seed"]))

    def weights(self, arm: str, seed: int = 0) -> dict[str, Tensor]:
        """Return the trained weights of an arm, for `load_state_dict` of its network.

        Args:
            arm: name of the arm.
            seed: its seed.

        Raises:
            RunError: there is no such arm or seed.
        """
        return Run.load(self.folder).arrays(f"train/{part_of(arm, seed)}")

    @property
    def ood(self) -> str:
        """Name of the OOD set, or of the mean over several."""
        sets = list(dict.fromkeys(self.accuracies[self.accuracies["role"] == "ood"]["set"]))
        return sets[0] if len(sets) == 1 else MEAN

    @property
    def sentence(self) -> str:
        """Which remedies change OOD accuracy beyond chance."""
        rows = self.differences[self.differences["set"] == self.ood]
        beyond = [row for row in rows.to_dict("records") if _beyond_chance(row)]
        if not beyond:
            return "No remedy changes OOD accuracy beyond chance."
        beyond.sort(key=lambda row: -row["difference"])
        parts = [
            f"{row['arm']} {'raises' if row['difference'] > 0 else 'lowers'} OOD accuracy by "
            f"{abs(100 * row['difference']):.1f} points"
            for row in beyond
        ]
        text = ", ".join(parts)
        within = "" if len(self.seeds) > 1 else " for this seed"
        return f"{text[0].upper()}{text[1:]}{within}, beyond chance."

    def __repr__(self) -> str:
        return "\n".join([self.sentence, "", *self._table(), *self._sections()])

    def _table(self) -> list[str]:
        means = _with_mean(self.accuracies).groupby(["arm", "set"])["accuracy"].mean()
        own = self.accuracies["set"].iloc[0]
        head = ["", f"ID {own}", "difference", f"OOD {self.ood.removeprefix('OOD ')}", "difference",
                "time"]  # fmt: skip
        lines = [head]
        for arm in self.arms:
            line = [arm]
            for name in (own, self.ood):
                line += [f"{means[arm, name]:.3f}", self._difference(arm, name)]
            relative = self.cost.set_index("arm")["relative"]
            lines.append([*line, f"{relative[arm]:.2f}x" if arm in relative.index else ""])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]

    def _difference(self, arm: str, name: str) -> str:
        rows = self.differences
        rows = rows[(rows["arm"] == arm) & (rows["set"] == name)]
        return _text(rows.iloc[0], over_seeds=len(self.seeds) > 1) if len(rows) else ""

    def _sections(self) -> list[str]:
        sets = [name for name in dict.fromkeys(self.differences["set"])][1:]
        lines = []
        if len(sets) > 1:
            lines += ["", "Difference of accuracy on each OOD set:"]
            lines += [
                f"  {arm}, {name}: {self._difference(arm, name)}"
                for arm in self.arms[1:]
                for name in sets
                if name != MEAN
            ]
        if moved := self._moved():
            lines += ["", "What moved in the ledger (lost accuracy by cause, mean over seeds):"]
            lines += [f"  {line}" for line in moved]
        return [*lines, "", *self._notes()]

    def _moved(self) -> list[str]:
        keys = ["set", "cause"]
        table = self.ledger.set_index(["arm", *keys])["points"]
        named = dict.fromkeys(zip(self.ledger["set"], self.ledger["cause"], strict=True))
        lines = []
        for arm in self.arms[1:]:
            changes = [
                (name, cause, table.get((BASELINE, name, cause), 0.0),
                 table.get((arm, name, cause), 0.0))
                for name, cause in named
            ]  # fmt: skip
            changes = [row for row in changes if abs(row[3] - row[2]) >= MOVED]
            changes.sort(key=lambda row: -abs(row[3] - row[2]))
            lines += [
                f"{arm}, {name}: {cause} {100 * before:.1f} -> {100 * after:.1f} points"
                for name, cause, before, after in changes
            ]
        return lines

    def _notes(self) -> list[str]:
        count, remedies = len(self.seeds), len(self.arms) - 1
        if count == 1:
            lines = [
                "1 seed: the intervals are over test examples and say nothing about other seeds; "
                "take at least 3 seeds."
            ]
        else:
            few = "only " if count < FEW_SEEDS else ""
            lines = [
                f"Differences are paired by seed, in points of accuracy, with 95 % intervals over "
                f"{few}{count} seeds."
            ]
            if few:
                lines.append(
                    "With few seeds the intervals are wide, and a remedy that helps may not be "
                    f"beyond chance; take at least {FEW_SEEDS} seeds."
                )
        if remedies > 1 and count > 1:
            lines.append(f"Beyond chance: p <= {LEVEL:g} after Holm's correction for {remedies} "
                         "remedies.")  # fmt: skip
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def markdown(self) -> str:
        """Return the tables and the sentences as Markdown, with links to the audits."""
        lines = ["# Trial of " + str(self.config["model"]), "", "```text", str(self), "```", ""]
        lines += ["| arm | seed | verdict of its audit |", "|---|---|---|"]
        lines += [
            f"| {row['arm']} | {row['seed']} | [{row['verdict']}](audits/"
            f"{part_of(row['arm'], row['seed'])}/audit.html) |"
            for row in self.verdicts.to_dict("records")
        ]
        lines += ["", "Take over a remedy:"]
        for arm in self.arms:
            if arm in CHANGES and CHANGES[arm].code:
                lines += ["", f"{CHANGES[arm].name}: {CHANGES[arm].what}", "", "```python",
                          CHANGES[arm].code.rstrip(), "```"]  # fmt: skip
        return "\n".join(lines) + "\n"

    def save(self) -> Path:
        """Write `trial.md` and the tables as CSV files into the folder of the run.

        Returns:
            The folder.

        Raises:
            WriteError: the folder can't be written.
        """
        write_atomically(self.folder / "trial.md", self.markdown().encode(), resumes=True)
        for name in ("accuracies", "differences", "by_seed", "ledger", "verdicts", "cost"):
            text = getattr(self, name).to_csv(index=False, lineterminator="\n")
            write_atomically(self.folder / f"{name}.csv", text.encode(), resumes=True)
        return self.folder


def _beyond_chance(row: Mapping[str, Any]) -> bool:
    apart = row["low_examples"] > 0 or row["high_examples"] < 0
    return apart and (np.isnan(row["p"]) or row["p"] <= LEVEL)


def _text(row: Any, *, over_seeds: bool) -> str:
    low, high = ("low", "high") if over_seeds else ("low_examples", "high_examples")
    return points(
        Interval(value=row["difference"], low=row[low], high=row[high])
    ).removesuffix(" points")  # fmt: skip


def _with_mean(rows: DataFrame) -> DataFrame:
    """Add the mean over OOD sets, if there are several."""
    ood = rows[rows["role"] == "ood"]
    if ood["set"].nunique() < 2:
        return rows
    mean = ood.groupby(["arm", "seed"], as_index=False).agg({"n": "sum", "accuracy": "mean"})
    both: Any = [rows, mean.assign(set=MEAN, role="ood")]
    return pd.concat(both, ignore_index=True)


def _differences(
    correct: Mapping[tuple[str, int], Mapping[str, Tensor]], arms: Sequence[str], rows: DataFrame
) -> tuple[DataFrame, DataFrame]:
    """Differences to the baseline over seeds, and of each seed."""
    own = rows["set"].iloc[0]
    sets = {name: [name] for name in dict.fromkeys(rows["set"])}
    ood = [name for name in sets if name != own]
    sets |= {MEAN: ood} if len(ood) > 1 else {}
    over, within = [], []
    for arm in arms:
        seeds = [s for a, s in correct if a == arm and (BASELINE, s) in correct]
        if arm == BASELINE or not seeds:
            continue
        for title, names in sets.items():
            gained = [
                [correct[arm, seed][name].double() - correct[BASELINE, seed][name].double()
                 for name in names]
                for seed in seeds
            ]  # fmt: skip
            one = {"arm": arm, "set": title}
            for seed, parts in zip(seeds, gained, strict=True):
                within.append({**one, "seed": seed, **_over_examples(parts)})
            mean = [torch.stack(parts).mean(0) for parts in zip(*gained, strict=True)]
            examples = _over_examples(mean)
            by_seed = np.array([row["difference"] for row in within[-len(seeds) :]])
            mean_gain = paired_difference(by_seed, np.zeros(len(seeds)))
            over.append({
                **one, "difference": mean_gain.value, "low": mean_gain.low, "high": mean_gain.high,
                "low_examples": examples["low"], "high_examples": examples["high"],
                "p": mean_gain.p, "seeds": len(seeds),
            })  # fmt: skip
    columns = ["arm", "set", "difference", "low", "high", "low_examples", "high_examples", "p",
               "seeds"]  # fmt: skip
    table = _frame(over, columns)
    table["p"] = table.groupby("set")["p"].transform(lambda column: holm(column.to_numpy()))
    return table, _frame(within, ["arm", "set", "seed", "difference", "low", "high"])


def _over_examples(gained: Sequence[Tensor]) -> dict[str, float]:
    """The mean over sets of the mean gain, with its interval over the examples of each."""
    estimate = mean_change(gained)
    return {"difference": estimate.value, "low": estimate.low, "high": estimate.high}


def _audited(
    run: Run, pairs: Sequence[tuple[str, int]]
) -> tuple[DataFrame, DataFrame, tuple[str, ...]]:  # fmt: skip
    """The ledgers as means over seeds, the verdicts, and audits that were left out."""
    entries, verdicts, left_out = [], [], []
    audited: dict[str, int] = {}
    for arm, seed in pairs:
        for row in _audit_rows(run, arm, seed):
            if "left_out" in row:
                left_out.append(f"No audit of {arm}, seed {seed}: {row['left_out']}")
            elif "verdict" in row:
                verdicts.append({"arm": arm, "seed": seed, "verdict": row["verdict"]})
                audited[arm] = audited.get(arm, 0) + 1
            else:
                entries.append({key: row[key] for key in ("arm", "set", "cause", "points")})
    names = ["arm", "set", "cause"]
    table = _frame(entries, [*names, "points"])
    summed = table.groupby(names, sort=False, as_index=False)["points"].sum()
    # A cause that a seed's ledger lacks counts as 0.
    summed["points"] /= summed["arm"].map(audited).astype(float)
    outcomes = _frame(verdicts, ["arm", "seed", "verdict"])
    return summed, outcomes, tuple(left_out)


def _audit_rows(run: Run, arm: str, seed: int) -> list[dict[str, Any]]:
    """The rows of the most complete audit of an arm."""
    part = part_of(arm, seed)
    kinds = [kind for kind in ("audit", "quick") if run.has(f"{kind}/{part}")]
    return run.read(f"{kinds[0]}/{part}") if kinds else []


def _cost(run: Run, pairs: Sequence[tuple[str, int]]) -> DataFrame:
    rows = [run.read(f"cost/{part_of(*pair)}")[0] for pair in pairs]
    table = _frame(rows, ["arm", "seconds"])
    table = table.groupby("arm", sort=False, as_index=False)["seconds"].mean()
    base = table.loc[table["arm"] == BASELINE, "seconds"]
    return table.assign(relative=table["seconds"] / (base.iloc[0] if len(base) else np.nan))


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> DataFrame:
    return pd.DataFrame(list(rows), columns=pd.Index(columns))


def _order(arm: str) -> tuple[int, str]:
    known = [BASELINE, *CHANGES]
    return (known.index(arm) if arm in known else len(known)), arm
