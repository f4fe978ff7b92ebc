"""Whether the ID images reach a network in another form, apart from a head that is at fault."""

import pytest
import torch
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.api import accuracies
from contam.auditing.causes.input_mismatch import InputMismatch
from contam.auditing.passes import Budget, run_passes
from contam.auditing.prepare import prepare


class Colors(nn.Module):
    """Names the brightest channel, by a sum or by the pixels above a limit."""

    def __init__(self, *, limit: float | None = None, bias: float = 0.0) -> None:
        super().__init__()
        self.limit = limit
        self.head = nn.Linear(3, 3)
        self.head.weight = nn.Parameter(5 * torch.eye(3))
        self.head.bias = nn.Parameter(torch.tensor([0.0, 0.0, bias]))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.limit is None else (x > self.limit).float()
        return self.head(x.mean((2, 3)))


def fix_of(model: nn.Module) -> str | None:
    """The change that the test names; None if it names none."""
    y = torch.arange(240) % 3
    x = torch.rand(240, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    x[torch.arange(240), y] += 0.3
    ready = prepare(model, id=(x, y), ood=(x.flip(0), y.flip(0)), control=False, reference=None)
    passes = returned(run_passes(ready.inputs, (), Budget(without_object=0, changed=0, control=0)))
    test = InputMismatch().on_id(passes, accuracies(passes, {})[0])
    return None if test is None else test.what


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (Colors(limit=100.0), "values multiplied by 255"),
        (Colors(bias=3.0), None),
        (Colors(), None),
    ],
    ids=["pixels up to 255", "biased head", "sound"],
)
def test_only_inputs_in_another_form_are_named(model: nn.Module, what: str | None) -> None:
    # Larger values also outweigh a bias, but then the features of the images as they are suffice.
    assert fix_of(model) == what
