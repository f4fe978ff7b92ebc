"""PACS: seven classes as photos, art, cartoons and sketches."""

from pathlib import Path

import torch

from contam.batch import Shift
from contam.data.folders import image_folder, leave_one_out
from contam.data.images import FolderDomain, Transform

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
FAULTY = Path("sketch", "dog", "n02103406_4068-1.png")
"""The one file of the published set that is known to hold an error; it is left out."""


def pacs(
    root: Path,
    transform: Transform,
    *,
    ood: str = "sketch",
    third: bool = True,
    seed: int = 0,
    workers: int = 4,
) -> Shift:
    """Seven classes in four styles: learn on three of the styles, and be judged on the fourth.

    The root holds `PACS/<domain>/<class>/*`. For the parts and for `third`, see `leave_one_out`.

    Source: App. G.1; Li et al. (2017).

    Raises:
        ValueError: a domain's folder is missing, has other classes or an empty one; or there is no
            such domain to leave out.
    """
    domains = pacs_domains(root, transform, workers=workers)
    return leave_one_out("PACS", CLASSES, domains, ood, seed=seed, third=third)


def pacs_domains(root: Path, transform: Transform, *, workers: int = 4) -> tuple[FolderDomain, ...]:
    """The four domains whole, as for asking whether they are separable.

    Source: App. G.1; Li et al. (2017).

    Raises:
        ValueError: a domain's folder is missing, has other classes or an empty one.
    """
    found = []
    for index, name in enumerate(DOMAINS):
        folder = Path(root) / "PACS" / name
        domain = image_folder(folder, transform, index=index, classes=CLASSES, workers=workers)
        fine = [path != Path(root) / "PACS" / FAULTY for path in domain.files]
        found.append(domain.pick(torch.tensor(fine).nonzero().flatten()))
    return tuple(found)
