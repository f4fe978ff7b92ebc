import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting


def test_the_defaults_are_the_published_sizes():
    setting = Setting()
    features = setting.data.features
    assert (features.core, features.background, features.dimension) == (32, 32, 256)
    assert setting.width == 256
    assert setting.step_size * setting.steps == pytest.approx(1e-3 * 20_000 / (1 - 0.9))


def test_outputs_per_class_and_per_core_feature():
    several = DataModel(FeatureModel(30, 10), classes=3)
    assert Setting().outputs == 1
    assert Setting(data=several).outputs == 3
    assert Setting(loss="squared").outputs == 32
    assert Setting(data=several, loss="squared").outputs == 30


ROTATED = DataModel(FeatureModel(4, 4, 20, "rotated"))
BAD = [
    ({"width": 0}, "width=0 must be at least 1"),
    ({"depth": 0}, "depth=0 must be at least 1"),
    ({"activation": "step"}, "no activation 'step'; choose one of relu"),
    ({"bias": "some"}, "no bias 'some'; choose one of none, hidden, all"),
    ({"head": "other"}, "no head 'other'"),
    ({"initialization": "zeros"}, "no initialization 'zeros'"),
    ({"loss": "zero-one"}, "no loss 'zero-one'; choose one of hinge, logistic, squared"),
    ({"optimizer": "lion"}, "no optimizer 'lion'"),
    ({"engine": "fast"}, "no engine 'fast'"),
    ({"precision": "int8"}, "no precision 'int8'"),
    ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ({"steps": 0}, "steps=0 must be at least 1"),
    ({"examples": 10, "batch_size": 11}, "batch_size=11 is more than examples=10"),
    ({"engine": "closed_form", "depth": 2, "loss": "logistic"}, "depth=2, loss='logistic'"),
    ({"engine": "closed_form", "data": DataModel(FeatureModel(30, 10), classes=3)}, "classes=3"),
    ({"data": ROTATED, "optimizer": "adamw"}, "needs ambient=True"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_invalid_settings_are_rejected_with_a_suggestion(fields, message):
    with pytest.raises(ValueError, match=message):
        Setting(**fields)


@given(value=st.floats(allow_nan=True, allow_infinity=True))
@settings(max_examples=60)
def test_numbers_out_of_range_are_rejected(value):
    allowed = {
        "step_size": math.isfinite(value) and value > 0,
        "weight_decay": math.isfinite(value) and value >= 0,
        "momentum": 0 <= value < 1,
    }
    for field, is_allowed in allowed.items():
        if is_allowed:
            assert getattr(Setting(**{field: value}), field) == value
        else:
            with pytest.raises(ValueError, match=f"{field}="):
                Setting(**{field: value})


def test_the_largest_stable_step_by_hand():
    assert Setting().stable_step == pytest.approx(10.0)  # 2.5 * 256 / 64
    assert Setting(optimizer="momentum").stable_step == pytest.approx(1.0)
    assert Setting(head="trained").stable_step is None
    assert Setting(optimizer="adamw").stable_step is None
