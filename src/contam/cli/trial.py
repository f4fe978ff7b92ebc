"""`contam trial`: train with and without remedies on the user's own data, and compare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from contam.cli.audit import Several, unique
from contam.cli.audit_options import as_flags, flat, listed, named_data, with_transform
from contam.cli.progress import ProgressDisplay


def trial(
    *,
    train: str,
    id: str,
    ood: Several,
    model: str,
    remedies: str,
    weights: Path | None = None,
    masks: str | None = None,
    epochs: int = 10,
    step_size: float = 3e-3,
    weight_decay: float = 0.05,
    batch_size: int = 64,
    seeds: int = 3,
    out: Path = Path("trials"),
    transform: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    classes: str | None = None,
    root: Path | None = None,
    full_audit: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> int:
    """Measure training-time remedies on your data: contam trial --train DIR --id DIR --ood DIR ...

    Trains a baseline and one network for each remedy, from the same weights on the same images in
    the same order, and tests and audits all of them. An interrupted command resumes; a remedy or a
    seed that is added later uses the networks that are trained already.

    Args:
        train: training images: a folder CLASS/IMAGE (or DOMAIN/CLASS/IMAGE), or a table of paths
            and labels; TABLE:split=train takes some of its rows.
        id: test images from the training distribution, as --train.
        ood: shifted test images, as --train: one or several of PATH, NAME=PATH, and patterns of
            folders.
        model: resnet8 or small_cnn for small images, timm:NAME, torchvision:NAME, or
            package.module:object: a network, or a function that returns one.
        remedies: a list with commas: centering, instance norm, leaky activations, background
            negatives, background swap, plain backgrounds, stop gradient, gradient projection,
            background difference, color jitter, balanced domains, no change.
        weights: pre-trained weights, as for contam audit.
        masks: folder with a mask of each image of --train under the image's own path, white on the
            object.
        epochs: epochs of each training.
        step_size: maximum step size of AdamW; take about 1e-4 for pre-trained weights.
        weight_decay: weight decay.
        batch_size: images of a minibatch.
        seeds: number of seeds.
        out: folder that holds the runs of trials.
        transform: package.module:function from a Pillow image to the network's input.
        image_size: pixels of the square that the network takes.
        mean: mean of each channel of the pixels in [0, 1], one or three numbers.
        std: their standard deviation.
        classes: names of the logits in their order: a file, or a list with commas.
        root: folder of the relative paths in tables; by default that of the table.
        full_audit: include the tests that edit images in the audits.
        device: device of the networks, such as cuda.
        quiet: print neither progress nor the result.
    """
    from contam.trials.api import trial as compute
    from contam.trials.networks import initial_network

    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is not a folder; choose another --out")
    chosen = [name.strip() for name in remedies.split(",") if name.strip()]
    try:
        trained, tested = ([data for _, data in named_data([word], root=root)]
                           for word in (train, id))  # fmt: skip
        if len(tested) > 1:
            raise ValueError(f"--id {id}: matches {len(tested)} folders; give one")
        shifted = unique(named_data(flat(ood), root=root), "--ood")
        network = initial_network(model, weights)
        prepared = _prepared(network.transform, transform, image_size, mean, std)
        with ProgressDisplay("trial", silent=quiet) as display:
            result = compute(
                replace(network, transform=prepared),
                train=trained[0] if len(trained) == 1 else trained, id=tested[0], ood=shifted,
                remedies=chosen, masks=masks, classes=listed(classes, "--classes"), epochs=epochs,
                step_size=step_size, weight_decay=weight_decay, batch_size=batch_size, seeds=seeds,
                quick=not full_audit, device=device, out=out,
                progress=lambda stage: display.update(stage.done, stage.doing),
            )  # fmt: skip
    except ValueError as error:
        raise ValueError(as_flags(str(error))) from error
    if not quiet:
        print(as_flags(str(result)))
        print(f"{result.folder} has trial.md, the tables, and the page of each audit in audits")
    return 0


def _prepared(
    own: Any, transform: str | None, image_size: int | None, mean: Any, std: Any
) -> Any:  # fmt: skip
    from torch import nn

    from contam.models.find_network import FoundNetwork

    network = FoundNetwork("", nn.Identity(), own)
    return with_transform(
        network, transform=transform, image_size=image_size, mean=mean, std=std
    ).transform  # fmt: skip
