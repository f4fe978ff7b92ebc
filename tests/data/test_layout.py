"""What is said of folders: whole, partial, damaged, or of something else."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import trees

from contam.data.layout import KINDS, Count, Report, check

MAKE = {
    "iwildcam": trees.iwildcam,
    "camelyon17": trees.camelyon17,
    "domainnet": trees.domainnet,
    "pacs": trees.pacs,
    "folder": lambda root: trees.tree(root, ["a", "b"]),
    "domains": lambda root: trees.tree(trees.tree(root, ["x/a", "x/b"]), ["y/a", "y/b"]),
}


def counts(report: Report) -> dict[str, int]:
    return {count.part: count.images for count in report.counts}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("there", [False, True])
def test_an_empty_or_missing_folder_is_reported_without_an_error(tmp_path, kind, there):
    folder = tmp_path if there else tmp_path / "nowhere"
    report = check(kind, folder)
    assert not report.complete
    assert not report.counts
    assert 1 <= len(report.missing) + len(report.wrong) <= len(KINDS[kind])
    assert str(folder) in "\n".join(report.lines())


@pytest.mark.parametrize("kind", MAKE)
def test_a_small_data_set_with_the_correct_layout_has_no_missing_parts(tmp_path, kind):
    report = check(kind, MAKE[kind](tmp_path))
    assert report.missing == report.wrong == ()
    assert all(count.images > 0 for count in report.counts)
    # A small tree has fewer images than were published, and that alone is said of it.
    assert report.complete == (kind in ("folder", "domains"))


def test_every_published_count_belongs_to_a_checked_part(tmp_path):
    for kind in ("iwildcam", "camelyon17", "domainnet", "pacs"):
        report = check(kind, MAKE[kind](tmp_path / kind))
        named = {name for part in KINDS[kind] for name in part.published}
        assert set(counts(report)) == named
        assert all(count.published for count in report.counts)


def test_imagenet_and_its_shifts(tmp_path):
    trees.tree(tmp_path / "imagenet" / "val", trees.wnids(), images=1)
    trees.tree(tmp_path / "imagenet-a", trees.wnids(200), images=1)
    trees.tree(tmp_path / "imagenet-r", trees.wnids(199), images=1)
    trees.objectnet(tmp_path / "objectnet-1.0")
    report = check("imagenet", tmp_path)
    assert counts(report) == {"ImageNet val": 1000, "ImageNet-A": 200, "ObjectNet": 4}
    assert [line.split(":")[0] for line in report.missing] == [
        "ImageNet train",
        "ImageNetV2",
        "ImageNet Sketch",
    ]
    (wrong,) = report.wrong
    assert wrong.startswith("ImageNet-R: ") and "contains 199 folders" in wrong


def test_missing_images_of_a_list_are_counted(tmp_path):
    root = trees.camelyon17(tmp_path)
    shutil.rmtree(root / "camelyon17_v1.0" / "patches" / "patient_006_node_2")
    (wrong,) = check("camelyon17", root).wrong
    assert wrong.startswith("new hospital: 4 listed images are missing, such as ")


def test_the_report_as_text(tmp_path):
    report = Report(
        "pacs",
        tmp_path,
        (Count("photo", 1670, 1670), Count("cartoon", 2000, 2344), Count("x", 1000, None)),
        ("sketch: no PACS/sketch",),
        ("art: lacks 'dog'",),
    )
    assert report.lines() == [
        f"pacs in {tmp_path}: not complete",
        "  found    photo: 1,670 images, published 1,670",
        "  differs  cartoon: 2,000 images, published 2,344",
        "  found    x: 1,000 images",
        "  missing  sketch: no PACS/sketch",
        "  wrong    art: lacks 'dog'",
    ]
    assert Report("pacs", tmp_path, (Count("photo", 2, 2),), (), ()).complete


@pytest.mark.parametrize("kind", ["iwildcam", "camelyon17", "domainnet", "pacs", "folder"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(data=st.data())
def test_damaged_folders_raise_no_error(tmp_path_factory, kind, data):
    root = MAKE[kind](tmp_path_factory.mktemp("damaged"))
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".csv", ".txt"))
    paths = paths or sorted(root.rglob("*.png"))
    path = data.draw(st.sampled_from(paths))
    if data.draw(st.booleans()):
        path.unlink()
    else:
        path.write_bytes(data.draw(st.binary(max_size=60)))
    for line in check(kind, root).lines():
        assert "\n" not in line


def test_a_file_instead_of_a_folder_is_reported(tmp_path):
    (tmp_path / "PACS").mkdir()
    (tmp_path / "PACS" / "photo").touch()
    report = check("pacs", tmp_path)
    assert len(report.missing) == 3
    assert report.wrong[0].startswith("photo: no folder ")
    assert os.listdir(tmp_path) == ["PACS"]  # noqa: PTH208 - nothing was written


def test_an_unknown_kind_is_rejected_with_the_nearest_name(tmp_path):
    with pytest.raises(ValueError, match=r"unknown kind of data set 'pac'; .*'pacs'"):
        check("pac", tmp_path)
