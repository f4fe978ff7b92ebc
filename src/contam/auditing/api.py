"""`contam.audit`: why a classifier fails on shifted data."""

import dataclasses
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from contam.auditing.arguments import check_arguments, check_reference
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.audited_layers import running_layers
from contam.auditing.baseline import find_lines
from contam.auditing.causes import CAUSES, Cause
from contam.auditing.causes.head import Head, head_evidence, head_on_id
from contam.auditing.causes.input_mismatch import InputMismatch
from contam.auditing.causes.undertrained import Undertrained
from contam.auditing.comparison import Comparison
from contam.auditing.example_images import example_images
from contam.auditing.label_order import label_order_notes
from contam.auditing.layers import LayerEvidence, layer_evidence
from contam.auditing.ledger import Explained, explain
from contam.auditing.logit_columns import Columns
from contam.auditing.passes import BUDGET, Budget, Passes, run_passes
from contam.auditing.prepare import prepare
from contam.auditing.records import (
    AuditRecord,
    CauseEvidence,
    Example,
    Ledger,
    MeasuredRemedy,
    SetScores,
    Step,
    UnlabeledScores,
)
from contam.auditing.reliance import reliance, relies
from contam.auditing.result import Audit
from contam.auditing.scores import set_scores
from contam.auditing.unlabeled import unlabeled_evidence
from contam.auditing.verdict import loses, verdict
from contam.auditing.what_helps import RepairInputs, measure_repairs, repair_inputs
from contam.experiment import Stage
from contam.inputs.pixel_range import Transform
from contam.measures.accuracy import Accuracy
from contam.measures.robustness import Line
from contam.models.checkpoints import read_weights
from contam.models.find_network import FoundNetwork, find_network
from contam.models.preserve import preserve_model
from contam.text_files import printable

Result = TypeVar("Result")
ProgressReport = Callable[[Stage], None]
"""Called after each step, with what was done."""

SHOWN, PROBED, ILLUSTRATED, TESTED = 0.5, 0.6, 0.65, 0.95
"""Share of the work after the passes, the probes of layers, the choice of examples, and the tests
of causes."""
MOST_EXPLAINED = 4
"""OOD sets whose loss is explained, those with the largest."""


def audit(
    model: Any,
    *,
    id: Any,
    ood: Any = None,
    unlabeled: Any = None,
    name: str | None = None,
    layers: str | Sequence[str] = "auto",
    background: Any = None,
    masks: Any = None,
    baseline: str | Path | Mapping[str, Line] | None = None,
    budget: int | None = None,
    reference: Any = "auto",
    untrained: bool | nn.Module = True,
    altered: bool = True,
    remedies: bool = True,
    base: nn.Module | str | Path | None = None,
    quick: bool = False,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    columns: Columns | None = None,
    keys: Mapping[str, str] | None = None,
    domain: str | int | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    progress: bool | ProgressReport = True,
    seed: int = 0,
) -> Audit:
    """Find out why a classifier fails on shifted data; the network stays as it was.

    Every example is shown to the network once. Up to 400 images of a set that loses accuracy are
    shown again with edits, which undo one cause each; what gives the accuracy back is the cause. A
    small sample of ID images is also shown without the object and with changed backgrounds, and a
    sample of each set to an untrained copy.

    Args:
        model: a module that returns logits (as a tensor, `.logits`, a tuple or a dict), a name such
            as `timm:resnet50` with `weights`, an ONNX file, a function from a batch to scores, a
            scikit-learn classifier, or None if `id` and `ood` hold features.
        id: ID data that the network was not trained on: a folder `class/image` or
            `domain/class/image`, a table of images, a DataLoader, a Dataset, a Hugging Face
            dataset, a `Domain`, a `Shift`, a pair of tensors (x, y), or batches of (x, y), (x, y,
            domain) or dicts.
        ood: shifted data of the same kinds: one set, a list, or a dict by name. Without it,
            questions that need OOD data are reported as undecided.
        unlabeled: shifted data without labels, in the same forms or as inputs alone (a folder of
            images, a tensor): their accuracy is estimated, and examples to label are drawn. Labels
            that they have are ignored.
        name: name of the model on the page and in the records.
        layers: names of the layers to examine, or `auto` for all activations.
        background: label of the background of each ID example, or a dict by set.
        masks: share of each pixel of the ID images that the object covers, (n, 1, height, width), a
            folder with the mask of each image under the image's own path, or a dict by set.
        baseline: accuracies of standard models for effective robustness: a CSV file or fitted lines
            by set.
        budget: maximum number of examples per set.
        reference: encoder used to test whether the object is still visible: a name,
            `(name, weights)`, a module, None, or `auto`: the encoder of the extra `reference`, or
            else a cached torchvision network.
        untrained: whether to compare with an untrained copy of the network, or that network.
        altered: whether to show changed ID images to the network.
        remedies: whether to measure repairs on the network.
        base: the network that this one was fine-tuned from, or a file of its weights, for the
            repair by weight interpolation.
        quick: whether to leave out everything but the pass over the data: changed images, the
            untrained copy, the reference, and the tests of causes that edit images.
        weights: file or folder of weights for a model by name.
        transform: function from an image to the network's input.
        classes: names of the logits in their order.
        columns: the logits to compare, by index or name; class k is the k-th of them. `labeled`
            takes the classes that have examples in every set, as for ImageNet-R. By default all.
        keys: names of the parts of dicts and of the columns of tables, as in `{"x": "scan"}`.
        domain: name or number of the metadata column that is the domain; by default the first that
            groups the examples.
        device: where a model by name runs.
        batch_size: number of examples in a forward pass; by default 64, or 256 small images.
        workers: number of threads that decode image files, or of processes that read a dataset.
        progress: whether to show a progress bar on standard error, or a function that is called
            after each `Stage`. If it raises, the audit stops and the network is as it was.
        seed: random seed.

    Returns:
        The verdict and all evidence.

    Source: ours, the evidence and the verdict of the audit.

    Raises:
        ValueError: an argument does not fit; one line says what to try.

    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.rand(60, 3, 8, 8), torch.arange(60) % 3
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> result = audit(model, id=(x, y), ood=(x.flip(2), y), reference=None, progress=False)
    >>> result.verdict.cause
    'undecided'
    """
    started = time.monotonic()
    check_arguments(
        name=name, layers=layers, classes=classes, reference=reference, baseline=baseline,
        untrained=untrained, altered=altered, remedies=remedies, base=base, progress=progress,
        transform=transform, seed=seed,
    )  # fmt: skip
    network = model
    if model is not None and not isinstance(model, FoundNetwork):
        network = find_network(model, weights, transform)
    if device is not None and isinstance(model, nn.Module):
        raise ValueError("device= is for models by name; move yours with model.to(...)")
    limits = BUDGET if altered else dataclasses.replace(BUDGET, without_object=0, changed=0)
    limits = limits if remedies else dataclasses.replace(limits, repaired=False)
    if quick:
        limits = dataclasses.replace(
            limits, without_object=0, changed=0, control=0, edited=0, edited_ood=0
        )
    own = model.model if isinstance(model, FoundNetwork) else model
    modules = [m for m in (own, untrained, reference) if isinstance(m, nn.Module)]
    with preserve_model(*modules), reporting(progress) as report:
        ready = prepare(
            network, id=id, ood=ood, unlabeled=unlabeled, layers=layers, background=background,
            masks=masks, budget=budget, reference=None if quick else reference,
            control=False if quick else untrained, transform=transform, classes=classes,
            columns=columns, keys=keys, domain=domain, device=device, batch_size=batch_size,
            workers=workers, seed=seed,
        )  # fmt: skip
        inputs = ready.inputs
        if base is not None:
            weights_of_base = base if isinstance(base, nn.Module) else read_weights(base).state
            inputs = dataclasses.replace(inputs, base=weights_of_base)
        if name is not None:
            inputs = dataclasses.replace(inputs, name=printable(name))
        if inputs.reference is not None:
            x = next(inputs.id.domain.batches(2)).x
            place = next((p.device for p in inputs.model.parameters()), x.device)
            check_reference(inputs.reference, x.to(place))
        lines, notes = find_lines(
            baseline, [sample.name for sample in inputs.ood], id_name=inputs.id.name,
            classes=len(inputs.classes),
        )  # fmt: skip
        report(Stage(0.0, "reading of the data"))
        evidence = collect(inputs, limits, lines, report)
        provenance = ready.provenance | {"model": inputs.name}
        provenance |= {} if weights is None else {"weights": printable(Path(weights).name)}
        provenance |= _environment(inputs) | {
            "seed": str(seed), "seconds": f"{time.monotonic() - started:.1f}",
        }  # fmt: skip
    return Audit(
        AuditRecord(
            contam=version("contam"),
            model=inputs.name,
            classes=inputs.classes,
            verdict=verdict(
                evidence.sets,
                evidence.ledgers,
                evidence.steps,
                evidence.findings,
                evidence.unlabeled,
            ),
            ledgers=evidence.ledgers,
            sets=evidence.sets,
            unlabeled=evidence.unlabeled,
            evidence=evidence.causes,
            layers=evidence.layers.layers,
            neurons=evidence.layers.neurons,
            projection=evidence.layers.projection,
            examples=evidence.examples,
            helps=evidence.helps,
            left_out=tuple(dict.fromkeys([*ready.notes, *notes, *evidence.left_out])),
            provenance=provenance,
        ),
        evidence.repair_inputs,
    )


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All evidence about a network, before the verdict."""

    sets: tuple[SetScores, ...]
    """ID first."""
    causes: tuple[CauseEvidence, ...]
    ledgers: tuple[Ledger, ...]
    """One for each OOD set that loses accuracy, the largest loss first."""
    steps: tuple[Step, ...]
    """Tests of the ID set alone."""
    findings: tuple[str, ...]
    """What was found beside causes."""
    layers: LayerEvidence
    examples: tuple[Example, ...]
    left_out: tuple[str, ...]
    helps: tuple[MeasuredRemedy, ...] = ()
    repair_inputs: RepairInputs | None = None
    """What the repairs were measured on."""
    unlabeled: tuple[UnlabeledScores, ...] = ()


def collect(
    inputs: AuditInputs,
    budget: Budget = BUDGET,
    lines: Mapping[str, Line] | None = None,
    report: ProgressReport = lambda stage: None,
) -> Evidence:
    """Run the passes and take all evidence from them.

    Args:
        inputs: the network and its data.
        budget: numbers of examples.
        lines: standard models' lines by OOD set, for effective robustness.
        report: called with the progress.

    Source: ours, the evidence from one pass over all sets, which every cause reads.

    Raises:
        ValueError: a set has no examples, or the logits are not one row for each.

    >>> from contam.batch import Batch, Domain
    >>> from contam.inputs.input_set import InputSet
    >>> y = torch.arange(40) % 2
    >>> data = InputSet("meadow", Domain("meadow", Batch(torch.eye(2)[y], y, torch.zeros_like(y))))
    >>> evidence = collect(AuditInputs("identity", nn.Identity(), ("cow", "camel"), data))
    >>> evidence.sets[0].overall.correct
    40
    """
    layers = inputs.layers or running_layers(inputs.model, inputs.id)
    passes = _drain(run_passes(inputs, layers, budget), report, (0.0, SHOWN))
    left_out = [*passes.left_out, *passes.layers.left_out]
    inside, examples = LayerEvidence(), ()
    try:
        inside = _drain(layer_evidence(passes, layers, budget), report, (SHOWN, PROBED))
        examples, missing = example_images(passes, inside)
        report(Stage(ILLUSTRATED, "images of the examples"))
        left_out += [*inside.left_out, *missing]
    except (ValueError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]
        left_out.append(f"Evidence about the layers is incomplete: {message}.")
    left_out += label_order_notes(
        passes.id.predicted, passes.id.y, inputs.classes, inputs.id.name
    )  # fmt: skip
    sets = accuracies(passes, lines or {})
    explained = _drain(cause_tests(passes, sets), report, (ILLUSTRATED, TESTED))
    left_out += [line for record in explained.causes for line in record.left_out]
    left_out += explained.left_out
    without = unlabeled_evidence(passes)
    left_out += without.left_out
    helps, kept = (), None
    if budget.repaired:
        kept = repair_inputs(passes)
        helps, failed = measure_repairs(kept)
        left_out += failed
    report(Stage(1.0, "repairs"))
    return Evidence(
        sets, explained.causes, explained.ledgers, explained.steps,
        (*explained.findings, *without.findings), inside, examples,
        tuple(dict.fromkeys(left_out)), helps, kept, without.scores,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CauseTests:
    """The results of all tests of causes."""

    causes: tuple[CauseEvidence, ...]
    ledgers: tuple[Ledger, ...]
    steps: tuple[Step, ...]
    findings: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def cause_tests(
    passes: Passes, sets: Sequence[SetScores], causes: Sequence[Cause] = CAUSES
) -> Generator[Stage, None, CauseTests]:
    """Test the causes on every OOD set that loses accuracy, and on the ID set alone.

    Args:
        passes: results of `run_passes`.
        sets: the accuracies, ID first.
        causes: the causes in the order in which they are tested.

    Yields:
        The share of the tests that were made.

    Returns:
        The evidence of all tests, and a ledger for each OOD set that loses accuracy.

    Source: ours, causes are tested in the order in which they hide one another.
    """
    own, *ood = sets
    losing = [scores for scores in ood if loses(own, scores)]
    losing.sort(key=lambda scores: scores.overall.accuracy.value)
    left_out = tuple(
        f"The causes of the loss on {scores.name} were not tested, only those of the "
        f"{MOST_EXPLAINED} sets with the largest losses."
        for scores in losing[MOST_EXPLAINED:]
    )
    explained: list[Explained] = []
    for place, scores in enumerate(losing[:MOST_EXPLAINED]):
        work = explain(Comparison(passes, (own, scores)), causes)
        done = 0
        while True:
            try:
                cause = next(work)
            except StopIteration as end:
                explained.append(end.value)
                break
            part = min(1.0, done / len(causes))  # some causes are tested twice
            share = (place + part) / min(len(losing), MOST_EXPLAINED)
            yield Stage(share, f"test of {cause} on {scores.name}")
            done += 1
    steps: list[Step] = []
    background, head = reliance(passes), head_evidence(passes)
    evidence = [background, head]
    for cause in causes:
        if isinstance(cause, Undertrained):
            test = cause.on_id(passes, own)
            steps.append(test.step)
            evidence += [] if test.evidence is None else [test.evidence]
        elif isinstance(cause, Head):
            step = head_on_id(cause, passes)
            steps += [] if step is None else [step]
        elif isinstance(cause, InputMismatch):
            test = cause.on_id(passes, own)
            if test is not None:
                steps.append(test.step)
                evidence += [] if test.evidence is None else [test.evidence]
    findings = tuple(filter(None, [relies(background)]))
    evidence += [record for one in explained for record in one.evidence]
    ledgers = tuple(one.ledger for one in explained)
    return CauseTests(tuple(evidence), ledgers, tuple(steps), findings, left_out)


def accuracies(passes: Passes, lines: Mapping[str, Line]) -> tuple[SetScores, ...]:
    """Return the accuracy on each data set, ID first.

    Args:
        passes: results of `run_passes`.
        lines: standard models' lines by OOD set, for effective robustness.

    Source: ours, the accuracies that every question of an audit starts from.
    """
    inputs = passes.inputs
    correct = passes.id.correct
    known = Accuracy(int(correct.sum()), len(correct))
    samples = {sample.name: sample for sample in (inputs.id, *inputs.ood)}
    return tuple(
        set_scores(
            result, name, inputs.classes, "id" if name == inputs.id.name else "ood",
            domains=inputs.domains, domain_column=samples[name].domain_column,
            groups=samples[name].groups,
            baseline=(known, lines[name]) if name in lines else None,
        )
        for name, result in passes.sets.items()
    )  # fmt: skip


def _drain(
    work: Generator[Stage, None, Result], report: ProgressReport, span: tuple[float, float]
) -> Result:
    """Run the work, and report its shares as shares of the whole audit."""
    begin, end = span
    while True:
        try:
            stage = next(work)
        except StopIteration as stop:
            return stop.value
        report(Stage(begin + (end - begin) * stage.done, stage.doing))


def _environment(inputs: AuditInputs) -> dict[str, str]:
    """Versions and hardware behind the numbers."""
    versions = {name: version(name) for name in ("contam", "torch", "numpy", "scikit-learn")}
    place = next((p.device for p in inputs.model.parameters()), torch.device("cpu"))
    return versions | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else str(place),
        "threads": str(torch.get_num_threads()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def reporting(progress: bool | ProgressReport, title: str = "audit") -> Iterator[ProgressReport]:
    """Provide a function that shows progress: the user's own, a bar on standard error, or nothing.

    Args:
        progress: whether to show a bar, or the user's function.
        title: what the work is, in a word.

    >>> stages = []
    >>> with reporting(stages.append) as report:
    ...     report(Stage(0.5, "layers"))
    >>> stages[0].doing
    'layers'
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description:20}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(title, total=1.0)
        yield lambda stage: bars.update(bar, completed=stage.done, description=stage.doing)
