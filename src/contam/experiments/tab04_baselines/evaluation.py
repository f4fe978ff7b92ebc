"""Evaluates a network on the domains of a benchmark: accuracies and measures of contamination."""

from typing import Any

import torch
from torch import Tensor, nn

from contam.batch import Domain
from contam.data.backgrounds import ID
from contam.data.wilds import macro_f1
from contam.experiments.support.altered_backgrounds import EACH, effects_on
from contam.experiments.tab04_baselines.benchmarks import DomainBenchmark
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.models.observe import Observer
from contam.training.algorithms import NotFiniteError


class Outputs:
    """Logits and last features of a network on domains, each of which is shown once.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._observer = Observer(network, (), head=True)
        self._known: dict[int, tuple[Domain, Tensor, Tensor | None]] = {}

    def logits(self, domain: Domain) -> Tensor:
        """Return the (n, classes) logits."""
        return self._shown(domain)[1]

    def features(self, domain: Domain) -> Tensor:
        """Return the (n, width) features that the linear head reads.

        Raises:
            ValueError: the network has no linear head.
        """
        features = self._shown(domain)[2]
        if features is None:
            raise ValueError("the logits are not the output of a linear head")
        return features

    def _shown(self, domain: Domain) -> tuple[Domain, Tensor, Tensor | None]:
        if id(domain) not in self._known:
            logits, features = [], []
            for observation in map(self._observer, domain.batches(256)):
                logits.append(observation.logits.float().cpu())
                if observation.head is not None:
                    features.append(observation.head.float().cpu())
            read = torch.cat(features) if features else None
            self._known[id(domain)] = domain, torch.cat(logits), read
        return self._known[id(domain)]


def evaluate(
    network: nn.Module, benchmark: DomainBenchmark, *, method: str, left_out: str = ""
) -> list[dict[str, Any]]:
    """Measure the accuracy on every domain and, after a full training, contamination.

    Args:
        network: the network, with logits of the benchmark's classes.
        benchmark: the data.
        method: name of the method in messages.
        left_out: a training domain on which the network was not trained; then only its accuracy is
            measured.

    Returns:
        Rows with `what` "accuracy" (`domain`, `role`, `split`, `accuracy`, `n`) and one with `what`
        "contamination" (`attenuation`; with masks also `counterfactual`, `dependent` and
        `interchange`).

    Raises:
        NotFiniteError: a logit is not a number.
        ValueError: the logits are not one for each class.

    Source: App. E.4.
    """
    outputs = Outputs(network)

    def row(domain: Domain, role: str, split: str) -> dict[str, Any]:
        logits = outputs.logits(domain)
        if logits.shape != (len(domain), len(benchmark.classes)):
            raise ValueError(
                f"{method}: the network returns {tuple(logits.shape[1:])} for an example; expected "
                f"the logits of {len(benchmark.classes)} classes"
            )
        if logits.isnan().any():
            raise NotFiniteError(f"{method}: the network's logits on {domain.name!r} are NaN")
        predicted = logits.argmax(dim=1)
        if benchmark.metric == "macro F1":
            score = macro_f1(predicted, domain.y)
        else:
            score = float((predicted == domain.y).double().mean())
        return {"what": "accuracy", "domain": domain.name, "role": role, "split": split,
                "accuracy": score, "n": len(domain)}  # fmt: skip

    if left_out:
        (own,) = (split.inner for split in benchmark.train if split.inner.name == left_out)
        return [row(own, "train", "inner")]
    rows = [row(split.held_out, "train", "held out") for split in benchmark.train]
    for test in benchmark.tests:
        rows += [row(test.inner, "ood", "inner"), row(test.held_out, "ood", "held out")]
    rows += [row(domain, "id", "test") for domain in benchmark.id_tests]
    return [*rows, {"what": "contamination"} | _contamination(outputs, benchmark)]


def _contamination(outputs: Outputs, benchmark: DomainBenchmark) -> dict[str, float | None]:
    classes = len(benchmark.classes)

    def means(domains: list[Domain]) -> ClassMeans:
        first = outputs.features(domains[0])
        table = ClassMeans(classes, first.shape[1])
        for domain in domains:
            table.update(outputs.features(domain), domain.y)
        return table

    own = list(benchmark.id_tests) or [split.held_out for split in benchmark.train]
    try:
        known = means(own)
    except ValueError:  # the network has no linear head
        return {"attenuation": None}
    new = means([split.inner for split in benchmark.tests])
    shares: dict[str, float | None] = {"attenuation": class_profile_attenuation(known, new).value}
    if benchmark.altered is not None:
        effects = effects_on(outputs.features, benchmark.altered, classes)
        shares |= {"counterfactual": effects.attenuation, "dependent": effects.dependent}
        shares["interchange"] = _interchange(outputs, benchmark.altered.before)
    return shares


def _interchange(outputs: Outputs, before: list[Domain]) -> float:
    """Accuracy lost when only the background is exchanged for one of another kind.

    The same objects are shown on every background: those of ID families come first.
    """
    right = torch.stack(
        [outputs.logits(images).argmax(dim=1) == images.y for images in before]
    ).double()
    familiar = EACH * len(ID)
    return float(right[:familiar].mean() - right[familiar:].mean())
