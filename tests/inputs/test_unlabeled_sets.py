"""Data sets without labels, in every form, and their recognition."""

import numpy as np
import pandas as pd
import pytest
import torch
from support.trees import picture, table, tree
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from contam.data.image_tree import unlabeled_tree
from contam.inputs.forms import Options, read_raw
from contam.inputs.table_files import ImageTable
from contam.inputs.unlabeled import lacks_labels, unlabeled_sets

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Alone(Dataset):
    """Images alone, or in another form."""

    def __init__(self, wrap=lambda x: x):
        self.wrap = wrap

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return self.wrap(X[index])


class Stream(IterableDataset):
    def __iter__(self):
        yield from X


FORMS = {
    "tensor": X,
    "array": X.numpy(),
    "pair with None": (X, None),
    "tuple of one": (X,),
    "pair with labels": (X, torch.arange(6)),
    "dict": {"pixel_values": X},
    "list of batches": [X[:2], X[2:4], X[4:]],
    "list of examples": list(X),
    "dataset": Alone(),
    "dataset of tuples": TensorDataset(X),
    "dataset of dicts": Alone(lambda x: {"image": x}),
    "dataset of pairs with None": Alone(lambda x: (x, None)),
    "loader": DataLoader(Alone(), batch_size=4, shuffle=True),
    "loader of tuples": DataLoader(TensorDataset(X), batch_size=4),
    "loader with a collate function": DataLoader(Alone(), 4, collate_fn=torch.stack),
    "loader of dicts": DataLoader(Alone(), 4, collate_fn=lambda items: {"x": torch.stack(items)}),
    "stream": Stream(),
    "loader of a stream": DataLoader(Stream(), batch_size=4),
    "generator of batches": (part for part in X.split(4)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_inputs_in_their_order(form):
    raw = read_raw(None, FORMS[form], "unlabeled", Options(labeled=False))
    y = torch.as_tensor(raw.y)
    torch.testing.assert_close(raw.make_domain(y, y, None).data.x, X)
    assert y.tolist() == [0] * 6


@pytest.mark.parametrize("count", [2, 3])
def test_a_list_of_two_or_three_tensors_is_one_set_of_batches(count):
    raw = read_raw(None, list(X.chunk(count)), "unlabeled", Options(labeled=False))
    assert len(raw) == 6


@pytest.mark.parametrize("sizes", [[(3, 8, 8), (3, 9, 9)], [(2, 3, 8, 8), (2, 3, 9, 9)]])
def test_inputs_of_several_shapes_are_rejected_in_one_line(sizes):
    with pytest.raises(ValueError, match="expected one shape"):
        read_raw(None, [torch.zeros(size) for size in sizes], "unlabeled", Options(labeled=False))


def test_a_folder_gives_its_images_at_any_depth(tmp_path):
    picture(tmp_path / "a.png")
    tree(tmp_path, ["deep/deeper"])
    raw = read_raw(None, tmp_path, "unlabeled", Options(labeled=False))
    assert [file.name for file in raw.files] == ["a.png", "0.png", "1.png"]


def test_a_folder_without_images_is_rejected(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds no images \(1 .txt passed over\)"):
        unlabeled_tree(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        unlabeled_tree(tmp_path / "missing")


def test_a_table_needs_no_column_of_labels(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    file = table(tmp_path / "new.csv", ["path", "site"], [["b.png", 1], ["", 2], ["a.png", 1]])
    rows = ImageTable(file).rows({}, labeled=False)
    assert [path.name for path in rows.files] == ["b.png", "a.png"]
    assert rows.notes == ["1 of 3 rows of new.csv have no path."]
    assert torch.as_tensor(rows.y).tolist() == [0, 0]
    assert rows.others == {"site": ["1", "1"]}


def test_several_sets_are_a_list_or_a_dict_by_name():
    assert unlabeled_sets(None) == unlabeled_sets([]) == []
    assert unlabeled_sets(["night", "fog"]) == [(None, "night"), (None, "fog")]
    assert [name for name, _ in unlabeled_sets({"night": X, "fog": X})] == ["night", "fog"]
    assert [name for name, _ in unlabeled_sets({"scan": X}, {"x": "scan"})] == [None]
    assert len(unlabeled_sets([TensorDataset(X), DataLoader(Alone())])) == 2
    assert len(unlabeled_sets([X[:3], X[3:]])) == len(unlabeled_sets((X, None))) == 1


LABELED = {
    "pair": (X, torch.arange(6)),
    "dict": {"x": X, "y": torch.arange(6)},
    "dataset": TensorDataset(X, torch.arange(6)),
    "loader": DataLoader(TensorDataset(X, torch.arange(6))),
    "frame": pd.DataFrame({"path": ["a.png"], "label": ["cat"]}),
}
WITHOUT = (
    "tensor", "array", "pair with None", "tuple of one", "dict", "dataset", "loader",
    "dataset of dicts", "dataset of pairs with None", "loader of tuples", "stream",
)  # fmt: skip


@pytest.mark.parametrize("form", LABELED)
def test_labels_are_found(form):
    assert not lacks_labels(LABELED[form], {})


@pytest.mark.parametrize("form", WITHOUT)
def test_missing_labels_are_found(form):
    assert lacks_labels(FORMS[form], {})


def test_missing_labels_of_folders_and_tables_are_found(tmp_path):
    picture(tmp_path / "flat" / "a.png")
    assert lacks_labels(tmp_path / "flat", {})
    assert not lacks_labels(tree(tmp_path / "classes", ["cat", "dog"]), {})
    assert not lacks_labels(tmp_path / "missing", {})
    frame = pd.DataFrame({"path": ["a.png"], "diagnosis": ["cat"]})
    assert lacks_labels(frame, {})
    assert not lacks_labels(frame, {"y": "diagnosis"})


def test_arrays_of_bytes_with_channels_last_are_images():
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    assert read_raw(None, images, "unlabeled", Options(labeled=False)).shape == (3, 8, 8)
