"""Damaged tables and ONNX files: what was in them, or one line that names the file."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contam.inputs.table_files import read_table
from contam.models.onnx_file import load_onnx

ROWS = [{"path": f"{n}.png", "label": "cat" if n % 2 else "dog", "site": n} for n in range(6)]


def onnx_graph(*, side: int = 4, location: str = "") -> bytes:
    """A linear classifier of images; its weights can be said to be in another file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("w", number, [3 * side * side, 2], [0.5] * (6 * side * side))
    if location:
        weights.ClearField("float_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", number, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("scores", number, ["batch", 2])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def parquet() -> bytes:
    pytest.importorskip("pyarrow")
    import pandas as pd

    content = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(content, engine="pyarrow")
    return content.getvalue()


FORMATS: dict[str, tuple[Callable[[], bytes], Callable[[Path], Any]]] = {
    "table.parquet": (parquet, read_table),
    "table.csv": (lambda: b"path,label\n" + b"1.png,a\n" * 9, read_table),
    "table.tsv": (lambda: b"path\tlabel\n1.png\ta\n2.png\tb\n", read_table),
    "table.json": (lambda: json.dumps(ROWS).encode(), read_table),
    "table.jsonl": (lambda: "\n".join(map(json.dumps, ROWS)).encode(), read_table),
    "net.onnx": (onnx_graph, load_onnx),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_read(tmp_path, name):
    make, read = FORMATS[name]
    (tmp_path / name).write_bytes(make())
    read(tmp_path / name)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_a_value_or_one_line(tmp_path, name):
    make, read = FORMATS[name]
    whole, path = make(), tmp_path / name

    @settings(max_examples=20, derandomize=True, database=None)
    @given(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4), st.booleans())
    def check(where: float, other: bytes, cut: bool) -> None:
        place = int(where * len(whole))
        end = b"" if cut else whole[place + len(other) :]
        path.write_bytes(whole[:place] + other + end)
        try:
            read(path)
        except ValueError as error:
            assert "\n" not in str(error)
            assert name in str(error)

    check()


HOSTILE: dict[str, tuple[str, bytes | Callable[[], bytes], str]] = {
    "JSON nested 100 000 deep": ("a.json", b"[" * 10**5, "nested too deeply"),
    "JSON lines nested 100 000 deep": ("a.jsonl", b"[" * 10**5, ""),
    "a JSON number of 5000 digits": ("a.json", b"[" + b"9" * 5000 + b"]", "Exceeds the limit"),
    "a CSV file in UTF-16": ("a.csv", "path,label\n1.png,a\n".encode("utf-16"), ""),
    "a CSV file with an open quote": ("a.csv", b'path,label\n"1.png,a\n', ""),
    "an empty CSV file": ("a.csv", b"", ""),
    "an empty Parquet file": ("a.parquet", b"", ""),
    "a Parquet file that is text": ("a.parquet", b"path,label\n1.png,a\n", ""),
    "a Parquet footer of 2 GB": ("a.parquet", b"PAR1" + b"\0" * 90 + b"\xff\xff\xff\x7fPAR1", ""),
    "a pointer of Git LFS": (
        "a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"
    ),
    "an empty ONNX file": ("a.onnx", b"", ""),
    "an ONNX file that is text": ("a.onnx", b"hello world", ""),
    "an ONNX file with weights of another folder": (
        "a.onnx", partial(onnx_graph, location="../../../../../../etc/passwd"), ""
    ),
    "an ONNX file with weights in a device": (
        "a.onnx", partial(onnx_graph, location="/dev/zero"), ""
    ),
    "an ONNX file with weights that are missing": (
        "a.onnx", partial(onnx_graph, location="weights.bin"), ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, case):
    name, content, message = HOSTILE[case]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content())
    read = load_onnx if name.endswith("onnx") else read_table
    with pytest.raises(ValueError, match=name) as refused:
        read(tmp_path / name)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
