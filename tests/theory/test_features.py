import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.theory.features import FeatureModel, decompose

DICTIONARIES = [
    FeatureModel(3, 5, 20),
    FeatureModel(3, 5, 20, "rotated"),
    FeatureModel(3, 5, 20, "coherent", 0.4),
    FeatureModel(3, 5, 20, "coherent", -0.1),
    FeatureModel(4, 4, 8, "coherent", 0.9),
]


@pytest.mark.parametrize("features", DICTIONARIES)
def test_inner_products_of_the_columns_are_the_gram_matrix(features):
    M = features.matrix(0, torch.float64)
    assert M.shape == (features.dimension, features.size)
    torch.testing.assert_close(M.T @ M, features.gram(torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("features", DICTIONARIES)
def test_the_square_root_of_the_gram_matrix_is_a_root(features):
    root = features.gram_root(torch.float64)
    torch.testing.assert_close(root @ root, features.gram(torch.float64), rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(root).min() > 0


def test_only_random_dictionaries_depend_on_the_seed():
    axes, rotated = FeatureModel(2, 2, 9), FeatureModel(2, 2, 9, "rotated")
    assert torch.equal(axes.matrix(0), axes.matrix(1))
    assert torch.equal(rotated.matrix(0), rotated.matrix(0))
    assert not torch.allclose(rotated.matrix(0), rotated.matrix(1), atol=0.1)


@pytest.mark.parametrize("features", DICTIONARIES)
def test_eq_6_weights_are_projections_plus_a_residual_orthogonal_to_inputs(features):
    M = features.matrix(1, torch.float64)
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(7, features.dimension, generator=generator, dtype=torch.float64)
    u, residual = decompose(W, M)
    torch.testing.assert_close(u, W @ M)
    torch.testing.assert_close(residual @ M, torch.zeros_like(u), rtol=0, atol=1e-12)
    x = torch.randn(11, features.size, generator=generator, dtype=torch.float64) @ M.T
    torch.testing.assert_close(x @ (W - residual).T, x @ W.T)
    if features.orthonormal:
        torch.testing.assert_close(W, u @ M.T + residual)


@given(core=st.integers(-3, 40), background=st.integers(-3, 40), dimension=st.integers(-3, 60))
def test_invalid_sizes_are_rejected(core, background, dimension):
    if core >= 1 and background >= 0 and core + background <= dimension:
        assert FeatureModel(core, background, dimension).size == core + background
    else:
        with pytest.raises(ValueError, match=r"core.*background"):
            FeatureModel(core, background, dimension)


@given(coherence=st.floats(-1.5, 1.5))
def test_coherences_without_a_gram_matrix_are_rejected(coherence):
    gram = torch.full((8, 8), coherence, dtype=torch.float64).fill_diagonal_(1)
    lowest = float(torch.linalg.eigvalsh(gram)[0])
    if abs(lowest) < 1e-9:  # singular up to rounding
        return
    if lowest > 0:
        assert FeatureModel(4, 4, 8, "coherent", coherence).coherence == coherence
    else:
        with pytest.raises(ValueError, match="inner products strictly between"):
            FeatureModel(4, 4, 8, "coherent", coherence)


def test_coherence_and_dictionary_must_agree():
    with pytest.raises(ValueError, match="needs dictionary='coherent'"):
        FeatureModel(coherence=0.2)
    with pytest.raises(ValueError, match="choose one of axes, rotated, coherent"):
        FeatureModel(dictionary="skew")  # pyright: ignore[reportArgumentType]
