"""`contam.trial`: which change of the training helps on the user's own data."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from contam.auditing.api import reporting
from contam.experiment import Stage
from contam.inputs.forms import named_sets
from contam.inputs.pixel_range import Transform
from contam.models.preserve import evaluating
from contam.run import PART_NAME, Run
from contam.training.changes import CHANGES, TrainingChange
from contam.training.optimize import Recipe
from contam.trials.arms import BASELINE, Arm, ArmInputs, audit_of, compute_arm, part_of
from contam.trials.data import TrialData, read_data
from contam.trials.networks import initial_network
from contam.trials.result import Trial

READ = 0.02
"""Share of the work after the data are read."""
AUDIT_SEED = 0
"""Seed of all audits, so that those of all arms see the same examples."""


class TrialConfig(BaseModel, frozen=True, extra="forbid"):
    """The settings that decide the weights of an arm; remedies and seeds can be added later."""

    model: str
    initial: str
    """Digest of the weights of seed 0 before the training."""
    classes: tuple[str, ...]
    data: dict[str, str]
    """Digest of each set."""
    recipe: Recipe


def trial(
    model: Any,
    *,
    train: Any,
    id: Any,
    ood: Any,
    remedies: Sequence[str | TrainingChange],
    masks: Any = None,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    classes: Sequence[str] | None = None,
    epochs: int = 10,
    step_size: float = 3e-3,
    weight_decay: float = 0.05,
    batch_size: int = 64,
    seeds: int | Sequence[int] = 3,
    quick: bool = True,
    device: str | torch.device | None = None,
    out: str | Path = Path("trials"),
    progress: bool | Callable[[Stage], None] = True,
) -> Trial:
    """Train a baseline and one network for each remedy, test and audit them, and compare.

    Within a seed, all arms start from the same weights and see the same images in the same order.
    An interrupted trial resumes, and a remedy or a seed that is added later uses the arms that the
    folder has.

    Args:
        model: `resnet8` or `small_cnn`, for small images; a name such as `timm:resnet18`;
            `package.module:object`; a module; or a function that returns a module (with a parameter
            `classes`, if it has one).
        train: training data of any form of `contam.inputs`, or a list of such sets.
        id: test data from the training distribution, which the networks are not trained on.
        ood: shifted test data: one set, a list, or a dict by name.
        remedies: names of `contam.training.changes.CHANGES`, or changes of your own.
        masks: (n, 1, height, width) share of each pixel of the training images that the object
            covers, or a folder with the mask of each image under the image's own path.
        weights: file or folder of pre-trained weights.
        transform: function from an image to the network's input.
        classes: names of the classes in the order of the logits.
        epochs: number of epochs of each training.
        step_size: maximum step size of AdamW; it warms up and then follows a cosine. For
            pre-trained weights, take a smaller one, such as 1e-4.
        weight_decay: weight decay.
        batch_size: examples of a minibatch.
        seeds: number of seeds, or the seeds themselves. A seed decides the initial weights and the
            order of the images.
        quick: whether the audits leave out the tests that edit images.
        device: device of the networks.
        out: folder that holds the runs of trials.
        progress: whether to show a progress bar on standard error, or a function that is called
            with each `Stage`.

    Returns:
        The tables, which are also written to the folder of the run with the audits of all arms.

    Source: ours, since the effect of a remedy on another network says little about one's own.

    Raises:
        ValueError: an argument is invalid, or a remedy does not fit the network or the data; then
            nothing is trained.

    >>> import torch
    >>> x, y = torch.rand(32, 3, 16, 16), torch.arange(32) % 2
    >>> result = trial(
    ...     "resnet8", train=(x, y), id=(x, y), ood=(x.flip(2), y), remedies=["centering"],
    ...     epochs=1, batch_size=16, seeds=1, progress=False)
    >>> result.arms, result.seeds
    (['baseline', 'centering'], [0])
    """
    changes = [_change(remedy) for remedy in remedies]
    places = _seeds(seeds)
    _check(changes, epochs=epochs, batch_size=batch_size, step_size=step_size)
    initial = initial_network(model, weights, transform)
    with reporting(progress, "trial") as report:
        report(Stage(0.0, "reading of the data"))
        data = read_data(train, id, ood, transform=initial.transform, classes=classes)
        recipe = Recipe(step_size, weight_decay, batch_size, epochs=epochs)
        recipe.length(sum(map(len, data.train)))
        network = initial.make(len(data.classes), 0)
        _check_fit(network, changes, data, masks=masks is not None)
        covered = None if masks is None else data.masks(masks)
        digests = data.digests()
        if covered is not None:
            digests["masks"] = hashlib.sha256(covered.numpy().tobytes()).hexdigest()[:16]
        config = TrialConfig(
            model=initial.name, initial=_digest(network), classes=data.classes,
            data=digests, recipe=recipe,
        )  # fmt: skip
        names = list(data.tests)
        sets = dict(zip(names[1:], (value for _, value in named_sets(ood)), strict=True))
        audited = audit_of(id, sets, classes=data.classes, quick=quick, seed=AUDIT_SEED)
        arms = [Arm(change, seed) for seed in places for change in (None, *changes)]
        with Run.start(Path(out), "trial", config) as store:
            inputs = ArmInputs(
                initial, data, covered, recipe, audited, "quick" if quick else "audit",
                torch.device(device or "cpu"),
            )  # fmt: skip
            for place, arm in enumerate(arms):
                for stage in compute_arm(store, arm, inputs):
                    share = READ + (1 - READ) * (place + stage.done) / len(arms)
                    report(Stage(share, stage.doing))
            report(Stage(1.0, "tables"))
            result = Trial.load(
                store.folder, arms=[BASELINE, *(change.name for change in changes)],
                seeds=places, notes=data.notes,
            )  # fmt: skip
            result.save()
    return result


def _check_fit(
    model: nn.Module, changes: Sequence[TrainingChange], data: TrialData, *, masks: bool
) -> None:
    """Check that the network and every change fit the data.

    Args:
        model: the network before its training.
        changes: the changes.
        data: the data.
        masks: whether there are masks of the training images.

    Source: ours, shapes that do not fit are reported before the first training.

    Raises:
        ValueError: the network does not return a logit for each class, or a change does not fit.
    """
    x = next(data.train[0].batches(2)).x
    try:
        with evaluating(model):
            logits = model(x)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the network does not run on inputs of shape {tuple(x.shape[1:])}: {reason}"
        ) from None
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (len(x), len(data.classes)):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"the network returns {shape} for {len(x)} inputs, and the training data have "
            f"{len(data.classes)} classes; expected one logit for each"
        )
    for change in changes:
        reason = change.misfit(
            model, x, masks=masks, pixels=data.pixel_range is not None,
            domains=len(data.domain.unique()),
        )  # fmt: skip
        if reason:
            raise ValueError(f"the remedy {change.name!r} does not fit: {reason}")


def _change(remedy: str | TrainingChange) -> TrainingChange:
    if isinstance(remedy, TrainingChange):
        return remedy
    name = str(remedy).strip().replace("-", " ").replace("_", " ")
    if name not in CHANGES:
        raise ValueError(f"no remedy {remedy!r}; choose from {', '.join(CHANGES)}")
    return CHANGES[name]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(seeds))
    several: list[int] = list(seeds) if isinstance(seeds, Sequence) else []
    whole = all(isinstance(seed, int) for seed in several)
    if several and whole and len(set(several)) == len(several):
        return several
    raise ValueError(f"seeds= is a number of at least 1, or different seeds; got {seeds!r}")


def _check(changes: Sequence[TrainingChange], **numbers: float) -> None:
    names = [change.name for change in changes]
    if not names:
        raise ValueError(f"remedies= is empty; choose from {', '.join(CHANGES)}")
    for name in names:
        if names.count(name) > 1 or name == BASELINE:
            raise ValueError(f"two arms have the name {name!r}; give each its own")
        if not PART_NAME.fullmatch(part_of(name, 0)):
            raise ValueError(
                f"remedy {name!r}: a name takes letters, digits, spaces and '_', '-', '=', '.'"
            )
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}= is more than 0; got {value!r}")


def _digest(model: nn.Module) -> str:
    """Hash the weights and their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]
