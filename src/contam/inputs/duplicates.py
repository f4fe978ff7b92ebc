"""Examples that two sets share, or that one set has in a changed form."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 8
"""Cells per side of the averages that stand for an image."""
SHARE = 0.01
"""Smallest share of shared examples that is reported."""
ALIGNED = 0.5
"""Smallest share of examples that are most similar to the one at the same position."""
FEWEST = 20
"""Smallest number of examples whose positions are compared."""
COMPARED = 500
"""Largest number of examples whose positions are compared."""


def fingerprints(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n cells"]:
    """Return averages that stand for the content of each example.

    Args:
        x: (n, channels, height, width) images or other inputs.

    >>> fingerprints(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """
    x = x.detach().cpu().float()
    if x.ndim == 4:
        return F.adaptive_avg_pool2d(x.mean(1), SIDE).flatten(1)
    flat = x.flatten(1)
    if flat.shape[1] <= SIDE**2:
        return flat
    return F.adaptive_avg_pool1d(flat[:, None], SIDE**2)[:, 0]


def duplicate_notes(
    own: tuple[str, Float[Tensor, "n cells"], Int[Tensor, " n"]],
    other: tuple[str, Float[Tensor, "m cells"], Int[Tensor, " m"]],
) -> list[str]:
    """Return sentences about examples of another set that are made of a set's examples.

    Args:
        own: name, fingerprints and class indices of a set.
        other: the same of the other set.

    Source: ours, because heads and probes that were fitted on an image know its changed form, too.

    >>> x, y = torch.rand(30, 3, 8, 8), torch.arange(30) % 2
    >>> duplicate_notes(("ID", fingerprints(x), y), ("dim", fingerprints(x / 2), y))[0][:49]
    "The examples of 'dim' are those of 'ID' in the sa"
    """
    (name, first, y), (title, second, labels) = own, other
    if first.shape[1:] != second.shape[1:] or not len(first) or not len(second):
        return []
    known = {row.tobytes() for row in first.numpy()}
    same = sum(row.tobytes() in known for row in second.numpy())
    if same >= max(1, SHARE * len(second)):
        return [
            f"{same} of {len(second)} examples of {title!r} are also in {name!r}, so results on "
            "the two sets are not independent."
        ]
    if len(first) < FEWEST or not torch.equal(y, labels):
        return []
    few = torch.linspace(0, len(first) - 1, min(COMPARED, len(first))).long()
    nearest = (_standardized(second[few]) @ _standardized(first).T).argmax(1)
    share = float((nearest == few).double().mean())
    if share < ALIGNED:
        return []
    return [
        f"The examples of {title!r} are those of {name!r} in the same order, changed: {share:.0%} "
        "of them are most similar to the one at the same position. Heads and probes that are "
        f"fitted on {name!r} know their content, so their accuracy on {title!r} can be too high."
    ]


def _standardized(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(1, keepdim=True), dim=1)
