"""Framed digits: what is drawn, what is shared between frames, and what is disjoint."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression
from support.shifts import domains_of

from contam.data.digits import FRAMES, SIDE, frame_color, padded_digits


def test_shapes_ranges_and_names():
    shift = padded_digits("red")
    assert [len(d) for d in domains_of(shift)[:3]] == [1200, 197, 400]
    assert len(shift.ood_tests) == len(FRAMES) - 1
    for domain in domains_of(shift):
        x, y, which = domain.data
        assert x.shape == (len(y), 3, SIDE, SIDE)
        assert x.dtype == torch.float32
        assert x.min() >= 0 and x.max() <= 1
        assert len(which.unique()) == 1
    assert len({int(d.data.domain[0]) for d in (shift.id_test, *shift.ood_tests)}) == len(FRAMES)


@pytest.mark.parametrize("frame", [f for f, color in FRAMES.items() if color is not None])
def test_the_border_has_the_frame_color(frame):
    x = padded_digits(frame).id_test.data.x
    # Two pixels of border are left where the digit has moved as far as it may.
    for border in (x[:, :, :2], x[:, :, -2:], x[:, :, :, :2], x[:, :, :, -2:]):
        expected = frame_color(frame)[None, :, None, None].expand_as(border)
        torch.testing.assert_close(border, expected, rtol=0, atol=0)


def test_images_of_one_digit_differ_only_in_the_frame():
    shift = padded_digits("red")
    red = shift.id_test.data
    white = next(d for d in shift.ood_tests if d.name == "white frame").data
    assert torch.equal(red.y, white.y)
    differs = (red.x != white.x).any(dim=1)
    assert torch.all(differs.sum(dim=(1, 2)) == SIDE**2 - 16**2)
    assert torch.all(differs[:, :2]) and not torch.any(differs[:, 6:-6, 6:-6])


def test_networks_under_different_frames_see_the_same_digits():
    red, gray = padded_digits("red", seed=3), padded_digits("gray", seed=3)
    for one, other in zip(domains_of(red)[:3], domains_of(gray)[:3], strict=True):
        assert torch.equal(one.data.y, other.data.y)
        assert torch.equal(one.data.x[:, :, 6:-6, 6:-6], other.data.x[:, :, 6:-6, 6:-6])
    ood = {d.name: d.data.x for d in gray.ood_tests}
    assert torch.equal(red.id_test.data.x, ood["red frame"])


@pytest.mark.parametrize("seed", range(3))
def test_training_validation_and_test_digits_are_disjoint_scans(seed):
    shift = padded_digits("none", seed=seed)
    # Without a frame, the shape of the ink identifies the scan whatever its color is.
    shapes = torch.cat([d.data.x.amax(dim=1).flatten(1) for d in domains_of(shift)[:3]])
    shapes = (shapes / shapes.amax(dim=1, keepdim=True) * 1e4).round()
    scans = torch.as_tensor(load_digits(return_X_y=True)[0])
    assert len(shapes) == len(scans)
    assert len(shapes.unique(dim=0)) == len(scans.unique(dim=0)) == len(scans)


def test_digits_and_their_appearance_depend_only_on_the_seed():
    first, again, other = (padded_digits("random", seed=s).train[0].data for s in (1, 1, 2))
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.equal(first.y, other.y)
    ink = [data.x[:, :, 6:-6, 6:-6] for data in (first, other)]
    assert not torch.equal(ink[0].amax(dim=(2, 3)), ink[1].amax(dim=(2, 3)))


def test_frame_and_color_are_independent_of_the_label():
    framed = padded_digits("random", train=1700, validation=1).train[0].data
    bare = padded_digits("none", train=1700, validation=1).train[0].data
    brightest = bare.x.amax(dim=(2, 3))
    onehot = torch.nn.functional.one_hot(framed.y).double()
    for colors in (framed.x[:, :, 0, 0], brightest / brightest.amax(dim=1, keepdim=True)):
        fit = LinearRegression().fit(onehot, colors)
        # Noise explains 9 / 1699 on average.
        assert fit.score(onehot, colors) < 0.02


def test_digit_and_frame_are_linearly_separable():
    """Up to its shift, an image is the sum of a digit on black and of an empty frame."""
    shift = padded_digits("red")
    black = next(d for d in shift.ood_tests if d.name == "black frame").data.x
    frame = shift.id_test.data.x - black
    assert torch.all(frame * black == 0)
    assert torch.equal(frame.amax(dim=(2, 3)), frame_color("red").expand(len(frame), 3))


@pytest.mark.parametrize("frame", ["grey", "purple", ""])
def test_an_unknown_frame_is_rejected_with_the_known_names(frame):
    with pytest.raises(ValueError, match=r"no frame .*did you mean one of \['(gray|red)'"):
        padded_digits(frame)


def test_a_frame_without_a_single_color_is_rejected():
    with pytest.raises(ValueError, match="'random' has no constant color"):
        frame_color("random")


@settings(deadline=None)
@given(train=st.integers(-10, 3000), validation=st.integers(-10, 3000))
def test_invalid_sizes_are_rejected(train, validation):
    if train >= 1 and validation >= 1 and train + validation < 1797:
        return
    with pytest.raises(ValueError, match="every part needs at least one"):
        padded_digits("none", train=train, validation=validation)
