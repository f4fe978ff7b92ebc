"""DomainNet, pruned to four domains and forty classes."""

from pathlib import Path
from typing import Literal

import torch

from contam.batch import Shift
from contam.data.folders import leave_one_out, merged, parted
from contam.data.images import FolderDomain, Transform

DOMAINS = ("clipart", "painting", "real", "sketch")
CLASSES = (
    "airplane", "ambulance", "apple", "backpack", "banana", "bathtub", "bear", "bed", "bee",
    "bicycle", "bird", "book", "bridge", "bus", "cake", "calculator", "camera", "car", "cat",
    "chair", "clock", "cow", "dog", "dolphin", "duck", "elephant", "fence", "fork", "horse",
    "house", "rabbit", "scissors", "strawberry", "table", "telephone", "truck", "butterfly",
    "sheep", "drums", "donut",
)  # fmt: skip
"""In the order of the lists' labels, which is not alphabetical."""
LISTS = "SENTRY_splits"
PARTS = ("train", "test")


def domainnet(
    root: Path,
    transform: Transform,
    *,
    ood: str = "sketch",
    partition: Literal["domainbed", "lists"] = "domainbed",
    third: bool = True,
    held_share: float = 0.8,
    seed: int = 0,
    workers: int = 4,
) -> Shift:
    r"""Read DomainNet: forty classes in four styles, trained on three and tested on the fourth.

    Args:
        root: the folder of the domains' folders and of the pruned lists `SENTRY_splits`.
        transform: function from a Pillow image to a tensor.
        ood: the style of the OOD test.
        partition: `domainbed`, the paper's, merges the two lists of a domain and splits them by the
            seed. `lists` keeps the published lists: the tests are the test lists, and a fifth of
            each training list is for validation.
        third: as for `leave_one_out`.
        held_share: the share of the left-out style that is the OOD test, with `domainbed`; 0.8 is
            the in-split, on which DomainBed reports.
        seed: random seed of the splits.
        workers: number of threads that decode images.

    Raises:
        ValueError: a list is missing or malformed, or the domain or the partition is unknown.

    Source: App. E.4; Tan et al. (2020).

    >>> from contam.data.images import pixels
    >>> Path(LISTS).mkdir(exist_ok=True)
    >>> for name in DOMAINS:
    ...     lines = [f"{name}/{CLASSES[3]}/{number}.png 3" for number in range(10)]
    ...     _ = Path(LISTS, f"{name}_train_mini.txt").write_text("\n".join(lines[:5]))
    ...     _ = Path(LISTS, f"{name}_test_mini.txt").write_text("\n".join(lines[5:]))
    >>> shift = domainnet(Path("."), pixels)
    >>> len(shift.train), len(shift.train[0]), len(shift.ood_tests[0])
    (3, 8, 8)
    """
    if partition == "domainbed":
        pooled = [
            merged(name, [listed(root, name, part, transform, workers=workers) for part in PARTS])
            for name in DOMAINS
        ]
        return leave_one_out(
            "DomainNet", CLASSES, pooled, ood, seed=seed, third=third, held_share=held_share
        )
    if partition != "lists" or ood not in DOMAINS:
        raise ValueError(
            f"unknown partition {partition!r} or domain {ood!r}; partitions are domainbed and "
            f"lists, domains are {', '.join(DOMAINS)}"
        )
    ids = [name for name in DOMAINS if name != ood]
    train = [
        parted(listed(root, name, "train", transform, workers=workers), (0.8,), seed=seed)
        for name in ids
    ]
    tests = [listed(root, name, "test", transform, workers=workers) for name in ids]
    return Shift(
        name=f"DomainNet, {ood} left out, published lists",
        classes=CLASSES,
        train=tuple(part for part, _ in train),
        id_val=merged("ID validation", [part for _, part in train]),
        id_test=merged("ID test", tests),
        ood_tests=(listed(root, ood, "test", transform, workers=workers),),
    )


def listed(
    root: Path, domain: str, part: str, transform: Transform, *, workers: int = 4
) -> FolderDomain:
    """Read the images of one published list, in the order of the list.

    Args:
        root: as for `domainnet`.
        domain: name of the domain.
        part: `train` or `test`.
        transform: as for `domainnet`.
        workers: as for `domainnet`.

    Raises:
        ValueError: the list is missing, or a line is not "domain/class/file label".

    Source: App. E.4; Tan et al. (2020).

    >>> from contam.data.images import pixels
    >>> Path(LISTS).mkdir(exist_ok=True)
    >>> line = f"sketch/{CLASSES[3]}/0.png 3"
    >>> _ = Path(LISTS, "sketch_test_mini.txt").write_text(line)
    >>> listed(Path("."), "sketch", "test", pixels).y.tolist()
    [3]
    """
    path = Path(root) / LISTS / f"{domain}_{part}_mini.txt"
    if not path.is_file():
        raise ValueError(
            f"no {path}; give the folder that contains {LISTS} and the folders {', '.join(DOMAINS)}"
        )
    files, y = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        known = CLASSES[int(label)] if label.isdecimal() and int(label) < len(CLASSES) else None
        folders = name.split("/")
        if folders[:-1] != [domain, known] or folders[-1] in ("", ".", ".."):
            raise ValueError(
                f"{path}, line {number}: {line[:80]!r} is not '{domain}/class/file label' with "
                f"the label of its class in 0..{len(CLASSES) - 1}"
            )
        files.append(Path(root) / name)
        y.append(int(label))
    labels = torch.tensor(y, dtype=torch.int64)
    return FolderDomain(domain, files, labels, DOMAINS.index(domain), transform, workers=workers)
