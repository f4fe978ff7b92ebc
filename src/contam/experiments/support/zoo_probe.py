"""Fits the head of a network of the zoo as a linear probe of its features."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from contam.batch import Domain
from contam.data.benchmarks import PROTOCOLS, Benchmark
from contam.data.wilds import macro_f1
from contam.experiments.support.networks import Networks, NetworkSpec, probe_recipe
from contam.experiments.support.zoo_images import augmented, first_examples, pick_range
from contam.models.classifier import Classifier
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.precision import available_device
from contam.training.probe import (
    Minibatches,
    SelectedHead,
    extract,
    fit_probe,
    probe_images,
    top1_accuracy,
)

FEATURES_PER_CHECKPOINT = 4096
"""Examples per checkpoint of features; a multiple of the batch size of `extract`."""


def fit_head(
    model: Classifier, benchmark: Benchmark, store: Run, *, config: Networks, spec: NetworkSpec,
    seed: int, report_every: int,
) -> Iterator[float]:  # fmt: skip
    """Fit the head as a linear probe on the ID training data, and yield the share done.

    Args:
        model: the network; only the weights of its head are changed.
        benchmark: the data with the network's preprocessing.
        store: the run with its checkpoints.
        config: the recipe.
        spec: the network.
        seed: seed of the probe.
        report_every: training steps between two progress reports.

    Raises:
        ValueError: no recipe was published for the data, or a domain has too few images.
    """
    recipe = probe_recipe(config, spec)
    own = first_examples(benchmark.shift, spec.examples)
    score = _macro_f1 if benchmark.metric == "macro F1" else top1_accuracy
    values = _features(
        model.encoder, benchmark.chosen_on, store, f"{spec.part}/features/validation"
    )
    validation = torch.cat([*values]), benchmark.chosen_on.y
    if PROTOCOLS[config.data].augmented_probes and isinstance(recipe, Minibatches):
        head = SelectedHead(
            model.head.in_features, len(own.classes), seed=seed
        ).to(available_device())  # fmt: skip
        yield from checkpointed(
            store,
            f"{spec.part}/probe",
            partial(
                probe_images, head, model.encoder, augmented(config, own), recipe,
                validation=validation, score=score, seed=seed,
                report_every=report_every, compute=config.compute,
            ),
        )  # fmt: skip
        with torch.no_grad():
            model.head.weight.copy_(head.best_weight)
            model.head.bias.copy_(head.best_bias)
        return
    examples = sum(map(len, own.train))
    parts: list[Tensor] = []
    for index, domain in enumerate(own.train):
        for part in _features(model.encoder, domain, store, f"{spec.part}/features/{index}"):
            parts.append(part)
            yield sum(map(len, parts)) / examples
    probe = fit_probe(
        torch.cat(parts),
        torch.cat([domain.y for domain in own.train]),
        recipe,
        classes=len(benchmark.shift.classes),
        validation=validation,
        score=score,
        seed=seed,
    )
    weight, bias = probe.head()
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)


def _features(encoder: nn.Module, domain: Domain, store: Run, part: str) -> Iterator[Tensor]:
    """Extract the features of a domain in order, with checkpoints below `part` in the store.

    The checkpoints are deleted when the network is written.
    """
    for start in range(0, len(domain), FEATURES_PER_CHECKPOINT):
        kept = store.checkpoint(f"{part}/{start}")
        if kept is not None:
            yield kept[0]["features"]
            continue
        values = extract(encoder, pick_range(domain, start, start + FEATURES_PER_CHECKPOINT))
        store.save_checkpoint(f"{part}/{start}", {"features": values})
        yield values


def _macro_f1(logits: Tensor, y: Tensor) -> float:
    return macro_f1(logits.argmax(dim=1), y)
