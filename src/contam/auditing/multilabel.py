"""Audits of a network with several labels for each example: one audit for each label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from contam.atomic_files import write_atomically
from contam.auditing.api import ProgressReport, audit
from contam.auditing.fail_rules import FailRules, RuleCheck
from contam.auditing.junit import junit
from contam.auditing.records import Score
from contam.auditing.result import Audit
from contam.experiment import Stage
from contam.inputs import as_batches
from contam.inputs.forms import Options, named_sets
from contam.inputs.multilabel_sets import MultilabelSet, read_multilabel
from contam.inputs.parts import some_of
from contam.inputs.pixel_range import Transform
from contam.inputs.table_files import ImageTable, table_of
from contam.measures.robustness import Line
from contam.models.black_box import BlackBox
from contam.models.find_network import FoundNetwork, find_network
from contam.models.logits_adapter import LogitsAdapter
from contam.models.preserve import evaluating

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class MultilabelAudit:
    """The audits of a network by label."""

    audits: dict[str, Audit]
    left_out: tuple[str, ...] = ()
    """Labels that were not audited and why, one sentence each."""

    def summary(self) -> "pd.DataFrame":
        """Return a table with a row for each label and set.

        Returns:
            Columns `label`, `verdict`, `data`, `accuracy`, `sensitivity` (accuracy on examples with
            the label), `specificity` (on those without it), `with_label` (their number) and `n`.
        """
        import pandas as pd

        rows = []
        for label, result in self.audits.items():
            for scores in result.evidence.sets:
                without, having = (scores.by_class.get(name) for name in _names(label))
                rows.append({
                    "label": label, "verdict": result.verdict.cause, "data": scores.name,
                    "accuracy": scores.overall.accuracy.value, "sensitivity": _value(having),
                    "specificity": _value(without), "with_label": having.count if having else 0,
                    "n": scores.overall.count,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        table = self.summary().to_string(index=False, float_format=lambda x: f"{x:.3f}")
        return "\n".join([table, *self.left_out])

    def check(self, rules: FailRules) -> tuple[RuleCheck, ...]:
        """Return the results of rules, for each label.

        Args:
            rules: the rules.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        return tuple(check for result in self.audits.values() for check in result.check(rules))

    def markdown(self, rules: FailRules | None = None) -> str:
        """Return the summaries of all labels.

        Args:
            rules: rules whose results they show.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        return "\n".join(result.markdown(rules) for result in self.audits.values())

    def junit(self, rules: FailRules | None = None) -> str:
        """Return JUnit XML with a test suite for each label.

        Args:
            rules: rules that fail test cases; without any, all pass.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        return junit([one.junit_suite(rules or FailRules()) for one in self.audits.values()])

    def log(self, to: Any, *, run_id: str | None = None, prefix: str = "contam") -> None:
        """Log the audit of each label under `PREFIX/LABEL`.

        Args:
            to: as for `Audit.log`.
            run_id: as for `Audit.log`.
            prefix: first part of every name.

        Raises:
            ValueError: `to` is of another kind, or the run of a client is missing.
        """
        for label, result in self.audits.items():
            name = f"{prefix}/{label.replace('/', '_')}"
            result.log(to, run_id=run_id, prefix=name)

    def save(self, folder: str | Path) -> Path:
        """Write the summary, and the record and page of each audit in a folder of its own.

        Args:
            folder: where the files are written; label number k is in `k-LABEL`.

        Raises:
            ValueError: the folder can't be written.
        """
        folder = Path(folder)
        for number, (label, result) in enumerate(self.audits.items()):
            plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in label)
            place = result.save(folder / f"{number:02}-{plain}"[:100])
            result.report(place / "audit.html")
        write_atomically(folder / SUMMARY, self.summary().to_csv(index=False).encode())
        return folder


def audit_multilabel(
    model: Any,
    *,
    id: Any,
    ood: Mapping[str, Any] | Any = None,
    labels: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    name: str | None = None,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    keys: Mapping[str, str] | None = None,
    domain: str | int | None = None,
    layers: str | Sequence[str] = "auto",
    background: Any = None,
    masks: Any = None,
    baseline: str | Path | Mapping[str, Line] | None = None,
    budget: int | None = None,
    reference: Any = "auto",
    untrained: bool = True,
    altered: bool = True,
    remedies: bool = True,
    quick: bool = False,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    progress: bool | ProgressReport = True,
    seed: int = 0,
) -> MultilabelAudit:
    """Audit a network with one logit for each of several labels, label by label.

    Each audit is one of two classes, without and with the label, at a threshold of logit 0. Labels
    that all ID examples have, or that none has, are left out. Data other than tables are read into
    memory once; tables and network are read for each label.

    Args:
        model: as for `audit`; its output number k is the logit of label k.
        id: ID data: a pair (x, y) or batches with y (n, labels) of 0 and 1, a loader or a dataset
            of them, or an `ImageTable` whose `label` lists the columns of labels.
        ood: one such set, or a dict of them by name.
        labels: names of all labels in the order of the logits; by default the columns of the table,
            or numbers. For a table that names no column of labels, these are its columns.
        only: names of the labels to audit; by default all.
        name: name of the model on the pages.
        weights: as for `audit`.
        transform: as for `audit`.
        keys: as for `audit`.
        domain: as for `audit`.
        layers: as for `audit`.
        background: as for `audit`.
        masks: as for `audit`.
        baseline: as for `audit`.
        budget: as for `audit`.
        reference: as for `audit`.
        untrained: as for `audit`.
        altered: as for `audit`.
        remedies: as for `audit`.
        quick: as for `audit`.
        device: as for `audit`.
        batch_size: as for `audit`.
        workers: as for `audit`.
        progress: whether to show a progress bar for each label, or a function that is called with
            each `Stage` of the work on all labels.
        seed: as for `audit`.

    Returns:
        The audits by label.

    Raises:
        ValueError: the labels are not rows of 0 and 1, or an argument does not fit.

    Source: ours, because medical images and attributes have several labels for each image.

    >>> x = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> y = (x[:, :2] > 0.5).int()
    >>> result = audit_multilabel(model, id=(x, y), labels=["wet", "cold"], progress=False)
    >>> list(result.audits), len(result.summary())
    (['wet', 'cold'], 2)
    """
    network = model if isinstance(model, FoundNetwork) else find_network(model, weights, transform)
    options = Options(network.transform, keys=keys or {}, workers=workers)
    sets = {"ID": id} | _named(ood)
    read: dict[str, MultilabelSet | ImageTable] = {}
    for key, data in sets.items():
        table = table_of(data)
        read[key] = read_multilabel(key, data, options) if table is None else table
    known = _label_names(labels, read["ID"])
    chosen = known if only is None else _chosen(only, known)
    _check_width(network, read["ID"], known, chosen[0], keys or {})
    audits, left_out = {}, []
    for count, label in enumerate(chosen):
        number = known.index(label)
        ones = {key: _of_label(data, number, known, key) for key, data in read.items()}
        values = {key: _values(data, label, keys or {}) for key, data in ones.items()}["ID"]
        if len(values) == 1:
            which = "all" if values == {1} else "none"
            left_out.append(f"Label {label!r} is not audited: {which} of the ID examples has it.")
            continue
        own = replace(
            network, model=_with_one_logit(network.model, number),
            name=f"{name or network.name}: {label}",
        )  # fmt: skip
        audits[label] = audit(
            own, id=ones.pop("ID"), ood=ones or None, weights=weights, classes=_names(label),
            keys=keys, domain=domain, layers=layers, background=background, masks=masks,
            baseline=baseline, budget=budget, reference=reference, untrained=untrained,
            altered=altered, remedies=remedies, quick=quick, device=device, batch_size=batch_size,
            workers=workers, progress=_share(progress, label, count, len(chosen)), seed=seed,
        )  # fmt: skip
    return MultilabelAudit(audits, tuple(left_out))


def _names(label: str) -> tuple[str, str]:
    """Names of the two classes of a label."""
    return f"not {label}", label


def _share(
    progress: bool | ProgressReport, label: str, count: int, labels: int
) -> bool | ProgressReport:
    """The function that reports the progress of one label as a share of all."""
    if isinstance(progress, bool):
        return progress
    return lambda stage: progress(
        Stage((count + stage.done) / labels, f"{label}: {stage.doing}"),
    )


def _values(data: Any, label: str, keys: Mapping[str, str]) -> set[int]:
    """The different values of a label.

    Raises:
        ValueError: a value is neither 0 nor 1.
    """
    labels = data.rows(keys).y if isinstance(data, ImageTable) else data[1]
    values: set[Any] = set(labels.tolist() if isinstance(labels, Tensor) else labels)
    if not values <= {0, 1}:
        raise ValueError(
            f"label {label!r} has the values {some_of(sorted(map(str, values)))}; expected 0 "
            "(without) and 1 (with), or an empty cell where it is unknown"
        )
    return values


def _value(score: Score | None) -> float | None:
    return None if score is None else score.accuracy.value


def _named(ood: Any) -> dict[str, Any]:
    """OOD sets by name.

    Raises:
        ValueError: two sets have the same name.
    """
    sets: dict[str, Any] = {}
    pairs = named_sets(ood)
    for number, (name, data) in enumerate(pairs, 1):
        table = table_of(data)
        own = ("OOD" if len(pairs) == 1 else f"OOD {number}") if table is None else table.name
        key = name or own
        if key == "ID" or key in sets:
            raise ValueError(f"two sets are named {key!r}; give ood= as a dict with other names")
        sets[key] = data
    return sets


def _chosen(only: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    if not only:
        raise ValueError("only= has no label; give one or leave it out")
    unknown = [label for label in only if label not in known]
    if unknown:
        raise ValueError(f"only= has {unknown[0]!r}, which is none of the labels {list(known)[:8]}")
    return only


def _label_names(labels: Sequence[str] | None, data: MultilabelSet | ImageTable) -> list[str]:
    if isinstance(data, ImageTable):
        columns = data.label
        if columns is None and labels is not None:
            columns = list(labels)
        if isinstance(columns, str) or not columns:
            raise ValueError(
                "a table with several labels needs their columns; give label= of ImageTable, or "
                "labels="
            )
        if labels is not None and list(labels) != list(columns):
            raise ValueError("a table names its labels by its columns; leave out labels=")
        width = len(columns)
        names = list(columns)
    else:
        width = data.y.shape[1]
        names = [str(k) for k in range(width)] if labels is None else list(map(str, labels))
    if len(names) != width:
        raise ValueError(f"labels= has {len(names)} names for {width} labels; give one for each")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"labels= has {twice!r} twice; give one name for each label")
    return names


def _check_width(
    network: FoundNetwork, data: MultilabelSet | ImageTable, known: Sequence[str], label: str,
    keys: Mapping[str, str],
) -> None:  # fmt: skip
    """Raise unless the network gives one logit for each label."""
    import pandas as pd

    if isinstance(data, ImageTable):
        rows = replace(data, label=label).rows(keys)
        first = ImageTable(pd.DataFrame({"path": map(str, rows.files[:1]), "label": 0}))
        x = next(as_batches(first, 1, transform=network.transform)).x
    else:
        x = data.x[:2]
    device = next((value.device for value in network.model.parameters()), torch.device("cpu"))
    with evaluating(network.model), torch.no_grad():
        width = LogitsAdapter(network.model)(x.to(device)).shape[1]
    if width != len(known):
        raise ValueError(
            f"the network gives {width} logits, and there are {len(known)} labels; expected one "
            "logit for each"
        )


def _with_one_logit(model: nn.Module, number: int) -> nn.Module:
    """The network with the logit of one label as its only output."""
    if isinstance(model, BlackBox):
        whole = LogitsAdapter(model)
        return BlackBox(lambda x: whole(x)[:, [number]], model.name)
    return LogitsAdapter(model, classes=[number])


def _of_label(data: MultilabelSet | ImageTable, number: int, known: Sequence[str], key: str) -> Any:
    """The set with one label for each example."""
    if isinstance(data, ImageTable):
        return replace(data, label=known[number])
    if data.y.shape[1] != len(known):
        raise ValueError(
            f"{key!r} has {data.y.shape[1]} labels for each example, and there are {len(known)}"
        )
    columns = (data.x, data.y[:, number])
    return columns if data.domain is None else (*columns, data.domain)
