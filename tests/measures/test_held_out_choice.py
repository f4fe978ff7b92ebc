"""Choice and calibration on other parts than those that are judged."""

import pytest
import torch

from contam.measures.held_out_choice import held_out_choice


def test_a_part_has_no_influence_on_its_own_prediction():
    draws = torch.Generator().manual_seed(0)
    measures, outcome = torch.rand(3, 12, generator=draws), torch.rand(12, generator=draws)
    parts = torch.arange(12) % 3
    changed = torch.where(parts == 1, -outcome, outcome)
    first = held_out_choice(measures, outcome, parts)
    second = held_out_choice(measures, changed, parts)
    torch.testing.assert_close(first.predicted[parts == 1], second.predicted[parts == 1])
    assert first.chosen[1] == second.chosen[1]


def test_several_outcomes_are_treated_one_by_one():
    draws = torch.Generator().manual_seed(1)
    measures, outcomes = torch.rand(4, 9, generator=draws), torch.rand(5, 9, generator=draws)
    parts = torch.arange(9) // 3
    together = held_out_choice(measures, outcomes, parts)
    for outcome, predicted, chosen in zip(outcomes, *together, strict=True):
        alone = held_out_choice(measures, outcome, parts)
        torch.testing.assert_close(alone.predicted, predicted)
        assert alone.chosen.tolist() == chosen.tolist()


@pytest.mark.parametrize(
    ("measures", "parts", "message"),
    [
        (torch.ones(1, 4), [0, 0, 1, 1], "constant outside a part"),
        (torch.arange(4.0)[None], [0, 0, 0, 0], "all networks are in one part"),
        (torch.full((1, 4), torch.nan), [0, 0, 1, 1], "not finite"),
    ],
)
def test_impossible_choices_are_rejected(measures, parts, message):
    with pytest.raises(ValueError, match=message):
        held_out_choice(measures, torch.arange(4.0), torch.tensor(parts))
