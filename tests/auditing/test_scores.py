"""Accuracies by class, for any number of classes."""

import pytest
import torch

from contam.auditing.scores import set_scores
from contam.auditing.single_pass import PassResult


def result_of(y: list[int], predicted: list[int]) -> PassResult:
    labels, answers = torch.tensor(y), torch.tensor(predicted)
    return PassResult(labels, answers, labels * 0, labels.float())


@pytest.mark.parametrize(
    ("y", "predicted", "expected"),
    [
        pytest.param([0, 0, 1], [0, 1, 1], {"0": (1, 2), "1": (1, 1)}, id="by hand"),
        pytest.param([0, 2], [2, 0], {"0": (0, 1), "2": (0, 1)}, id="nothing correct"),
        pytest.param([2, 0], [0, 0], {"0": (1, 1), "2": (0, 1)}, id="the last class is wrong"),
        pytest.param([21_840], [21_840], {"21840": (1, 1)}, id="one of many classes"),
    ],
)
def test_each_class_that_occurs_has_a_score(y, predicted, expected):
    names = tuple(map(str, range(21_841)))
    scores = set_scores(result_of(y, predicted), "ID", names, "id")
    counts = {name: (score.correct, score.count) for name, score in scores.by_class.items()}
    assert counts == expected
