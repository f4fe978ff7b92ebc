"""The X-rays of a case, and the control in which drains are independent of the disease."""

import torch

from contam.batch import Domain, Shift
from contam.data.chest_xray import chest_xrays
from contam.data.drains import GROUPS, drawn_xrays
from contam.data.images import FolderDomain, resized
from contam.data.missing_files import MissingFilesError
from contam.experiments.chest_xray.config import Config
from contam.rng import generator_for


def shift_of(config: Config, data: str, seed: int) -> tuple[Shift, int]:
    """Return the data of a case, and the index of the group with a drain.

    Raises:
        ValueError: tables or listed images are missing, which the message names, or there is no
            such group.
    """
    if config.kind == "drawn":
        share = config.agreement if data == "correlated" else 0.5
        shift = drawn_xrays(agreement=share, train=config.train, test=config.test, seed=seed)
        return shift, GROUPS.index("drain")
    hint = "Nothing is downloaded: put the data there, or give its folder with --folder"
    if config.annotations is not None:
        hint += " and the table of drains with --annotations"
    try:
        xrays = chest_xrays(
            config.kind, config.folder, label=config.label, group=config.group,
            annotations=config.annotations, transform=resized(config.side),
        )  # fmt: skip
    except MissingFilesError as error:
        raise ValueError(f"{error}. {hint}") from error
    if config.with_drain not in xrays.groups:
        raise ValueError(
            f"no image in {config.folder} is in the group {config.with_drain!r}, only in "
            f"{', '.join(xrays.groups)}"
        )
    shift, drain = xrays.shift, xrays.groups.index(config.with_drain)
    parts = [part for part in (*shift.train, shift.id_test) if isinstance(part, FolderDomain)]
    lost = [path for part in parts for path in part.files if not path.is_file()]
    if lost:
        raise ValueError(f"{len(lost):,} listed images are missing, such as {lost[0]}. {hint}")
    if data == "control":
        shift = Shift(
            f"{shift.name}, control", shift.classes,
            tuple(decorrelated(part, seed) for part in shift.train), shift.id_test, (shift.id_test,)
        )  # fmt: skip
    return shift, drain


def decorrelated(domain: Domain, seed: int) -> Domain:
    """Return as many images as possible whose group is independent of the label.

    Of each group, the share among positive images equals that among negative ones.

    Source: ours, a control that learns from the same images.

    Raises:
        ValueError: No group has both labels.
    """
    y, origin = domain.y, domain.origin
    counts = torch.stack([origin[y == c].bincount(minlength=int(origin.max()) + 1) for c in (0, 1)])
    shares = (counts / counts.sum(dim=1, keepdim=True)).amin(dim=0)
    if not shares.any():
        raise ValueError("no group has images of both labels, so there is no control")
    shares /= shares.sum()
    used = shares > 0
    sizes = (counts[:, used] / shares[used]).amin(dim=1)
    generator = generator_for(seed, "chest X-rays/control")
    kept = []
    for label in (0, 1):
        for group in used.nonzero().flatten().tolist():
            here = ((y == label) & (origin == group)).nonzero().flatten()
            count = int(sizes[label] * shares[group] + 1e-6)
            kept.append(here[torch.randperm(len(here), generator=generator)[:count]])
    return domain.pick(torch.cat(kept).sort().values, f"{domain.name}, control")
