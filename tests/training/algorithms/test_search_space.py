"""Settings of a random search: the published defaults and ranges, drawn by name."""

from typing import Any

import pytest

from contam.training.algorithms import ALGORITHMS, AlgorithmSettings
from contam.training.algorithms.search_space import LogUniform, OneOf, UniformRange

COMMON = {
    "step_size": (5e-5, LogUniform(-5, -3.5)),
    "weight_decay": (0.0, LogUniform(-6, -2)),
    "batch_size": (32, LogUniform(3, 5.5, base=2, whole=True)),
    "dropout": (0.0, OneOf((0.0, 0.1, 0.5))),
}
ANNEALING = (500, LogUniform(0, 4, whole=True))
PUBLISHED: dict[str, dict[str, tuple[Any, Any]]] = {
    "ERM": {},
    "IRM": {"penalty_weight": (1e2, LogUniform(-1, 5)), "anneal_steps": ANNEALING},
    "GroupDRO": {"weight_step_size": (1e-2, LogUniform(-3, -1))},
    "Mixup": {"concentration": (0.2, LogUniform(-1, 1))},
    "MLDG": {
        "beta": (1.0, LogUniform(-1, 1)),
        "meta_test_domains": (2, OneOf((1, 2))),
    },
    "CORAL": {"penalty_weight": (1.0, LogUniform(-1, 1))},
    "VREx": {"penalty_weight": (1e1, LogUniform(-1, 5)), "anneal_steps": ANNEALING},
    "DANN": {
        "domain_weight": (1.0, LogUniform(-2, 2)),
        "discriminator_step_size": (5e-5, LogUniform(-5, -3.5)),
        "discriminator_weight_decay": (0.0, LogUniform(-6, -2)),
        "discriminator_steps": (1, LogUniform(0, 3, base=2, whole=True)),
        "gradient_penalty": (0.0, LogUniform(-2, 1)),
        "beta1": (0.5, OneOf((0.0, 0.5))),
        "width": (256, LogUniform(6, 10, base=2, whole=True)),
        "depth": (3, OneOf((3, 4, 5))),
        "discriminator_dropout": (0.0, OneOf((0.0, 0.1, 0.5))),
    },
    "SagNet": {"adversarial_weight": (0.1, LogUniform(-2, 1)), "styles_of": ("maps", None)},
    "ARM": {"batch_size": (8, None), "context_width": (64, None)},
    "RSC": {
        "muted_features": (1 / 3, UniformRange(0, 0.5)),
        "muted_examples": (1 / 3, UniformRange(0, 0.5)),
    },
    "SelfReg": {},
    "Fish": {"meta_step": (0.5, OneOf((0.05, 0.1, 0.5)))},
    "IB-ERM": {
        "bottleneck_weight": (1e2, LogUniform(-1, 5)),
        "bottleneck_anneal_steps": ANNEALING,
    },
    "IB-IRM": {
        "penalty_weight": (1e2, LogUniform(-1, 5)),
        "anneal_steps": ANNEALING,
        "bottleneck_weight": (1e2, LogUniform(-1, 5)),
        "bottleneck_anneal_steps": ANNEALING,
    },
    "Fishr": {
        "penalty_weight": (1e3, LogUniform(1, 4)),
        "anneal_steps": (1500, UniformRange(0, 5000, whole=True)),
        "decay": (0.95, UniformRange(0.9, 0.99)),
    },
}
"""Defaults and distributions of DomainBed; a setting without one is ours or is fixed."""


def test_common_settings_are_the_published_ones():
    assert AlgorithmSettings().model_dump() == {name: value for name, (value, _) in COMMON.items()}
    assert AlgorithmSettings.search_space() == {name: space for name, (_, space) in COMMON.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_of_an_algorithm_are_the_published_ones(name):
    kind = ALGORITHMS[name].Settings
    expected = COMMON | PUBLISHED[name]
    assert kind().model_dump() == {field: value for field, (value, _) in expected.items()}
    assert kind.search_space() == {
        field: space for field, (_, space) in expected.items() if space is not None
    }


@pytest.mark.parametrize("name", ALGORITHMS)
def test_draw_0_has_the_defaults_and_other_draws_lie_in_the_ranges(name):
    kind = ALGORITHMS[name].Settings
    assert kind.draw(trial=3, draw=0) == kind()
    for draw in range(1, 30):
        drawn = kind.draw(trial=0, draw=draw)
        assert drawn == kind.draw(trial=0, draw=draw)
        for field, space in kind.search_space().items():
            value = getattr(drawn, field)
            match space:
                case LogUniform(low, high, base, whole):
                    assert base**low - whole <= value <= base**high
                    assert not whole or value == int(value)
                case UniformRange(low, high, whole):
                    assert low <= value <= high
                    assert not whole or value == int(value)
                case OneOf(values):
                    assert value in values


def test_a_draw_depends_on_the_trial_the_draw_and_the_name_only():
    class Fewer(AlgorithmSettings, frozen=True):
        dropout: float = 0.25

    class More(AlgorithmSettings, frozen=True):
        strength: float = 1.0

    whole = AlgorithmSettings.draw(trial=1, draw=2)
    fewer, more = Fewer.draw(trial=1, draw=2), More.draw(trial=1, draw=2)
    assert fewer.dropout == 0.25 and more.strength == 1.0
    for field in ("step_size", "weight_decay", "batch_size"):
        assert getattr(whole, field) == getattr(fewer, field) == getattr(more, field)
    others = [AlgorithmSettings.draw(trial=t, draw=d) for t, d in ((0, 2), (1, 1), (2, 2))]
    assert all(other.step_size != whole.step_size for other in others)


def test_a_distribution_can_be_replaced_for_one_data_set():
    space = {"batch_size": LogUniform(3, 5, base=2, whole=True), "anneal_steps": OneOf((1,))}
    drawn = [AlgorithmSettings.draw(trial=0, draw=d, instead=space) for d in range(1, 40)]
    assert max(settings.batch_size for settings in drawn) <= 32
    plain = AlgorithmSettings.draw(trial=0, draw=1)
    assert drawn[0].step_size == plain.step_size


def test_values_spread_over_their_range():
    exponents = [AlgorithmSettings.draw(trial=0, draw=draw).weight_decay for draw in range(1, 200)]
    below = sum(value < 1e-4 for value in exponents) / len(exponents)
    assert below == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("change", [{"dropout": 1.0}, {"batch_size": 0}, {"unknown": 1}])
def test_invalid_settings_are_rejected(change):
    with pytest.raises(ValueError):
        AlgorithmSettings(**change)
