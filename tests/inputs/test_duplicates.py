"""OOD sets that are made of ID images are recognized."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from support.noise import noise
from torch import nn
from torch.utils.data import TensorDataset

from contam.auditing.prepare import prepare
from contam.inputs.duplicates import (
    CHANGED_SHARE,
    duplicate_notes,
    fingerprints,
    shared_examples,
)

N = 40
Y = torch.arange(N) % 2
X = noise(N, 3, 16, 16).sigmoid()


def blurred(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


CHANGED, COPIES = "are those of 'ID' in the same order, changed", "are changed copies of examples"
SHUFFLED = torch.randperm(N, generator=torch.Generator().manual_seed(0))
# Smooth images, as photographs are; noise has little left after a blur.
SMOOTH = nn.functional.interpolate(noise(N, 3, 4, 4, seed=3), (32, 32), mode="bilinear").sigmoid()
# Name -> OOD images, labels, what is said
SETS = {
    "other images": (X.flip(1).flip(3).roll(1, 0), Y, ""),
    "the same images": (X, Y, "40 of 40 examples of 'OOD' are also in 'ID'"),
    "some of them in another order": (
        torch.cat([X[:5].flip(0), noise(35, 3, 16, 16, seed=1).sigmoid()]), Y, "5 of 40 examples"
    ),
    "darker": (X / 2, Y, CHANGED),
    "blurred": (blurred(X), Y, CHANGED),
    "with noise": ((X + 0.1 * noise(N, 3, 16, 16, seed=2)).clamp(0, 1), Y, CHANGED),
    "inverted": (1 - X, Y, ""),
    "other labels": (X / 2, 1 - Y, f"40 of 40 examples of 'OOD' {COPIES}"),
    "another number of images": (X[:30] / 2, Y[:30], f"30 of 30 examples of 'OOD' {COPIES}"),
    "darker, in another order": (X[SHUFFLED] / 2, Y, COPIES),
    "one changed copy of many images": (torch.cat([X[:1] / 2, X[1:].flip(1, 3)]), Y, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_ood_sets_made_of_id_images(case):
    x, y, said = SETS[case]
    notes = duplicate_notes(("ID", fingerprints(X), Y), ("OOD", fingerprints(x), y))
    assert bool(notes) == bool(said)
    assert said in " ".join(notes)


CHANGES = {
    "darker": lambda x: x / 2,
    "brighter": lambda x: 0.6 + 0.4 * x,
    "more contrast": lambda x: (2 * x - 0.5).clamp(0, 1),
    "blurred": blurred,
    "with noise": lambda x: (x + 0.1 * noise(*x.shape, seed=4)).clamp(0, 1),
    "in fewer colors": lambda x: (8 * x).round() / 8,
    "smaller and enlarged": lambda x: nn.functional.interpolate(
        nn.functional.avg_pool2d(x, 2), (32, 32)
    ),
    "unchanged": lambda x: x,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_matched_in_any_order(change):
    pairs = shared_examples(fingerprints(SMOOTH), fingerprints(CHANGES[change](SMOOTH[SHUFFLED])))
    assert len(pairs) >= 0.9 * N
    assert torch.equal(SHUFFLED[pairs[:, 1]], pairs[:, 0])


FLAT = {
    "one gray": lambda n: torch.full((n, 3, 16, 16), 0.5),
    "grays": lambda n: torch.linspace(0, 1, n)[:, None, None, None].expand(-1, 3, 16, 16),
    "one gray and noise": lambda n: 0.5 + 0.001 * noise(n, 3, 16, 16, seed=n),
}


@pytest.mark.parametrize("first", FLAT)
@pytest.mark.parametrize("second", FLAT)
def test_images_without_contrast_are_no_copies(first, second):
    own, new = (fingerprints(FLAT[name](n)) for name, n in ((first, 30), (second, 20)))
    assert not len(shared_examples(own, new))


@pytest.mark.parametrize("kind", ["noise", "digits"])
def test_other_images_of_one_kind_are_no_copies(kind):
    """Digits of one class resemble each other, but their nearest neighbors are not nearer."""
    images = noise(800, 3, 16, 16).sigmoid()
    if kind == "digits":
        images = torch.tensor(load_digits(return_X_y=True)[0][:800]).float().view(-1, 1, 8, 8) / 16
    pairs = shared_examples(fingerprints(images[:500]), fingerprints(images[500:]))
    assert len(pairs) < CHANGED_SHARE * 300 / 2


def test_copies_within_a_set_do_not_hide_changed_ones():
    twice = torch.cat([X, X])
    pairs = shared_examples(fingerprints(twice), fingerprints(X / 2))
    assert torch.equal(pairs[:, 0] % N, pairs[:, 1]) and len(pairs) == N


def test_each_example_is_compared_with_a_fixed_number_of_others(monkeypatch):
    einsum, compared = torch.einsum, {400: 0, 1600: 0}
    for n in compared:

        def counting(equation, *parts, n=n):
            compared[n] += max(part.numel() for part in parts)
            return einsum(equation, *parts)

        monkeypatch.setattr(torch, "einsum", counting)
        shared_examples(*(fingerprints(noise(n, 1, 8, 8, seed=s)) for s in (5, 6)))
    assert 0 < compared[1600] <= 4.1 * compared[400]


def folder(root, x):
    for number, image in enumerate((255 * x).round().byte().permute(0, 2, 3, 1).numpy()):
        (root / str(int(Y[number]))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(int(Y[number])) / f"{number:03}.png")
    return root


@pytest.mark.parametrize("form", ["tensors", "a dataset", "a dataset beyond memory", "folders"])
def test_an_audit_says_it_after_its_pass(form, tmp_path, monkeypatch):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    if form == "folders":
        own, new = folder(tmp_path / "a", X), folder(tmp_path / "b", X / 2)
    elif form == "tensors":
        own, new = (X, Y), (X / 2, Y)
    else:
        own, new = TensorDataset(X, Y), TensorDataset(X / 2, Y)
    if "memory" in form:
        monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    ready = prepare(model, id=own, ood=new, reference=None)
    for some in (ready.inputs.id, *ready.inputs.ood):
        for _ in some.domain.batches(16):
            pass
    assert any("in the same order, changed" in note for note in ready.notes)


@settings(max_examples=20)
@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), n=st.integers(1, 5))
def test_inputs_of_any_shape_have_fingerprints(shape, n):
    x = torch.rand(n, *shape)
    prints = fingerprints(x)
    assert len(prints) == n and prints.ndim == 2 and prints.isfinite().all()
    y = torch.zeros(n, dtype=torch.long)
    (note,) = duplicate_notes(("a", prints, y), ("b", prints.clone(), y))
    assert note.startswith(f"{n} of {n} examples of 'b' are also in 'a'")
