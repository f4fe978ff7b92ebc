"""Shortcuts of tags, sizes and JPEG quality: on networks that rely on exactly that, and on others.

The object is a square in the color of its class; a network that reads its color needs nothing else.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import contam
from contam.auditing.image_edits import blockiness, blurred, jpeg
from contam.auditing.records import Step

SIDE, N = 32, 240
QUALITY = (None, 30, 6)


def objects(kind: Tensor, *, seed: int, sides: tuple[int, ...] = (10, 10, 10)) -> Tensor:
    """Squares in the color of their class in front of a texture; the side is that of the kind."""
    y, draws = torch.arange(N) % 3, torch.Generator().manual_seed(seed)
    x = 0.4 + 0.5 * blurred(torch.randn(N, 3, SIDE, SIDE, generator=draws), 1.5)
    for k, side in enumerate(sides):
        first = (SIDE - side) // 2
        inside = slice(first, first + side)
        x[kind == k, :, inside, inside] = (0.2 + 0.6 * torch.eye(3)[y[kind == k]])[:, :, None, None]
    return x.clamp(0, 1)


def tagged(kind: Tensor, seed: int) -> Tensor:
    x = objects(kind, seed=seed)
    x[:, :, :5, :5] = torch.eye(3)[kind][:, :, None, None]
    return x


def sized(kind: Tensor, seed: int) -> Tensor:
    return objects(kind, seed=seed, sides=(6, 10, 16))


def compressed(kind: Tensor, seed: int) -> Tensor:
    x = objects(kind, seed=seed)
    for k, quality in enumerate(QUALITY):
        if quality is not None:
            x[kind == k] = jpeg(x[kind == k], quality)
    return x


class Reads(nn.Module):
    """Classifies images by numbers: the nearest mean over the ID images of each class."""

    def __init__(
        self, numbers: Callable[[Tensor], Tensor], x: Tensor, y: Tensor | None = None
    ) -> None:
        super().__init__()
        self.numbers = numbers
        values, y = numbers(x), torch.arange(N) % 3 if y is None else y
        self.means = torch.stack([values[y == k].mean(0) for k in range(int(y.max()) + 1)])

    def forward(self, x: Tensor) -> Tensor:
        return -20 * torch.cdist(self.numbers(x), self.means) ** 2


def corner(x: Tensor) -> Tensor:
    return x[:, :, :4, :4].mean((2, 3))


def middle(x: Tensor) -> Tensor:
    return x[:, :, 14:18, 14:18].mean((2, 3))


def area(x: Tensor) -> Tensor:
    """The share of saturated pixels, which only objects have."""
    return (x.amax(1) - x.amin(1) > 0.5).float().mean((1, 2))[:, None] * 4


def blocks(x: Tensor) -> Tensor:
    return torch.tensor([[blockiness(image[None])] for image in x]).log()


WORLDS = {
    "tag shortcut": (tagged, corner), "size shortcut": (sized, area),
    "compression shortcut": (compressed, blocks),
}  # fmt: skip


def shortcut_step(
    name: str, network: nn.Module, inside: tuple[Tensor, Tensor], outside: tuple[Tensor, Tensor]
) -> Step:
    """The answer of one test in an audit."""
    result = contam.audit(
        network, id=inside, ood=outside,
        reference=None, untrained=False, altered=False, remedies=False, progress=False,
    ).evidence  # fmt: skip
    (ledger,) = result.ledgers
    step = next(step for step in ledger.steps if step.leads_to == name)
    assert step.answer != "yes" or result.verdict.cause == name, result.verdict.sentence
    return step


def step_of(name: str, *, relies: bool) -> Step:
    """The answer for a network that reads the property, or the object and gets wrong labels."""
    images, numbers = WORLDS[name]
    y, draws = torch.arange(N) % 3, torch.Generator().manual_seed(2)
    kind = torch.randint(3, (N,), generator=draws)
    inside, outside = images(y, 0), images(kind, 1)
    wrong = torch.where(torch.arange(N) % 5 < 2, y[torch.randperm(N, generator=draws)], y)
    network = Reads(numbers if relies else middle, inside)
    return shortcut_step(name, network, (inside, y), (outside, y if relies else wrong))


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.slow
def test_a_network_that_relies_on_the_property_is_found(name: str) -> None:
    step = step_of(name, relies=True)
    assert step.answer == "yes"
    assert step.observed is not None and step.observed.low is not None and step.observed.low > 0.2


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.slow
def test_a_network_that_reads_the_object_is_not_accused(name: str) -> None:
    assert step_of(name, relies=False).answer == "no"


def test_of_signals_all_over_the_border_the_strongest_is_the_tag() -> None:
    """Every cell says a little about the class, as where a texture fills the image."""
    y, draws = torch.arange(N) % 3, torch.Generator().manual_seed(3)
    kind = torch.randint(3, (N,), generator=draws)
    inside, outside = (
        tagged(k, seed) + 0.03 * y[:, None, None, None] for k, seed in ((y, 0), (kind, 1))
    )
    step = shortcut_step("tag shortcut", Reads(corner, inside), (inside, y), (outside, y))
    assert step.answer == "yes"


def test_classes_that_share_a_tag_do_not_hide_it() -> None:
    """Another class has the same tag by chance, so each control alone gives less than both."""
    y, draws = torch.arange(N) % 6, torch.Generator().manual_seed(4)

    def images(tags: Tensor, seed: int) -> Tensor:
        x = objects(y % 3, seed=seed)
        x[:, :, :5, :5] = torch.eye(3)[:2][tags][:, :, None, None]
        return x

    inside, outside = images(y // 3, 0), images(torch.randint(2, (N,), generator=draws), 1)
    network = Reads(lambda x: torch.cat([corner(x), middle(x)], dim=1), inside, y)
    step = shortcut_step("tag shortcut", network, (inside, y), (outside, y))
    assert step.answer == "yes"
    assert step.observed is not None and step.observed.value > 0.85
