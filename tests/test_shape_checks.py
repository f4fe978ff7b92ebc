"""The tests check the shapes of tensors, in every module."""

import sys

import pytest
import torch
from jaxtyping import TypeCheckError
from support.shape_checks import CheckedLoader

from contam.measures.layerwise import over_grid


def test_a_wrong_type_of_tensor_is_noticed():
    with pytest.raises(TypeCheckError, match="over_grid"):
        over_grid(torch.ones(2, 3, 4, 4, dtype=torch.int64))


def test_every_module_is_imported_with_checks():
    """One that is imported before the finder is there would not be checked, in silence."""
    loaders = {
        name: module.__spec__ and module.__spec__.loader
        for name, module in sys.modules.items()
        if f"{name}.".startswith("contam.")
    }
    assert len(loaders) > 20
    assert not [name for name, one in loaders.items() if not isinstance(one, CheckedLoader)]
