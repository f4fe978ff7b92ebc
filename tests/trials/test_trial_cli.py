"""`contam trial` on folders: one line for each mistake, before anything is trained."""

import pytest
from support.command_line import run_contam
from support.trees import tree


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of plain images of three classes."""
    root = tmp_path_factory.mktemp("trial")
    for name in ("train", "id", "ood/fog", "ood/night"):
        tree(root / name, ("cat", "dog", "eel"), images=6)
    return root


DATA = ("--train", "train", "--id", "id", "--ood", "ood/*", "--model", "small_cnn")


BAD = {
    "no such folder": (("--train", "nix"), "no folder nix"),
    "no such OOD folder": (("--ood", "nix/*"), "no folder matches nix/*"),
    "no such model": (("--model", "nix"), "no encoder 'nix'"),
    "no such remedy": (("--remedies", "centring"), "choose from centering, instance norm"),
    "masks are missing": (("--remedies", "stop gradient"), "give --masks"),
    "too few images": (("--batch-size", "99"), "choose a batch size between 1 and 18"),
    "no seed": (("--seeds", "0"), "--seeds is a number of at least 1"),
    "no epoch": (("--epochs", "0"), "--epochs is more than 0"),
    "a file to write into": (("--out", "train/cat/0.png"), "is not a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(capsys, monkeypatch, place, case):
    monkeypatch.chdir(place)
    (flag, value), line = BAD[case]
    given = dict(zip(DATA[::2], DATA[1::2], strict=True))
    given |= {"--remedies": "color jitter", "--out": "never", "--batch-size": "6", flag: value}
    code, out, err = run_contam(capsys, "trial", *(word for pair in given.items() for word in pair))
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("contam: ")
    assert line in last, last
    assert not (place / "never").exists()
