"""The loss of a layer's class profile: by hand, without chance, and with an interval that holds."""

import pytest
import torch
from networks import finished, sample
from torch import Tensor, nn

from contam.auditing.coupling import Sums, lost, lost_across_domains, neurons_lost, spread
from contam.auditing.single_pass import Look, looking
from contam.measures.coupling import attenuation


def sums(means: list[list[float]], counts: list[int]) -> Sums:
    return Sums(torch.tensor(means).double() * torch.tensor(counts)[:, None], torch.tensor(counts))


class Relu(nn.Module):
    """A layer that passes on what is not negative, as its own answer."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x)


def seen(values: Tensor, y: Tensor, domain: Tensor | None = None) -> Look:
    data = sample("any", values, y, domain)
    steps = looking(Relu(), data, ("relu",), classes=5, by_domain=domain is not None)
    return finished(steps)


def drawn(seed: int, *, each: int, gain: float, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Examples of five classes, whose means are those of a profile times a gain."""
    draws = torch.Generator().manual_seed(seed)
    profile = torch.rand(5, 30, generator=torch.Generator().manual_seed(99))
    y = torch.arange(5 * each) % 5
    values = 10 + gain * profile[y] + noise * torch.randn(len(y), 30, generator=draws)
    return values, y


def test_without_spread_the_loss_is_the_measure_itself():
    own, new = drawn(0, each=4, gain=1, noise=0), drawn(1, each=4, gain=0.3, noise=0)
    found = lost(seen(*own), seen(*new), "relu")
    assert found is not None
    assert found.value == pytest.approx(0.7, abs=1e-4)
    assert found.low == pytest.approx(0.7, abs=1e-3)
    means = [torch.stack([v[y == c].mean(dim=0) for c in range(5)]) for v, y in (own, new)]
    assert found.value == pytest.approx(float(attenuation(*means)), abs=1e-4)


def test_of_each_neuron_by_hand():
    own = sums([[4.0, 1.0, 2.0], [0.0, 1.0, 0.0]], [2, 2])
    new = sums([[3.0, 5.0, 0.0], [1.0, 0.0, 2.0]], [4, 1])
    found = neurons_lost(own, new, 0.0)
    assert found.attenuation[0] == pytest.approx(0.5)
    assert found.attenuation[1].isnan()  # silent in its profile
    assert found.attenuation[2] == pytest.approx(2.0)
    # Squared profiles are 8, 0 and 2; half of the first and twice the last are lost.
    assert found.lost[[0, 2]].tolist() == pytest.approx([4 / (10 / 3), 4 / (10 / 3)])


def test_a_neuron_whose_profile_is_mostly_chance_has_no_number():
    own, new = sums([[4.0, 4.0], [0.0, 0.0]], [2, 2]), sums([[4.0, 4.0], [0.0, 0.0]], [2, 2])
    # Chance adds (1 - 1/2) * (1/2 + 1/2) of the variance to a squared profile of 8.
    found = neurons_lost(own, new, torch.tensor([4.0, 12.0]).double())
    assert found.attenuation[0] == pytest.approx(1 - 8 / 6)
    assert found.attenuation[1].isnan()


def test_spread_is_the_pooled_variance_within_classes():
    values, y = drawn(0, each=6, gain=1)
    look = seen(values, y)
    wanted = torch.stack([values[y == c].double().var(dim=0) for c in range(5)]).mean(dim=0)
    found = spread(look, "relu")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert spread(seen(values[:5], y[:5]), "relu").isnan().all()
    domain = torch.arange(30) % 2
    moved = seen(values + 7 * domain[:, None], y, domain)
    still = torch.stack(
        [values[(y == c) & (domain == d)].double().var(dim=0) for c in range(5) for d in range(2)]
    ).mean(dim=0)
    torch.testing.assert_close(spread(moved, "relu", by_domain=True), still, rtol=1e-3, atol=1e-3)
    assert (spread(moved, "relu") > still).all()


def test_chance_does_not_pass_for_loss_and_intervals_hold_what_they_should():
    plain, found = [], []
    for seed in range(60):
        own, new = drawn(2 * seed, each=20, gain=1), drawn(2 * seed + 1, each=20, gain=0.6)
        one = lost(seen(*own), seen(*new), "relu")
        assert one is not None and one.low is not None and one.high is not None
        found.append(one)
        means = [torch.stack([v[y == c].mean(dim=0) for c in range(5)]) for v, y in (own, new)]
        plain.append(float(attenuation(*means)))
    middle = sum(each.value for each in found) / 60
    assert middle == pytest.approx(0.4, abs=0.02)
    assert sum(plain) / 60 > 0.55
    covered = sum(each.low < 0.4 < each.high for each in found) / 60
    assert covered > 0.85


def test_altered_copies_share_their_chance_which_stays_in():
    values, y = drawn(0, each=4, gain=1, noise=3.0)
    found = lost(seen(values, y), seen(0.5 * values, y), "relu", paired=True)
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=1e-5)
    assert found.high == pytest.approx(0.5, abs=1e-5)


def test_classes_that_one_side_lacks_are_not_compared():
    own, y = drawn(0, each=4, gain=1, noise=0)
    new, _ = drawn(1, each=4, gain=0.3, noise=0)
    less = lost(seen(own, y), seen(new[y > 0], y[y > 0]), "relu")
    kept = lost(seen(own[y > 0], y[y > 0]), seen(new[y > 0], y[y > 0]), "relu")
    assert less is not None and kept is not None
    assert less.value == pytest.approx(kept.value, abs=1e-4)
    assert lost(seen(own, y), seen(new[y == 0], y[y == 0]), "relu") is None


def test_a_profile_that_is_chance_alone_has_no_number():
    values, y = drawn(0, each=3, gain=0)
    assert lost(seen(values, y), seen(values.flip(0), y.flip(0)), "relu") is None


def test_across_domains_is_the_mean_over_domains_of_what_each_loses_in_the_others():
    values, y = drawn(0, each=12, gain=1, noise=0)
    domain = torch.arange(60) // 20
    gains = torch.tensor([1.0, 0.5, 0.25])[domain][:, None]
    profile = values - 10
    found = lost_across_domains(seen(10 + gains * profile, y, domain), "relu")
    # The others' mean gain over the domain's own.
    wanted = [1 - 0.375 / 1, 1 - 0.625 / 0.5, 1 - 0.75 / 0.25]
    assert found is not None and found.low is not None
    assert found.value == pytest.approx(sum(wanted) / 3, abs=1e-3)
    assert found.low < found.value
    assert lost_across_domains(seen(values, y), "relu") is None
