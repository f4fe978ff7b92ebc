"""DomainNet's lists, and the two ways of parting it."""

import pytest
from support import trees

from contam.batch import Shift
from contam.data.domainnet import CLASSES, DOMAINS, domainnet, listed
from contam.data.images import FolderDomain, pixels


def sets(shift: Shift) -> list[set[str]]:
    """The files of the training domains together, of validation, of the ID and the OOD test."""
    assert shift.id_val is not None
    domains = (*shift.train, shift.id_val, shift.id_test, shift.ood_tests[0])
    named = []
    for domain in domains:
        assert isinstance(domain, FolderDomain)
        named.append({"/".join(path.parts[-3:]) for path in domain.files})
    return [set.union(*named[:-3]), *named[-3:]]


def test_classes_are_the_forty_of_the_lists_in_their_order(tmp_path):
    assert len(set(CLASSES)) == 40
    domain = listed(trees.domainnet(tmp_path), "real", "test", pixels, workers=0)
    assert domain.y.tolist() == [0, 36, 39, 0, 36]
    assert all(
        CLASSES[y] == path.parent.name for y, path in zip(domain.y, domain.files, strict=True)
    )
    assert domain.data.x.shape == (5, 3, 6, 8)  # names with spaces are found


def test_the_partition_of_the_paper_pools_both_lists(tmp_path):
    shift = domainnet(trees.domainnet(tmp_path), pixels)
    train, id_val, id_test, ood = sets(shift)
    assert [len(part) for part in (train, id_val, id_test, ood)] == [36, 3, 6, 12]
    assert len(train | id_val | id_test | ood) == 57
    assert all(name.startswith("sketch/") for name in ood)
    assert [domain.name for domain in shift.train] == ["clipart", "painting", "real"]
    assert any("/test " in name for name in train)


def test_the_partition_of_domainbed_selects_and_tests_on_the_same_fifth(tmp_path):
    _, id_val, id_test, _ = sets(domainnet(trees.domainnet(tmp_path), pixels, third=False))
    assert id_val == id_test and len(id_test) == 9


def test_the_whole_left_out_style_can_be_the_ood_test(tmp_path):
    root = trees.domainnet(tmp_path)
    whole, part = (sets(domainnet(root, pixels, held_share=share))[3] for share in (1.0, 0.8))
    assert len(whole) == 15 and part < whole and len(part) == 12


def test_another_trial_seed_gives_another_split(tmp_path):
    root = trees.domainnet(tmp_path)
    one, again, other = (sets(domainnet(root, pixels, seed=seed)) for seed in (0, 0, 2))
    assert one == again and one[0] != other[0] and one[3] != other[3]


def test_the_published_partition_keeps_both_lists(tmp_path):
    shift = domainnet(trees.domainnet(tmp_path), pixels, partition="lists", ood="real")
    train, id_val, id_test, ood = sets(shift)
    assert [len(part) for part in (train, id_val, id_test, ood)] == [24, 6, 15, 5]
    assert all("/train " in name for name in train | id_val)
    assert all("/test " in name for name in id_test | ood)
    assert {name.split("/")[0] for name in ood} == {"real"}
    assert shift.id_test.data.domain.unique().tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "line",
    ["real/airplane/a.jpg 40", "real/airplane/a.jpg 1", "real/airplane/a.jpg",
     "clipart/airplane/a.jpg 0",
     "real/../../../airplane/a.jpg 0", "real/airplane/.. 0", "real/airplane/a.jpg -1"],
)  # fmt: skip
def test_a_malformed_line_is_rejected(tmp_path, line):
    path = trees.domainnet(tmp_path) / "SENTRY_splits" / "real_test_mini.txt"
    path.write_text("real/donut/b.jpg 39\n" + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"test_mini\.txt, line 2: .* is not 'real/class/file"):
        listed(tmp_path, "real", "test", pixels)


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"no .*clipart_train_mini\.txt; give the folder"):
        domainnet(tmp_path, pixels)
    trees.domainnet(tmp_path)
    with pytest.raises(ValueError, match="unknown domain 'quickdraw'"):
        domainnet(tmp_path, pixels, ood="quickdraw")
    with pytest.raises(ValueError, match="unknown partition 'list' or domain 'sketch'"):
        domainnet(tmp_path, pixels, partition="list")  # type: ignore[arg-type]
    assert DOMAINS[-1] == "sketch"
