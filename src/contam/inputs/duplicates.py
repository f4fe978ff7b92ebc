"""Examples that two sets share, or that one set has in a changed form."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contam.rng import generator_for

SIDE = 8
"""Cells per side of the averages that stand for an image."""
FLATTEST = 2 / 255
"""Smallest standard deviation of these averages; flatter images have no content to compare."""
SHARE = 0.01
"""Smallest share of shared examples that is reported."""
CHANGED_SHARE = 0.1
"""Smallest share of changed copies that is reported."""
SIMILAR = 0.9
"""Smallest correlation of an example and its changed copy."""
IDENTICAL = 0.999
"""Correlation above which two examples of one set have the same content."""
RATIO = 0.3
"""Largest distance of a changed copy, as a share of that of the most similar other example."""
BANDS, BITS, WINDOW = 12, 12, 8
"""Number of hashes of each example, their bits, and the examples of one hash that are compared."""
ALIGNED = 0.5
"""Smallest share of examples that are most similar to the one at the same position."""
FEWEST = 20
"""Smallest number of examples whose positions are compared."""
COMPARED = 500
"""Largest number of examples whose positions are compared."""


def fingerprints(x: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n cells"]:
    """Return averages that stand for the content of each example.

    Args:
        x: (n, channels, height, width) images or other inputs.

    >>> fingerprints(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """
    x = x.detach().cpu().float()
    if x.ndim == 4 and min(x.shape[2:]) >= SIDE:
        return F.adaptive_avg_pool2d(x.mean(1), SIDE).flatten(1)
    flat = x.flatten(1)
    if flat.shape[1] <= SIDE**2:
        return flat
    return F.adaptive_avg_pool1d(flat[:, None], SIDE**2)[:, 0]


def shared_examples(
    first: Float[Tensor, "n cells"], second: Float[Tensor, "m cells"]
) -> Int[Tensor, "pairs 2"]:
    """Return the pairs of examples of two sets with the same content, in any order.

    A pair is an exact copy, or a changed one (darker, blurred, noisy, compressed): their averages
    correlate by `SIMILAR` or more, and the most similar other example of the first set is three
    times as far away. Images without contrast are in no pair. The time is linear in n + m, because
    only examples with an equal hash are compared.

    Args:
        first: fingerprints of a set, see `fingerprints`.
        second: fingerprints of the other set.

    Returns:
        Rows of the first and of the second set; a row of the second is in one pair at most.

    Source: ours; the hashes are signs of random projections (Charikar, 2002).

    >>> x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> new = torch.cat([x[[7, 3]] / 2, 1 - x[:1]])
    >>> shared_examples(fingerprints(x), fingerprints(new)).tolist()
    [[7, 0], [3, 1]]
    """
    if first.shape[1:] != second.shape[1:] or not len(first) or not len(second):
        return torch.empty(0, 2, dtype=torch.long)
    exact = _exact(first, second)
    if first.shape[1] < SIDE**2:  # Too few numbers to tell changed examples from others.
        return exact
    own, new = (_has_contrast(rows).nonzero().flatten() for rows in (first, second))
    exact = exact[torch.isin(exact[:, 1], new)]
    new = new[~torch.isin(new, exact[:, 1])]
    if not len(own) or not len(new):
        return exact
    known, rows = _standardized(first[own]), _standardized(second[new])
    matches, similarity = _most_similar(rows, known, torch.full((len(rows),), -1))
    near = (similarity >= SIMILAR).nonzero().flatten()
    _, rival = _most_similar(known[matches[near]], known, matches[near])
    near = near[1 - similarity[near] <= RATIO * (1 - rival)]
    pairs = torch.cat([exact, torch.stack([own[matches[near]], new[near]], 1)])
    return pairs[pairs[:, 1].argsort()]


def same_content(
    own: tuple[Float[Tensor, "n cells"], Int[Tensor, " n"]],
    other: tuple[Float[Tensor, "m cells"], Int[Tensor, " m"]],
) -> Int[Tensor, "pairs 2"]:
    """Return the pairs of examples of two sets that show the same content.

    Where most examples are most similar to the one at the same position, all are paired by their
    position, however strongly they were changed; otherwise see `shared_examples`.

    Args:
        own: fingerprints and class indices of a set.
        other: the same of the other set.

    Returns:
        Rows of the first and of the second set.

    Source: ours, ID images among OOD ones would be judged by probes that saw them.

    >>> x, y = torch.rand(30, 3, 8, 8), torch.arange(30) % 2
    >>> same_content((fingerprints(x), y), (fingerprints(1 - x), y)).shape
    torch.Size([0, 2])
    >>> same_content((fingerprints(x), y), (fingerprints(x**3), y)).shape
    torch.Size([30, 2])
    """
    (first, y), (second, labels) = own, other
    if torch.equal(y, labels) and _aligned_share(first, second) >= ALIGNED:
        return torch.arange(len(y))[:, None].repeat(1, 2)
    return shared_examples(first, second)


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
    pairs = shared_examples(first, second)
    same = int((first[pairs[:, 0]] == second[pairs[:, 1]]).all(1).sum())
    if same >= max(1, SHARE * len(second)):
        return [
            f"{same} of {len(second)} examples of {title!r} are also in {name!r}, so results on "
            "the two sets are not independent."
        ]
    share = _aligned_share(first, second) if torch.equal(y, labels) else 0.0
    if share >= ALIGNED:
        note = (
            f"The examples of {title!r} are those of {name!r} in the same order, changed: "
            f"{100 * share:.0f} % of them are most similar to the one at the same position."
        )
    elif len(pairs) >= max(2, CHANGED_SHARE * len(second)):
        note = (
            f"{len(pairs)} of {len(second)} examples of {title!r} are changed copies of examples "
            f"of {name!r}."
        )
    else:
        return []
    return [
        f"{note} Heads and probes that are fitted on {name!r} know their content, so their "
        f"accuracy on {title!r} can be too high."
    ]


def _exact(first: Tensor, second: Tensor) -> Tensor:
    """(pairs, 2) rows with equal fingerprints."""
    places = {row.tobytes(): place for place, row in enumerate(first.numpy())}
    matches = torch.tensor([places.get(row.tobytes(), -1) for row in second.numpy()])
    return torch.stack([matches, torch.arange(len(second))], 1)[matches >= 0]


def _has_contrast(rows: Tensor) -> Tensor:
    return rows.std(1) >= FLATTEST


def _standardized(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def _aligned_share(first: Tensor, second: Tensor) -> float:
    """Share of the examples that are most similar to the one at the same position."""
    if first.shape != second.shape or len(first) < FEWEST:
        return 0.0
    few = torch.linspace(0, len(first) - 1, min(COMPARED, len(first))).long()
    nearest = (_standardized(second[few]) @ _standardized(first).T).argmax(1)
    return float((nearest == few).double().mean())


def _most_similar(rows: Tensor, known: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar known row to each row, and their correlation, among those of equal hash.

    The known rows with these numbers, and others of the same content as such a one, do not count.
    """
    drawn = generator_for(0, "duplicates/hashes")
    center = known.mean(0)
    powers = 2.0 ** torch.arange(BITS, dtype=torch.float64)
    best, match = torch.full((len(rows),), -1.0), torch.zeros(len(rows), dtype=torch.long)
    window = torch.arange(WINDOW) - WINDOW // 2
    for _ in range(BANDS):
        planes = torch.randn(rows.shape[1], BITS + 1, generator=drawn)
        # Examples of one hash are sorted by one more projection, which lies in (-1, 1).
        ids, places = (
            ((signs := (part - center) @ planes)[:, :BITS] > 0).double() @ powers * 4
            + signs[:, BITS].double().tanh()
            for part in (known, rows)
        )
        order = ids.argsort()
        near = torch.searchsorted(ids[order], places)[:, None] + window
        near = order[near.clamp(0, len(known) - 1)]
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            similarity = torch.einsum("nc,nwc->nw", rows[part], known[near[part]])
            if bool((left_out >= 0).any()):
                similarity[similarity > IDENTICAL] = -1
            value, place = similarity.max(1)
            better = value > best[part]
            best[part] = torch.where(better, value, best[part])
            rows_of = near[part].gather(1, place[:, None])[:, 0]
            match[part] = torch.where(better, rows_of, match[part])
    return match, best
