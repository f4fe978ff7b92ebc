"""How much of each layer's response to the class a shift takes away, from the tables of passes.

The loss is `contam.measures.coupling.attenuation`, with two things that finite data ask for. Chance
differences between the ID class means can't be found again elsewhere and would pass for loss, so
what the spread within classes makes of them is taken out of the denominator. And intervals come
from leaving out one part of the examples after the other (the jackknife), since single examples
are not kept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import t
from torch import Tensor

from contam.auditing.records import Interval
from contam.auditing.single_pass import Look
from contam.measures.coupling import neuron_attenuation

LEAST = 0.1
"""The share of a class profile that has to be more than noise; a layer with less has no number."""
CERTAIN = 0.5
"""The same for one neuron."""


class Sums(NamedTuple):
    """Summed activations, and of how many examples of each class."""

    values: Float[Tensor, "classes neurons"]
    counts: Int[Tensor, " classes"]

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.values - other.values, self.counts - other.counts)


def summed(look: Look, layer: str, *, domain: int | None = None) -> Sums:
    """All that a pass saw of a layer, or what it saw of one domain."""
    sums, counts = look.tables[layer].sums, look.counts
    if domain is not None:
        return Sums(sums[domain].sum(dim=0), counts[domain].sum(dim=0))
    return Sums(sums.sum(dim=(0, 1)), counts.sum(dim=(0, 1)))


def spread(look: Look, layer: str, *, by_domain: bool = False) -> Float[Tensor, " neurons"]:
    """The variance within classes of each neuron; nan where no class has two examples.

    With `by_domain`, that within the classes of each domain.

    Source: ours, pooled over the classes.
    """
    table, axes = look.tables[layer], (1,) if by_domain else (0, 1)
    counts = look.counts.sum(dim=axes)
    seen = counts > 0
    sums, count = table.sums.sum(dim=axes)[seen], counts[seen][:, None].double()
    left = int(counts.sum()) - int(seen.sum())
    within = table.squares - (sums.square() / count).sum(dim=0)
    return within.clamp(min=0) / left if left > 0 else within * torch.nan


class Neurons(NamedTuple):
    """What a shift does to each neuron of a layer."""

    attenuation: Float[Tensor, " neurons"]
    """nan for a neuron whose ID class means differ by little more than noise."""
    lost: Float[Tensor, " neurons"]
    """What it takes of the class profile, in units of what a neuron of the layer has on average."""


def neurons_lost(own: Sums, new: Sums, noise: Float[Tensor, " neurons"] | float) -> Neurons:
    """What becomes of each neuron's class profile; `noise` is the ID variance within classes.

    Source: ours, to find the neurons where the loss is.
    """
    shared, strength, chance = _parts(own, new, noise)
    true = strength - chance
    certain = true > CERTAIN * strength
    attenuation = 1 - shared / torch.where(certain, true, torch.nan)
    return Neurons(attenuation, (true - shared) / true.clamp(min=0).mean())


def lost(
    id_look: Look, new: Look, layer: str, *, paired: bool = False, domain: int | None = None
) -> Interval | None:
    """The share of a layer's ID class profile that is lost on other data, with its interval.

    `paired` passes show the same examples in the same order, altered: their noise is the same, too,
    and stays in. Only classes that both have count. None where fewer than two classes are left, or
    the profile, or what is left of it without some examples, is hardly more than noise.

    Source: ours; Efron and Stein (1981) for the interval.
    """
    noise = 0.0 if paired else spread(id_look, layer)
    own, other = summed(id_look, layer), summed(new, layer)
    value = _lost(own, other, noise)
    both = ((id_look, own), (new, other))
    without = [
        [whole - Sums(look.tables[layer].sums[:, part].sum(dim=0), look.counts[:, part].sum(dim=0))
         for part in range(look.counts.shape[1])]
        for look, whole in both
    ]  # fmt: skip
    if paired:
        variance = _jackknife(
            [_lost(less, more, noise) for less, more in zip(*without, strict=True)]
        )
    else:
        variance = _jackknife([_lost(less, other, noise) for less in without[0]])
        variance += _jackknife([_lost(own, less, noise) for less in without[1]])
    return _interval(value, variance, min(map(len, without)))


def lost_across_domains(look: Look, layer: str) -> Interval | None:
    """The share that is lost from one ID domain to the others: the mean over domains.

    The interval is that of a mean of so many domains. None for fewer than two, or where the profile
    of one is hardly more than noise.

    Source: ours, attenuation where there is no OOD data.
    """
    domains, whole = len(look.counts), summed(look, layer)
    noise = spread(look, layer, by_domain=True)
    found = []
    for domain in range(domains):
        own = summed(look, layer, domain=domain)
        found.append(_lost(own, whole - own, noise))
    values = torch.tensor(found, dtype=torch.float64)
    if domains < 2:
        return None
    return _interval(float(values.mean()), float(values.var() / domains), domains)


def _lost(own: Sums, new: Sums, noise: Tensor | float) -> float:
    shared, strength, chance = (each.sum() for each in _parts(own, new, noise))
    true = strength - chance
    return float(1 - shared / true) if true > LEAST * strength else torch.nan


def _parts(own: Sums, new: Sums, noise: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Of each neuron: the product of both profiles, the ID profile's square, and chance in it."""
    both = (own.counts > 0) & (new.counts > 0)
    if int(both.sum()) < 2:
        nothing = own.values.new_full(own.values.shape[1:], torch.nan)
        return nothing, nothing, nothing
    before, after = (each.values[both] / each.counts[both][:, None] for each in (own, new))
    strength = (before - before.mean(dim=0)).square().sum(dim=0)
    kept = (1 - neuron_attenuation(before, after)).nan_to_num(0)
    drawn = (1 - 1 / len(before)) * (1 / own.counts[both].double()).sum()
    return kept * strength, strength, drawn * noise * torch.ones_like(strength)


def _jackknife(values: Sequence[float]) -> float:
    """The variance of a statistic, from its values without one part of the data each."""
    known = torch.tensor(values, dtype=torch.float64)
    if not known.isfinite().all():
        return torch.nan
    return float((len(known) - 1) * known.var(correction=0))


def _interval(value: float, variance: float, parts: int) -> Interval | None:
    if not math.isfinite(value + variance) or parts < 2:
        return None
    half = float(t.ppf(0.975, parts - 1)) * variance**0.5
    return Interval(value=value, low=value - half, high=value + half)
