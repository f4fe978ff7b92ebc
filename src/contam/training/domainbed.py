"""DomainBed's protocol: how domains are split, and how a model is selected.

Each domain is split at random into an inner part of 80 % and a held-out part of 20 %. Algorithms
learn from the inner parts of the training domains. A test domain's accuracy is that of its inner
part. Held-out parts select models, and are never augmented.

A search has several trials, each with several draws of the settings. Of each trial, one draw and
one checkpoint are selected; results are means over trials with their standard errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Domain
from contam.data.images import FolderDomain
from contam.rng import generator_for

DataFrame: TypeAlias = Any
"""A `pandas.DataFrame`, which has no type stubs."""
INNER_SHARE = 0.8
"""Share of a domain's examples in its inner part."""
NO_DOMAIN = ""
"""Value of the column `left_out` for a training on all training domains."""

Selection = Literal["training-domain", "oracle", "leave-one-out"]
SELECTIONS: Mapping[Selection, str] = {
    "training-domain": "training-domain validation",
    "oracle": "test-domain validation (oracle)",
    "leave-one-out": "leave-one-domain-out validation",
}
"""The three selections, and their names."""


class DomainSplit(NamedTuple):
    """The two parts of a domain."""

    inner: Domain
    """For training, or the test of a domain that is not trained on."""
    held_out: Domain
    """For selection, without augmentation."""


def split_domain(domain: Domain, *, seed: int, inner_share: float = INNER_SHARE) -> DomainSplit:
    """Split a domain at random into an inner and a held-out part.

    The split depends on the seed, the domain's name and its size. It is that of
    `contam.data.folders.parted`. Images in files, which are listed class by class, are in random
    order in both parts: a batch in which some algorithms compare examples has several classes.

    Args:
        domain: the domain.
        seed: seed of the trial.
        inner_share: share of the examples in the inner part.

    Raises:
        ValueError: a part would be empty.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021), which reads held-out parts through
        the augmentation.

    >>> from contam.batch import Batch
    >>> y = torch.arange(10)
    >>> inner, held_out = split_domain(Domain("photo", Batch(y, y, y)), seed=0)
    >>> len(inner), sorted(inner.y.tolist() + held_out.y.tolist()) == y.tolist()
    (8, True)
    """
    size = int(inner_share * len(domain))
    if not 0 < size < len(domain):
        raise ValueError(
            f"domain {domain.name!r} has {len(domain)} examples, too few for an inner and a "
            "held-out part; add examples"
        )
    # The purpose is that of `parted`, so that both give the same split.
    source = generator_for(seed, f"images/parts of {domain.name}")
    order = torch.randperm(len(domain), generator=source)
    inner, held_out = order.split([size, len(domain) - size])
    if type(domain) is Domain:
        inner, held_out = inner.sort().values, held_out.sort().values
    return DomainSplit(picked(domain, inner), picked(domain, held_out, augmented=False))


def picked(
    domain: Domain, which: Int[Tensor, " n"], *, name: str | None = None, augmented: bool = True
) -> Domain:
    """Return the examples of a domain with these indices, in this order.

    Args:
        domain: the domain, in memory or in files.
        which: indices of examples.
        name: name of the result; by default that of the domain.
        augmented: whether to keep the augmentation of images in files.

    >>> from contam.batch import Batch
    >>> y = torch.arange(3)
    >>> picked(Domain("photo", Batch(y, y, y)), torch.tensor([2, 0])).y.tolist()
    [2, 0]
    """
    part = domain.pick(which, name)
    return part.augmented(None) if isinstance(part, FolderDomain) and not augmented else part


def by_origin(domain: Domain, *, most: int | None = None) -> tuple[Domain, ...]:
    """Split the examples of a domain by their domain index.

    Args:
        domain: the domain, such as the training set of a WILDS benchmark.
        most: largest number of domains; more origins, such as cameras, are put together in turn.

    Returns:
        One domain for each index, in increasing order, named after it.

    Source: ours, so that domain methods have domains where a data set is one training set.

    >>> from contam.batch import Batch
    >>> y, origin = torch.tensor([0, 1, 1]), torch.tensor([4, 2, 4])
    >>> [(part.name, part.y.tolist()) for part in by_origin(Domain("all", Batch(y, y, origin)))]
    [('all 2', [1]), ('all 4', [0, 1])]
    """
    names, index = domain.origin.unique(return_inverse=True)
    if most is not None and len(names) > most:
        names, index = torch.arange(most), index % most
    return tuple(
        picked(domain, (index == place).nonzero().flatten(), name=f"{domain.name} {name}")
        for place, name in enumerate(names.tolist())
    )


def check_training_domains(
    domains: Sequence[Domain], classes: Sequence[str], *, complete: bool = True
) -> None:
    """Check that there are several training domains, each with examples of all classes.

    Args:
        domains: the training domains.
        classes: names of the classes.
        complete: whether each domain needs all classes.

    Raises:
        ValueError: there is no second domain, or a domain lacks a class.

    Source: ours, methods of domain generalization fail silently with one domain.

    >>> from contam.batch import Batch
    >>> y = torch.tensor([0, 1])
    >>> photo = Domain("photo", Batch(y, y, y))
    >>> check_training_domains([photo, photo], ("cat", "dog"))
    """
    if len(domains) < 2:
        raise ValueError(
            f"domain generalization needs at least 2 training domains, got {len(domains)}; give "
            "another domain"
        )
    for domain in domains if complete else ():
        missing = sorted(set(range(len(classes))) - set(domain.y.unique().tolist()))
        if missing:
            raise ValueError(
                f"training domain {domain.name!r} has no example of class {classes[missing[0]]!r}; "
                "add examples, or leave out the class or the domain"
            )


def select(records: DataFrame, selection: Selection) -> DataFrame:
    """Select a draw and a checkpoint of each trial.

    Training-domain validation takes the highest mean accuracy on the held-out parts of the training
    domains. The oracle takes that on the held-out parts of the test domains, of last checkpoints
    only. Leave-one-domain-out validation trains once more without each training domain, and takes
    the highest mean accuracy on the domain that was left out.

    Args:
        records: accuracies of one method, with the columns `trial`, `draw`, `step`, `left_out` (a
            training domain, or `NO_DOMAIN`), `domain`, `role` ("train" or "ood"), `split` ("inner"
            or "held out") and `accuracy`.
        selection: one of `SELECTIONS`.

    Returns:
        One row for each trial: `trial`, `draw`, `step`, and the accuracy `score` that was highest.
        Of equal ones, the first draw and checkpoint is taken.

    Raises:
        ValueError: the selection is unknown, or it needs trainings that are not in the records.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021).

    >>> import pandas
    >>> row = {"trial": 0, "draw": 0, "left_out": "", "domain": "a", "role": "train"}
    >>> row |= {"split": "held out"}
    >>> rows = [row | {"step": step, "accuracy": 0.1 * step} for step in (1, 2)]
    >>> select(pandas.DataFrame(rows), "training-domain")[["draw", "step"]].values.tolist()
    [[0, 2]]
    """
    if selection not in SELECTIONS:
        raise ValueError(f"no selection {selection!r}; choose from {', '.join(SELECTIONS)}")
    key = ["trial", "draw", "step"]
    whole = records[records.left_out == NO_DOMAIN]
    if selection == "training-domain":
        judged = whole[(whole.role == "train") & (whole.split == "held out")]
    elif selection == "oracle":
        judged = whole[(whole.role == "ood") & (whole.split == "held out")]
        last = judged.groupby(["trial", "draw"]).step.transform("max")
        judged = judged[judged.step == last]
    else:
        judged = records[(records.left_out == records.domain) & (records.split == "inner")]
        domains = whole[whole.role == "train"].domain.unique()
        complete = judged.groupby(key).domain.transform("nunique") == len(domains)
        if not complete.any():
            raise ValueError(
                "leave-one-domain-out validation needs a training without each of "
                f"{', '.join(domains)}; run with leave_one_out"
            )
        judged = judged[complete]
    scores = judged.groupby(key, as_index=False).accuracy.mean()
    scores = scores.rename(columns={"accuracy": "score"})
    return scores.loc[scores.groupby("trial").score.idxmax()].reset_index(drop=True)
