"""Classifiers in ONNX files, run by onnxruntime as black boxes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contam.data.images import Transform
from contam.models.black_box import BlackBox
from contam.models.preparation import Preparation

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
"""Accepted types of inputs and, except bytes, of scores."""
CHANNELS = (1, 3)


def load_onnx(path: str | Path) -> tuple[BlackBox, Transform | None]:
    """Load a classifier from an ONNX file.

    Args:
        path: file of a graph with one input, (batch, ...), and scores (batch, classes) among its
            outputs. The batch may be fixed; images may have their channels last.

    Returns:
        The classifier, and the resizing to the size of its input; None if that size is not fixed
        and square. Colors are not normalized, because the file does not say how.

    Raises:
        ValueError: there is no such file, it is no ONNX graph, onnxruntime is missing, or the graph
            has other inputs or outputs.

    Source: ours, so that networks of other frameworks can be audited.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no ONNX file at {path}")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError(
            f"reading {path.name} needs onnxruntime; run pip install -e '.[onnx]' in a clone of "
            "contam"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has an exception for every kind of damage
        message = " ".join(str(error).split())[:150]
        raise ValueError(f"can't read {path}: {message}; expected an ONNX graph") from None
    return _of_session(session, path.name)


def _of_session(session: Any, name: str) -> tuple[BlackBox, Transform | None]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in DTYPES:
        raise ValueError(
            f"{name} takes {_listed(inputs)}; expected one input of numbers, (batch, ...)"
        )
    scores = [o for o in outputs if o.type in DTYPES and len(o.shape or (0, 0)) == 2]
    if len(scores) != 1:
        raise ValueError(
            f"{name} returns {_listed(outputs)}; expected one output of scores, (batch, classes)"
            + ("; export with zipmap=False" if any("map" in o.type for o in outputs) else "")
        )
    shape, dtype = inputs[0].shape or [], DTYPES[inputs[0].type]
    last = len(shape) == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS
    batch = shape[0] if shape and isinstance(shape[0], int) else None

    def predict(x: Tensor) -> np.ndarray:
        x = x.movedim(1, -1) if last else x
        values = np.ascontiguousarray((x * 255).round().clamp(0, 255) if dtype is np.uint8 else x)
        values = values.astype(dtype)
        chunks = [values] if batch is None else _of_size(values, batch)
        made = [session.run([scores[0].name], {inputs[0].name: chunk})[0] for chunk in chunks]
        return np.concatenate(made)[: len(x)].astype(np.float32)

    sides = shape[1:3] if last else shape[2:4]
    square = len(shape) == 4 and isinstance(sides[0], int) and sides[0] == sides[1]
    transform = None
    if square:
        transform = Preparation(sides[0], sides[0], mean=(0.0,) * 3, std=(1.0,) * 3)
    return BlackBox(predict, name), transform


def _of_size(values: np.ndarray, size: int) -> list[np.ndarray]:
    """Chunks of one size; the last one repeats its last example."""
    missing = -len(values) % size
    padded = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    return np.split(padded, len(padded) // size)


def _listed(values: Any) -> str:
    return ", ".join(f"{value.name} {value.type} {value.shape}" for value in values) or "nothing"
