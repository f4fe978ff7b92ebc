"""Text, JSON, YAML and CSV files of unknown origin: a value, or one line that names the file."""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contam import text_files
from contam.text_files import check_file, read_csv, read_json, read_text, read_yaml

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("given")


READ: dict[str, tuple[Callable[[Path], Any], bytes, Any]] = {
    "text with a byte order mark": (read_text, BOM + b"good", "good"),
    "text with the line ends of Windows": (read_text, b"a\r\nb", "a\r\nb"),
    "JSON with a byte order mark": (read_json, BOM + b'{"a": [1, null]}', {"a": [1, None]}),
    "YAML with a byte order mark": (read_yaml, BOM + b"steps: 3", {"steps": 3}),
    "YAML with an alias": (read_yaml, b"a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
    "YAML with a merged mapping": (
        read_yaml, b"a: &x {c: 1}\nb:\n  <<: *x\n  d: 2", {"a": {"c": 1}, "b": {"c": 1, "d": 2}}
    ),
    "YAML with comments only": (read_yaml, b"# nothing\n", None),
    "CSV with a byte order mark": (read_csv, BOM + b"a,b\n1,2\n", [["a", "b"], ["1", "2"]]),
    "CSV with the line ends of Windows": (read_csv, b"a,b\r\n1,2\r\n", [["a", "b"], ["1", "2"]]),
    "CSV with a line end in quotes": (read_csv, b'a,b\n"1\n2",3\n', [["a", "b"], ["1\n2", "3"]]),
    "CSV with a Unicode line separator": (
        read_csv, "a,b\n1\u2028,2\n".encode(), [["a", "b"], ["1\u2028", "2"]]
    ),
    "CSV with blank lines": (read_csv, b"\na,b\n\n1,2\n\n", [["a", "b"], ["1", "2"]]),
    "CSV with more cells than columns": (read_csv, b"a\n1,2\n", [["a"], ["1", "2"]]),
    "CSV that is empty": (read_csv, b"", []),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_good_files_are_read(file, case):
    read, content, expected = READ[case]
    file.write_bytes(content)
    result = read(file)
    assert (list(result) if isinstance(result, Iterator) else result) == expected


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED: dict[str, tuple[Callable[[Path], Any], bytes, str]] = {
    "text in Latin-1": (read_text, b"caf\xe9", "is not UTF-8 text; save it as UTF-8"),
    "text in UTF-16": (read_text, "abc".encode("utf-16"), "is not UTF-8 text"),
    "JSON that is cut": (read_json, b'{"a": ', "is not JSON (Expecting value"),
    "JSON nested 3000 deep": (read_json, b"[" * 3000, "is not JSON ("),
    "JSON nested 100 000 deep": (read_json, b"[" * 10**5 + b"]" * 10**5, "nested too deeply"),
    "JSON of 100 000 objects": (read_json, b'{"a":' * 10**5, "nested too deeply"),
    "JSON with a number of 5000 digits": (read_json, b"9" * 5000, "is not JSON (Exceeds the limit"),
    "YAML nested 3000 deep": (read_yaml, b"[" * 3000 + b"]" * 3000, "nested too deeply"),
    "YAML nested 300 deep in blocks": (
        read_yaml, b"".join(b" " * n + b"a:\n" for n in range(300)) * 1 + b"\t", "is not YAML"
    ),
    "YAML that is an alias bomb": (read_yaml, BOMB.encode(), "aliases stand for more than 10,000"),
    "YAML whose merged mappings are a bomb": (
        read_yaml,
        b"a: &a {x: 1}\n" + b"".join(
            b"%c: &%c {<<: [%s]}\n" % (97 + n, 97 + n, b", ".join([b"*%c" % (96 + n)] * 9))
            for n in range(1, 9)
        ),
        "aliases stand for more than",
    ),
    "YAML that holds itself": (read_yaml, b"&a [*a, *a]", "aliases stand for more than"),
    "YAML with an unknown alias": (read_yaml, b"a: *b", "is not YAML"),
    "YAML that calls a function": (
        read_yaml, b"!!python/object/apply:os.mkdir ['marker']", "is not YAML"
    ),
    "YAML of two documents": (read_yaml, b"a: 1\n---\nb: 2", "is not YAML"),
    "YAML with a number of 5000 digits": (read_yaml, b"a: " + b"9" * 5000, "is not YAML: Exceeds"),
    "YAML with an impossible date": (read_yaml, b"a: 2020-99-99", "is not YAML: month must be"),
    "YAML with a list as a key": (read_yaml, b"? [a]\n: 1", "is not YAML"),
    "YAML with a zero byte": (read_yaml, b"\x00", "is not YAML"),
    "YAML of 200 000 bytes": (read_yaml, b"#" * 200_000, "has 200,000 bytes, more than 100,000"),
    "CSV with a cell of 200 000 characters": (
        read_csv, b"a,b\n1," + b"x" * 200_000, "line 2 is not CSV: field larger than field limit"
    ),
    "CSV with a row that is too short": (
        read_csv, b"a,b\n1,2\n3\n", "line 3 has fewer columns than its header"
    ),
    "CSV with an open quote": (read_csv, b'a,b\n"1,' + b"\n" * 200_000, "is not CSV"),
    "CSV in UTF-16": (read_csv, "a,b".encode("utf-16"), "is not UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_line(file, case):
    read, content, message = REFUSED[case]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^given") as refused:
        list(read(file) or ())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("marker").exists()


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml, read_csv])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
        ("pointer of Git LFS", "only a pointer of Git LFS; run 'git lfs pull'"),
        ("large", "has 11 bytes, more than 10"),
    ],
)
def test_what_is_no_file_of_text_is_refused_at_once(file, monkeypatch, read, kind, message):
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pointer of Git LFS":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    elif kind == "large":
        file.write_text("a: 12345678")
        monkeypatch.setattr(text_files, "MAX_BYTES", 10)
        monkeypatch.setattr(text_files, "MAX_YAML_BYTES", 10)
    with pytest.raises(ValueError, match=rf"^given: can't be read \(.*{message}"):
        list(read(file) or ())


def test_a_regular_file_may_be_behind_a_link(file):
    file.touch()
    Path("link").symlink_to(file)
    check_file(Path("link"))


@pytest.mark.parametrize("read", [read_json, read_yaml, read_csv])
@settings(max_examples=60, derandomize=True)
@given(content=st.one_of(st.binary(max_size=60), st.text('[]{}",:&*!?|>-\n\t #ab01', max_size=60)))
def test_any_bytes_give_a_value_or_one_line(tmp_path_factory, read, content):
    path = tmp_path_factory.mktemp("any") / "given"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        result = read(path)
        list(result) if isinstance(result, Iterator) else result
    except ValueError as error:
        assert "\n" not in str(error)


def test_the_limit_of_cells_is_that_of_python(file):
    before = csv.field_size_limit()
    file.write_text("a\n" + "x" * before)
    assert len(list(read_csv(file))) == 2
    assert csv.field_size_limit() == before
