"""Predict functions, estimators and ONNX files as black boxes."""

import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.audit_inputs import noise_inputs
from torch import nn

from contam import audit
from contam.models.black_box import NOTE, BlackBox
from contam.models.find_network import find_network
from contam.models.logits_adapter import LogitsAdapter
from contam.models.onnx_file import load_onnx

W = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
X = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))

SCORES = {
    "a tensor": lambda x: x @ W.T,
    "an array": lambda x: (x @ W.T).numpy(),
    "a reversed view of an array": lambda x: (x @ W.T).numpy()[:, ::-1][:, ::-1],
    "an array in double precision": lambda x: (x @ W.T).double().numpy(),
    "a list of lists": lambda x: (x @ W.T).tolist(),
    "a data frame": lambda x: pd.DataFrame((x @ W.T).numpy()),
    "a record with logits": lambda x: {"logits": x @ W.T},
}


@pytest.mark.parametrize("kind", SCORES)
def test_scores_of_any_kind_are_read(kind):
    logits = LogitsAdapter(BlackBox(SCORES[kind]))(X)
    torch.testing.assert_close(logits, X @ W.T)


ONE_CLASS = {
    "indices in an array": lambda x: np.zeros(len(x), dtype=np.int64),
    "indices in a tensor": lambda x: torch.zeros(len(x), dtype=torch.int64),
    "indices in a list": lambda x: [0] * len(x),
    "names": lambda x: np.array(["cat"] * len(x)),
    "names as objects": lambda x: np.array(["cat"] * len(x), dtype=object),
}


@pytest.mark.parametrize("kind", ONE_CLASS)
def test_one_class_for_each_example_is_refused(kind):
    with pytest.raises(ValueError, match="expected a score for each class"):
        LogitsAdapter(BlackBox(ONE_CLASS[kind]))(X)


def test_one_hot_rows_are_scores():
    logits = LogitsAdapter(BlackBox(lambda x: np.eye(3, dtype=int)[[2] * len(x)]))(X)
    assert logits.argmax(1).tolist() == [2] * len(X)


class Estimator:
    """The interface of a scikit-learn classifier."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        assert x.ndim == 2
        return np.eye(3)[x[:, 0].astype(int) % 3]


@pytest.fixture(scope="module")
def inputs():
    return noise_inputs(nn.Identity(), (3, 8, 8))


def pair(sample):
    batch = sample.domain.data
    return batch.x, batch.y


def brightest(x):
    return x.mean((2, 3))


def settings(inputs) -> dict[str, Any]:
    return {
        "id": pair(inputs.id), "ood": {"inverted": pair(inputs.ood[0])},
        "reference": None, "progress": False,
    }  # fmt: skip


@pytest.mark.parametrize("model", [brightest, Estimator()], ids=["function", "estimator"])
def test_a_black_box_gets_outer_evidence_only(model, inputs):
    record = audit(model, **settings(inputs)).evidence
    assert [scores.name for scores in record.sets] == ["ID", "inverted"]
    assert record.sets[0].by_class.keys() == {"0", "1", "2"}
    assert record.layers == () and record.neurons is None
    assert NOTE in record.left_out
    assert not any("layers=" in line or "untrained=" in line for line in record.left_out)


def test_a_black_box_scores_as_the_network_inside_it(inputs):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    opened, closed = (
        audit(model, **settings(inputs)).evidence
        for model in (network, lambda x: network(x).numpy())
    )
    assert [s.overall for s in closed.sets] == [s.overall for s in opened.sets]
    assert [s.by_class for s in closed.sets] == [s.by_class for s in opened.sets]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "layers of a black box": ({"layers": ["conv"]}, "is a black box and has no layers"),
    "weights of a black box": ({"weights": "w.pt"}, "not to a predict function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_need_a_network_are_refused(case, inputs):
    changed, line = REFUSED[case]
    with pytest.raises(ValueError, match=line):
        audit(brightest, **{**settings(inputs), **changed})


@pytest.mark.parametrize(
    ("model", "kind"), [(nn.Linear, "is a class"), (3, "is a int"), ([], "is a list")]
)
def test_other_objects_are_no_models(model, kind):
    with pytest.raises(ValueError, match=kind):
        find_network(model)


MODULE = """
import torch
from torch import nn
from contam.data.images import pixels
from contam.models.sources import Source

class Net(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)

network = Net()
def make(): return Net()
def predict(x): return x
def with_defaults(x, scale=2): return scale * x
def source(): return Source("mine", nn.Identity(), 2, pixels, nn.Linear(2, 2))
number = 3
def text(): return "net"
"""

NAMED = {
    "a network": ("network", "Net"),
    "a class of networks": ("Net", "Net"),
    "a function that returns a network": ("make", "Net"),
    "a predict function": ("predict", "BlackBox"),
    "a predict function with defaults": ("with_defaults", "BlackBox"),
    "a function that returns a Source": ("source", "Classifier"),
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text(MODULE)
    yield "my_models"
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("case", NAMED)
def test_a_name_means_whatever_it_imports(case, module):
    target, kind = NAMED[case]
    network = find_network(f"{module}:{target}")
    assert type(network.model).__name__ == kind
    assert not network.model.training
    assert network.name == f"{module}:{target}"


@pytest.mark.parametrize(
    ("target", "line"),
    [("number", "is a int"), ("text", "gives the text 'net'"), ("nix", "can't find")],
)
def test_names_of_other_things_are_refused(target, line, module):
    with pytest.raises(ValueError, match=line):
        find_network(f"{module}:{target}")


WRONG_NAMES = {
    "a file of weights": ("best.ckpt", "is a file of weights; give the network by name"),
    "a file of Python": ("my_models.py:make", "leave out .py: my_models:make"),
    "a folder of weights": ("runs/net.safetensors", "and this file as weights="),
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_wrong_names_get_the_right_one(case):
    name, line = WRONG_NAMES[case]
    with pytest.raises(ValueError, match=line):
        find_network(name)


def exported(path, *, batch: int | None = None, last: bool = False, sides: int = 8):
    """An ONNX file of the mean color, with a dynamic or a fixed batch."""

    class Colors(nn.Module):
        def forward(self, x):
            return x.mean((1, 2) if last else (2, 3))

    x = torch.zeros((batch or 2, sides, sides, 3) if last else (batch or 2, 3, sides, sides))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no onnxscript is deprecated
        torch.onnx.export(
            Colors(), (x,), str(path), dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes=None if batch else {"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip
    return path


ONNX = {
    "a dynamic batch": {},
    "a batch of one": {"batch": 1},
    "a batch that does not divide the number": {"batch": 4},
    "channels last": {"last": True},
}


@pytest.mark.parametrize("case", ONNX)
def test_an_onnx_file_scores_as_its_network(case, tmp_path):
    pytest.importorskip("onnxruntime")
    network, transform = load_onnx(exported(tmp_path / "net.onnx", **ONNX[case]))
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LogitsAdapter(network)(x), x.mean((2, 3)))
    assert transform is not None and transform.crop == 8


def test_an_onnx_file_is_audited_by_its_path(tmp_path, inputs):
    pytest.importorskip("onnxruntime")
    path = exported(tmp_path / "net.onnx")
    record = audit(str(path), **settings(inputs)).evidence
    direct = audit(brightest, **settings(inputs)).evidence
    assert record.model == "net.onnx"
    assert record.sets == direct.sets
    with pytest.raises(ValueError, match="has its own weights"):
        audit(str(path), **{**settings(inputs), "weights": "w.pt"})


BAD_FILES = {
    "no file": (None, "no ONNX file at"),
    "an empty file": (b"", "expected an ONNX graph"),
    "a text": (b"weights: none\n", "expected an ONNX graph"),
    "a damaged file": ("cut", "expected an ONNX graph"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_no_onnx_graphs_get_one_line(case, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    content, line = BAD_FILES[case]
    path = tmp_path / "net.onnx"
    if content == "cut":
        content = exported(path).read_bytes()[:-40]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=line) as caught:
        find_network(str(path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
