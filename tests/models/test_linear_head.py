"""The linear head of a network is found and exchanged in a copy."""

import pytest
import torch
from support.noise import noise
from torch import nn

from contam.models.linear_head import LinearHead, find_head, head_of, with_head
from contam.models.logits_adapter import LogitsAdapter

X = noise(4, 3, seed=1)


class Functional(nn.Module):
    """Its last linear map is a function's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(2, 3))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)), "2"),
        (nn.Sequential(nn.Linear(3, 4), nn.Dropout()), "0"),
        (nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 4, 1), nn.Flatten()), "1"),
    ],
    ids=["linear", "with dropout", "convolution"],
)
def test_heads_are_found_and_their_weights_give_the_logits(model, name):
    adapter = LogitsAdapter(model.eval())
    assert find_head(adapter, X) == name
    head = LinearHead(noise(4, head_of(adapter, name).weight.shape[1], seed=2), noise(4, seed=3))
    copied = with_head(adapter, name, head)
    before = model.state_dict()
    known = head_of(copied, name)
    torch.testing.assert_close((known.weight, known.bias), (head.weight, head.bias))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not torch.allclose(copied(X), adapter(X))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh()), "not the output of a linear layer"),
        (Functional(), "not an nn.Linear with weights of its own"),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))),
            "not an nn.Linear with weights of its own",
        ),
        (
            nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 3, 1, groups=3), nn.Flatten()),
            "not an nn.Linear with weights of its own",
        ),
    ],
    ids=["an activation follows", "a function", "weight norm", "a convolution in groups"],
)
def test_other_heads_are_named(model, reason):
    with pytest.raises(ValueError, match=reason):
        find_head(LogitsAdapter(model), X)


def test_a_single_logit_is_the_difference_of_two():
    adapter = LogitsAdapter(nn.Sequential(nn.Linear(3, 1)))
    head = LinearHead(noise(2, 3, seed=2), noise(2, seed=3))
    copied = with_head(adapter, "0", head)
    difference = head(X)[:, 1] - head(X)[:, 0]
    torch.testing.assert_close(copied(X), torch.stack([0 * difference, difference], dim=1))
    torch.testing.assert_close(copied.network(X)[:, 0], difference)
    assert head_of(copied, "0")(X)[:, 0].tolist() == [0, 0, 0, 0]


def test_only_the_chosen_logits_get_other_weights():
    adapter = LogitsAdapter(nn.Sequential(nn.Linear(3, 5, bias=False)), classes=[4, 1])
    head = LinearHead(noise(2, 3, seed=2), noise(2, seed=3))
    copied = with_head(adapter, "0", head)
    torch.testing.assert_close(copied(X), head(X))
    rest = [0, 2, 3]
    torch.testing.assert_close(copied.network(X)[:, rest], adapter.network(X)[:, rest])


def test_half_precision_and_frozen_weights_stay_so():
    model = nn.Sequential(nn.Linear(3, 2)).bfloat16().requires_grad_(False)
    copied = with_head(LogitsAdapter(model), "0", LinearHead(torch.eye(2, 3), torch.zeros(2)))
    module = copied.network[0]  # pyright: ignore[reportIndexIssue]
    assert module.weight.dtype == torch.bfloat16 and not module.weight.requires_grad
