"""PACS: seven classes as photos, art paintings, cartoons and sketches."""

from pathlib import Path

import torch

from contam.batch import Shift
from contam.data.folders import leave_one_out, published_folder
from contam.data.images import FolderDomain, Transform

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
FAULTY = Path("sketch", "dog", "n02103406_4068-1.png")
"""The file of the published set with a known error; it is left out."""


def pacs(
    root: Path,
    transform: Transform,
    *,
    ood: str = "sketch",
    third: bool = True,
    seed: int = 0,
    workers: int = 4,
) -> Shift:
    """Read PACS: seven classes in four styles, trained on three styles and tested on the fourth.

    Args:
        root: the folder of `PACS/<domain>/<class>/*`.
        transform: function from a Pillow image to a tensor.
        ood: the style of the OOD test.
        third: as for `leave_one_out`.
        seed: random seed of the splits.
        workers: number of threads that decode images.

    Raises:
        ValueError: a domain's folder is missing, has other classes or an empty class, or `ood` is
            unknown.

    Source: App. G.1; Li et al. (2017).

    >>> from contam.data.images import pixels
    >>> for domain in DOMAINS:
    ...     for label in CLASSES:
    ...         Path("PACS", domain, label).mkdir(parents=True, exist_ok=True)
    ...         for number in range(2):
    ...             Path("PACS", domain, label, f"{number}.jpg").touch()
    >>> shift = pacs(Path("."), pixels, ood="sketch")
    >>> len(shift.train), len(shift.train[0]), len(shift.ood_tests[0])
    (3, 11, 14)
    """
    domains = pacs_domains(root, transform, workers=workers)
    return leave_one_out("PACS", CLASSES, domains, ood, seed=seed, third=third)


def pacs_domains(root: Path, transform: Transform, *, workers: int = 4) -> tuple[FolderDomain, ...]:
    """Read the four domains of PACS without a split, to measure their separability.

    Args:
        root: as for `pacs`.
        transform: as for `pacs`.
        workers: as for `pacs`.

    Returns:
        The domains in the order of `DOMAINS`, without the faulty file.

    Raises:
        ValueError: a domain's folder is missing, or has other classes or an empty class.

    Source: App. G.1; Li et al. (2017).

    >>> from contam.data.images import pixels
    >>> for domain in DOMAINS:
    ...     for label in CLASSES:
    ...         Path("PACS", domain, label).mkdir(parents=True, exist_ok=True)
    ...         for number in range(2):
    ...             Path("PACS", domain, label, f"{number}.jpg").touch()
    >>> [len(domain) for domain in pacs_domains(Path("."), pixels)]
    [14, 14, 14, 14]
    """
    domains = []
    for index, name in enumerate(DOMAINS):
        folder = Path(root) / "PACS" / name
        domain = published_folder(folder, transform, CLASSES, index=index, workers=workers)
        usable = [path != Path(root) / "PACS" / FAULTY for path in domain.files]
        domains.append(domain.pick(torch.tensor(usable).nonzero().flatten()))
    return tuple(domains)
