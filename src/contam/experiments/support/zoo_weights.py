"""Builds a network of the zoo with its initial weights: random ones, or those of a file."""

import re
from dataclasses import replace
from pathlib import Path

from torch import nn

from contam.data.benchmarks import Benchmark
from contam.experiments.support.networks import SMALL, Networks, NetworkSpec
from contam.inputs.pixel_range import pixel_range_of
from contam.models import efficientnet_lite
from contam.models.classifier import Classifier
from contam.models.logits_adapter import PixelEncoder
from contam.models.small import NORMALIZATIONS, resnet8
from contam.models.sources import load, what_to_fetch
from contam.rng import seeded
from contam.training.precision import available_device


def architecture_of(config: Networks, spec: NetworkSpec) -> str:
    """Return the name of a network's architecture, or raise if the config has none."""
    if spec.learns != "labels":
        return config.teacher
    if config.standard is None:
        raise ValueError(f"no {spec.name}: the config has no standard network; set 'standard'")
    return config.standard


def is_trained(config: Networks, spec: NetworkSpec) -> bool:
    """Return whether the network is trained here; otherwise its weights come from a file."""
    if spec.learns == "labels":
        return config.standard_recipe is not None
    return spec.learns != "pretraining" or config.teacher_recipe is not None


def weights_path(config: Networks, spec: NetworkSpec) -> Path | None:
    """Return the file of the network's (initial) weights; None for random weights.

    Raises:
        ValueError: the file is missing; the message names it.
    """
    data, name = config.data, architecture_of(config, spec)
    if not is_trained(config, spec):
        use = f", trained on {data}" if spec.learns == "labels" else ""
        if data == "iwildcam" and not use:
            use = ", fine-tuned on iwildcam (or set teacher_recipe to fine-tune it here)"
        return _weights(config.weights, name, f"{what_to_fetch(name)}{use}")
    start = {"labels": config.standard_start_from, "pretraining": config.teacher_start_from}
    name = start.get(spec.learns)
    if name is None:
        return None
    pretrained = f"{what_to_fetch(name)}, which is fine-tuned on {data} here,"
    return _weights(config.weights, name, pretrained)


def initial_network(
    config: Networks, spec: NetworkSpec, benchmark: Benchmark, file: Path | None = None, *,
    seed: int,
) -> tuple[Classifier, nn.Linear | None]:  # fmt: skip
    """Return a network before training, and the head in its file of weights, if any.

    Args:
        config: the architectures.
        spec: the network.
        benchmark: the classes.
        file: the file of `weights_path`; None for random weights.
        seed: seed of random weights and of the head.

    Raises:
        ValueError: the head in the file is used, and has other classes.
    """
    classes, name = len(benchmark.shift.classes), architecture_of(config, spec)
    if name == SMALL:
        model = resnet8(
            classes,
            width=spec.width or config.width,
            normalization=spec.normalization,
            seed=seed,
        )
        return model.to(available_device()), None
    source = load(name, weights=file, seed=seed if file is None else None)
    if config.data == "shapes":
        pixels = pixel_range_of(source.transform)
        enlarged = PixelEncoder(source.encoder, pixels, config.side)
        source = replace(source, encoder=enlarged)
    # A head is used only if the network is neither trained nor probed here.
    used = spec.learns == "labels" and not is_trained(config, spec)
    if used and source.head is not None and source.classes != classes:
        raise ValueError(
            f"the weights of {name} have a head of {source.classes} classes, but "
            f"{config.data} has {classes}; provide weights that were trained on it, or "
            "set standard_recipe and standard_start_from to fine-tune these"
        )
    encoder = NORMALIZATIONS[spec.normalization](source.encoder)
    with seeded(seed, "lineup/head"):
        model = Classifier(encoder, classes, source.width)
    return model.to(available_device()), source.head


def _weights(folder: Path, name: str, what: str) -> Path:
    """The file of a network's weights.

    Raises:
        ValueError: the file is missing; the message describes it with `what`.
    """
    if name == efficientnet_lite.NAME and (installed := efficientnet_lite.weights_file()):
        return installed
    stem = re.sub(r"[^\w.-]+", "-", name)
    places = [folder / f"{stem}{suffix}" for suffix in (".safetensors", ".pt", ".pth", ".bin")]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(
        f"no weights of {name}: nothing is downloaded, so put {what} at {places[0]} "
        "(a state dict of torch.save may end in .pt) and run the same command again"
    )
