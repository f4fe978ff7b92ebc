"""Pictures of ten classes with squares: their places, what is shared, and what is missing."""

import numpy as np
import pytest
import torch
from support.small_files import idx

from contam.data.ten_classes import MOVED, REMOVED, WITHOUT, ten_classes, with_squares


def test_each_class_has_its_own_place_and_the_last_has_none():
    x = with_squares(torch.zeros(10, 1, 32, 32), torch.arange(10), 1.0)
    sizes = x.sum(dim=(1, 2, 3)).tolist()
    assert sizes == [16.0] * 4 + [25.0] + [16.0] * 4 + [0.0]
    assert float(x.sum(dim=0).max()) == 1  # no two squares overlap


def test_a_faint_square_adds_to_the_picture_and_pixels_stay_below_one():
    x = torch.rand(9, 3, 32, 32)
    marked = with_squares(x, torch.arange(9), 0.1)
    changed = marked != x
    assert float(marked.max()) <= 1
    assert float((marked - x)[changed].max()) <= 0.1 + 1e-6
    assert int(changed[0, 0].sum()) <= 16


@pytest.mark.parametrize("name", ["digits-patch", "shapes-faint"])
def test_the_tests_differ_in_their_squares_alone(name):
    shift = ten_classes(name, None, train=80, test=80, noise=0.3)
    moved, removed = shift.ood_tests
    own = shift.id_test
    assert [test.name for test in shift.ood_tests] == [MOVED, REMOVED]
    assert torch.equal(own.data.domain, own.y)
    assert torch.equal(moved.data.domain, (own.y + 1) % 10)
    assert bool((removed.data.domain == WITHOUT).all())
    for test in (moved, removed):
        assert torch.equal(test.y, own.y)
        assert 0 < int((test.data.x != own.data.x).flatten(2).any(1).sum(1).max()) <= 2 * 25
    # Pictures of class 9 have no square, so removing it changes nothing.
    last = own.y == WITHOUT
    assert torch.equal(removed.data.x[last], own.data.x[last])


def test_a_set_without_squares_has_the_same_pictures_and_no_ood_test():
    plain = ten_classes("digits", None, train=60, test=50, noise=0.3)
    patched = ten_classes("digits-patch", None, train=60, test=50, noise=0.3)
    assert plain.ood_tests == ()
    assert torch.equal(plain.id_test.data.x, patched.ood_tests[1].data.x)


def test_no_digit_is_in_training_and_test():
    shift = ten_classes("digits", None)
    train, test = shift.train[0].data.x, shift.id_test.data.x
    assert len(train) + len(test) == 1797
    pixels = torch.cdist(test.flatten(1), train.flatten(1)).min()
    assert pixels > 0


def test_files_are_read_like_embedded_pictures(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for part in ("train", "t10k"):
        idx(folder, part, draws.integers(0, 256, (20, 28, 28)), np.arange(20) % 10)
    shift = ten_classes("mnist-patch", tmp_path, train=10, test=20)
    assert shift.train[0].data.x.shape == (10, 3, 32, 32)
    assert len(shift.ood_tests) == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("letters", r"no set 'letters' without files; choose from digits, shapes, mnist.*-patch"),
        ("mnist-patch", "no set 'mnist' without files"),
        ("digits", "digits has 1078 train pictures, fewer than 2000"),
    ],
)
def test_unknown_sets_and_too_few_pictures_are_reported(name, line):
    with pytest.raises(ValueError, match=line):
        ten_classes(name, None, train=2000, test=40)
