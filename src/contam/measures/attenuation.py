"""Class-profile attenuation: the share of a layer's class profile that is lost under a shift.

The class profile of a layer is its table of class means with each neuron's mean over the classes
removed. A background that adds the same amount for every class leaves the profile unchanged. A
background that lowers the input of a ReLU shrinks it, because less of the class signal passes.

Attenuation is 1 minus the slope of the shifted profile on the ID profile. Sampling noise in the ID
class means would look like loss, so its expected contribution is removed from the denominator.
Intervals come from the jackknife over parts of the examples, since single examples are not kept.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import t
from torch import Tensor

from contam.measures.class_means import ClassMeans
from contam.measures.intervals import Estimate

LEAST_SIGNAL = 0.1
"""Smallest share of a layer's squared ID profile that must exceed noise."""
LEAST_NEURON_SIGNAL = 0.5
"""Smallest share of one neuron's squared ID profile that must exceed noise."""
ABOVE_ONE = (
    "A value above 1 means that classes trade places: the neurons that respond most to a class on "
    "ID data respond less to it than to other classes on the shifted data."
)
"""Explanation of values above 1."""


def above_one(values: Iterable[float | None]) -> tuple[str, ...]:
    """Return the explanation of attenuations above 1 if there are any, for pages that show them.

    Args:
        values: attenuations; None and nan are missing ones.

    Returns:
        `ABOVE_ONE` or nothing, as the notes of a figure.

    Source: ours, because a lost share above 1 reads like an error.

    >>> above_one([0.4, None, float("nan")]), above_one([1.4])[0][:40]
    ((), 'A value above 1 means that classes trade')
    """
    return (ABOVE_ONE,) if any(value is not None and value > 1 for value in values) else ()


def class_profile_attenuation(
    id_means: ClassMeans,
    new_means: ClassMeans,
    *,
    paired: bool = False,
    noise_corrected: bool = True,
    confidence: float = 0.95,
) -> Estimate:
    """Return the share of a layer's ID class profile that is lost on other data.

    The value is 0 if nothing is lost, 1 if nothing of the profile remains, and negative if the
    response grows. Values above 1 occur (1.2 to 1.9 in trained networks): they mean that classes
    trade places, so that a neuron that prefers a class on ID data avoids it on the other data.
    Neurons with a large profile count most. Only classes with examples on both sides count.

    Args:
        id_means: Class means on ID data.
        new_means: Class means of the same layer on the other data.
        paired: Whether both tables hold the same examples in the same order, altered in
            `new_means`. Both then share their sampling noise, which needs no correction.
        noise_corrected: Whether to remove the expected contribution of sampling noise in the ID
            means. Without it, the value is too high for few examples.
        confidence: Level of the interval.

    Returns:
        The estimate with its jackknife interval. Everything is nan if fewer than two classes are on
        both sides or if the ID profile hardly exceeds noise. The ends are nan if a table has only
        one part, or if too little signal remains without one of the parts.

    Raises:
        ValueError: If the tables differ in classes or neurons, or if paired tables differ in their
            numbers of examples.

    Source: ours; Efron and Stein (1981) for the interval.

    >>> import torch
    >>> y = torch.tensor([0, 0, 1, 1])
    >>> activations = torch.tensor([[4.0], [4.0], [0.0], [0.0]])
    >>> id_means = ClassMeans(classes=2, neurons=1, parts=2).update(activations, y)
    >>> new_means = ClassMeans(classes=2, neurons=1, parts=2).update(activations / 4, y)
    >>> class_profile_attenuation(id_means, new_means)
    Estimate(value=0.75, low=0.75, high=0.75)
    """
    own_parts, new_parts = id_means.cell_counts.sum(dim=0), new_means.cell_counts.sum(dim=0)
    if paired and not torch.equal(own_parts, new_parts):
        raise ValueError("paired tables must hold the same examples in the same parts")
    corrected = noise_corrected and not paired
    noise = id_means.within_class_variance() if corrected else torch.zeros_like(id_means.squares)
    own, new = _Sums.of(id_means), _Sums.of(new_means)
    value = _layer_attenuation(own, new, noise)
    parts = min(len(own_parts), len(new_parts))
    if math.isnan(value) or parts < 2:
        return Estimate(value, math.nan, math.nan)
    own_less, new_less = _without_each_part(id_means), _without_each_part(new_means)
    if paired:
        both = zip(own_less, new_less, strict=True)
        variance = _jackknife_variance([_layer_attenuation(o, n, noise) for o, n in both])
    else:
        variance = _jackknife_variance([_layer_attenuation(less, new, noise) for less in own_less])
        variance += _jackknife_variance([_layer_attenuation(own, less, noise) for less in new_less])
    return _with_interval(value, variance, parts - 1, confidence)


def attenuation_across_domains(
    means: ClassMeans, *, noise_corrected: bool = True, confidence: float = 0.95
) -> Estimate:
    """Return the share of the class profile of single domains that the other domains lack.

    Each domain's profile is compared with that of all other domains together; products and squares
    are summed over the domains before they are divided. Two domains with the same profile, but one
    of them with gain g, give (1 - g)^2 / (1 + g^2).

    Args:
        means: Class means with one table for each domain.
        noise_corrected: Whether to remove the expected contribution of sampling noise.
        confidence: Level of the interval.

    Returns:
        The estimate, with an interval over domains (not over examples). Everything is nan for fewer
        than two domains, for a domain that shares fewer than two classes with the others, and if
        the profiles hardly exceed noise.

    Source: ours, attenuation without OOD data.

    >>> import torch
    >>> y, domain = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> means = ClassMeans(classes=2, neurons=1, domains=2)
    >>> means = means.update(torch.tensor([[2.0], [0.0], [6.0], [0.0]]), y, domain=domain)
    >>> round(attenuation_across_domains(means, noise_corrected=False).value, 6)
    0.4
    """
    domains = len(means.cell_counts)
    noise = torch.zeros_like(means.squares)
    if noise_corrected:
        noise = means.within_class_variance(by_domain=True)
    whole = _Sums.of(means)
    rows = []
    for sums, counts in zip(means.cell_sums.sum(dim=1), means.cell_counts.sum(dim=1), strict=True):
        own = _Sums(sums, counts)
        rows.append(torch.stack([part.sum() for part in _components(own, whole - own, noise)]))
    shared, strength, chance = torch.stack(rows, dim=1)
    signal = strength - chance
    total = float(signal.sum())
    if domains < 2 or not total > LEAST_SIGNAL * float(strength.sum()):
        return Estimate(math.nan, math.nan, math.nan)
    kept = float(shared.sum()) / total
    variance = float((shared - kept * signal).square().sum()) / total**2 * domains / (domains - 1)
    return _with_interval(1 - kept, variance, domains - 1, confidence)


class NeuronAttenuation(NamedTuple):
    """Effect of a shift on the class profile of each neuron of a layer."""

    attenuation: Float[Tensor, " neurons"]
    """Attenuation; nan for a neuron whose ID class means differ by little more than noise."""
    loss: Float[Tensor, " neurons"]
    """Loss of squared profile, in units of the mean squared profile of the layer's neurons."""


def neuron_attenuation(
    id_means: ClassMeans, new_means: ClassMeans, *, paired: bool = False
) -> NeuronAttenuation:
    """Return the class-profile attenuation of each neuron.

    Args:
        id_means: Class means on ID data.
        new_means: Class means of the same layer on the other data.
        paired: Whether the other data are altered copies of the ID examples.

    Source: ours, to locate the loss within a layer.

    >>> import torch
    >>> y = torch.tensor([0, 1])
    >>> id_means = ClassMeans(classes=2, neurons=2).update(torch.tensor([[4.0, 1.0], [0, 1]]), y)
    >>> new_means = ClassMeans(classes=2, neurons=2).update(torch.tensor([[1.0, 2.0], [0, 1]]), y)
    >>> neuron_attenuation(id_means, new_means, paired=True).attenuation
    tensor([0.7500,    nan], dtype=torch.float64)
    """
    noise = torch.zeros_like(id_means.squares) if paired else id_means.within_class_variance()
    shared, strength, chance = _components(_Sums.of(id_means), _Sums.of(new_means), noise)
    signal = strength - chance
    certain = signal > LEAST_NEURON_SIGNAL * strength
    attenuation = 1 - shared / torch.where(certain, signal, torch.nan)
    return NeuronAttenuation(attenuation, (signal - shared) / signal.clamp(min=0).mean())


class _Sums(NamedTuple):
    values: Float[Tensor, "classes neurons"]
    counts: Int[Tensor, " classes"]

    @classmethod
    def of(cls, means: ClassMeans) -> "_Sums":
        return cls(means.sums, means.counts)

    def __sub__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.values - other.values, self.counts - other.counts)


def _without_each_part(means: ClassMeans) -> list[_Sums]:
    whole, parts = _Sums.of(means), means.cell_sums.sum(dim=0)
    return [whole - _Sums(*part) for part in zip(parts, means.cell_counts.sum(dim=0), strict=True)]


def _components(own: _Sums, new: _Sums, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the product of both profiles, the squared ID profile and its expected noise."""
    if own.values.shape != new.values.shape:
        raise ValueError(
            "both tables must have the same classes and neurons, got "
            f"{tuple(own.values.shape)} and {tuple(new.values.shape)}"
        )
    both = (own.counts > 0) & (new.counts > 0)
    if int(both.sum()) < 2:
        undefined = own.values.new_full(own.values.shape[1:], torch.nan)
        return undefined, undefined, undefined
    before, after = (s.values[both] / s.counts[both][:, None] for s in (own, new))
    profile = before - before.mean(dim=0)
    # Equal means may differ in their last bit once their mean is removed.
    profile = profile.masked_fill(before.amax(dim=0) == before.amin(dim=0), 0)
    # The profile has mean zero, so the mean of the new means cancels.
    per_variance = (1 - 1 / len(before)) * (1 / own.counts[both].double()).sum()
    return (profile * after).sum(dim=0), profile.square().sum(dim=0), per_variance * noise


def _layer_attenuation(own: _Sums, new: _Sums, noise: Tensor) -> float:
    shared, strength, chance = (part.sum() for part in _components(own, new, noise))
    signal = strength - chance
    return float(1 - shared / signal) if signal > LEAST_SIGNAL * strength else math.nan


def _jackknife_variance(values: Sequence[float]) -> float:
    """Return the variance of a statistic from its values without each part of the data."""
    without = torch.tensor(values, dtype=torch.float64)
    return float((len(without) - 1) * without.var(correction=0))


def _with_interval(value: float, variance: float, freedom: int, confidence: float) -> Estimate:
    half = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Estimate(value, value - half, value + half)
