"""The configs that a sweep names."""

import math
from itertools import pairwise

import pytest
from pydantic import ValidationError
from support.toy_experiment import Config

from contam.experiments import EXPERIMENTS, named
from contam.sweep import Range, space


def test_a_grid_has_every_combination_once():
    grid = space("toy", Config(), {"rate": [0.5, 0.25], "width": [1, 2, 1]})
    points = grid.points()
    assert points == [
        {"inner.rate": rate, "width": width} for rate in (0.5, 0.25) for width in (1, 2)
    ]
    assert grid.names() == {"inner.rate": "rate", "width": "width"}
    configs = [config for _, config in grid.configs(Config)]
    assert [(c.inner.rate, c.width, c.inner.steps) for c in configs if isinstance(c, Config)] == [
        (0.5, 1, 10), (0.5, 2, 10), (0.25, 1, 10), (0.25, 2, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_a_range_is_evenly_spaced_between_its_ends(scale):
    values = Range.parse(f"{scale}:0.01:100:9").values()
    placed = [math.log(value) for value in values] if scale == "log" else values
    steps = [b - a for a, b in pairwise(placed)]
    assert values[0] == 0.01 and values[-1] == 100 and len(values) == 9
    assert steps == pytest.approx([steps[0]] * 8, rel=1e-4)


def test_a_range_of_a_whole_field_has_whole_numbers():
    points = space("toy", Config(), {"width": "log:1:64:4", "steps": "linear:0:10:3"}).points()
    assert sorted({point["width"] for point in points}) == [1, 4, 16, 64]
    assert {type(value) for point in points for value in point.values()} == {int}


def test_random_draws_keep_the_earlier_ones_and_stay_in_range():
    def drawn(number: int, seed: int = 0) -> list[dict]:
        fields = {"rate": "log:1e-4:1e-1", "width": [1, 2, 4]}
        return space("toy", Config(), fields, draws=number, draw_seed=seed).points()

    many = drawn(300)
    assert drawn(20) == many[:20] and drawn(20, seed=1) != many[:20]
    rates = [point["inner.rate"] for point in many]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-1
    # Half of the draws lie below the middle of a logarithmic range; 5 standard deviations.
    assert abs(sum(rate < 10**-2.5 for rate in rates) - 150) < 5 * math.sqrt(300) / 2
    assert {point["width"] for point in many} == {1, 2, 4}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"widht": [1]}, "no field 'widht'; did you mean 'width'"),
        ({"zzz": [1]}, "no field 'zzz'; choose from rate, steps, width"),
        ({"inner": [1]}, "no field 'inner'"),
        ({"width": [1], "Width": [1]}, "no field 'Width'; did you mean 'width'"),
        ({"rate": [1], "inner.rate": [2]}, "given twice"),
        ({"rate": []}, "has no values"),
        ({"rate": "log:0:1:3"}, "range 'log:0:1:3': write"),
        ({"rate": "log:1:2:1"}, "NUMBER at least 2"),
        ({"rate": "log:2:1:3"}, "LOW below HIGH"),
        ({"rate": "square:1:2:3"}, "write log:LOW:HIGH:NUMBER"),
        ({}, "needs at least one field"),
    ],
)
def test_a_field_or_range_that_does_not_exist_is_one_line(grid, message):
    with pytest.raises(ValueError, match=message) as caught:
        space("toy", Config(), grid)
    assert "\n" not in str(caught.value)


def test_a_grid_needs_the_number_of_values_of_a_range():
    with pytest.raises(ValueError, match=r"a grid needs a number of values: 'log:0.1:1:5'"):
        space("toy", Config(), {"rate": "log:0.1:1"}).points()
    with pytest.raises(ValueError, match="draws=0"):
        space("toy", Config(), {"rate": "log:0.1:1"}, draws=0)


def test_a_value_that_does_not_fit_is_rejected_before_any_run():
    with pytest.raises(ValidationError, match="width"):
        space("toy", Config(), {"width": [1, 0]}).configs(Config)


def test_a_name_that_two_fields_share_needs_the_whole_path():
    simulation = named("simulation").presets["smoke"]
    grid = space("simulation", simulation, {"core": [8], "setting.width": [4]})
    assert list(grid.grid) == ["setting.data.features.core", "setting.width"]
    recipes = named("fig01_distillation").presets["smoke"]
    with pytest.raises(ValueError, match=r"field 'steps' stands for .+ and .+; write one of these"):
        space("fig01_distillation", recipes, {"steps": [1]})


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_every_preset_is_a_point_of_its_own_space(experiment):
    """The folder of a run must not depend on whether a sweep or a single command computes it."""
    base = experiment.presets["smoke"]
    (name, value), *_ = [
        (name, value)
        for name, value in base.model_dump(mode="json").items()
        if not isinstance(value, dict | list)
    ]
    ((_, config),) = space(experiment.name, base, {name: [value]}).configs(type(base))
    assert config == base


def test_a_range_of_a_field_without_a_default_keeps_its_fractions():
    base = named("simulation").presets["smoke"]
    points = space("simulation", base, {"examples": "linear:200:600:3"}).points()
    assert [point["setting.examples"] for point in points] == [200, 400, 600]
    with pytest.raises(ValidationError, match="fractional part"):
        space("simulation", base, {"examples": "linear:200:205:3"}).configs(type(base))
