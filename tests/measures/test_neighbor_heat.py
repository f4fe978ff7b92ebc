"""Heat of the soft nearest-neighbor score, against finite differences and where the feature is."""

import pytest
import torch
from torch import nn

from contam.measures.neighbor_heat import neighbor_heat, neighbor_score

X = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SUPPORT = torch.rand(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SUPPORT_Y = torch.arange(8) % 2
Y = torch.tensor([0, 1, 1])


class Maps(nn.Module):
    """Two channels that are the image, a layer, and their difference of means as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean(dim=(2, 3))


def test_the_score_is_the_plain_formula_and_sums_to_one_over_classes():
    weights = (-(X[:, None] - SUPPORT[None]).abs().sum(dim=2) / 0.7).exp()
    plain = (weights * (SUPPORT_Y[None] == Y[:, None])).sum(dim=1) / weights.sum(dim=1)
    score = neighbor_score(X, SUPPORT, SUPPORT_Y, Y, scale=0.7)
    torch.testing.assert_close(score, plain)
    torch.testing.assert_close(
        score + neighbor_score(X, SUPPORT, SUPPORT_Y, 1 - Y, scale=0.7), torch.ones_like(score)
    )


def test_the_gradient_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(
        lambda x: neighbor_score(x, SUPPORT, SUPPORT_Y, Y, scale=0.7), X.clone().requires_grad_()
    )


def test_heat_is_grad_cam_with_gradients_by_finite_differences():
    maps = X.new_zeros(1, 2, 2, 2)
    maps[:] = torch.linspace(0.1, 0.8, 8, dtype=torch.float64).view(1, 2, 2, 2)
    support = torch.rand(
        8, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    y = torch.tensor([1])

    def score(x: torch.Tensor) -> float:
        args = x.flatten(1), support.flatten(1), SUPPORT_Y, y
        return float(neighbor_score(*args, scale=0.7))

    step = 1e-6
    gradient = torch.zeros_like(maps)
    for place in range(8):
        shift = torch.zeros(8, dtype=torch.float64)
        shift[place] = step
        shift = shift.view_as(maps)
        gradient.view(-1)[place] = (score(maps + shift) - score(maps - shift)) / (2 * step)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu()
    heat = neighbor_heat(Maps(), (maps, y), (support, SUPPORT_Y), "layer", y, scale=0.7)
    torch.testing.assert_close(heat.double(), expected, atol=1e-6, rtol=1e-4)


def test_heat_lies_on_the_patch_that_alone_tells_the_classes_apart():
    noise = 0.1 * torch.rand(60, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    noise[y == 1, 1, :2, :2] = 1
    heat = neighbor_heat(Maps(), (noise[:20], y[:20]), (noise[20:], y[20:]), "layer", y[:20])
    patched = heat[y[:20] == 1]
    # The patch is a ninth of the area.
    assert patched[:, :2, :2].sum() > patched.sum() / 2


def test_bad_input_is_rejected():
    with pytest.raises(ValueError, match="scale must be positive"):
        neighbor_score(X, SUPPORT, SUPPORT_Y, Y, scale=0.0)
    with pytest.raises(ValueError, match="no member of class 2"):
        neighbor_score(X, SUPPORT, SUPPORT_Y, Y + 1, scale=1.0)
    flat = torch.rand(4, 3), torch.arange(4) % 2
    with pytest.raises(ValueError, match="not maps"):
        neighbor_heat(nn.Sequential(nn.Linear(3, 2)), flat, flat, "0")
