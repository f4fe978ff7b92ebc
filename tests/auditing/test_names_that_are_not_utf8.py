"""Names of files and labels that are not UTF-8 are escaped in records and on pages."""

import json

import pytest
import torch
from torch import nn

import contam
from contam.text_files import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("café", "café"),
        ("caf\udce9", r"caf\udce9"),  # the byte E9 in the name of a file
        ("\ud83d", r"\ud83d"),  # half of an emoji, as JSON can write it
        ("", ""),
    ],
    ids=ascii,
)
def test_only_lone_surrogates_are_escaped(name, shown):
    assert printable(name) == shown
    assert printable(printable(name)) == shown


def test_an_audit_of_such_names_is_saved_and_read(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, 8, 8, generator=generator)
    y = ["caf\udce9", "caf\udce8"] * 12
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    result = contam.audit(
        network, id=(x, y), ood={"nuit\udce9": (x.flip(2), y)}, name="r\udce9seau",
        reference=None, untrained=False, altered=False, progress=False,
    )  # fmt: skip
    result.save(tmp_path / "out")
    assert contam.Audit.load(tmp_path / "out").evidence == result.evidence
    assert result.evidence.classes == (r"caf\udce8", r"caf\udce9")
    assert r"nuit\udce9" in (tmp_path / "out" / "evidence.csv").read_text("utf-8")
    assert r"r\udce9seau" in result.report(tmp_path / "page.html").read_text("utf-8")
    json.loads((tmp_path / "out" / "audit.json").read_text("utf-8"))
