"""`contam audit`: diagnose why a classifier fails on shifted data."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from contam.cli.parsing import nearest
from contam.cli.progress import ProgressDisplay


def audit(
    *,
    model: str,
    id: Path,
    ood: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
    weights: Path | None = None,
    name: str | None = None,
    out: Path = Path("audit"),
    masks: Path | None = None,
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    baseline: Path | None = None,
    reference: str = "auto",
    reference_weights: Path | None = None,
    budget: int | None = None,
    device: str | None = None,
    fail_on: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    seed: int = 0,
) -> int:
    """Diagnose why a classifier fails on shifted data: contam audit --model M --weights W --id DIR.

    Writes the page OUT/audit.html, the record audit.json (with its schema) and CSV tables. The exit
    code is 1 if the verdict is one of --fail-on.

    Args:
        model: timm:NAME, torchvision:NAME, package.module:function, or a .pt2 file.
        id: folder CLASS/IMAGE (or DOMAIN/CLASS/IMAGE) of held-out data from the training
            distribution.
        ood: folder of shifted data in the same layout; may be given again.
        weights: safetensors or a state dict; may hold an encoder and its head.
        name: name of the model on the page and in the records.
        out: folder of the files to write.
        masks: folder with a mask of each image of --id under the image's own path, white on the
            object.
        layer: a layer to measure instead of every activation; may be given again.
        baseline: CSV of standard models' accuracies, with a column for each set.
        reference: encoder used to test whether the object is still visible, as --model; auto takes
            an installed one, none turns this test off.
        reference_weights: weights of the reference encoder.
        budget: maximum number of images per set.
        device: device of the network, such as cuda.
        fail_on: verdicts that exit with 1, such as contaminated,spurious, or any failure.
        as_json: print the whole record instead of the verdict.
        seed: random seed.
    """
    from contam.auditing import api

    failing = failing_causes(fail_on)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is not a folder; choose another --out")
    encoder: Any = reference
    if reference_weights is not None:
        encoder = (reference, reference_weights)
    elif reference == "none":
        encoder = None
    with ProgressDisplay("audit") as display:
        result = api.audit(
            model, id=id, ood=list(ood), name=name, weights=weights, masks=masks,
            layers=list(layer) or "auto", baseline=baseline, reference=encoder, budget=budget,
            device=device, seed=seed,
            progress=lambda stage: display.update(stage.done, stage.doing),
        )  # fmt: skip
    result.save(out)
    page = result.report(out / "audit.html")
    if as_json:
        print(result.evidence.model_dump_json(indent=1))
    else:
        print(result)
        print(f"{out} has the evidence; open {page.resolve().as_uri()} in a browser")
    causes = {result.verdict.cause, *result.verdict.behind}
    return 1 if causes & failing else 0


def failing_causes(fail_on: str | None) -> set[str]:
    """The verdicts of a comma-separated list; a word of a verdict's name is enough."""
    from contam.auditing.causes import NAMES
    from contam.auditing.records import UNDECIDED

    known = (*NAMES, UNDECIDED)
    failures = [cause for cause in NAMES if cause != "healthy"]
    chosen: set[str] = set()
    for word in filter(None, (word.strip() for word in (fail_on or "").split(","))):
        matching = [cause for cause in known if word == cause or word in cause.split()]
        if word == "any":
            matching = failures
        if not matching:
            raise ValueError(f"no verdict {word!r} to fail on; {nearest(word, known)}, or any")
        chosen.update(matching)
    return chosen
