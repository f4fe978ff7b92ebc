"""Classifiers in ONNX files, run by onnxruntime as black boxes.

A graph of a few bytes can compute a tensor of any size (`ConstantOfShape`, `Range`, `Expand`) or
repeat a part without end (`Loop`). Therefore nothing is computed when the file is loaded, all
tensors come from an allocator with a limit, and a run has a time limit.
"""

import os
from pathlib import Path
from threading import Timer
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
MAX_SECONDS = 600.0
"""Maximum time for one batch."""
MAX_NODES = 20_000
"""Maximum number of nodes of a graph with the nodes of the functions that it calls."""
MEMORY_SHARE = 0.5
"""Maximum share of the machine's memory for the weights and for what a batch needs."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes of a machine that does not tell its memory."""


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

    >>> load_onnx("network.onnx")
    Traceback (most recent call last):
        ...
    ValueError: no ONNX file at network.onnx
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no ONNX file at {path}")
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(
            f"reading {path.name} needs {error.name}; run pip install -e '.[onnx]' in a clone of "
            "contam"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    _limit_memory(onnxruntime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        _check_model(onnx.load(str(path), load_external_data=False))
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"],  # it would compute before there is a limit
        )  # fmt: skip
    except Exception as error:  # onnxruntime has an exception for every kind of damage
        message = " ".join(str(error).split())[:150]
        raise ValueError(f"can't read {path}: {message}; expected an ONNX graph") from None
    return _of_session(session, path.name)


def memory_limit() -> int:
    """Return the bytes that all ONNX graphs may use together, including their weights.

    >>> memory_limit() > 2**28
    True
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        total = UNKNOWN_MEMORY
    return int(total * MEMORY_SHARE)


def _limit_memory(onnxruntime: Any) -> None:
    """Register an allocator with a limit, which sessions use that ask for it."""
    kind, memory = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
    cpu = onnxruntime.OrtMemoryInfo("Cpu", kind.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
    arena = onnxruntime.OrtArenaCfg({"max_mem": memory_limit()})
    onnxruntime.create_and_register_allocator(cpu, arena)


def _check_model(model: Any) -> None:
    """Raise unless a graph is as large as its file.

    Raises:
        ValueError: it has sparse weights, or functions that call each other until they are large.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    known: dict[tuple[str, str], int] = {}

    def size(graph: Any) -> int:
        """The nodes of a graph or function with those inside."""
        total = len(graph.node)
        sparse = len(getattr(graph, "sparse_initializer", ()))
        for node in graph.node:
            called = (node.domain, node.op_type)
            if called in functions and called not in known:
                known[called] = MAX_NODES + 1  # for a function that calls itself
                known[called] = size(functions[called])
            total += known.get(called, 0)
            for attribute in node.attribute:
                sparse += attribute.HasField("sparse_tensor") + len(attribute.sparse_tensors)
                single = [attribute.g] if attribute.HasField("g") else []
                total += sum(map(size, (*single, *attribute.graphs)))
        if sparse:
            raise ValueError("it has sparse weights, which would be made dense")
        return total

    largest = max(map(size, (model.graph, *model.functions)))
    if functions and largest > MAX_NODES:
        raise ValueError(f"its functions make more than {MAX_NODES:,} nodes")


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
        made = [_run(session, scores[0].name, inputs[0].name, chunk) for chunk in chunks]
        return np.concatenate(made)[: len(x)].astype(np.float32)

    sides = shape[1:3] if last else shape[2:4]
    square = len(shape) == 4 and isinstance(sides[0], int) and sides[0] == sides[1]
    transform = None
    if square:
        transform = Preparation(sides[0], sides[0], mean=(0.0,) * 3, std=(1.0,) * 3)
    return BlackBox(predict, name), transform


def _run(session: Any, output: str, name: str, values: np.ndarray) -> np.ndarray:
    """The scores of a batch.

    Raises:
        torch.OutOfMemoryError: it needs more memory than the limit.
        ValueError: it takes longer than `MAX_SECONDS`.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = Timer(MAX_SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return session.run([output], {name: values}, options)[0]
    except Exception as error:
        if options.terminate:
            raise ValueError(f"a batch took more than {MAX_SECONDS:g} seconds") from None
        if "Available memory of" in str(error):
            raise torch.OutOfMemoryError(
                f"it needs more than the {memory_limit():,} bytes that ONNX graphs may use here"
            ) from None
        raise
    finally:
        timer.cancel()


def _of_size(values: np.ndarray, size: int) -> list[np.ndarray]:
    """Chunks of one size; the last one repeats its last example."""
    missing = -len(values) % size
    padded = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    return np.split(padded, len(padded) // size)


def _listed(values: Any) -> str:
    return ", ".join(f"{value.name} {value.type} {value.shape}" for value in values) or "nothing"
