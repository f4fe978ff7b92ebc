"""The table of a comparison, from the accuracies of all checkpoints."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
import pandas
import torch
from pydantic import BaseModel, Field, PositiveInt

from contam.experiment import NotJudged
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DataKind
from contam.experiments.tab04_baselines.methods import ERM, PAPER, Kind
from contam.measures.paired_comparison import (
    RankComparison,
    compare_ranks,
    holm,
    paired_difference,
)
from contam.measures.robustness import Line, effective_robustness, fit_line
from contam.run import DataFrame, Run
from contam.training.domainbed import NO_DOMAIN, SELECTIONS, Selection, select

MEASURES = {
    "id": "ID accuracy",
    "ood": "OOD accuracy",
    "worst": "worst domain",
    "robustness": "effective robustness, points",
    "attenuation": "class-profile attenuation",
    "counterfactual": "attenuation under altered backgrounds",
    "dependent": "interaction over class and interaction",
    "interchange": "accuracy lost by exchanged backgrounds",
    "cost": "training time over ERM's",
}
"""The columns of the table, and their names."""
TRAINED_AGAIN: tuple[Kind, ...] = ("algorithm", "change")
"""Kinds of methods that leave-one-domain-out validation trains again without each domain."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are those of App. E.4 unless a field says otherwise."""

    networks: BaselineNetworks = BaselineNetworks()
    data: Annotated[tuple[DataKind, ...], Field(min_length=1)] = ("domainnet",)
    """Ours: data sets; each is compared separately."""
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = PAPER
    """Names of methods; ERM is always there."""
    trials: PositiveInt = 3
    """Repetitions with other splits and weights."""
    draws: PositiveInt = 5
    """Draws of the settings in each trial; the first one has the defaults."""
    selection: Selection = "training-domain"
    """How the draw and the checkpoint are selected."""
    leave_one_out: bool = False
    """Ours: also train without each training domain, as leave-one-domain-out selection needs."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Ours: ERM's checkpoints below this ID accuracy are left out of the line."""
    codes: tuple[str, ...] = ()
    """Ours: digests of the code of own methods; `contam compare` sets them."""


class BaselineResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    networks: DataFrame
    """A row for each data set, method and trial: the selected draw and step, and `MEASURES`."""
    checkpoints: DataFrame
    """ID and OOD accuracy of every checkpoint: `data`, `method`, `trial`, `draw`, `step`."""
    lines: Mapping[str, Line]
    """The line through ERM's checkpoints, by data set; absent where these determine none."""
    left_out: DataFrame
    """Methods without a result in some trials of a data set, because they diverged or do not fit:
    `data`, `method`, `trials` (those without a result), `reason`."""
    accuracies: DataFrame
    """The accuracy of every checkpoint on every part of every domain."""

    def of(self, data: str, method: str, measure: str = "ood") -> DataFrame:
        """Return a measure of a method by trial.

        Raises:
            NotJudged: the run does not have the method.
        """
        rows = self.networks[(self.networks.data == data) & (self.networks.method == method)]
        if not len(rows):
            raise NotJudged(f"there is no {method} in this run")
        return rows.set_index("trial")[measure]

    def left_out_lines(self) -> list[str]:
        """Return a line for each data set and method that was left out: where, and why."""
        lines = []
        for row in self.left_out.itertuples():
            where = f"{row.method} on {row.data}"
            if len(row.trials) < self.config.trials:
                trials = ", ".join(map(str, row.trials))
                where += f", trial{'s' * (len(row.trials) > 1)} {trials} of {self.config.trials}"
            # Where a reason starts with the method, it would be named twice.
            reason = row.reason.removeprefix(f"{row.method}: ")
            lines.append(f"{where}: {reason.removeprefix(f'{row.method!r} does not fit: ')}")
        return lines

    def classes(self, data: str) -> int:
        """Return the number of classes of a data set."""
        return int(self.networks[self.networks.data == data].classes.iloc[0])

    def baselines(self, data: str) -> list[str]:
        """Return the algorithms other than ERM, without the user's own."""
        rows = self.networks[(self.networks.data == data) & (self.networks.kind == "algorithm")]
        return [name for name in rows.method.unique() if name != ERM and ":" not in name]


def read_results(run: Run) -> BaselineResults:
    """Read a run, select the models and fit the lines.

    Args:
        run: a run with all parts.

    Source: App. E.4.
    """
    config = Config.model_validate(run.config)
    rows = run.table("cells/")
    accuracies = rows[rows.what == "accuracy"]
    whole = accuracies[accuracies.left_out == NO_DOMAIN]
    checkpoints = _checkpoints(whole)
    contamination = rows[rows.what == "contamination"]
    known = [name for name in MEASURES if name in contamination]
    key = ["data", "method", "trial", "draw", "step"]
    checkpoints = checkpoints.merge(contamination[[*key, *known]], on=key, how="left")
    costs = rows[(rows.what == "cost") & (rows.left_out == NO_DOMAIN)]
    networks = selected(accuracies, checkpoints, config.selection)
    networks = networks.merge(costs[[*key[:4], "seconds"]], on=key[:4], how="left")
    base = networks[networks.method == ERM].set_index(["data", "trial"]).seconds
    at = pandas.MultiIndex.from_frame(networks[["data", "trial"]])
    networks["cost"] = networks.seconds.to_numpy() / base.reindex(at).to_numpy()
    lines = {}
    standard = checkpoints[(checkpoints.method == ERM) & (checkpoints.id >= config.least_id)]
    for data, some in standard.groupby("data", sort=False):
        # The logit of an accuracy of 0 or 1 is infinite, so `fit_line` leaves these out.
        finite = (some.id < 1) & (some.ood > 0) & (some.ood < 1)
        if some.id[finite].nunique() > 2:
            lines[data] = fit_line(*(torch.tensor(some[k].tolist()) for k in ("id", "ood")))
    networks["robustness"] = np.nan
    for data, line in lines.items():
        here = networks.data == data
        own, ood = (torch.tensor(networks[here][k].tolist()) for k in ("id", "ood"))
        networks.loc[here, "robustness"] = effective_robustness(own, ood, line).tolist()
    left_out = _left_out(rows[rows.what == "left out"], networks)
    return BaselineResults(config, networks, checkpoints, lines, left_out, accuracies)


def _left_out(rows: DataFrame, networks: DataFrame) -> DataFrame:
    """Return the methods without a network in some trials, with the reasons in the rows."""
    key = ["data", "method", "trial"]
    have, rowwise = (pandas.MultiIndex.from_frame(table[key]) for table in (networks, rows))
    # The reason of a trial is that of its first training.
    missing = rows[~rowwise.isin(have)].drop_duplicates(key)
    incomplete = []
    for (data, method), mine in missing.groupby(["data", "method"], sort=False):
        reasons = mine.drop_duplicates("reason")
        reason = "; ".join(reasons.reason)
        if len(reasons) > 1:
            reason = "; ".join(f"trial {row.trial}: {row.reason}" for row in reasons.itertuples())
        incomplete.append({"data": data, "method": method, "trials": tuple(mine.trial),
                      "reason": reason})  # fmt: skip
    return pandas.DataFrame(incomplete, columns=["data", "method", "trials", "reason"])


def _checkpoints(whole: DataFrame) -> DataFrame:
    """Return ID, OOD and worst accuracy of every checkpoint."""
    key = ["data", "method", "kind", "uses", "classes", "trial", "draw", "step"]
    own = whole[whole.role == "id"]
    held_out = whole[(whole.role == "train") & (whole.split == "held out")]
    tested = own.data.unique() if len(own) else []
    own = pandas.concat([own, held_out[~held_out.data.isin(tested)]])
    ood = whole[(whole.role == "ood") & (whole.split == "inner")]
    table = own.groupby(key, sort=False).accuracy.mean().rename("id").to_frame()
    table["ood"] = ood.groupby(key, sort=False).accuracy.mean()
    table["worst"] = ood.groupby(key, sort=False).accuracy.min()
    return table.reset_index()


def selected(accuracies: DataFrame, checkpoints: DataFrame, selection: Selection) -> DataFrame:
    """Return the checkpoint of each trial that a selection takes, for every method.

    Args:
        accuracies: the accuracies of all parts.
        checkpoints: ID and OOD accuracy of every checkpoint.
        selection: how to select; methods that are not trained without each domain are selected by
            training-domain validation instead of leave-one-domain-out.

    Source: App. E.4.
    """
    key = ["data", "method", "trial", "draw", "step"]
    trained_again = (accuracies.left_out != NO_DOMAIN).any()
    # A training without a domain counts only where the one with all domains did not diverge.
    accuracies = accuracies.merge(checkpoints[key], on=key)
    chosen = []
    for (data, method), rows in accuracies.groupby(["data", "method"], sort=False):
        again = trained_again and rows.kind.iloc[0] in TRAINED_AGAIN
        by: Selection = selection if again or selection == "oracle" else "training-domain"
        try:
            picks = select(rows, by)
        except ValueError:  # in every draw, a training without a domain diverged
            continue
        chosen.append(picks.assign(data=data, method=method))
    return checkpoints.merge(pandas.concat(chosen), on=key, how="inner")


def comparison(results: BaselineResults) -> DataFrame:
    """Return the table of a comparison: one row for each data set and method.

    Args:
        results: the results of a run.

    Returns:
        `data`, `method`, `kind`, `uses`, `trials` (the number of those in which the method was not
        left out); the mean over these trials of every measure and, with `_error`, its standard
        error; and `difference`, the mean difference to ERM's OOD accuracy,
        with the ends `low` and `high` of its 95 % interval (paired, Student's t), `p`, and
        `p_holm`, adjusted for the number of methods.

    Source: ours, since baselines differ by less than their trials do.
    """
    rows = []
    for data, table in results.networks.groupby("data", sort=False):
        base = results.of(data, ERM)
        compared = []
        for method, mine in table.groupby("method", sort=False):
            row = {"data": data, "method": method, "kind": mine.kind.iloc[0]}
            row |= {"uses": mine.uses.iloc[0], "trials": len(mine)}
            for name in MEASURES:
                if name in mine:
                    row[name], row[f"{name}_error"] = mine[name].mean(), mine[name].sem()
            ood = results.of(data, method).reindex(base.index)
            difference = paired_difference(ood.to_numpy(), base.to_numpy())
            row |= {"difference": difference.value, "low": difference.low,
                    "high": difference.high, "p": difference.p}  # fmt: skip
            compared.append(row)
        p = np.array([np.nan if row["method"] == ERM else row["p"] for row in compared])
        for row, value, adjusted in zip(compared, p, holm(p), strict=True):
            rows.append(row | {"p": value, "p_holm": adjusted})
    return pandas.DataFrame(rows)


def rank_table(results: BaselineResults) -> tuple[DataFrame, RankComparison]:
    """Rank the methods that use the training domains alone, over all data sets and trials.

    Args:
        results: the results of a run.

    Returns:
        Scores (blocks by methods), and their comparison.

    Raises:
        ValueError: there are fewer than three methods or two blocks.

    Source: ours, methods are compared by ranks over trials, since accuracies of data sets differ.
    """
    alone = results.networks[results.networks.uses == ""]
    scores = alone.pivot_table(index=["data", "trial"], columns="method", values="ood", sort=False)
    scores = scores.dropna(axis=1)
    return scores, compare_ranks(scores.to_numpy())


def by_selection(results: BaselineResults) -> DataFrame:
    """Return the OOD accuracy of every method under each selection that the run allows.

    Args:
        results: the results of a run.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021).
    """
    tables = []
    for selection in SELECTIONS:
        accuracies = results.accuracies
        if selection == "leave-one-out":
            if not results.config.leave_one_out:
                continue
            with_left_out = accuracies[accuracies.left_out != NO_DOMAIN].method.unique()
            accuracies = accuracies[accuracies.method.isin(with_left_out)]
        tables.append(
            selected(accuracies, results.checkpoints, selection).assign(selection=selection)
        )
    return pandas.concat(tables, ignore_index=True)
