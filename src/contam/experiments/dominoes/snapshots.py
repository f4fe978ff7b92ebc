"""Measurements of a network that learns dominoes, as rows of numbers."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.experiments.support.prediction_depth import probed
from contam.measures.accuracy_drop import accuracy_drop
from contam.measures.example_difficulty import DifficultyLog, auc
from contam.measures.layerwise import layerwise, over_grid, predictions
from contam.measures.neighbors import vote
from contam.measures.usable_information import usable_information


def accuracy_row(model: nn.Module, shift: Shift, *, interval: bool = False) -> dict[str, Any]:
    """Return the accuracy on every test, and the accuracy drop on the first OOD test.

    `follows` is the share of that OOD test for which the prediction is the class that the upper
    half shows. The interval of the drop is over pictures, which share their cores in both tests.
    """
    first, y = shift.ood_tests[0], shift.id_test.y
    tests = (shift.id_test, *shift.ood_tests)
    predicted = {test.name: predictions(model, test) for test in tests}
    correct = {name: classes == y for name, classes in predicted.items()}
    row: dict[str, Any] = {name: float(hits.double().mean()) for name, hits in correct.items()}
    row["accuracy_drop"] = row[shift.id_test.name] - row[first.name]
    row["follows"] = float((predicted[first.name] == first.data.domain).double().mean())
    if interval:
        drop = accuracy_drop(correct[shift.id_test.name], correct[first.name])
        row |= {"drop_low": drop.low, "drop_high": drop.high}
    return row


def counterexample_row(
    model: nn.Module, train: Domain, *, k: int, outputs: int = 2
) -> dict[str, Any]:
    """Return the areas under the curve of two scores that detect counter-examples.

    `neighbors` is the number of an example's nearest neighbors, in pixel space, with another
    label; it needs no network. `loss` is the loss of the example.
    """
    counter = train.data.domain != train.y
    x, y = over_grid(train.data.x), train.y
    votes = vote(x, y, x, classes=2, k=k, itself=torch.arange(len(y)))
    other = votes.counts.gather(1, 1 - y[:, None])[:, 0].double()
    log = DifficultyLog(len(y), outputs).evaluate(1.0, model, train).compute()
    return {"neighbors": auc(other, counter), "loss": auc(log.early_loss, counter)}


def information_rows(
    model: nn.Module, fitted: Domain, scored: Domain, *, k: int
) -> list[dict[str, Any]]:
    """Return the usable information of every probe about `label` and `Batch.domain`, in bits."""
    layers = list(layerwise(model, fitted, scored, probed(model, scored)))

    def bits(fitted_y: Int[Tensor, " n"], scored_y: Int[Tensor, " m"]) -> Float[Tensor, " probes"]:
        return usable_information(layers, fitted_y, scored_y, k=k).bits.mean(dim=1)

    label = bits(fitted.y, scored.y).tolist()
    domain = bits(fitted.data.domain, scored.data.domain).tolist()
    return [
        {"probe": place, "layer": layer.name, "label": label[place], "domain": domain[place]}
        for place, layer in enumerate(layers)
    ]
