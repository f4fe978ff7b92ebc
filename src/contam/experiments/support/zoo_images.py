"""The images of the zoo's networks: what they are trained on, and how they are preprocessed."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import ID, OOD
from contam.data.benchmarks import PROTOCOLS
from contam.data.images import FolderDomain, Transform
from contam.data.shapes import diverse_pretraining, pretraining
from contam.experiments.support.networks import Networks, NetworkSpec
from contam.models.classifier import Classifier
from contam.models.preparation import Preparation


def training_images(config: Networks, spec: NetworkSpec, shift: Shift, *, seed: int) -> Shift:
    """Return the images that a network is trained on.

    Args:
        config: the data.
        spec: the network.
        shift: the benchmark with the network's preprocessing.
        seed: seed of pre-training images.

    Raises:
        ValueError: a domain has too few images, or there are no pre-training images.
    """
    if spec.learns in ("labels", "features"):
        return augmented(config, first_examples(shift, spec.examples))
    if spec.learns == "captions":
        return captions(config, shift, spec.families, seed=seed)
    return _pretraining(config, shift, spec.families, seed)


def augmented(config: Networks, shift: Shift) -> Shift:
    """Return the shift with the benchmark's augmentation of training images that are files."""
    augmentation = PROTOCOLS[config.data].augmentation
    if augmentation is None:
        return shift
    return replace(
        shift,
        train=tuple(
            domain.augmented(augmentation(domain.transform.crop))
            if isinstance(domain, FolderDomain) and isinstance(domain.transform, Preparation)
            else domain
            for domain in shift.train
        ),
    )


def _pretraining(config: Networks, shift: Shift, number: int | None, seed: int) -> Shift:
    """The training data of a teacher.

    On the embedded benchmark it is pre-trained on other images, with more families of
    backgrounds. With published weights it is fine-tuned on the benchmark.
    """
    if number is not None:
        families = _diverse(config, number, seed)
        return Shift("pre-training", shift.classes, families, shift.id_test, ())
    if config.data != "shapes":
        if config.teacher_start_from is None:
            raise ValueError(
                f"{config.data} has no pre-training data: set teacher_start_from to "
                "fine-tune weights from a file, or leave out teacher_recipe to use them as "
                "they are"
            )
        return augmented(config, shift)
    families = pretraining(seed, n=config.teacher_examples)
    return Shift("pre-training", shift.classes, families, shift.id_test, ())


def _diverse(config: Networks, number: int, seed: int) -> tuple[Domain, ...]:
    if config.data != "shapes":
        raise ValueError(
            f"{config.data} has no families of backgrounds for pre-training; use shapes"
        )
    return diverse_pretraining(seed, number, n=config.teacher_examples)


def captions(config: Networks, shift: Shift, number: int | None = None, *, seed: int) -> Shift:
    """Return pre-training images, with a class for each pair of object and background.

    Args:
        config: the data, and the number of images.
        shift: the embedded benchmark; its classes and its ID test are kept.
        number: number of families without those of the OOD tests; None for all ID and OOD
            families.
        seed: seed of the images.

    Raises:
        ValueError: the data is not the embedded benchmark.
    """
    if config.data != "shapes":
        raise ValueError(f"captions exist only for shapes, not for {config.data}")
    if number is None:
        pairs = len(shift.classes) * len(ID + OOD)
        count = max(config.teacher_examples // pairs, 1) * pairs
        families = pretraining(seed, "all", n=count)
    else:
        families = _diverse(config, number, seed)
    captioned = tuple(
        Domain(family.name, Batch(family.data.x, len(families) * family.y + k, family.data.domain))
        for k, family in enumerate(families)
    )
    names = tuple(f"{thing} on {family.name}" for thing in shift.classes for family in families)
    return Shift("captions", names, captioned, shift.id_test, ())


class Captioner(nn.Module):
    """Logits of pairs of object and background: the sum of an object and a background logit.

    The cross-entropy of a pair is the sum of the two cross-entropies, so the encoder learns both
    factors.

    Args:
        model: the encoder, and the number of objects in its head.
        backgrounds: number of backgrounds.
    """

    def __init__(self, model: Classifier, backgrounds: int) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.things = nn.Linear(model.head.in_features, model.head.out_features)
        self.backgrounds = nn.Linear(model.head.in_features, backgrounds)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return (self.things(features)[:, :, None] + self.backgrounds(features)[:, None]).flatten(1)


def first_examples(shift: Shift, examples: int | None) -> Shift:
    """Keep `examples` training examples in total, the first ones of each domain; None for all.

    Raises:
        ValueError: a domain has too few.
    """
    if examples is None:
        return shift
    share, more = divmod(examples, len(shift.train))
    counts = [share + (index < more) for index in range(len(shift.train))]
    if short := [d.name for d, n in zip(shift.train, counts, strict=True) if len(d) < n]:
        raise ValueError(
            f"can't take {examples} training examples: {short[0]!r} has too few, and all "
            f"domains have {sum(map(len, shift.train))}"
        )
    pairs = zip(shift.train, counts, strict=True)
    return replace(shift, train=tuple(pick_range(domain, 0, count) for domain, count in pairs))


def pick_range(domain: Domain, start: int, stop: int) -> Domain:
    """Return the examples from `start` up to `stop` or the end."""
    if isinstance(domain, FolderDomain):
        return domain.pick(torch.arange(start, min(stop, len(domain))))
    return Domain(domain.name, domain.data.pick(slice(start, stop)))


def preprocessing(own: Transform, config: Networks) -> Transform:
    """Return a network's own preprocessing with the side and the resizing of the benchmark."""
    if not isinstance(own, Preparation):  # a user's function is not changed
        return own
    protocol = PROTOCOLS[config.data]
    side = config.side or protocol.side or own.crop
    if protocol.squash:
        return replace(own, resize=side, crop=side, squash=True, interpolation="bilinear")
    return replace(own, resize=round(own.resize * side / own.crop), crop=side)
