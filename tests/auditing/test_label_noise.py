"""Wrong labels, on a network that errs on ID data, too."""

import pytest
import torch
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.api import accuracies, cause_tests
from contam.auditing.causes.label_noise import LabelNoise
from contam.auditing.passes import Budget, run_passes
from contam.auditing.prepare import prepare

N, CLASSES = 600, 4


class Nearest(nn.Module):
    """A linear classifier of features; where two classes are close, it is unsure."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.head = nn.Linear(CLASSES, CLASSES)
        with torch.no_grad():
            self.head.weight.copy_(2 * torch.eye(CLASSES))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def features(seed: int, *, signal: float = 2.0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features that overlap between classes, so that one answer in five is wrong."""
    y = torch.arange(N) % CLASSES
    noise = torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(seed))
    return signal * torch.eye(CLASSES)[y] + spread * noise, y


def relabeled(y: Tensor, share: float) -> Tensor:
    draws = torch.Generator().manual_seed(5)
    other = (y + torch.randint(1, CLASSES, y.shape, generator=draws)) % CLASSES
    return torch.where(torch.rand(len(y), generator=draws) < share, other, y)


def answer(new: tuple[Tensor, Tensor]) -> str:
    ready = prepare(Nearest(), id=features(0), ood=new, control=False, reference=None)
    passes = returned(run_passes(ready.inputs, (), Budget()))
    tests = returned(cause_tests(passes, accuracies(passes, {}), (LabelNoise(),)))
    (ledger,) = tests.ledgers
    return ledger.steps[0].answer


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_wrong_labels_are_found_beside_unsure_errors(share: float) -> None:
    x, y = features(1)
    assert answer((x, relabeled(y, share))) == "yes"


@pytest.mark.parametrize(
    "harder", [{"signal": 1.0}, {"spread": 1.8}], ids=["weaker signal", "more noise"]
)
def test_harder_data_are_not_wrong_labels(harder: dict[str, float]) -> None:
    assert answer(features(1, **harder)) == "no"
