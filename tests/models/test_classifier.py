"""An encoder with a head, and weights that depend on nothing but a seed and a purpose."""

import pytest
import torch
from torch import nn

from contam.models.classifier import Classifier
from contam.rng import seeded


def test_the_logits_are_a_linear_map_of_the_features():
    model = Classifier(nn.Flatten(), classes=3, width=8)
    x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    expected = x.flatten(1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("classes", "width"), [(1, 8), (3, 0)])
def test_fewer_than_two_classes_or_no_feature_is_rejected(classes, width):
    with pytest.raises(ValueError, match="at least 2 classes and 1 feature"):
        Classifier(nn.Flatten(), classes=classes, width=width)


def test_draws_depend_only_on_the_seed_and_the_purpose():
    draws = []
    for seed, purpose in ((0, "a"), (0, "a"), (1, "a"), (0, "b")):
        torch.rand(seed + 1)  # moves the global stream
        with seeded(seed, purpose):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_the_global_random_state_is_preserved_even_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(0, "a"):
        torch.rand(4)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
