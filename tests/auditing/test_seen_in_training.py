"""Whether an ID set was seen in training, on networks that know their images or a shortcut."""

import pytest
import torch
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.api import accuracies, cause_tests
from contam.auditing.causes.label_noise import SeenInTraining, cell_moments, link_loss
from contam.auditing.passes import Budget, run_passes
from contam.auditing.prepare import prepare


class Memory(nn.Module):
    """Knows some images by heart, and is unsure about all others."""

    votes: Tensor

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.known = nn.Parameter(x.flatten(1), requires_grad=False)
        self.register_buffer("votes", nn.functional.one_hot(y).float())
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = nn.Parameter(10 * torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        distance = torch.cdist(x.flatten(1), self.known)
        return self.head(torch.softmax(-2 * distance, 1) @ self.votes)


class ByColor(nn.Module):
    """Names the color of the background, which has the class in the ID set only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = nn.Parameter(5 * torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, :, :2].mean((2, 3)))


def noise(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images without anything to see, and their classes."""
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)), (
        torch.arange(n) % 3
    )


def colored(n: int, seed: int, *, linked: bool) -> tuple[Tensor, Tensor]:
    """Noise with one bright channel, which is the class or any."""
    x, y = noise(n, seed)
    channel = y if linked else torch.arange(n) // 3 % 3
    x[torch.arange(n), channel] += 1
    return x / 2, y


def cause_of(model: nn.Module, own: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> str:
    """The answer of the test."""
    ready = prepare(model, id=own, ood=new, control=False, reference=None)
    passes = returned(run_passes(ready.inputs, (), Budget(without_object=0, changed=0, control=0)))
    (ledger,) = returned(cause_tests(passes, accuracies(passes, {}), (SeenInTraining(),))).ledgers
    return next(step.answer for step in ledger.steps if step.leads_to == "measurement")


def test_an_id_set_that_the_network_knows_by_heart_is_a_wrong_measurement() -> None:
    own = noise(240, 0)
    assert cause_of(Memory(*own), own, noise(240, 1)) == "yes"


def test_where_the_network_knows_the_id_images_no_shift_is_tested() -> None:
    """ID images in training make everything that looks like training seem to help."""
    own = noise(240, 0)
    ready = prepare(Memory(*own), id=own, ood=noise(240, 1), control=False, reference=None)
    passes = returned(run_passes(ready.inputs, (), Budget(without_object=0, changed=0, control=0)))
    (ledger,) = returned(cause_tests(passes, accuracies(passes, {}))).ledgers
    answers = {step.leads_to: step.answer for step in ledger.steps}
    assert answers.pop("measurement") == "yes"
    assert {answers[cause] for cause in ("geometry", "corruption", "new backgrounds")} == {
        "not asked"
    }
    assert [entry.cause for entry in ledger.entries if entry.points.value > 0] == ["measurement"]


def test_a_perfect_shortcut_is_no_wrong_measurement() -> None:
    own, new = colored(240, 0, linked=True), colored(240, 1, linked=False)
    assert cause_of(ByColor(), own, new) == "no"


def test_classes_that_are_linked_to_colors_lose_their_link() -> None:
    linked, again, broken = (
        colored(240, seed, linked=linked) for seed, linked in enumerate((True, True, False))
    )
    features = [(cell_moments(x), y) for x, y in (linked, again, broken)]
    assert abs(link_loss(*features[0], *features[1])) < 0.05
    assert link_loss(*features[0], *features[2]) > 0.5


def test_moments_of_cells_by_hand() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., 0, 0] = 1
    moments = cell_moments(x)[0]
    assert moments.shape == (32,)
    assert moments[0].item() == pytest.approx(0.25)
    assert moments[16].item() == pytest.approx((0.25 - 0.0625) ** 0.5)
    assert moments[1:16].abs().max() == moments[17:].abs().max() == 0
