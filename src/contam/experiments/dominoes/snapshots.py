"""What is looked at in a network that learns dominoes, as rows of numbers."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.measures.accuracy_drop import accuracy_drop
from contam.measures.depth import Rule, model_depths
from contam.measures.example_difficulty import DifficultyLog, auc
from contam.measures.layerwise import layerwise, over_grid, predictions
from contam.measures.neighbors import vote
from contam.measures.usable_information import usable_information
from contam.models.observe import layers_of

EARLY = 1
"""The last probe that counts as early: the input and the first layer."""
AT_ONCE = 8
"""Probes that are held at a time."""


def probed(model: nn.Module, domain: Domain) -> list[str]:
    """The layers that are probes between the input and the softmax: every activation."""
    device = next(model.parameters()).device
    return layers_of(model, domain.data.x[:1].to(device))


def depth_row(
    model: nn.Module, shift: Shift, *, per_class: int, rule: Rule, seed: int
) -> dict[str, Any]:
    """Where the answers to the ID test are decided.

    `mean` is the mean depth where it is defined, `early` the share decided at the input or the
    first layer, `shares` those decided at each probe; `undefined` is what is missing to 1.
    """
    found = model_depths(
        model, shift.train[0], shift.id_test, probed(model, shift.id_test),
        per_class=per_class, rule=rule, seed=seed, at_once=AT_ONCE,
    )  # fmt: skip
    depth = found.depth
    return {
        "mean": float(depth.nanmean()),
        "early": float((depth <= EARLY).double().mean()),
        "undefined": float(depth.isnan().double().mean()),
        "shares": [float((depth == probe).double().mean()) for probe in range(len(found.probes))],
    }


def answers_row(model: nn.Module, shift: Shift, *, interval: bool = False) -> dict[str, Any]:
    """Accuracy on every test, and what is lost on the first OOD test against the ID test.

    `follows` is how often the answer is what the upper half shows in that OOD test. The interval
    of `harm` is over the test pictures, whose cores are the same in both tests.
    """
    first, y = shift.ood_tests[0], shift.id_test.y
    said = {test.name: predictions(model, test) for test in (shift.id_test, *shift.ood_tests)}
    right = {name: answers == y for name, answers in said.items()}
    row: dict[str, Any] = {name: float(each.double().mean()) for name, each in right.items()}
    row["harm"] = row[shift.id_test.name] - row[first.name]
    row["follows"] = float((said[first.name] == first.data.domain).double().mean())
    if interval:
        lost = accuracy_drop(right[shift.id_test.name], right[first.name])
        row |= {"harm_low": lost.low, "harm_high": lost.high}
    return row


def counter_row(model: nn.Module, learned: Domain, *, k: int) -> dict[str, Any]:
    """How well counter-examples are found among the training examples, as areas under the curve.

    `in the data` ranks by the share of an example's neighbors, pixel by pixel, that have another
    label; it needs no network. `in the network` ranks by the loss.
    """
    counter = learned.data.domain != learned.y
    x, y = over_grid(learned.data.x), learned.y
    votes = vote(x, y, x, classes=2, k=k, itself=torch.arange(len(y)))
    other = votes.counts.gather(1, 1 - y[:, None])[:, 0].double()
    log = DifficultyLog(len(y), 2).evaluate(1.0, model, learned).compute()
    return {"in the data": auc(other, counter), "in the network": auc(log.early_loss, counter)}


def information_rows(
    model: nn.Module, fitted: Domain, scored: Domain, *, k: int
) -> list[dict[str, Any]]:
    """What neighbors read from every probe about the class and about `Batch.domain`, in bits."""
    layers = list(layerwise(model, fitted, scored, probed(model, scored), at_once=AT_ONCE))

    def bits(known: Int[Tensor, " n"], asked: Int[Tensor, " m"]) -> Float[Tensor, " probes"]:
        return usable_information(layers, known, asked, k=k).bits.mean(dim=1)

    label = bits(fitted.y, scored.y).tolist()
    cue = bits(fitted.data.domain, scored.data.domain).tolist()
    return [
        {"probe": place, "layer": layer.name, "label": label[place], "cue": cue[place]}
        for place, layer in enumerate(layers)
    ]
