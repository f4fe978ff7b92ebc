"""Repairs of the audited network with their measured effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor, nn

from contam.auditing.head_probes import too_few_per_class
from contam.auditing.intervals import points
from contam.auditing.passes import Passes
from contam.auditing.records import Interval, MeasuredRemedy
from contam.auditing.scores import share_correct
from contam.auditing.single_pass import balanced
from contam.batch import Batch
from contam.models.linear_head import head_of, with_head
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies import (
    REPAIRS,
    HeadRepair,
    Repair,
    RepairEffect,
    WeightInterpolation,
    cross_fit,
)
from contam.remedies.cross_fit import HeadCrossFit

FEWEST = 20
"""OOD examples for which repairs are measured, at least."""
MOST_IMAGES = 100
"""Images of each set for repairs that need images, at most: each costs several passes."""
TREATS = {
    "fresh head": "head",
    "last-layer retraining": "head",
    "group-balanced head": "background shortcut",
    "prior correction": "label shift",
    "batch-norm statistics": "corruption",
}
"""The cause that a repair treats, by its name; the others treat no single one."""


@dataclass(frozen=True, eq=False)
class RepairInputs:
    """What repairs of an audited network are fitted to and measured on.

    ID data come first; the others are keyed by OOD set.
    """

    network: LogitsAdapter
    classes: int
    head: str = ""
    """Name of the linear head; empty without one."""
    features: Mapping[str, Batch] = field(default_factory=dict)
    """What the head reads of every example, by set; ID first."""
    images: Mapping[str, Batch] = field(default_factory=dict)
    """Inputs of some examples, by set; ID first."""
    predicted: Mapping[str, Int[Tensor, " n"]] = field(default_factory=dict)
    """Predicted class of every example, by set."""
    rows: Mapping[str, Int[Tensor, " some"]] = field(default_factory=dict)
    """The examples whose inputs there are, by set."""
    same: Mapping[str, Int[Tensor, "pairs two"]] = field(default_factory=dict)
    """Rows of ID and OOD examples with the same content, by OOD set."""
    repairs: tuple[Repair, ...] = REPAIRS
    """The repairs to try."""
    seed: int = 0
    batch_size: int = 64

    @property
    def ood(self) -> tuple[str, ...]:
        """Names of the OOD sets."""
        return tuple(self.predicted)[1:]

    @property
    def own(self) -> str:
        """Name of the ID set."""
        return next(iter(self.predicted))

    def data(self, repair: Repair, on: str | None) -> tuple[Batch, Batch] | None:
        """Return the ID and OOD examples that a repair works on; None if they were not kept.

        Without the name of an OOD set, there are no OOD examples.
        """
        kept = self.features if isinstance(repair, HeadRepair) else self.images
        if self.own not in kept or (on is not None and on not in kept):
            return None
        own = kept[self.own]
        return own, own.pick(slice(0, 0)) if on is None else kept[on]

    @cached_property
    def head_fits(self) -> dict[str, HeadCrossFit]:
        """The measurement of each repair of the head, by its title; the same for all OOD sets."""
        if not self.head or self.own not in self.features:
            return {}
        head, own = head_of(self.network, self.head), self.features[self.own]
        return {
            repair.title: HeadCrossFit(repair, head, own, self.seed)
            for repair in self.repairs
            if isinstance(repair, HeadRepair)
        }

    def without_ood(self) -> tuple[str, ...]:
        """Return the titles of the repairs that fit the network and need no OOD data."""
        return tuple(repair.title for repair in self.repairs if not repair.uses_ood and
                     _fitting(self, repair, None) is not None)  # fmt: skip


def repair_inputs(passes: Passes) -> RepairInputs:
    """Collect what repairs need from the passes of an audit.

    Args:
        passes: results of `run_passes`.

    Source: ours, repairs see the ID set alone, since OOD labels are rare.
    """
    inputs = passes.inputs
    model = inputs.model
    network = model if isinstance(model, LogitsAdapter) else LogitsAdapter(model)
    name = "" if too_few_per_class(passes.id.y) else passes.head_name
    features, images, rows = {}, {}, {}
    for sample in (inputs.id, *inputs.ood):
        result = passes.sets[sample.name]
        group = result.domain if sample.background is None else sample.background
        if result.y.min() < 0:
            continue  # without labels
        if name and result.head is not None and result.head.isfinite().all():
            features[sample.name] = Batch(result.head, result.y, group[: len(result.y)])
        if sample.name in passes.images:
            kept = passes.images[sample.name]
            some = balanced(kept.y, MOST_IMAGES, seed=inputs.seed, purpose="audit/repaired")
            images[sample.name] = kept.pick(some)
            rows[sample.name] = passes.image_rows[sample.name][some]
    return RepairInputs(
        network, len(inputs.classes), name, features, images,
        predicted={key: result.predicted for key, result in passes.sets.items()},
        rows=rows,
        same={sample.name: _copies(passes.same_content(sample.name)) for sample in inputs.ood},
        repairs=REPAIRS if inputs.base is None else (*REPAIRS, WeightInterpolation(inputs.base)),
        seed=inputs.seed, batch_size=inputs.batch_size,
    )  # fmt: skip


def measure_repairs(
    inputs: RepairInputs,
) -> tuple[tuple[MeasuredRemedy, ...], tuple[str, ...]]:
    """Measure every repair that fits the network and the data, on every OOD set.

    Args:
        inputs: the network, its data, and the repairs to try.

    Returns:
        The repairs, those with the largest gain first in each OOD set; and a sentence about each
        repair that fits but failed.

    Source: ours, the effect of a repair on the user's own network.

    >>> from contam.remedies import FreshHead
    >>> y = torch.arange(40) % 2
    >>> batch, wrong = Batch(torch.eye(2)[y], y, torch.zeros_like(y)), 1 - y
    >>> inputs = RepairInputs(
    ...     LogitsAdapter(nn.Sequential(nn.Linear(2, 2))), classes=2, head="0",
    ...     features={"meadow": batch, "beach": batch}, predicted={"meadow": wrong, "beach": wrong},
    ...     repairs=(FreshHead(),))
    >>> remedies, left_out = measure_repairs(inputs)
    >>> remedies[0].name, remedies[0].gain.value
    ('fresh head', 1.0)
    """
    measured, left_out = [], []
    for on in inputs.ood:
        if len(inputs.predicted[on]) < FEWEST:
            continue
        rows = []
        for repair in inputs.repairs:
            try:
                effect = _effect(inputs, repair, on)
            except (ValueError, RuntimeError) as error:
                message = " ".join(str(error).split())[:200]
                left_out.append(f"The repair {repair.title!r} was not measured: {message}.")
                continue
            if effect is not None:
                pairs = len(inputs.same.get(on, ()))
                rows.append(_record(repair, on, effect, pairs=pairs))
        measured += sorted(rows, key=lambda row: -row.gain.value)
    return tuple(measured), tuple(dict.fromkeys(left_out))


def repaired(inputs: RepairInputs, name: str, on: str | None) -> nn.Module:
    """Return a repaired copy of the network, fitted to all examples that were kept.

    Args:
        inputs: the network and its data.
        name: title of the repair.
        on: name of the OOD set; None for a repair without OOD data.

    Returns:
        The copy; the audited network stays as it was.

    Source: ours, a repair that fails ends with its reason, and not the audit.

    Raises:
        ValueError: no such repair, or one that does not fit.

    >>> y = torch.arange(40) % 2
    >>> batch = Batch(torch.eye(2)[y], y, torch.zeros_like(y))
    >>> inputs = RepairInputs(
    ...     LogitsAdapter(nn.Sequential(nn.Linear(2, 2))), classes=2, head="0",
    ...     features={"meadow": batch}, predicted={"meadow": y})
    >>> repaired(inputs, "fresh head", on=None)(torch.eye(2)).argmax(dim=1)
    tensor([0, 1])
    """
    repair = next(repair for repair in inputs.repairs if repair.title == name)
    data = inputs.data(repair, on)
    if data is None:
        raise ValueError(f"{name!r} does not fit this network or its data")
    if isinstance(repair, HeadRepair):
        head = repair.fit_head(head_of(inputs.network, inputs.head), *data)
        return with_head(inputs.network, inputs.head, head).network
    own, other = data
    fitted = repair.fit(inputs.network, id=own, ood=other, batch_size=inputs.batch_size)
    return fitted.network


def _fitting(inputs: RepairInputs, repair: Repair, on: str | None) -> tuple[Batch, Batch] | None:
    """Return the ID and OOD examples that a repair works on; None if it does not fit.

    Args:
        inputs: the network and its data.
        repair: the repair.
        on: name of the OOD set; None for none.

    Source: ours, only repairs that have what they need are tried.

    Raises:
        ValueError: the given base weights do not fit the network.
    """
    data = inputs.data(repair, on)
    if data is None or ("linear head" in repair.needs and not inputs.head):
        return None
    reason = repair.applies(inputs.network, *data)
    if reason and "base" in repair.needs:
        raise ValueError(reason)
    return None if reason else data


def _effect(inputs: RepairInputs, repair: Repair, on: str) -> RepairEffect | None:
    """The effect of a repair; None if it does not fit."""
    data = _fitting(inputs, repair, on)
    if data is None:
        return None
    own, same = inputs.own, inputs.same.get(on)
    before = inputs.predicted[own], inputs.predicted[on]
    if isinstance(repair, HeadRepair):
        return inputs.head_fits[repair.title].effect(data[1], same=same, before=before)
    rows = inputs.rows[own], inputs.rows[on]
    if same is not None:
        same = _among(same, rows)
    return cross_fit(
        repair, inputs.network, *data, same=same, before=(before[0][rows[0]], before[1][rows[1]]),
        seed=inputs.seed, batch_size=inputs.batch_size,
    )  # fmt: skip


def _copies(pairs: Tensor) -> Tensor:
    """The pairs, unless few ID examples equal many OOD examples: those are not copies."""
    return pairs if 2 * len(pairs[:, 0].unique()) >= len(pairs) else pairs[:0]


def _among(pairs: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
    """The pairs of which both examples are among these rows, as positions in them."""
    columns = []
    for column, kept in zip(pairs.T, rows, strict=True):
        at = torch.searchsorted(kept, column.contiguous()).clamp(max=len(kept) - 1)
        columns.append(torch.where(kept[at] == column, at, -1))
    places = torch.stack(columns, dim=1)
    return places[(places >= 0).all(dim=1)]


def _record(repair: Repair, on: str, effect: RepairEffect, *, pairs: int) -> MeasuredRemedy:
    gain = effect.gain()
    shown = "1 OOD example shows" if pairs == 1 else f"{pairs} OOD examples show"
    note = f"{shown} the content of ID examples; both were kept in one half."
    return MeasuredRemedy(
        name=repair.title, on=on, cause=TREATS.get(repair.name, ""),
        id_before=share_correct(effect.id_before).accuracy,
        id_after=share_correct(effect.id_after).accuracy,
        ood_before=share_correct(effect.ood_before).accuracy,
        ood_after=share_correct(effect.ood_after).accuracy,
        gain=Interval(value=gain.value, low=gain.low, high=gain.high),
        labels=effect.labels, n=len(effect.ood_after), code=repair.code,
        note=note if pairs else "",
    )  # fmt: skip


def best_remedy(helps: Sequence[MeasuredRemedy]) -> MeasuredRemedy | None:
    """Return the remedy with the largest gain among those whose gain is beyond chance.

    Args:
        helps: measured remedies.

    Source: ours, since the largest of several gains is above zero by chance.

    >>> same, gain = Interval(value=0.5), Interval(value=0.4, low=-0.1, high=0.9)
    >>> best_remedy([MeasuredRemedy(
    ...     name="erasure", on="beach", id_before=same, id_after=same, ood_before=same,
    ...     ood_after=Interval(value=0.9), gain=gain, labels=0, n=10, code="")]) is None
    True
    """
    return next(iter(remedies_beyond_chance(helps)), None)


def remedies_beyond_chance(helps: Sequence[MeasuredRemedy]) -> list[MeasuredRemedy]:
    """Return the remedies whose gain is beyond chance, the largest gain first.

    Args:
        helps: measured remedies.

    Source: ours, gains within chance are no advice.

    >>> def row(name, gain, low):
    ...     same, value = Interval(value=0.5), Interval(value=gain, low=low, high=1.0)
    ...     return MeasuredRemedy(
    ...         name=name, on="beach", id_before=same, id_after=same, ood_before=same,
    ...         ood_after=Interval(value=0.5 + gain), gain=value, labels=0, n=100, code="")
    >>> rows = [row("head", 0.1, 0.02), row("erasure", 0.4, -0.1), row("statistics", 0.2, 0.1)]
    >>> [remedy.name for remedy in remedies_beyond_chance(rows)]
    ['statistics', 'head']
    """
    beyond = [row for row in helps if row.gain.low is not None and row.gain.low > 0]
    return sorted(beyond, key=lambda row: -row.gain.value)


def remedy_line(remedy: MeasuredRemedy) -> str:
    """Return a remedy with its effect in one line.

    Source: ours, one line for each remedy, with gain and interval.

    >>> before, after = Interval(value=0.5), Interval(value=0.75)
    >>> remedy_line(MeasuredRemedy(
    ...     name="fresh head", on="beach", id_before=before, id_after=after, ood_before=before,
    ...     ood_after=after, gain=Interval(value=0.25, low=0.1, high=0.4), labels=16, n=100,
    ...     code=""))
    'fresh head, OOD accuracy 0.500 -> 0.750 on beach (+25.0 [+10.0, +40.0] points, 16 OOD labels)'
    """
    labels = f", {remedy.labels} OOD labels" if remedy.labels else ""
    return (
        f"{remedy.name}, OOD accuracy {remedy.ood_before.value:.3f} -> "
        f"{remedy.ood_after.value:.3f} on {remedy.on} ({points(remedy.gain)}{labels})"
    )
