"""Trees of class folders of published sets, and their splits."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.trees import COLORS, picture, tree

from contam.data.folders import classes_in, images_in, leave_one_out, parted, published_folder
from contam.data.images import FolderDomain, pixels


def lines_of(domain: FolderDomain) -> list[str]:
    """Each file's class by the folder it lies in."""
    return [path.parent.name for path in domain.files]


def test_classes_are_numbered_in_the_given_order(tmp_path):
    root = tree(tmp_path / "set", ["cat", "bird", "10", "2"])
    assert classes_in(root) == ("10", "2", "bird", "cat")
    domain = published_folder(root, pixels, classes_in(root))
    assert lines_of(domain) == ["10", "10", "2", "2", "bird", "bird", "cat", "cat"]
    assert domain.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert domain.name == "set"
    shown = (domain.data.x[:, :, 0, 0] * 255).round().int().tolist()
    assert shown[-1] == list(COLORS[0])


def test_files_that_are_not_images_are_skipped(tmp_path):
    tree(tmp_path, ["a", "b"])
    picture(tmp_path / "a" / "UPPER.JPG")
    for other in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / "a" / other).touch()
    (tmp_path / ".cache").mkdir()
    assert [path.name for path in images_in(tmp_path / "a")] == ["0.png", "1.png", "UPPER.JPG"]
    assert classes_in(tmp_path) == ("a", "b")


def test_an_empty_class_is_rejected_by_name(tmp_path):
    tree(tmp_path, ["a"])
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"class 'b' in .* has no images; put some there"):
        published_folder(tmp_path, pixels, ("a", "b"))


def test_a_missing_or_empty_root_is_rejected_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*nowhere; give the folder"):
        published_folder(tmp_path / "nowhere", pixels, ("a",))
    with pytest.raises(ValueError, match="contains no folders; expected one folder of images"):
        published_folder(tmp_path, pixels, ("a",))


def test_other_classes_are_rejected_with_the_difference(tmp_path):
    other = tree(tmp_path / "other", ["a", "c", "d"])
    with pytest.raises(ValueError, match=r"other lacks 'b' and also has 'd'; .* same 3 classes"):
        published_folder(other, pixels, ("a", "b", "c"))


def named(count: int, name: str = "d") -> FolderDomain:
    files = [Path(f"{name}/{k}.png") for k in range(count)]
    return FolderDomain(name, files, torch.arange(count) % 2, 0, pixels)


@given(count=st.integers(0, 60), seed=st.integers(0, 4), share=st.floats(0, 0.5))
def test_parts_are_disjoint_complete_and_determined_by_the_seed(count, seed, share):
    domain = named(count)
    parts = parted(domain, (share, share), seed=seed)
    assert [len(part) for part in parts[:2]] == [int(share * count)] * 2
    assert sorted(path for part in parts for path in part.files) == sorted(domain.files)
    again = parted(domain, (share, share), seed=seed)
    assert [part.files for part in parts] == [part.files for part in again]


def test_another_seed_or_domain_gives_another_split():
    first = parted(named(50), (0.5,), seed=0)[0]
    assert parted(named(50), (0.5,), seed=1)[0].files != first.files
    other = parted(named(50, "e"), (0.5,), seed=0)[0]
    assert [path.name for path in other.files] != [path.name for path in first.files]


def test_one_whole_domain_is_held_out_and_the_others_are_split():
    domains = [named(50, "a"), named(100, "b"), named(30, "c")]
    shift = leave_one_out("set", ("x", "y"), domains, "c", third=True)
    assert [len(d) for d in shift.train] == [40, 80]
    assert shift.id_val is not None
    assert (len(shift.id_val), len(shift.id_test), len(shift.ood_tests[0])) == (15, 15, 30)
    sets = [set(d.files) for d in (*shift.train, shift.id_val, shift.id_test, *shift.ood_tests)]  # type: ignore[attr-defined]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 180


def test_without_a_third_part_the_test_set_is_the_validation_set():
    shift = leave_one_out("set", ("x", "y"), [named(50, "a"), named(30, "c")], "c", third=False)
    assert shift.id_val is not None
    assert isinstance(shift.id_val, FolderDomain) and isinstance(shift.id_test, FolderDomain)
    assert shift.id_val.files == shift.id_test.files
    assert len(shift.id_test) == 10


def test_holding_out_an_unknown_domain_is_rejected():
    with pytest.raises(ValueError, match=r"unknown domain .sketsch.* choose from \['sketch'\]"):
        leave_one_out("set", ("x", "y"), [named(9, "photo"), named(9, "sketch")], "sketsch")
