"""OOD sets that are made of ID images are recognized."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.noise import noise
from torch import nn
from torch.utils.data import TensorDataset

from contam.auditing.prepare import prepare
from contam.inputs.duplicates import duplicate_notes, fingerprints

N = 40
Y = torch.arange(N) % 2
X = noise(N, 3, 16, 16).sigmoid()


def blurred(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


COPY, CHANGED = "are also in 'ID'", "are those of 'ID' in the same order, changed"
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
    "other labels": (X / 2, 1 - Y, ""),
    "another number of images": (X[:30] / 2, Y[:30], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_ood_sets_made_of_id_images(case):
    x, y, said = SETS[case]
    notes = duplicate_notes(("ID", fingerprints(X), Y), ("OOD", fingerprints(x), y))
    assert bool(notes) == bool(said)
    assert said in " ".join(notes)


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
    for some in (ready.subject.id, *ready.subject.ood):
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
