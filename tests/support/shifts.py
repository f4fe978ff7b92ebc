"""Small shifts to train on."""

import torch

from contam.batch import Batch, Domain, Shift


def brightest_channel(*sizes: int, dtype: torch.dtype = torch.float32) -> Shift:
    """Images whose class is their brightest channel, with training domains of these sizes (90)."""
    sizes = sizes or (90,)
    generator = torch.Generator().manual_seed(0)
    n = sum(sizes)
    y = torch.randint(3, (n,), generator=generator)
    x = torch.rand(n, 3, 16, 16, generator=generator, dtype=dtype)
    x[torch.arange(n), y] += 0.5
    return in_domains(x, y, *sizes)


def in_domains(x: torch.Tensor, y: torch.Tensor, *sizes: int) -> Shift:
    """A shift whose training domains are consecutive examples; the first is the ID test, too."""
    domains = tuple(
        Domain(str(k), Batch(images, labels, torch.zeros_like(labels)))
        for k, (images, labels) in enumerate(zip(x.split(sizes), y.split(sizes), strict=True))
    )
    return Shift("toy", ("r", "g", "b"), train=domains, id_test=domains[0], ood_tests=())


def domains_of(shift: Shift) -> list[Domain]:
    """All domains: training, validation, ID test, OOD tests."""
    validation = () if shift.id_val is None else (shift.id_val,)
    return [*shift.train, *validation, shift.id_test, *shift.ood_tests]
