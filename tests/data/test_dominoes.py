"""Dominoes: what each half shows, how often both agree, and what the tests share."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from support.shifts import domains_of
from support.small_files import idx, svhn

from contam import accuracy
from contam.data.dominoes import (
    BLANK,
    CORE,
    DOSES,
    EASY,
    HARD,
    NOISE,
    PARTS,
    Digits,
    Half,
    Patch,
    dominoes,
    pictures,
)
from contam.models.small import small_cnn
from contam.training.supervised import fit

HALVES = {half.name: half for half in (CORE, EASY, HARD, NOISE, *DOSES)}
CLEAN = Digits("clean", zero=(4, 7), one=(1, 9), moved=False)


def shown(half: Half, bits: list[int], part: str = "train", seed: int = 0) -> torch.Tensor:
    return half(torch.tensor(bits), part, seed=seed, purpose="test")


@pytest.mark.parametrize("top", HALVES)
def test_sizes_and_names(top):
    shift = dominoes(HALVES[top], CORE, train=30, validation=10, test=20)
    assert [len(d) for d in domains_of(shift)] == [30, 10, 20, 20, 20, 20]
    assert shift.name == f"dominoes, {top} over core"
    for domain in domains_of(shift):
        x, y, top_shows = domain.data
        assert x.shape == (len(y), 3, 32, 16) and x.dtype == torch.float32
        assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])
        assert int((y == 1).sum()) == len(y) // 2
        assert set(top_shows.tolist()) <= ({BLANK} if domain.name == "top blank" else {0, 1})


@settings(max_examples=40)
@given(st.floats(0, 1), st.integers(2, 80), st.integers(0, 5))
def test_the_share_of_agreement_is_exact_in_each_class(share, n, seed):
    shift = dominoes(NOISE, NOISE, agreement=share, train=n, validation=0, test=n, seed=seed)
    wanted = {"training": share, "as in training": share, "top randomized": 0.5, "top flipped": 0.0}
    assert shift.id_val is None
    for domain in domains_of(shift)[:-1]:
        for label in (0, 1):
            here = domain.y == label
            agree = int((domain.data.domain[here] == label).sum())
            assert agree == round(wanted[domain.name] * int(here.sum()))


def test_counter_examples_are_drawn_and_not_the_first_ones():
    y, top_shows = dominoes(NOISE, NOISE, agreement=0.9, train=1000).train[0].data[1:]
    where = (y != top_shows).nonzero().flatten().double() / 1000
    # The mean place of 100 of 1000 at random has a standard deviation of 0.027.
    assert len(where) == 100 and abs(float(where.mean()) - 0.5) < 0.14


def test_test_sets_differ_only_in_the_upper_half():
    shift = dominoes(HARD, CORE, train=10, validation=0, test=100)
    first = shift.id_test.data
    for domain in shift.ood_tests:
        assert torch.equal(domain.y, first.y)
        assert torch.equal(domain.data.x[:, :, 16:], first.x[:, :, 16:])
        assert not torch.equal(domain.data.x[:, :, :16], first.x[:, :, :16])
    assert not shift.ood_tests[-1].data.x[:, :, :16].any()


def test_the_lower_half_does_not_depend_on_the_kind_of_the_upper_half():
    easy, hard = (dominoes(top, CORE, agreement=0.9, test=50) for top in (EASY, HARD))
    for one, other in zip(domains_of(easy), domains_of(hard), strict=True):
        assert torch.equal(one.data.domain, other.data.domain)
        assert torch.equal(one.data.x[:, :, 16:], other.data.x[:, :, 16:])


def test_examples_depend_only_on_the_seed():
    first, again, other = (dominoes(EASY, CORE, train=40, seed=s).train[0].data for s in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    for half in (slice(0, 16), slice(16, 32)):
        assert not torch.equal(first.x[:, :, half], other.x[:, :, half])


def test_a_clean_digit_by_hand():
    """The middle of a half is a scan of the right class, 12 pixels wide; around it is black."""
    scans, digit = load_digits(return_X_y=True)
    x = shown(CLEAN, [0, 1] * 40)
    assert float(x[:, :, :2].abs().max()) == float(x[:, :, :, -2:].abs().max()) == 0
    small = torch.nn.functional.interpolate(
        torch.tensor(scans).float().reshape(-1, 1, 8, 8) / 16, 12, mode="bilinear"
    )[:, 0]
    for bit, image in zip([0, 1] * 40, x[:, 0, 2:14, 2:14], strict=True):
        (same,) = (small - image).abs().amax(dim=(1, 2)).eq(0).nonzero()
        assert digit[int(same)] in ((4, 7), (1, 9))[bit]


def test_parts_share_no_digit_and_use_all_of_theirs():
    digits_of = {}
    for part in ("train", "validation", "test"):
        x = shown(CLEAN, [0] * 300 + [1] * 300, part)
        digits_of[part] = {image.numpy().tobytes() for image in x[:, 0]}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not digits_of[one] & digits_of[other]
    digit = load_digits(return_X_y=True)[1]
    total = np.isin(digit, [4, 7, 1, 9]).sum()
    assert sum(map(len, digits_of.values())) == total
    for part, images in digits_of.items():
        assert len(images) / total == pytest.approx(PARTS[part], abs=0.04)


def test_every_digit_is_drawn_about_equally_often():
    x = shown(CLEAN, [1] * 500)
    _, counts = x[:, 0].flatten(1).unique(dim=0, return_counts=True)
    assert int(counts.max() - counts.min()) <= 1


def test_a_shifted_digit_is_the_centered_one_at_one_of_25_positions():
    moved, centered = (shown(Digits("a", moved=m), [0, 1] * 200)[:, 0] for m in (True, False))
    places = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    # The centered digit's border of two black pixels makes rolling the same as moving.
    rolled = torch.stack([centered.roll(place, dims=(1, 2)) for place in places])
    counts = (rolled == moved).all(dim=(2, 3)).sum(dim=1)
    # Sixteen digits are expected in each place.
    assert int(counts.sum()) == 400 and int(counts.min()) > 2


def test_an_inverted_digit_is_the_original_or_its_negative():
    x, straight = (shown(Digits("a", inverted=i), [0, 1] * 200)[:, 0] for i in (True, False))
    light = x.mean(dim=(1, 2)) > 0.5
    assert 150 < int(light.sum()) < 250
    torch.testing.assert_close(x, torch.where(light[:, None, None], 1 - straight, straight))


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_has_the_stated_standard_deviation(noise):
    bits = [0, 1] * 100
    added = shown(Digits("a", noise=noise), bits) - shown(Digits("a"), bits)
    assert float(added[:, 0].std()) == pytest.approx(noise, rel=0.02)
    assert float(added[:, 0].mean()) == pytest.approx(0, abs=0.01)


def test_a_patch_by_hand():
    x = shown(Patch("p", size=3, side=10), [0, 1] * 50)[:, 0]
    assert x.shape == (100, 10, 10)
    assert torch.all(x[1::2, :3, :3] == 1)
    rest = x.clone()
    rest[1::2, :3, :3] = 0.25
    assert float(rest.max()) <= 0.5 and float(rest.mean()) == pytest.approx(0.25, abs=0.01)
    assert float(shown(NOISE, [1] * 50).max()) <= 0.5


def test_the_kinds_of_a_half_are_ordered_by_difficulty_for_nearest_neighbors():
    """Held-out accuracy of 5 nearest neighbors: the patch, then the doses in their order."""

    def read(half: Half) -> float:
        bits = [0, 1] * 400
        learned, held = (shown(half, bits, part)[:, 0].flatten(1) for part in ("train", "test"))
        return KNeighborsClassifier(5).fit(learned, bits).score(held, bits)

    accuracies = [read(half) for half in (EASY, *DOSES)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == 1 and accuracies[-1] < 0.75


def test_the_upper_half_predicts_the_class_as_often_as_both_halves_agree():
    for share, low, high in ((1.0, 0.99, 1.0), (0.5, 0.4, 0.6)):
        shift = dominoes(EASY, NOISE, agreement=share)
        learned, held = shift.train[0].data, shift.id_test.data
        model = LogisticRegression(max_iter=2000).fit(learned.x[:, 0].flatten(1), learned.y)
        assert low <= model.score(held.x[:, 0].flatten(1), held.y) <= high


def test_invalid_settings_are_rejected():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"agreement must be in \[0, 1\]"):
            dominoes(EASY, CORE, agreement=share)
    for sizes in ({"train": 1}, {"test": 0}, {"validation": 1}, {"validation": -2}):
        with pytest.raises(ValueError, match="expected at least 2 dominoes"):
            dominoes(EASY, CORE, **sizes)
    with pytest.raises(ValueError, match="the halves have 8 and 16 pixels"):
        dominoes(Patch("small", side=8), CORE)


@pytest.fixture
def files(tmp_path):
    """MNIST and SVHN with 60 training pictures and 10 test pictures of each class."""
    random = np.random.default_rng(0)
    for part, n in (("train", 600), ("t10k", 100)):
        labels = np.arange(n) % 10
        images = random.integers(0, 256, (n, 28, 28))
        # The first pixel tells the class.
        images[:, 0, 0] = 20 * labels
        idx(tmp_path, part, images, labels, packed=True)
        svhn(tmp_path, part.replace("t10k", "test"), labels)
    return tmp_path


def test_images_from_files_give_the_same_dominoes(files):
    top, bottom = pictures("svhn", files), pictures("mnist", files, zero=3, one=7)
    shift = dominoes(top, bottom, agreement=0.9, train=100, validation=10, test=20)
    assert shift.name == "dominoes, svhn over mnist"
    for domain in domains_of(shift):
        x, y, _ = domain.data
        assert x.shape == (len(y), 3, 64, 32) and x.min() >= 0 and x.max() <= 1
        # Two pixels of black are added around an image of MNIST.
        label = (x[:, 0, 34, 2] * 255 / 20).round().long()
        assert torch.equal(label, torch.where(y == 0, 3, 7))
    first, *others = shift.id_test, *shift.ood_tests
    assert all(torch.equal(d.data.x[:, :, 32:], first.data.x[:, :, 32:]) for d in others)
    assert not shift.ood_tests[-1].data.x[:, :, :32].any()


def test_images_are_used_once_and_in_one_part_only(files):
    half = pictures("mnist", files)
    # Of 60 of each class, 8 (an eighth, rounded) are kept for validation.
    parts = {"train": 52, "validation": 8, "test": 10}
    images = [shown(half, [0] * n + [1] * n, part)[:, 0].flatten(1) for part, n in parts.items()]
    assert len(torch.cat(images).unique(dim=0)) == 140
    for part, n in parts.items():
        with pytest.raises(ValueError, match=f"{n + 1} pictures of class 1 .* part has {n}"):
            shown(half, [1] * (n + 1), part)


def test_invalid_image_files_are_rejected(files, tmp_path):
    with pytest.raises(ValueError, match="two different labels from 0 to 9, got 4 and 4"):
        pictures("mnist", files, zero=4, one=4)
    with pytest.raises(ValueError, match="got 0 and 10"):
        pictures("mnist", files, one=10)
    svhn(files, "test", np.array([0, 2, 3]))
    with pytest.raises(ValueError, match="no test picture of class 1"):
        pictures("svhn", files)
    with pytest.raises(ValueError, match="not a complete cifar10: missing"):
        pictures("cifar10", files / "nowhere")


def test_cifar_10_images_are_read_without_running_code(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        batch = {"data": data, "labels": [0, 1] * 10}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    x = shown(pictures("cifar10", tmp_path), [0, 1], "test")
    rows = torch.tensor(data).float().reshape(-1, 3, 32, 32) / 255
    assert any(torch.equal(x[0], row) for row in rows[::2])
    assert any(torch.equal(x[1], row) for row in rows[1::2])


@pytest.mark.slow
def test_networks_rely_on_the_easier_half():
    """An easy upper half is learned instead of the lower one; a hard one is hardly used."""

    def learned(top: Half, bottom: Half, agreement: float = 1.0) -> list[float]:
        shift = dominoes(top, bottom, agreement=agreement, seed=0)
        model = small_cnn(2, width=12, seed=0)
        for _ in fit(
            model, shift, epochs=8, batch_size=32, step_size=3e-3, weight_decay=0.05, seed=0,
            report_every=10_000,
        ):  # fmt: skip
            pass
        tests = (shift.id_test, *shift.ood_tests[:2])
        return [accuracy(model, domain).share for domain in tests]

    in_distribution, randomized, flipped = learned(EASY, CORE)
    assert in_distribution > 0.98 and 0.4 < randomized < 0.6 and flipped < 0.05
    in_distribution, randomized, flipped = learned(HARD, CORE)
    assert min(in_distribution, randomized, flipped) > 0.75
    in_distribution, randomized, flipped = learned(EASY, CORE, 0.95)
    assert 0.6 < randomized < 0.9 and flipped < randomized < in_distribution
    assert learned(NOISE, CORE)[0] > learned(HARD, NOISE)[0] + 0.1
