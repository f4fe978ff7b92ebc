"""A wrong order of the classes is told from a network that learned nothing."""

import pytest
import torch
from torch import nn

import contam
from contam.auditing.label_order import label_order_notes

NUMBERS = tuple(sorted(map(str, range(12))))
NATURAL = tuple(map(str, range(12)))
Y = torch.arange(240) % 12


def renamed(trained: tuple[str, ...], given: tuple[str, ...]) -> torch.Tensor:
    """Predicted indices of a perfect network, for names in the order that was given."""
    return torch.tensor([trained.index(given[label]) for label in Y.tolist()])


def noisy(labels: torch.Tensor, share: float, classes: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < share
    return torch.where(wrong, torch.randint(classes, labels.shape, generator=generator), labels)


TWO = Y % 2
# Name -> predictions, labels, names, what is said
CASES = {
    "the right order": (Y, Y, NUMBERS, ""),
    "timm's order": (renamed(NATURAL, NUMBERS), Y, NUMBERS, "This is timm's order"),
    "torchvision's order": (renamed(NUMBERS, NATURAL), Y, NATURAL, "This is torchvision's order"),
    "with errors": (noisy(renamed(NATURAL, NUMBERS), 0.3), Y, NUMBERS, "would be correct"),
    "two classes, swapped": (1 - TWO, TWO, ("cat", "dog"), "logit 0 fits 'dog'"),
    "two classes, a weak network": (noisy(TWO, 0.6, 2), TWO, ("cat", "dog"), ""),
    "a network that learned nothing": (noisy(Y, 1.0), Y, NUMBERS, ""),
    "one class always": (Y * 0, Y, NUMBERS, ""),
    "two classes mixed up": (Y + 8 * ((Y == 3).long() - (Y == 11).long()), Y, NUMBERS, ""),
    "few examples": ((1 - TWO)[:10], TWO[:10], ("cat", "dog"), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_order_of_classes(case):
    predicted, y, names, said = CASES[case]
    notes = label_order_notes(predicted, y, names)
    assert bool(notes) == bool(said)
    assert said in " ".join(notes)
    if notes:
        assert "give classes= in the order of the logits" in notes[0]


def test_many_classes_are_not_compared():
    assert label_order_notes(1 - TWO, TWO, [str(k) for k in range(2000)]) == []


def test_an_audit_says_so():
    y = torch.arange(60) % 3
    x = torch.eye(3)[(y + 1) % 3] + 0.01 * torch.rand(60, 3)
    result = contam.audit(
        nn.Sequential(nn.Identity()), id=(x, y), reference=None, untrained=False, progress=False
    )
    (line,) = [line for line in result.evidence.left_out if "another order" in line]
    assert "100 % of 'ID' would be correct instead of 0 %" in line
