"""Exported programs: what is read, and that no file can run code, use up memory, or never end."""

import io
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from contam.models.program_files import check_expression
from contam.models.sources import load, read_weights

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLE = "data/sample_inputs/model.pt"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> dict[str, bytes]:
    """The records of a small program with a flexible batch size."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.Flatten(), nn.Linear(18, 2)).eval()
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (torch.zeros(2, 3, 7, 7),), dynamic_shapes=sizes)
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(exported, path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory, where the code of a hostile file would make a folder `marker`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    """The path of an archive with these records."""
    with zipfile.ZipFile("net.pt2", "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(f"net/{name}", content)
    return "net.pt2"


class Marker:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("marker",))


CODE = "__import__('os').mkdir('marker')"
Graph = dict[str, Any]


def node(graph: Graph) -> Graph:
    return graph["graph_module"]["graph"]["nodes"][0]


def signature(graph: Graph) -> Graph:
    return graph["graph_module"]["module_call_graph"][0]["signature"]


def size_of_the_input(graph: Graph) -> Graph:
    values = graph["graph_module"]["graph"]["tensor_values"]
    return values["input"]["sizes"][0]["as_expr"]


def rename(graph: Graph, new: str) -> None:
    """Rename the first result, which is a variable of the generated source code."""
    old = node(graph)["name"]
    text = json.dumps(graph["graph_module"]["graph"])
    text = text.replace(json.dumps(old), json.dumps(new))
    graph["graph_module"]["graph"] = json.loads(text)


DEFAULTDICT = {
    "type": "collections.defaultdict",
    "context": json.dumps(
        {
            "default_factory_module": "antigravity",
            "default_factory_name": "fly",
            "dict_context": "[]",
        }
    ),
    "children_spec": [],
}
HOSTILE_GRAPHS: dict[str, tuple[Callable[[Graph], Any], str]] = {
    "a size that is Python": (
        lambda g: size_of_the_input(g).update(expr_str=CODE), "not arithmetic"
    ),
    "a size that hides Python in a symbol": (
        lambda g: size_of_the_input(g).update(expr_str=f"Symbol({CODE})"), "not arithmetic"
    ),
    "a size that hides Python in arithmetic": (
        lambda g: size_of_the_input(g).update(expr_str=f"Add(Integer(1), {CODE})"),
        "not arithmetic",
    ),
    "a node that calls a function of the operating system": (
        lambda g: node(g).update(target="torch.os.mkdir"), "target 'torch.os.mkdir'"
    ),
    "a node that calls torch.load": (
        lambda g: node(g).update(target="torch.serialization.load"), "target"
    ),
    "a node that loads a library": (
        lambda g: node(g).update(target="torch.ops.load_library"), "target"
    ),
    "a node that maps a file": (
        lambda g: node(g).update(target="torch.ops.aten.from_file.default"), "target"
    ),
    "a node that writes a file": (
        lambda g: node(g).update(target="torch.ops.aten.save.default"), "target"
    ),
    "a node of an extension": (lambda g: node(g).update(target="#evil:op"), "target"),
    "an attribute of an operator's class": (
        lambda g: node(g).update(target="torch.ops.aten.conv2d.__class__.__init__"), "target"
    ),
    "a variable whose name is code": (
        lambda g: rename(g, f"x = {CODE}\n    y"), "the name"
    ),
    "a variable whose name ends a string": (lambda g: rename(g, f"x'); {CODE}"), "the name"),
    "an argument whose name is code": (
        lambda g: node(g)["inputs"][0].update(name=f"a={CODE}, b"), "the name"
    ),
    "a parameter of the program whose name is code": (
        lambda g: signature(g).update(forward_arg_names=[f"x={CODE}"]), "forward_arg_names"
    ),
    "a weight whose name is code": (
        lambda g: g["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name=f"a\"); {CODE}; (\""
        ),
        "parameter_name",
    ),
    "a module whose name is code": (
        lambda g: g["graph_module"]["module_call_graph"][1].update(fqn=f"'); {CODE}"), "fqn"
    ),
    "a container that imports a module": (
        lambda g: signature(g).update(in_spec=json.dumps([1, DEFAULTDICT])), "in_spec"
    ),
    "a field that is code": (lambda g: g.update({f"({CODE})": 1}), "has a field"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_GRAPHS)
def test_a_graph_that_would_run_code_is_rejected(here, program, case):
    change, message = HOSTILE_GRAPHS[case]
    graph = json.loads(program[GRAPH])
    change(graph)
    path = written(program | {GRAPH: json.dumps(graph).encode()})
    with pytest.raises(ValueError, match=r"can't read net\.pt2: its graph has") as refused:
        load(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("marker").exists()


def test_the_marker_would_be_made_where_nothing_guards(here, program):
    graph = json.loads(program[GRAPH])
    size_of_the_input(graph).update(expr_str=CODE)
    with pytest.raises(Exception), warnings.catch_warnings():  # noqa: B017
        warnings.simplefilter("ignore")
        logging.getLogger("torch.export").disabled = True
        torch.export.load(written(program | {GRAPH: json.dumps(graph).encode()}))
    assert Path("marker").exists()


def test_guards_of_a_file_are_not_executed(here, program):
    graph = json.loads(program[GRAPH])
    graph["guards_code"] = [CODE]
    source = load(written(program | {GRAPH: json.dumps(graph).encode()}))
    assert source.encoder(torch.zeros(3, 3, 7, 7)).shape == (3, 2)
    assert not Path("marker").exists()


def saved_zip(pickled: bytes) -> bytes:
    """An archive of `torch.save` with this pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", part)
    return content.getvalue()


def number(value: int) -> bytes:
    return pickle.LONG1 + bytes([8]) + value.to_bytes(8, "little")


BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\n" + number(10**10) + b"\x85R."
"""Makes ten billion zeros."""
META = (
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n"
    + number(10**9) + number(10**3) + b"\x86" + number(1) + number(1) + b"\x86\x89tRs."
)  # fmt: skip
"""A billion rows without values."""
PICKLES: dict[str, tuple[bytes, str]] = {
    "a call of the operating system": (pickle.dumps(Marker(), protocol=2), ""),
    "a byte array of 10 GB": (BYTEARRAY, "makes a bytearray"),
    "a tensor of 4 TB without values": (META, "takes more bytes than the file has"),
    "a memo of 2 billion entries": (b"\x80\x02}r\xff\xff\xff\x7f.", ""),
    "a text of 2 GB": (b"\x80\x02X\xff\xff\xff\x7f.", ""),
    "a frame of an exabyte": (b"\x80\x04\x95" + bytes(7) + b"\x10.", ""),
    "lists nested 20 000 deep": (b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".", ""),
    "a size of one number": (b"\x80\x02ctorch\nSize\n" + number(9) + b"\x85R.", ""),
    "an unknown class": (b"\x80\x02cnowhere\nThing\n)R.", ""),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("case", PICKLES)
@pytest.mark.parametrize("how", ["archive", "old format"])
def test_hostile_weights_are_refused_in_one_line(here, case, how):
    content, message = PICKLES[case]
    Path("w.pt").write_bytes(saved_zip(content) if how == "archive" else content)
    with pytest.raises(ValueError, match=r"w\.pt") as refused:
        read_weights("w.pt")
    assert how == "old format" or message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("marker").exists()


def test_compressed_weights_are_refused(here):
    torch.save({"a": torch.zeros(2**23)}, "w.pt")
    with zipfile.ZipFile("w.pt") as good, zipfile.ZipFile("z.pt", "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name))
    with pytest.raises(ValueError, match=r"z\.pt: its parts unpack to 33,5.* more than"):
        read_weights("z.pt")


def test_weights_that_repeat_one_number_without_end_are_refused(here):
    torch.save({"head.weight": torch.ones(1).expand(10**6, 10**6)}, "w.pt")
    with pytest.raises(ValueError, match=r"'head.weight' has the shape \(1000000, 1000000\)"):
        read_weights("w.pt")
    torch.save({"mask": torch.ones(1).expand(100, 100)}, "small.pt")
    assert read_weights("small.pt").state["mask"].shape == (100, 100)


def constant(name: str) -> bytes:
    """A table of constants with one entry, which is no parameter."""
    entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    return json.dumps({"config": {"c": entry}}).encode()


HOSTILE_RECORDS: dict[str, tuple[dict[str, bytes], str]] = {
    "a pickled sample input": ({SAMPLE: b"pickle"}, "can't read"),
    "a pickled constant": (
        {CONSTANTS: constant("tensor_0"), "data/constants/tensor_0": b"pickle"},
        "holds a pickled tensor",
    ),
    "a pickled weight": (
        {WEIGHTS: constant("weight_0"), "data/weights/weight_0": b"pickle"},
        "holds a pickled tensor",
    ),
    "sample inputs of 10 GB": ({SAMPLE: b"bytearray"}, "makes a bytearray"),
    "a pickled object": (
        {CONSTANTS: constant("opaque_obj_0"), "data/constants/opaque_obj_0": b"pickle"},
        "holds 'data/constants/opaque_obj_0'",
    ),
    "an object of TorchScript": (
        {CONSTANTS: constant("custom_obj_0"), "data/constants/custom_obj_0": b"pickle"},
        "holds 'data/constants/custom_obj_0'",
    ),
    "legacy weights": ({"data/weights/model.pt": b"pickle"}, "holds 'data/weights/model.pt'"),
    "a compiled library": (
        {"data/aotinductor/model/model.so": b"\x7fELF"}, "holds 'data/aotinductor"
    ),
    "a second program": ({"models/other.json": b"{}"}, "holds 'models/other.json'"),
    "the older format": ({"serialized_exported_program.json": b"{}"}, "older than 2.8 saved it"),
    "a graph nested 100 000 deep": ({GRAPH: b"[" * 100_000}, "nested too deeply"),
    "a graph that is not JSON": ({GRAPH: b"{"}, "can't read"),
    "a graph that is a list": ({GRAPH: b"[1, 2]"}, "can't read"),
    "a graph without nodes": ({GRAPH: b"{}"}, "can't read"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_RECORDS)
def test_an_archive_with_more_than_a_graph_and_tensors_is_rejected(here, program, capfd, case):
    records, message = HOSTILE_RECORDS[case]
    if b"pickle" in records.values():
        torch.save(Marker(), "trap", pickle_protocol=2)
        saved = Path("trap").read_bytes() if "opaque" not in case else pickle.dumps(Marker())
        records = {k: saved if v == b"pickle" else v for k, v in records.items()}
        Path("trap").unlink()
    records = {k: saved_zip(BYTEARRAY) if v == b"bytearray" else v for k, v in records.items()}
    before = dict(os.environ)
    with pytest.raises(ValueError, match=r"can't read net\.pt2") as refused:
        load(written(program | records))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("marker").exists()
    assert os.environ == before
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_a_decompression_bomb_is_rejected(here, program):
    bomb = program | {"extra/zeros": bytes(2**25)}
    with pytest.raises(ValueError, match=r"unpack to 33,5.* bytes, more than the file has"):
        load(written(bomb, zipfile.ZIP_DEFLATED))


EXPRESSIONS = {
    "Symbol('s77', positive=True, integer=True)": True,
    "Add(Mul(Integer(4), Symbol('u0', integer=True)), Integer(-1))": True,
    "FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(2))": True,
    "Pow(Symbol('s0'), Integer(2))": True,
    "Mul(Float('0.5', precision=53), ToFloat(Symbol('s0')))": True,
    "GreaterThan(Symbol('s0'), Integer(2))": True,
    "true": True,
    "": False,
    "print(1)": False,
    "Symbol('s0').free_symbols": False,
    "(lambda: 0)()": False,
    "[s for s in ()]": False,
    "Symbol('__import__')": False,
    "Symbol()": False,
    "Integer('9')": False,
    "f'{1}'": False,
    "Pow(Integer(9), Pow(Integer(9), Integer(9)))": False,
    "Pow(Pow(Integer(9), Integer(64)), Integer(64))": False,
    "Pow(Integer(9), Integer(1000000000))": False,
    "Integer(" + "9" * 5000 + ")": False,
    "Float('1', precision=1000000000)": False,
    "9**9**9**9": False,
    "Add(" * 2000 + ")" * 2000: False,
    "Integer(1)" + " " * 20_000: False,
}


@pytest.mark.parametrize(("text", "allowed"), EXPRESSIONS.items(), ids=lambda v: str(v)[:40])
def test_sizes_are_arithmetic_of_symbols(text, allowed):
    if allowed:
        check_expression(text)
    else:
        with pytest.raises(ValueError, match="which is not arithmetic"):
            check_expression(text)


def changed(value: Any, draw: Callable[..., Any]) -> Any:
    """A copy of a JSON value in which one part is replaced, removed or doubled."""
    odd = [None, True, -1, 2**70, 1.5, "", CODE, "s0", [], {}, [[]], "x" * 300]
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.integers(0, 9))
        rest = {k: v for k, v in value.items() if k != key}
        if what == 0:
            return rest
        return rest | {key: draw(st.sampled_from(odd)) if what == 1 else changed(value[key], draw)}
    if isinstance(value, list) and value:
        place = draw(st.integers(0, len(value) - 1))
        what = draw(st.integers(0, 9))
        middle = [] if what == 0 else [value[place]] * 2
        if what > 1:
            middle = [changed(value[place], draw)]
        return value[:place] + middle + value[place + 1 :]
    return draw(st.sampled_from(odd))


@settings(max_examples=8, derandomize=True)
@given(st.data())
def test_a_changed_graph_gives_a_network_or_one_line(program, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("changed")
    graph = changed(json.loads(program[GRAPH]), data.draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = written(program | {GRAPH: json.dumps(graph).encode()})
        try:
            load(path)
        except ValueError as error:
            assert "\n" not in str(error)
        assert not Path("marker").exists()


@settings(max_examples=25, derandomize=True)
@given(st.data())
@pytest.mark.parametrize("kind", ["net.pt2", "weights.pt", "weights.safetensors"])
def test_damaged_files_give_tensors_or_one_line(program, tmp_path_factory, kind, data):
    where, byte = data.draw(st.floats(0, 1, exclude_max=True)), data.draw(st.integers(0, 255))
    cut = data.draw(st.booleans())
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        written(program)
        torch.save({"a": torch.ones(3)}, "weights.pt")
        save_file({"a": torch.ones(3)}, "weights.safetensors")
        content = bytearray(Path(kind).read_bytes())
        place = int(where * len(content))
        content[place] = byte
        Path(kind).write_bytes(content[:place] if cut else content)
        try:
            load(kind) if kind.endswith(".pt2") else read_weights(kind)
        except ValueError as error:
            assert "\n" not in str(error)
