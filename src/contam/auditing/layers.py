"""What happens inside a network under audit, layer by layer and neuron by neuron."""

import math
from collections.abc import Generator, Iterator, Sequence

import torch
from torch import nn

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.changes import STRENGTHS, altered, changes_of, is_picture
from contam.auditing.layer_evidence import BOUNDS, Bounds, LayerEvidence
from contam.auditing.layer_probes import (
    Points,
    domains_of,
    guessing,
    plane,
    read_classes,
    read_domains,
    split,
)
from contam.auditing.layer_records import Notes
from contam.auditing.neurons import Rows, rows_of, table_of
from contam.auditing.progress import finished, scaled
from contam.auditing.records import Interval
from contam.auditing.single_pass import Look, Table, balanced, looking, picked, running_layers
from contam.batch import Batch, Domain
from contam.measures.attenuation import attenuation_across_domains, class_profile_attenuation
from contam.measures.intervals import Estimate

ACROSS = "across domains"
"""The key of the untrained network's attenuation from one ID domain to the others."""
UNTRAINED = "untrained"
"""The key of the untrained network in tables by data set."""


def look_inside(
    subject: AuditInputs, bounds: Bounds = BOUNDS
) -> Generator[float, None, LayerEvidence]:
    """Evidence by layer and by neuron; yields the share that is done and returns what was found.

    One pass over each data set serves all; readers, changed pictures and the untrained network see
    as many examples as `bounds` says. What can't be had is left out, with a sentence each.

    Source: ours, the measures of both papers on a user's own network.
    """
    study = _Study(subject, bounds)
    if not study.layers:
        study.notes.left_out.append(
            "No layer is looked at: the network has no activation that can be observed; name "
            "layers with layers=."
        )
    # Roughly how long each takes.
    stages = {0.4: study.look, 0.2: study.look_untrained, 0.25: study.change, 0.15: study.read}
    begin = 0.0
    for size, stage in stages.items():
        for done in stage():
            yield begin + size * done
        begin += size
    return study.result()


class _Study:
    """One stage of looking after the other, with what they hand on."""

    def __init__(self, subject: AuditInputs, bounds: Bounds) -> None:
        self.subject, self.bounds = subject, bounds
        self.notes = Notes()
        self.layers = subject.layers or running_layers(subject.model, subject.id)
        self.to_read = _spaced(self.layers, bounds.read)
        self.rows: list[Rows] = []
        self.controls: dict[str, Look] = {}
        self.found = LayerEvidence()

    @property
    def sets(self) -> tuple[Sample, ...]:
        return self.subject.id, *self.subject.ood

    def look(self) -> Iterator[float]:
        """One pass over each data set."""
        subject, sets = self.subject, self.sets
        fitted, asked = self._room()
        pooled: dict[str, Table] = {}
        for place, sample in enumerate(sets):
            own = sample is subject.id
            keep = balanced(
                sample.domain.y, fitted + asked if own else asked, seed=subject.seed,
                purpose="audit/read",
            )  # fmt: skip
            look = yield from self._pass(
                subject.model, sample, (place, len(sets)), keep, by_domain=own
            )
            self.notes.left_out += look.left_out
            self.notes.name_missing_classes(look, sample.name, subject.classes)
            self.found.looks[sample.name] = look
            for layer in look.tables:
                self.notes.describe(look, layer, sample.name)
                self._compare(look, layer, sample.name)
                if not own:
                    _pool(pooled, layer, look.tables[layer])
            if not own:
                look.tables = {}
        own_look = self.found.looks[subject.id.name]
        for layer, table in own_look.tables.items():
            self.rows.append(rows_of(layer, table, pooled.get(layer)))
        if subject.ood:
            own_look.tables = {}

    def look_untrained(self) -> Iterator[float]:
        """The same with the untrained network, on some examples of each data set."""
        subject, sets = self.subject, self.sets
        if subject.untrained is None:
            self.notes.left_out.append(
                "No number has a control, for there is no untrained network of this kind; give "
                "one with untrained=."
            )
            return
        for place, sample in enumerate(sets):
            # Of the readers' examples, so that both networks are read on the same ones.
            kept = self.found.looks[sample.name].kept
            y = sample.domain.y.cpu()[kept]
            some = balanced(y, self.bounds.control, seed=subject.seed, purpose="audit/control")
            few, own = picked(sample, kept[some]), sample is subject.id
            everything = torch.arange(len(some))
            look = yield from self._pass(
                subject.untrained, few, (place, len(sets)), everything, by_domain=own
            )
            self.notes.left_out += [f"Of the untrained network: {line}" for line in look.left_out]
            self.controls[sample.name] = look
            for layer in look.tables:
                if own and layer in self.notes.layers:
                    self.notes.describe(look, layer, UNTRAINED)
                self._compare(look, layer, sample.name, control=True)
            if not own:
                look.tables = {}
        self.controls[subject.id.name].tables = {}

    def change(self) -> Iterator[float]:
        """Both networks on ID pictures whose backgrounds or styles are changed."""
        subject, notes, found = self.subject, self.notes, self.found
        y = subject.id.domain.y.cpu()
        found.picked = balanced(y, self.bounds.altered, seed=subject.seed, purpose="audit/changes")
        sample = picked(subject.id, found.picked)
        parts = sample.domain.batches(subject.batch_size)
        batch = Batch(*(torch.cat(each) for each in zip(*parts, strict=True)))
        if not is_picture(batch.x):
            notes.left_out.append(
                "Backgrounds are not changed: the inputs are no pictures of one or three channels."
            )
            return
        found.shown = Sample(sample.name, Domain(sample.name, batch), sample.masks)
        names = changes_of(batch.x, masked=sample.masks is not None)
        if sample.masks is None:
            notes.left_out.append(
                "Backgrounds are not changed alone, for there are no masks of the objects: the "
                "style of whole pictures is. Give masks= to change backgrounds."
            )
        grown = [(name, strength) for name in names for strength in STRENGTHS]
        ends = [(name, STRENGTHS[-1]) for name in names]
        total = 1 + len(grown) + (0 if subject.untrained is None else 1 + len(ends))
        place, pooled = 0, dict[str, Table]()
        networks = ((subject.model, grown, False), (subject.untrained, ends, True))
        for model, steps, control in networks:
            if model is None:
                continue
            plain = yield from self._pass(model, found.shown, (place, total))
            place += 1
            for name, strength in steps:
                x = altered(batch.x, sample.masks, name, strength, seed=subject.seed)
                told = f"{name} {strength:g}"
                shown = Sample(told, Domain(told, batch._replace(x=x)))
                look = yield from self._pass(model, shown, (place, total))
                place += 1
                for layer in [layer for layer in look.tables if layer in plain.tables]:
                    value = _interval(
                        class_profile_attenuation(
                            plain.tables[layer].means, look.tables[layer].means, paired=True
                        )
                    )
                    kind = "untrained_attenuation" if control else "counterfactual"
                    notes.put(layer, kind, told, value)
                    if value is None:
                        notes.missing(f"attenuation under changes in {_who(control)}", layer)
                    if strength == STRENGTHS[-1] and not control:
                        _pool(pooled, layer, look.tables[layer])
                look.tables = {}
                if strength == STRENGTHS[-1] and not control:
                    found.altered[name] = look
            if not control and not subject.ood:
                self._rank_by_changes(plain, pooled)

    def read(self) -> Iterator[float]:
        """What readers find in what was kept."""
        subject, bounds, notes = self.subject, self.bounds, self.notes
        first = subject.id.name
        own = {name: Points.of(look) for name, look in self.found.looks.items()}
        drawn = {name: Points.of(look) for name, look in self.controls.items()}
        done = 0.0
        for points, control in ((own, False), (drawn, True)):
            if first not in points:
                continue
            fitted, asked = split(points[first], bounds.queries, seed=subject.seed)
            others = {name: each for name, each in points.items() if name != first}
            readings = yield from scaled(
                read_classes(
                    fitted, {UNTRAINED: asked} if control else {first: asked} | others,
                    classes=len(subject.classes), per_class=bounds.per_class, seed=subject.seed,
                ),
                done, 0.3,
            )  # fmt: skip
            notes.left_out += [] if control else readings.left_out
            for kind in ("probe", "decided", "information"):
                for layer, values in getattr(readings, kind).items():
                    for key, value in values.items():
                        notes.put(layer, kind, key, value)
            domain = domains_of(points)
            for layer in _in_all(points, self.to_read):
                if domain is None:
                    break
                values = torch.cat([each.features[layer] for each in points.values()])
                error = read_domains(values, domain, seed=subject.seed)
                notes.put_alone(layer, "untrained_domain_error" if control else "domain_error",
                                error)  # fmt: skip
                notes.put_alone(layer, "domain_chance", guessing(domain))
            done += 0.45
            yield done
        shared = _in_all(own, self.to_read)
        if shared:
            self.found.plane = plane(shared[-1], own, subject.classes, subject.domains)
        yield 1.0

    def result(self) -> LayerEvidence:
        """All that was found, as records."""
        self.notes.say_chance()
        self.found.layers = self.notes.records(self.layers)
        most, classes = self.bounds.neurons, self.subject.classes
        self.found.neurons = table_of(self.rows, classes, most=most)
        self.found.left_out = tuple(dict.fromkeys(self.notes.left_out))
        return self.found

    def _pass(
        self,
        model: nn.Module,
        sample: Sample,
        part: tuple[int, int],
        keep: torch.Tensor | None = None,
        *,
        by_domain: bool = False,
    ) -> Generator[float, None, Look]:
        """One pass; `part` is its number, and how many its stage has."""
        place, total = part
        steps = looking(
            model, sample, self.layers, classes=len(self.subject.classes), keep=keep,
            keep_in=self.to_read, by_domain=by_domain, batch_size=self.subject.batch_size,
        )  # fmt: skip
        return (yield from scaled(steps, place / total, 1 / total))

    def _compare(self, look: Look, layer: str, name: str, *, control: bool = False) -> None:
        """Note what is lost from the ID set to this one, or from one ID domain to the others."""
        first = self.subject.id.name
        own = (self.controls if control else self.found.looks)[first]
        if layer not in own.tables or (name == first and len(look.counts) < 2):
            return
        means = look.tables[layer].means
        lost_here = _interval(
            attenuation_across_domains(means)
            if name == first
            else class_profile_attenuation(own.tables[layer].means, means)
        )
        if lost_here is None:
            what = "ID domains" if name == first else name
            self.notes.missing(f"attenuation on {what} in {_who(control)}", layer)
        elif control:
            key = ACROSS if name == first else name
            self.notes.put(layer, "untrained_attenuation", key, lost_here)
        elif name == first:
            self.notes.put_alone(layer, "across_domains", lost_here)
        else:
            self.notes.put(layer, "attenuation", name, lost_here)

    def _rank_by_changes(self, plain: Look, pooled: dict[str, Table]) -> None:
        """Without OOD data, the neurons' losses are those under changes at full strength."""
        own = self.found.looks[self.subject.id.name]
        self.rows = [
            rows_of(layer, own.tables[layer], pooled[layer], baseline=plain.tables[layer].means)
            for layer in own.tables
            if layer in pooled
        ]
        own.tables = {}

    def _room(self) -> tuple[int, int]:
        """How many ID examples to fit to and how many of each set to judge on fit in memory."""
        few = picked(self.subject.id, torch.arange(min(2, len(self.subject.id))))
        classes = len(self.subject.classes)
        look = finished(looking(self.subject.model, few, self.to_read, classes=classes))
        width = 1 + sum(table.neurons for table in look.tables.values())
        wanted = self.bounds.fitted + self.bounds.queries * len(self.sets)
        scale = min(1.0, self.bounds.numbers / (width * wanted))
        return max(20, int(scale * self.bounds.fitted)), max(20, int(scale * self.bounds.queries))


def _interval(estimate: Estimate) -> Interval | None:
    """Return the record of an estimate, or None if it or its interval is undefined."""
    if not math.isfinite(estimate.low + estimate.high):
        return None
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def _pool(pooled: dict[str, Table], layer: str, table: Table) -> None:
    pooled[layer] = pooled[layer].merge(table.pooled()) if layer in pooled else table.pooled()


def _who(control: bool) -> str:
    return "the untrained network" if control else "the network"


def _in_all(data: dict[str, Points], layers: Sequence[str]) -> list[str]:
    return [layer for layer in layers if all(layer in each.features for each in data.values())]


def _spaced(layers: tuple[str, ...], most: int) -> tuple[str, ...]:
    """At most so many layers, evenly spaced, with the last."""
    places = torch.linspace(len(layers) - 1, 0, min(most, len(layers))).round().long()
    return tuple(layers[k] for k in sorted(set(places.tolist())))
