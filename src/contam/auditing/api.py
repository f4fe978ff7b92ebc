"""The way into an audit: everything is read, asked and judged from here."""

import dataclasses
import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.baseline import find_lines
from contam.auditing.causes import causes
from contam.auditing.layers import LayerEvidence, look_inside
from contam.auditing.panels import panels
from contam.auditing.prepare import Prepared, prepare
from contam.auditing.records import AuditRecord, Example
from contam.auditing.result import Audit
from contam.auditing.verdict import verdict
from contam.experiment import Stage
from contam.inputs.pixel_range import Transform
from contam.measures.robustness import Line
from contam.models.preserve import preserve_model

Found = TypeVar("Found")


def audit(
    model: Any,
    *,
    id: Any,
    ood: Any = None,
    layers: str | Sequence[str] = "auto",
    background: Any = None,
    masks: Any = None,
    baseline: str | Path | Mapping[str, Line] | None = None,
    budget: int | None = None,
    reference: Any = "auto",
    untrained: bool | nn.Module = True,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Audit:
    """Look for the reason why a classifier fails on shifted data; the network stays as it was.

    `model` is a module that returns logits (a tensor, `.logits`, a tuple or a dict of them), a name
    such as `timm:resnet50` with `weights`, or None where `id` and `ood` hold features.

    `id` is data like those of training that the network did not see, `ood` shifted data: one set, a
    list, or a dict by name. A set is a folder `class/image` (or `domain/class/image`), a
    DataLoader, a Dataset, a Hugging Face dataset, a `Domain`, a `Shift`, a pair of tensors (x, y)
    or batches of (x, y), (x, y, domain) or dicts. Without `ood` less is known, and it is said what.

    `background` and `masks` belong to the ID set, or are dicts by set: labels of backgrounds, and
    shares of pixels that the object covers (n, 1, height, width), or a folder with each picture's
    mask under its own path. `baseline` holds accuracies of standard models, `reference` an encoder
    by name, `(name, weights)` or as a module. `budget` is how many examples of a set are looked
    at. `untrained` is the control: drawn anew, none, or a module. `transform` makes a tensor of an
    image, `classes` names the logits, `keys` the parts of dicts, as in `{"x": "scan"}`.

    Source: ours, the evidence and the verdict of the audit.

    Raises:
        ValueError: in one line, what does not fit and what to try.
    """
    steps = auditing(
        model, id=id, ood=ood, layers=layers, background=background, masks=masks,
        baseline=baseline, budget=budget, reference=reference, untrained=untrained,
        weights=weights, transform=transform, classes=classes, keys=keys, device=device, seed=seed,
    )  # fmt: skip
    return _shown(steps) if progress else _finished(steps)


def auditing(
    model: Any,
    *,
    baseline: str | Path | Mapping[str, Line] | None = None,
    untrained: bool | nn.Module = True,
    seed: int = 0,
    **given: Any,
) -> Generator[Stage, None, Audit]:
    """As `audit`, but yields how far it is and returns the audit.

    Whoever stops iterating has the network back as it was.

    Raises:
        ValueError: as for `audit`.
    """
    started = time.monotonic()
    known = (model, untrained, given.get("reference"))
    modules = [each for each in known if isinstance(each, nn.Module)]
    with preserve_model(*modules):
        yield Stage(0.0, "reading the data")
        ready = prepare(model, control=untrained, seed=seed, **given)
        lines, said = find_lines(
            baseline, [each.name for each in ready.subject.ood], id_name=ready.subject.id.name,
            classes=len(ready.subject.classes),
        )  # fmt: skip
        notes = [*ready.notes, *said]
        found = yield from _patient(
            lambda subject: causes(subject, batch_size=subject.batch_size, lines=lines),
            ready.subject, 0.1, 0.5, "asking for causes",
        )  # fmt: skip
        inside, examples, unseen = LayerEvidence(), (), ()
        try:
            inside = yield from _patient(
                look_inside, ready.subject, 0.5, 0.9, "looking into the layers"
            )
            examples, unseen = yield from _patient(
                lambda subject: _examples(subject, inside), ready.subject, 0.9, 1.0,
                "choosing examples",
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())[:300]
            notes.append(f"What happens in the layers is not all there: {told}.")
        judged = verdict(
            found.sets, head=found.head, oracles=found.oracles,
            background_only=found.background_only, background_label=found.background_label,
        )  # fmt: skip
        record = AuditRecord(
            contam=version("contam"),
            model=ready.subject.name,
            classes=ready.subject.classes,
            verdict=judged,
            sets=found.sets,
            layers=inside.layers,
            neurons=inside.neurons,
            plane=inside.plane,
            head=found.head,
            oracles=found.oracles,
            background_only=found.background_only,
            background_label=found.background_label,
            examples=examples,
            left_out=tuple(dict.fromkeys([*notes, *found.left_out, *inside.left_out, *unseen])),
            provenance=_provenance(ready, seed, time.monotonic() - started),
        )
        return Audit(record)


def _examples(
    subject: AuditInputs, inside: LayerEvidence
) -> Generator[float, None, tuple[tuple[Example, ...], tuple[str, ...]]]:
    yield 0.0
    return panels(subject, inside)


def _patient(
    evidence: Callable[[AuditInputs], Generator[float, None, Found]],
    subject: AuditInputs,
    begin: float,
    end: float,
    doing: str,
) -> Generator[Stage, None, Found]:
    """Take evidence between two shares of the whole; where memory runs out, in smaller batches."""
    while True:
        try:
            steps = evidence(subject)
            yield Stage(begin, doing)
            while True:
                try:
                    share = next(steps)
                except StopIteration as finished:
                    return finished.value
                yield Stage(begin + (end - begin) * min(max(share, 0.0), 1.0), doing)
        except torch.OutOfMemoryError:
            if subject.batch_size == 1:
                raise ValueError(
                    "memory runs out on a single example; use a machine with more, or smaller "
                    "inputs"
                ) from None
            subject = dataclasses.replace(subject, batch_size=subject.batch_size // 2)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def _provenance(ready: Prepared, seed: int, seconds: float) -> dict[str, str]:
    """Of what and by what these numbers were made."""
    versions = {name: version(name) for name in ("contam", "torch", "numpy", "scikit-learn")}
    place = next((p.device for p in ready.subject.model.parameters()), torch.device("cpu"))
    device = torch.cuda.get_device_name(place) if place.type == "cuda" else str(place)
    return ready.provenance | versions | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": str(torch.get_num_threads()),
        "seed": str(seed),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": f"{seconds:.1f}",
    }  # fmt: skip


def _finished(steps: Generator[Stage, None, Found]) -> Found:
    """What comes at the end."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def _shown(steps: Generator[Stage, None, Found]) -> Found:
    """The same behind a bar on standard error, which goes away."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:25}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("audit", total=1.0)
        while True:
            try:
                stage = next(steps)
            except StopIteration as finished:
                return finished.value
            bars.update(bar, completed=stage.done, description=stage.doing)
