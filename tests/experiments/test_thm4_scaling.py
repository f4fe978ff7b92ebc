"""The times that the scaling experiment measures."""

import pytest

from contam.experiments.thm4_scaling import time_to_asymmetry
from contam.theory.setting import Setting


def test_neurons_become_asymmetric_in_half_the_steps_at_twice_the_step_size():
    slow, fast = (
        time_to_asymmetry(Setting(step_size=step_size, batch_size=500, steps=40), seed=0)
        for step_size in (0.5, 1.0)
    )
    assert slow is not None and fast is not None
    assert slow == pytest.approx(2 * fast, rel=0.1)


def test_a_network_that_does_not_learn_does_not_become_asymmetric():
    assert time_to_asymmetry(Setting(step_size=1e-9, steps=20), seed=0) is None
