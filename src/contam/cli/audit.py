"""`contam audit`: diagnose why a classifier fails on shifted data."""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from contam.cli.audit_ci import (
    check_before_audit,
    compare_saved,
    fail_rules,
    log_result,
    write_reports,
)
from contam.cli.audit_options import (
    as_flags,
    by_set,
    columns_of,
    flat,
    keys_of,
    listed,
    named_data,
    with_transform,
)
from contam.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from contam.auditing.multilabel import MultilabelAudit
    from contam.auditing.result import Audit

COMPARE_FLAGS = (
    "compare", "fail_on", "fail_below", "junit", "markdown", "as_json", "quiet",
)  # fmt: skip
"""The arguments that a comparison of saved audits uses."""
Several = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""A flag that takes several values and may be given again."""


def audit(
    *,
    model: str | None = None,
    id: str | None = None,
    ood: Several = (),
    unlabeled: Several = (),
    weights: Path | None = None,
    name: str | None = None,
    out: Path = Path("audit"),
    transform: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    in_chans: int | None = None,
    classes: str | None = None,
    labels: str | None = None,
    columns: str | None = None,
    keys: Several = (),
    domain: str | None = None,
    root: Path | None = None,
    masks: Several = (),
    background: Several = (),
    layer: Several = (),
    baseline: Path | None = None,
    reference: str = "auto",
    reference_weights: Path | None = None,
    control: bool = True,
    altered: bool = True,
    remedies: bool = True,
    base: Path | None = None,
    quick: bool = False,
    budget: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    compare: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="BEFORE AFTER")] = None,
    fail_on: str | None = None,
    fail_below: Several = (),
    junit: Path | None = None,
    markdown: Path | None = None,
    log: Literal["mlflow", "wandb"] | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    quiet: bool = False,
    seed: int = 0,
) -> int:
    """Diagnose why a classifier fails on shifted data: contam audit --model M --weights W --id DIR.

    Writes the page OUT/audit.html, the record audit.json (with its schema) and CSV tables; with
    --labels, OUT/summary.csv and these files for each label. With --compare, prints what changed
    between two audits instead. The exit code is 1 if a rule of --fail-on or --fail-below fails.

    Args:
        model: timm:NAME, torchvision:NAME, a .pt2 or .onnx file, or package.module:object: a
            network, a function from a batch to scores, or a function that returns one of them.
        id: held-out data from the training distribution: a folder CLASS/IMAGE (or
            DOMAIN/CLASS/IMAGE), or a table of paths and labels (.csv, .tsv, .parquet, .json,
            .jsonl); TABLE:split=val takes some of its rows.
        ood: shifted data as --id: one or several of PATH, NAME=PATH, and patterns of folders.
        unlabeled: shifted data without labels, likewise: folders of images, or tables of paths;
            their accuracy is estimated, and OUT/to_label.csv lists images to label.
        weights: safetensors, a state dict, the index of shards, or their folder; may hold an
            encoder and its head.
        name: name of the model on the page and in the records.
        out: folder of the files to write.
        transform: package.module:function from a Pillow image to the network's input.
        image_size: pixels of the square that the network takes.
        mean: mean of each channel of the pixels in [0, 1], one or three numbers.
        std: their standard deviation.
        in_chans: channels of the network's input; by default those of its first weight.
        classes: names of the logits in their order: a file with one on each line, a JSON file, or a
            list with commas.
        labels: columns of 0 and 1 of a table, one for each logit, for networks with several labels
            for each image; each label gets its own audit. With --classes, which names all logits,
            some of them. A list with commas, or a file.
        columns: logits to compare: labeled (classes that have images in every set), a list such as
            0-9,33 or cat,dog, or a file.
        keys: columns of tables by part, such as x=scan y=diagnosis domain=hospital.
        domain: name or number of the metadata column that is the domain.
        root: folder of the relative paths in tables; by default that of the table.
        masks: folder with a mask of each image of --id under the image's own path, white on the
            object; NAME=DIR for the set NAME.
        background: table with the columns path and background for --id; NAME=TABLE for the set
            NAME.
        layer: layers to measure instead of every activation.
        baseline: CSV of standard models' accuracies, with a column for each set.
        reference: encoder used to test whether the object is still visible, as --model; auto takes
            an installed one, none turns this test off.
        reference_weights: weights of the reference encoder.
        control: whether to compare with an untrained copy of the network.
        altered: whether to show changed images of --id to the network.
        remedies: whether to measure repairs on the network.
        base: weights of the network before fine-tuning, for the repair by weight interpolation.
        quick: leave out changed images, the untrained copy, the reference, and the tests of causes
            that edit images.
        budget: maximum number of images per set.
        batch_size: number of images in a forward pass.
        workers: number of threads that decode images.
        device: device of the network, such as cuda.
        compare: folders of two audits of the same data sets; the rules are for the second.
        fail_on: verdicts that exit with 1, such as head,corruption, or any failure; with --compare
            also loss: a set lost accuracy beyond chance.
        fail_below: accuracy of every OOD set, or SET=ACCURACY, below which the exit code is 1; the
            estimate is compared, not its interval.
        junit: file for JUnit XML with a test case for each OOD set and rule.
        markdown: file for a summary in Markdown, for a pull request.
        log: package that logs the numbers, the verdict and the page to a new run.
        as_json: print the whole record instead of the verdict.
        quiet: print neither progress nor the verdict.
        seed: random seed.
    """
    given = locals()
    from contam.atomic_files import reserved
    from contam.auditing import api, multilabel
    from contam.models.find_network import find_network

    rules = fail_rules(fail_on, flat(fail_below))
    if compare is not None:
        others = _flags_given(given, besides=COMPARE_FLAGS)
        if others:
            raise ValueError(f"--compare reads two saved audits; leave out {', '.join(others)}")
        return compare_saved(
            *compare, rules, junit=junit, markdown=markdown, as_json=as_json, quiet=quiet
        )
    if model is None or id is None:
        flags = [flag for flag, value in (("--model", model), ("--id", id)) if value is None]
        raise ValueError(
            f"contam audit needs {' and '.join(flags)} (contam audit --help lists all)"
        )
    _check_flags(out, labels, columns)
    if labels is not None and unlabeled:
        raise ValueError("--unlabeled needs a single label for each image; leave out --labels")
    encoder: Any = None if reference == "none" else reference
    if reference_weights is not None:
        encoder = (reference, reference_weights)
    first = out / ("audit.html" if labels is None else multilabel.SUMMARY)
    try:
        pairs = named_data([id], root=root)
        if len(pairs) > 1:
            raise ValueError(f"--id {id}: matches {len(pairs)} folders; give one")
        network = with_transform(
            find_network(model, weights), transform=transform, image_size=image_size, mean=mean,
            std=std, in_chans=in_chans,
        )  # fmt: skip
        shifted = named_data(flat(ood), root=root)
        check_before_audit(fail_on, rules, [*pairs, *shifted], log)
        with ExitStack() as stack, ProgressDisplay("audit", silent=quiet) as display:
            for file in filter(None, (first, junit, markdown)):
                stack.enter_context(reserved(file))
            settings: dict[str, Any] = {
                "id": pairs[0][1], "ood": unique(shifted, "--ood"), "name": name,
                "weights": weights, "masks": by_set(flat(masks)),
                "background": by_set(flat(background)), "layers": flat(layer) or "auto",
                "baseline": baseline, "reference": encoder, "untrained": control,
                "altered": altered, "remedies": remedies, "quick": quick, "budget": budget,
                "batch_size": batch_size, "workers": workers,
                "keys": keys_of(flat(keys)), "device": device, "seed": seed,
                "domain": int(domain) if domain and domain.isdecimal() else domain,
                "progress": lambda stage: display.update(stage.done, stage.doing),
            }  # fmt: skip
            result: Audit | MultilabelAudit
            names, chosen = listed(classes, "--classes"), listed(labels, "--labels")
            if chosen is None:
                result = api.audit(
                    network, classes=names, columns=columns_of(columns),
                    unlabeled=unique(named_data(flat(unlabeled), root=root), "--unlabeled"),
                    base=base, **settings,
                )  # fmt: skip
            else:
                result = multilabel.audit_multilabel(
                    network, labels=names or chosen, only=chosen, **settings
                )
    except ValueError as error:
        raise ValueError(as_flags(str(error))) from error
    _save(result, out, as_json=as_json, quiet=quiet)
    code = write_reports(result, rules, junit=junit, markdown=markdown, quiet=quiet or as_json)
    if log is not None:
        log_result(result, log)
    return code


def _flags_given(values: Mapping[str, Any], *, besides: Collection[str]) -> list[str]:
    """The flags among these arguments of `audit` that do not have their default."""
    defaults = {name: known.default for name, known in signature(audit).parameters.items()}
    return [
        f"--{'no-' if default is True else ''}{name.replace('_', '-')}"
        for name, default in defaults.items()
        if name not in besides and values[name] != default
    ]


def _check_flags(out: Path, labels: str | None, columns: str | None) -> None:
    """Raise an error for flags that contradict each other."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is not a folder; choose another --out")
    if labels is not None and columns is not None:
        raise ValueError("--labels takes every logit as a label; leave out --columns")


def _save(result: "Audit | MultilabelAudit", out: Path, *, as_json: bool, quiet: bool) -> None:
    """Write the records and pages, and print the verdict or the record."""
    from contam.auditing.multilabel import MultilabelAudit

    result.save(out)
    if isinstance(result, MultilabelAudit):
        audits = result.audits
        shown = f"{out} has the summary, and a folder with the evidence and a page of each label"
    else:
        audits = {"": result}
        page = result.report(out / "audit.html").resolve().as_uri()
        shown = f"{out} has the evidence; open {page} in a browser"
    if as_json:
        records = {label: one.evidence.model_dump(mode="json") for label, one in audits.items()}
        print(json.dumps(records.get("", records), indent=1))
    elif not quiet:
        print(result)
        print(*_notes(audits), shown, sep="\n")


def _notes(audits: "Mapping[str, Audit]") -> list[str]:
    """What the audits left out, with the labels if it is not so for all of them."""
    labels: dict[str, list[str]] = {}
    for label, one in audits.items():
        for line in one.evidence.left_out:
            labels.setdefault(line, []).append(label)
    return [
        f"note{'' if len(some) == len(audits) else ' on ' + ', '.join(some)}: {as_flags(line)}"
        for line, some in labels.items()
    ]


def unique(pairs: list[tuple[str | None, Any]], flag: str) -> Any:
    """Data sets as a list, or as a dict if one has a name.

    >>> unique([("night", "images/night"), (None, "images/fog")], "--ood")
    {'night': 'images/night', 'fog': 'images/fog'}
    """
    if all(name is None for name, _ in pairs):
        return [data for _, data in pairs]
    named: dict[str, Any] = {}
    for name, data in pairs:
        key = name or getattr(data, "name", None) or Path(str(data)).name
        if key in named:
            raise ValueError(f"{flag} has two sets {key!r}; name one with {flag} NAME=PATH")
        named[key] = data
    return named
