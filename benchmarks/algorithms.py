"""A step of every algorithm against the same arithmetic in a plain loop.

The plain side is what one would write for this one algorithm: a function from a network and its
minibatches to a loss, and PyTorch's Adam. Ours is the algorithm's `step` within a seeded random
state, as in a training, and with its penalty at full weight. Both sides train a ResNet-8 on images
of 32 px from the same weights, in alternation, and their losses must agree. The ratio is the
largest of all algorithms, each from the median of the processor time of a step.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from outcome import conclude, machine
from torch import Tensor
from torch.distributions import Beta

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.models.small import resnet8
from contam.rng import seeded
from contam.training.algorithms import ALGORITHMS

SIDE, CLASSES, DOMAINS = 32, 10, 3
AT_MOST = 1.1
AGREE = 1e-3
"""Losses may differ by this share."""

SETTINGS = {
    "anneal_steps": 0, "bottleneck_anneal_steps": 0, "penalty_weight": 1.0,
    "bottleneck_weight": 1.0, "average_from": 0,
}  # fmt: skip
"""Settings of the algorithms that have them: both penalties and the average from the start."""

Batches = Sequence[Batch]
Step = Callable[[Batches], float]
"""Takes one step and returns its loss."""


def descending(network: Classifier, loss: Callable[[Batches], Tensor]) -> Step:
    """A step of Adam on a loss."""
    optimizer = torch.optim.Adam(network.parameters(), 5e-5)

    def step(batches: Batches) -> float:
        value = loss(batches)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def erm(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        return F.cross_entropy(network(x), y)

    return descending(network, loss)


def outputs(network: Classifier, batches: Batches) -> tuple[list[Tensor], list[Tensor]]:
    """Features and logits of each domain."""
    features = network.encoder(torch.cat([b.x for b in batches]))
    sizes = [len(b.y) for b in batches]
    return list(features.split(sizes)), list(network.head(features).split(sizes))


def mean_risk(logits: list[Tensor], batches: Batches) -> Tensor:
    pairs = zip(logits, batches, strict=True)
    return sum((F.cross_entropy(out, b.y) for out, b in pairs), torch.zeros(())) / len(batches)


def invariance(logits: list[Tensor], batches: Batches) -> Tensor:
    """IRM's penalty by automatic differentiation, as its authors publish it."""
    total = torch.zeros(())
    for out, batch in zip(logits, batches, strict=True):
        scale = torch.ones((), requires_grad=True)
        gradients = [
            torch.autograd.grad(
                F.cross_entropy(out[half::2] * scale, batch.y[half::2]), scale, create_graph=True
            )[0]
            for half in (0, 1)
        ]
        total = total + gradients[0] * gradients[1]
    return total / len(batches)


def bottleneck(features: list[Tensor]) -> Tensor:
    return sum((z.var(dim=0).mean() for z in features), torch.zeros(())) / len(features)


def irm(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        _, logits = outputs(network, batches)
        return mean_risk(logits, batches) + invariance(logits, batches)

    return descending(network, loss)


def ib_erm(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        return mean_risk(logits, batches) + bottleneck(features)

    return descending(network, loss)


def ib_irm(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        penalty = invariance(logits, batches) + bottleneck(features)
        return mean_risk(logits, batches) + penalty

    return descending(network, loss)


def group_dro(network: Classifier) -> Step:
    q = torch.ones(DOMAINS) / DOMAINS

    def loss(batches: Batches) -> Tensor:
        nonlocal q
        _, logits = outputs(network, batches)
        pairs = zip(logits, batches, strict=True)
        found = torch.stack([F.cross_entropy(out, b.y) for out, b in pairs])
        q = q * (1e-2 * found.detach()).exp()
        q = q / q.sum()
        return q @ found

    return descending(network, loss)


def mixup(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        ring = torch.randperm(len(batches)).tolist()
        shares = Beta(torch.tensor(0.2), torch.tensor(0.2)).sample((len(batches),)).tolist()
        inputs, targets = [], []
        for place, share in enumerate(shares):
            one, other = batches[ring[place]], batches[ring[(place + 1) % len(ring)]]
            inputs.append(share * one.x + (1 - share) * other.x)
            first, second = F.one_hot(one.y, CLASSES), F.one_hot(other.y, CLASSES)
            targets.append(share * first + (1 - share) * second)
        return F.cross_entropy(network(torch.cat(inputs)), torch.cat(targets))

    return descending(network, loss)


def coral(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        features, logits = outputs(network, batches)
        moments = [(z.mean(dim=0), z.T.cov()) for z in features]
        distances = [
            (mean - other_mean).square().mean() + (cov - other_cov).square().mean()
            for place, (mean, cov) in enumerate(moments)
            for other_mean, other_cov in moments[:place]
        ]
        return mean_risk(logits, batches) + torch.stack(distances).mean()

    return descending(network, loss)


def vrex(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        _, logits = outputs(network, batches)
        pairs = zip(logits, batches, strict=True)
        found = torch.stack([F.cross_entropy(out, b.y) for out, b in pairs])
        return found.mean() + (found - found.mean()).square().mean()

    return descending(network, loss)


def fishr(network: Classifier) -> Step:
    kept = torch.zeros(DOMAINS, CLASSES * (network.head.in_features + 1))

    def loss(batches: Batches) -> Tensor:
        nonlocal kept
        features, logits = outputs(network, batches)
        variances = []
        for z, out, batch in zip(features, logits, batches, strict=True):
            residual = out.softmax(dim=1) - F.one_hot(batch.y, CLASSES)
            weights = residual[:, :, None] * z[:, None, :]
            rows = torch.cat([weights.flatten(1), residual], dim=1)
            variances.append(rows.var(dim=0, correction=0))
        averages = 0.95 * kept + 0.05 * torch.stack(variances)
        kept = averages.detach()
        distance = (averages - averages.mean(dim=0)).square().mean() / 0.05**2
        y = torch.cat([b.y for b in batches])
        return F.cross_entropy(torch.cat(logits), y) + distance

    return descending(network, loss)


def swad(network: Classifier) -> Step:
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain, count = erm(network), 0

    def step(batches: Batches) -> float:
        nonlocal count
        loss = plain(batches)
        count += 1
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                average[name] += (tensor - average[name]) / count if tensor.ndim else 0
        return loss

    return step


def large_dropout(network: Classifier) -> Step:
    def loss(batches: Batches) -> Tensor:
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        return F.cross_entropy(network.head(F.dropout(network.encoder(x), 0.9)), y)

    return descending(network, loss)


PLAIN: dict[str, Callable[[Classifier], Step]] = {
    "ERM": erm,
    "IRM": irm,
    "GroupDRO": group_dro,
    "Mixup": mixup,
    "CORAL": coral,
    "VREx": vrex,
    "IB-ERM": ib_erm,
    "IB-IRM": ib_irm,
    "Fishr": fishr,
    "SWAD": swad,
    "large dropout": large_dropout,
}
"""The plain formulation of each algorithm with its default settings."""


def minibatches(size: int, seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(DOMAINS):
        x = torch.randn(size, 3, SIDE, SIDE, generator=generator)
        y = torch.randint(CLASSES, (size,), generator=generator)
        found.append(Batch(x, y, torch.full_like(y, index)))
    return found


def timed(name: str, size: int, steps: int) -> tuple[dict[str, float], float]:
    """Median seconds of a step of each side, and the largest relative difference of a loss."""
    begun = resnet8(CLASSES, seed=0)
    networks = {"plain": copy.deepcopy(begun), "contam": copy.deepcopy(begun)}
    kind = ALGORITHMS[name]
    fields = kind.Settings.model_fields
    settings = kind.Settings.model_validate({k: v for k, v in SETTINGS.items() if k in fields})
    algorithm = kind(
        networks["contam"], domains=DOMAINS, classes=CLASSES, settings=settings, seed=0
    )
    algorithm.train()
    networks["plain"].train()
    plain = PLAIN[name](networks["plain"])

    def take_plain(batches: Batches, number: int) -> tuple[float, float]:
        with seeded(number, "step"):
            start = time.process_time()
            return plain(batches), time.process_time() - start

    def take_ours(batches: Batches, number: int) -> tuple[float, float]:
        start = time.process_time()
        with seeded(number, "step"):
            terms = algorithm.step(batches)
        return sum(terms.values()), time.process_time() - start

    sides = [("plain", take_plain), ("contam", take_ours)]
    seconds: dict[str, list[float]] = {side: [] for side, _ in sides}
    error = 0.0
    for number in range(steps):
        batches, losses = minibatches(size, number), {}
        for side, take in sides if number % 2 else sides[::-1]:
            losses[side], spent = take(batches, number)
            seconds[side].append(spent)
        error = max(error, abs(losses["contam"] / losses["plain"] - 1))
    # The first steps also pay for what is set up once.
    return {side: statistics.median(spent[2:]) for side, spent in seconds.items()}, error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32, help="of each of three domains")
    parser.add_argument("--steps", type=int, default=14, help="of each side")
    parser.add_argument("--only", nargs="*", choices=[*PLAIN], default=[*PLAIN])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    wrong = [f"{name}: no plain formulation" for name in ALGORITHMS if name not in PLAIN]
    ratios = []
    for name in given.only:
        seconds, error = timed(name, given.batch_size, given.steps)
        ratios.append(seconds["contam"] / seconds["plain"])
        print(
            f"{name:15}{1e3 * seconds['contam']:8.1f} ms, plain {1e3 * seconds['plain']:8.1f} ms, "
            f"ratio {ratios[-1]:.3f}; losses differ by up to {error:.1e}"
        )
        if not error < AGREE:
            wrong.append(f"{name}: losses differ by up to {error:.2%}")
    return conclude(max(ratios), at_most=AT_MOST, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
