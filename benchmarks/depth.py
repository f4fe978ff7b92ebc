"""Prediction depth of 2000 queries: 20 000 support examples, 8 layers of width 512, 30 neighbors.

Two references work on the same features, alternating with ours:

- scikit-learn's brute-force neighbors and their votes, layer by layer, with equal results (the
  ratio);
- the broadcast L1 loop of the second paper's code, one query and one layer at a time. It runs on a
  few queries of one layer, and its time is scaled, because every query costs the same. Its metric
  is L1; ours must find the same neighbors under L1.

Both of the first two need the same matrix products, which are about two thirds of our time where
oneDNN and OpenBLAS are equally fast (1.5 times as fast as scikit-learn there), and less on
processors with vector units that only oneDNN uses (2.2 times).
"""

import argparse
import resource
import statistics
import sys
import time

import torch
from outcome import conclude, machine
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from contam.measures.depth import Depths, Rule, depths, draw_support, prediction_depth
from contam.measures.layerwise import Layer
from contam.measures.neighbors import nearest

SUPPORT, QUERIES, LAYERS, WIDTH, CLASSES, K = 20_000, 2000, 8, 512, 10, 30
FASTER = 1.3
"""Times as fast as scikit-learn that ours has to be."""
BROADCAST = 50
"""Times as fast as the broadcast loop that ours has to be."""
LOOPED = 4
"""Queries that the broadcast loop runs on."""


def layer(probe: int, y: Tensor, asked: Tensor) -> Layer:
    """Features in which the class grows plainer from probe to probe."""
    generator = torch.Generator().manual_seed(probe)
    centers = 0.05 * probe * torch.randn(CLASSES, WIDTH, generator=generator)
    both = (centers[c] + torch.randn(len(c), WIDTH, generator=generator) for c in (y, asked))
    return Layer(f"layer {probe}", *both)


def by_scikit_learn(layers: list[Layer], y: Tensor) -> Tensor:
    """(probes, queries, classes) votes."""
    votes = []
    for _, support, queries in layers:
        reader = KNeighborsClassifier(K, algorithm="brute").fit(support.numpy(), y.numpy())
        votes.append(torch.from_numpy(reader.predict_proba(queries.numpy())))
    return (K * torch.stack(votes)).round().long()


def by_broadcast(support: Tensor, queries: Tensor) -> Tensor:
    """(queries, K) neighbors under L1."""
    return torch.stack(
        [(support - query).abs().sum(dim=1).topk(K, largest=False).indices for query in queries]
    )


def differing(ours: Depths, votes: Tensor, reference: Tensor) -> int:
    """How many results differ from those of scikit-learn's votes, where these are no tie."""
    most = votes == votes.amax(dim=2, keepdim=True)
    alone = most.sum(dim=2) == 1
    winner = torch.where(alone, votes.argmax(dim=2), ours.decided[0])
    backed = most.gather(2, ours.decided[0][..., None])  # ours is always one of the tied
    depth = prediction_depth(winner, reference)
    same = torch.equal(depth.nan_to_num(-1), ours.depth[0].nan_to_num(-1))
    return int((winner != ours.decided[0]).sum() + (~backed).sum()) + (not same)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    y, asked = torch.arange(SUPPORT) % CLASSES, torch.arange(QUERIES) % CLASSES
    support, rule = draw_support(y, SUPPORT // CLASSES), Rule(k=K, reference="label")
    layers = [layer(probe, y, asked) for probe in range(LAYERS)]
    seconds: dict[str, list[float]] = {"ours": [], "scikit-learn": [], "broadcast": []}
    depths(layers[:1], support, asked, rule=rule)  # the first call loads libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    depths(layers, support, asked, rule=rule)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    failed = 0
    for _ in range(rounds):
        begin = time.process_time()
        result = depths(layers, support, asked, rule=rule)
        seconds["ours"].append(time.process_time() - begin)
        begin = time.process_time()
        votes = by_scikit_learn(layers, y)
        seconds["scikit-learn"].append(time.process_time() - begin)
        begin = time.process_time()
        looped = by_broadcast(layers[-1].support, layers[-1].queries[:LOOPED])
        scale = QUERIES * LAYERS / LOOPED
        seconds["broadcast"].append(scale * (time.process_time() - begin))
        failed += differing(result, votes, asked)
    ours = nearest(layers[-1].support, layers[-1].queries[:LOOPED], k=K, metric="l1")
    failed += not torch.equal(ours.sort(dim=1).values, looped.sort(dim=1).values)
    print(f"{machine()}, CPU seconds")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        scaled = f", scaled from {LOOPED} queries of one layer" if name == "broadcast" else ""
        print(f"{name} {value:.3g} s, median of {rounds} rounds{scaled}")
    mean = result.mean()
    print(
        f"mean depth {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}), {failed} wrong results"
    )
    print(f"memory grew by {grown:.0f} MiB over one layer's work when 8 layers were read")
    loop = medians["broadcast"] / medians["ours"]
    print(f"{loop:.3g} times as fast as the broadcast loop")
    wrong = [f"results: {failed} differ from scikit-learn's or from the loop's"] * (failed > 0)
    if loop < BROADCAST:
        wrong.append(f"speed: want at least {BROADCAST} times that of the broadcast loop")
    return conclude(medians["scikit-learn"] / medians["ours"], at_least=FASTER, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
