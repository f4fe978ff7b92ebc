"""Small shifts with several domains for algorithms of domain generalization."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.models.classifier import Classifier
from contam.training.algorithms import Algorithm

AlgorithmT = TypeVar("AlgorithmT", bound=Algorithm)


def domains_of_points(*sizes: int, classes: int = 2, width: int = 4, images: bool = False) -> Shift:
    """Points around one mean per class, moved by a different amount in each domain (60, 40).

    As images, they have one channel of 2 x 2 pixels.
    """
    sizes = sizes or (60, 40)
    generator = torch.Generator().manual_seed(0)
    domains = []
    for index, size in enumerate(sizes):
        y = torch.arange(size) % classes
        x = 0.5 * torch.randn(size, width, generator=generator)
        x[torch.arange(size), y] += 3
        x[:, -1] += index
        x = x.view(size, 1, 2, 2) if images else x
        domains.append(Domain(f"domain {index}", Batch(x, y, torch.full_like(y, index))))
    names = tuple(f"class {index}" for index in range(classes))
    return Shift("points", names, train=tuple(domains), id_test=domains[0], ood_tests=())


def minibatches_of(shift: Shift, sizes: Sequence[int] = ()) -> list[Batch]:
    """One minibatch from each training domain, of these sizes (8 each)."""
    sizes = sizes or [8] * len(shift.train)
    return [d.data.pick(slice(0, size)) for d, size in zip(shift.train, sizes, strict=True)]


def point_network(
    seed: int = 0, *, classes: int = 2, width: int = 4, hidden: int = 8, images: bool = False
) -> Classifier:
    """A network of one hidden layer with batch norm for points, also as images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, hidden, 2), nn.Flatten())
            if images
            else nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
        )
        return Classifier(encoder, classes, hidden)


def assert_trains_as(one: Algorithm, other: Algorithm, *, steps: int = 4) -> None:
    """Assert that two of `point_algorithm` take the same steps, up to rounding."""
    shift = domains_of_points()
    with torch.random.fork_rng():
        for algorithm in (one, other):
            for step in range(steps):
                torch.manual_seed(step)
                batches = [batch._replace(x=batch.x.double()) for batch in minibatches_of(shift)]
                algorithm.step(batches)
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def point_algorithm(kind: type[AlgorithmT], **settings: float) -> AlgorithmT:
    """An algorithm that trains `point_network`, in double precision, on two domains."""
    return kind(
        point_network().double(),
        domains=2,
        classes=2,
        settings=kind.Settings.model_validate({"step_size": 0.01, **settings}),
        seed=0,
    )
