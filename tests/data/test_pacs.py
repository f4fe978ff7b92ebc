"""PACS: four domains, and one faulty file."""

import pytest
from support import trees

from contam.data.images import pixels, read
from contam.data.pacs import CLASSES, DOMAINS, FAULTY, pacs, pacs_domains


def test_the_faulty_file_is_omitted(tmp_path):
    root = trees.pacs(tmp_path)
    with pytest.raises(ValueError, match="cannot read"):
        read(root / "PACS" / FAULTY)
    domains = pacs_domains(root, pixels, workers=0)
    assert [len(domain) for domain in domains] == [21] * 4
    assert all(FAULTY.name != path.name for path in domains[-1].files)
    assert [int(domain.data.domain[0]) for domain in domains] == [0, 1, 2, 3]


def test_sketches_are_held_out_of_training(tmp_path):
    shift = pacs(trees.pacs(tmp_path), pixels)
    assert shift.classes == CLASSES
    assert [domain.name for domain in shift.train] == list(DOMAINS[:3])
    assert [len(domain) for domain in shift.train] == [16] * 3
    assert shift.id_val is not None
    assert (len(shift.id_val), len(shift.id_test), len(shift.ood_tests[0])) == (6, 9, 21)
    assert shift.ood_tests[0].name == "sketch"


def test_any_domain_can_be_held_out(tmp_path):
    root = trees.pacs(tmp_path)
    assert pacs(root, pixels, ood="photo").ood_tests[0].name == "photo"
    with pytest.raises(ValueError, match=r"unknown domain 'photos'.* choose from \['photo'\]"):
        pacs(root, pixels, ood="photos")


def test_a_missing_class_or_domain_is_reported(tmp_path):
    trees.tree(tmp_path / "PACS" / "art_painting", CLASSES[:-1], images=1)
    with pytest.raises(ValueError, match="art_painting lacks 'person'"):
        pacs(tmp_path, pixels)
    trees.tree(tmp_path / "PACS" / "art_painting", CLASSES, images=1)
    with pytest.raises(ValueError, match=r"no folder .*cartoon"):
        pacs(tmp_path, pixels)
