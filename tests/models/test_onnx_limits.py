"""ONNX files of a few bytes that ask for much memory or time get one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contam import audit
from contam.models import onnx_file
from contam.models.logits_adapter import LogitsAdapter
from contam.models.onnx_file import load_onnx, memory_limit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
node, array, FLOAT = onnx.helper.make_node, onnx.numpy_helper.from_array, onnx.TensorProto.FLOAT

FLOATS = int(1.2 * memory_limit() / 4)
"""Numbers that take more than the limit, but less than the machine has."""
SIDE = int(FLOATS**0.5) + 1
CONSTANTS: dict[str, Any] = {
    "w": np.ones((4, 2), np.float32), "one": np.ones(1, np.float32), "start": np.float32(0),
    "end": np.float32(1.2 * FLOATS),
    "step": np.float32(1.2), "shape": np.array([FLOATS]), "n": np.array([10**15]).reshape(()),
    "yes": np.array(True), "square": np.ones((1, 1, 1, 1), np.float32),
    "scales": np.array([1, 1, SIDE, SIDE], np.float32), "pads": np.array([0, FLOATS]),
    "sides": np.array([1, 1, SIDE, SIDE]), "zero": np.float32(0),
}  # fmt: skip


def write(path: Path, nodes: Sequence[Any], sparse: Sequence[Any] = ()) -> Path:
    """Write a linear classifier that adds the largest value of `big` to all scores."""
    classifier = [
        node("MatMul", ["x", "w"], ["raw"]), *nodes,
        node("ReduceMax", ["big"], ["most"], keepdims=0), node("Add", ["raw", "most"], ["scores"]),
    ]  # fmt: skip
    of_type = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        classifier, "g", [of_type("x", FLOAT, ["n", 4])], [of_type("scores", FLOAT, ["n", 2])],
        [array(np.asarray(value), name) for name, value in CONSTANTS.items()],
        sparse_initializer=sparse,
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


HUGE = {
    "ConstantOfShape": [node("ConstantOfShape", ["shape"], ["big"])],
    "Range": [node("Range", ["start", "end", "step"], ["big"])],
    "Expand": [node("Expand", ["one", "shape"], ["big"])],
    "Tile": [node("Tile", ["one", "shape"], ["big"])],
    "Pad": [node("Pad", ["one", "pads"], ["big"])],
    "Resize": [node("Resize", ["square", "", "scales"], ["big"])],
    "Resize to sizes": [node("Resize", ["square", "", "", "sides"], ["big"])],
    "random numbers": [node("RandomNormal", [], ["big"], shape=[FLOATS])],
}


@pytest.mark.parametrize("case", HUGE)
def test_tensors_larger_than_the_limit_are_not_made(case, tmp_path):
    network, _ = load_onnx(write(tmp_path / "net.onnx", HUGE[case]))
    # onnxruntime has a limit of its own for `Tile`.
    line = r"needs more than the [\d,]+ bytes|Tile output tensor would require more than"
    with pytest.raises((torch.OutOfMemoryError, ValueError), match=line):
        LogitsAdapter(network)(torch.ones(2, 4))


def test_the_audit_of_such_a_graph_ends_in_one_line(tmp_path):
    path = write(tmp_path / "net.onnx", HUGE["Range"])
    x, y = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    with pytest.raises(ValueError, match="memory runs out on two examples") as caught:
        audit(str(path), id=(x, y), reference=None, progress=False)
    assert "\n" not in str(caught.value)


def test_small_tensors_of_these_operators_are_computed(tmp_path):
    nodes = [
        node("Expand", ["one", "few"], ["a"]), node("Tile", ["a", "few"], ["big"]),
    ]  # fmt: skip
    few = node("Constant", [], ["few"], value=array(np.array([3])))
    network, _ = load_onnx(write(tmp_path / "net.onnx", [few, *nodes]))
    assert LogitsAdapter(network)(torch.ones(2, 4)).tolist() == [[5.0, 5.0]] * 2


def test_a_loop_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MAX_SECONDS", 0.3)
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Add", ["v", "v"], ["sum"])], "body",
        [value("i", onnx.TensorProto.INT64, []), value("on", onnx.TensorProto.BOOL, []),
         value("v", FLOAT, [])],
        [value("still", onnx.TensorProto.BOOL, []), value("sum", FLOAT, [])],
    )  # fmt: skip
    loop = node("Loop", ["n", "yes", "zero"], ["big"], body=body)
    network, _ = load_onnx(write(tmp_path / "net.onnx", [loop]))
    with pytest.raises(ValueError, match=r"a batch took more than 0.3 seconds"):
        LogitsAdapter(network)(torch.ones(2, 4))


@pytest.mark.parametrize("place", ["the weights", "a constant", "a branch"])
def test_sparse_weights_are_refused(place, tmp_path):
    sparse = onnx.helper.make_sparse_tensor(
        array(np.ones(1, np.float32), "big"), array(np.zeros(1, np.int64), "i"), [10**4, 10**4]
    )
    constant = node("Constant", [], ["big"], sparse_value=sparse)
    if place == "a branch":
        output = [onnx.helper.make_tensor_value_info("big", FLOAT, None)]
        branch = onnx.helper.make_graph([constant], "branch", [], output)
        constant = node("If", ["yes"], ["big"], then_branch=branch, else_branch=branch)
    weights = place == "the weights"
    path = write(tmp_path / "net.onnx", [] if weights else [constant], [sparse] if weights else [])
    with pytest.raises(ValueError, match=r"can't read .*net.onnx: it has sparse weights"):
        load_onnx(path)


@pytest.mark.parametrize("levels", [3, 30])
def test_functions_that_multiply_are_refused(levels, tmp_path):
    sets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("mine", 1)]
    functions = [
        onnx.helper.make_function(
            "mine", f"f{k}", ["a"], ["c"],
            [node(f"f{k + 1}", ["a"], ["b"], domain="mine"),
             node(f"f{k + 1}", ["b"], ["c"], domain="mine")]
            if k + 1 < levels else [node("Relu", ["a"], ["c"])],
            sets,
        )
        for k in range(levels)
    ]  # fmt: skip
    of_type = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node("f0", ["x"], ["y"], domain="mine")], "g", [of_type("x", FLOAT, ["n", 2])],
        [of_type("y", FLOAT, ["n", 2])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=sets, ir_version=9, functions=functions)
    onnx.save(model, str(tmp_path / "net.onnx"))
    if levels == 3:
        network, _ = load_onnx(tmp_path / "net.onnx")
        assert LogitsAdapter(network)(torch.ones(1, 2)).tolist() == [[1.0, 1.0]]
    else:
        with pytest.raises(ValueError, match="its functions make more than 20,000 nodes"):
            load_onnx(tmp_path / "net.onnx")
