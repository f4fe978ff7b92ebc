"""ImageNet's shifts: which column means which class, and every trap on the way to it."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import trees

from contam.data import imagenet
from contam.data.imagenet import max_over, natural_tests, objectnet_columns
from contam.data.images import pixels, read, resized
from contam.inputs import from_folder

WNIDS = trees.wnids()
OF_R = WNIDS[100:300]
OF_A = WNIDS[214:414]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """All six sets under one root; an image's color says its folder's number modulo 5."""
    root = tmp_path_factory.mktemp("natural")
    trees.tree(root / "imagenet" / "val", WNIDS, images=1)
    numbers = map(str, range(1000))
    trees.tree(root / "imagenetv2-matched-frequency-format-val", numbers, images=1)
    trees.tree(root / "imagenet-r", OF_R, images=1)
    trees.tree(root / "imagenet-a", OF_A, images=1)
    trees.tree(root / "sketch", WNIDS, images=1)
    trees.objectnet(root / "objectnet-1.0")
    return root


def knowing(test: imagenet.NaturalTest, classes: int = 1000) -> torch.Tensor:
    """Logits of a network that is right among the classes of this test, and loud elsewhere."""
    logits = torch.zeros(len(test.domain), classes)
    inside = {column for group in test.columns for column in group}
    logits[:, [c for c in range(classes) if c not in inside]] = 100.0
    for row, label in enumerate(test.domain.y.tolist()):
        logits[row, test.columns[label][-1]] = 1.0
    return logits


def test_max_over_by_hand():
    logits = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    assert max_over(logits, [[3], [1]]).tolist() == [[3.0, 1.0]]
    assert max_over(logits, [[1, 3], [2]]).tolist() == [[3.0, 2.0]]


@given(
    st.integers(0, 99),
    st.permutations(range(9)),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_the_score_of_a_group_is_its_largest_logit(seed, columns, sizes):
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed))
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    groups = [columns[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    expected = [[max(row[c] for c in group) for group in groups] for row in logits.tolist()]
    assert torch.equal(max_over(logits, groups), torch.tensor(expected))
    single = [group[0] for group in groups]
    assert torch.equal(max_over(logits, [[column] for column in single]), logits[:, single])


@pytest.mark.parametrize("groups", [[[0], []], [[0, 1], [1]], [[0, 0]]])
def test_a_column_belongs_to_one_class(groups):
    with pytest.raises(ValueError, match="every group needs a column"):
        max_over(torch.zeros(1, 3), groups)


def test_logits_of_fewer_classes_are_rejected():
    with pytest.raises(ValueError, match=r"columns 2\.\.7 of 5 logits; give the logits of all"):
        max_over(torch.zeros(1, 5), [[7], [2]])


def test_a_perfect_network_has_full_accuracy_on_every_test(root):
    sizes = {}
    for name, opened in natural_tests(root, pixels, workers=0).items():
        test = opened()
        right = test.scores(knowing(test)).argmax(dim=1) == test.domain.y
        assert right.all(), name
        sizes[name] = (len(test.domain), len(test.classes))
    assert sizes == {
        "imagenet": (1000, 1000),
        "imagenetv2": (1000, 1000),
        "imagenet-r": (200, 200),
        "objectnet": (4, 2),
        "imagenet-sketch": (1000, 1000),
        "imagenet-a": (200, 200),
    }


def test_imagenet_v2_folders_are_sorted_as_numbers(root):
    test = imagenet.imagenet_v2(root, pixels, WNIDS, workers=0)
    assert [int(path.parent.name) for path in test.domain.files] == test.domain.y.tolist()
    assert test.classes == WNIDS
    # A plain reader of folders is right about few of them: that is the trap.
    plain = from_folder(root / "imagenetv2-matched-frequency-format-val")
    names = list(plain.classes or [])
    right = [int(names[y]) == y for y in map(int, plain.y)]
    assert sum(right) < 20


def test_imagenet_v2_with_missing_folders_is_rejected(tmp_path):
    for number in range(1, 1001):
        (tmp_path / "imagenetv2-matched-frequency-format-val" / str(number)).mkdir(parents=True)
    with pytest.raises(ValueError, match="lacks '0' and also has '1000'"):
        imagenet.imagenet_v2(tmp_path, pixels, WNIDS)


def test_imagenet_r_and_a_use_only_their_own_200_columns(root):
    r = imagenet.imagenet_r(root, pixels, WNIDS, workers=0)
    a = imagenet.imagenet_a(root, pixels, WNIDS, workers=0)
    columns = [{column for (column,) in test.columns} for test in (r, a)]
    assert columns == [set(range(100, 300)), set(range(214, 414))]
    assert len(columns[0] & columns[1]) == 86
    # Over all 1000 columns, the same network gets nothing right.
    unrestricted = knowing(r).argmax(dim=1)
    assert not (unrestricted == torch.tensor([c for (c,) in r.columns])).any()


@pytest.mark.parametrize("folders", [OF_R[:-1], (*OF_R[:-1], "n99999999")])
def test_folders_other_than_200_wnids_are_rejected(tmp_path, folders):
    trees.tree(tmp_path / "imagenet-r", folders, images=1)
    with pytest.raises(ValueError, match=r"imagenet-r contains (199|200) folders.*expected 200"):
        imagenet.imagenet_r(tmp_path, pixels, WNIDS)


def test_objectnet_columns_are_mapped_through_both_numberings(root):
    columns = objectnet_columns(root / "objectnet-1.0" / "mappings")
    assert columns == {"band_aid": (419,), "zipper": (765, 559)}


def test_objectnet_omits_classes_that_imagenet_lacks(root):
    test = imagenet.objectnet(root, pixels, workers=0)
    assert {path.parent.name for path in test.domain.files} == {"band_aid", "zipper"}
    assert test.classes == ("band_aid", "zipper")


def test_objectnet_scores_a_class_by_its_largest_column(root):
    test = imagenet.objectnet(root, pixels, workers=0)
    logits = torch.zeros(2, 1000)
    logits[0, 559] = logits[1, 419] = 1.0
    assert test.scores(logits).argmax(dim=1).tolist() == [1, 0]


def test_the_objectnet_border_is_removed_before_resizing(root):
    test = imagenet.objectnet(root, resized(32), workers=0)
    blue = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None]
    x = test.domain.data.x
    assert torch.equal(x, blue.expand_as(x))
    # The other order leaves red in the picture.
    late = resized(32)(read(test.domain.files[0]))[:, 2:-2, 2:-2]
    assert late[0].max() > 0


@pytest.mark.parametrize(
    ("name", "fault"),
    [("objectnet_to_imagenet_1k.json", '{"Sofa": "thing 1, object 1"}'),
     ("imagenet_to_label_2012_v2", "one name only")],
)  # fmt: skip
def test_contradictory_mapping_files_are_rejected(tmp_path, name, fault):
    mappings = trees.objectnet(tmp_path) / "mappings"
    (mappings / name).write_text(fault, "utf-8")
    with pytest.raises(ValueError, match="contradict each other"):
        objectnet_columns(mappings)


def test_a_missing_mapping_file_is_reported(tmp_path):
    mappings = trees.objectnet(tmp_path) / "mappings"
    (mappings / "pytorch_to_imagenet_2012_id.json").unlink()
    with pytest.raises(ValueError, match=r"no .*pytorch_to_imagenet_2012_id\.json; it is in"):
        objectnet_columns(mappings)


def test_the_wnids_come_from_the_folder_or_from_timm(root, tmp_path, monkeypatch):
    assert imagenet.wnids(root / "imagenet" / "val") == WNIDS
    trees.tree(tmp_path, WNIDS[:3], images=1)
    with pytest.raises(ValueError, match="contains 3 class folders, not 1000"):
        imagenet.wnids(tmp_path)
    (tmp_path / "timm" / "data" / "_info").mkdir(parents=True)
    listed = tmp_path / "timm" / "data" / "_info" / "imagenet_synsets.txt"
    listed.write_text("\n".join(WNIDS) + "\n", "utf-8")
    (tmp_path / "timm" / "__init__.py").write_text("raise RuntimeError('no torchvision')", "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    importlib.invalidate_caches()
    assert imagenet.wnids() == WNIDS
    listed.unlink()
    with pytest.raises(ValueError, match="neither is here; give that folder, or run pip install"):
        imagenet.wnids()


def test_an_unknown_split_is_rejected(root):
    with pytest.raises(ValueError, match="no split 'test' of ImageNet"):
        imagenet.imagenet(root, pixels, split="test")
    with pytest.raises(ValueError, match=r"no folder .*train"):
        imagenet.imagenet(root, pixels, split="train")
