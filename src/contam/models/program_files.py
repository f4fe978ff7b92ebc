"""Reads programs that `torch.export.save` wrote (`.pt2`), so that no file can run code.

`torch.export.load` is not safe for files of unknown origin: it evaluates the expressions of sizes
as Python, generates source code from the names in the file, calls any function of `torch` that a
node names, and unpickles constants. Therefore a file is first checked against a list of what
programs need: operators of PyTorch's ATen library, arithmetic of sizes, plain names, and tensors.
"""

import ast
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from contam.text_files import check_file

MAX_GRAPH_BYTES = 256 * 2**20
"""Maximum size of the graph's JSON; graphs of large vision networks have a few MiB."""
SMALL = 2**24
"""Bytes that compressed text may add to the size of a file."""
MAX_PICKLE_BYTES = 64 * 2**20
"""Number of bytes at the beginning of a file without an archive, where its pickles are."""
MAX_EXPRESSION = 10_000
"""Maximum number of characters of the expression of one size."""
LARGEST = 10**18
"""Numbers in an expression are smaller."""
MAX_EXPONENT = 64
"""Largest exponent in an expression, and largest precision in bits."""

SAMPLE_INPUTS = "data/sample_inputs/model.pt"
"""Record of the inputs of the export, in the format of `torch.save`."""
RECORD = re.compile(
    r"archive_format|archive_version|byteorder|\.data/[\w.]+|models/model\.json|extra/.*"
    r"|data/sample_inputs/model\.pt|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
)
"""Records of an archive with one program. Compiled libraries and pickled objects are others."""
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!save\b|from_file\b)\w+\.\w+"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
)
"""Operators that read tensors and numbers, and write nothing else."""
PLAIN = re.compile(r"[\w.\-+:/@ ]*")
"""Text without quotes, brackets and line ends."""
FUNCTIONS = frozenset(
    (
        "Integer", "Rational", "Add", "Mul", "Pow", "Abs", "Max", "Min", "Mod", "floor", "ceiling",
        "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan", "LessThan",
        "StrictGreaterThan", "GreaterThan", "FloorDiv", "ModularIndexing", "Where", "PythonMod",
        "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "PowByNatural", "FloatTrueDiv",
        "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "ToFloat", "Identity",
    )
)  # fmt: skip
"""Functions of sizes: those of SymPy and of PyTorch that give numbers."""
LITERALS = {"Symbol": re.compile(r"[a-z]+\d+"), "Float": re.compile(r"-?[\d.e+-]{1,30}")}
"""Functions of a text, with the texts that they accept."""
POWERS = ("Pow", "PowByNatural")


class Program(nn.Module):
    """An exported program as a network whose mode can be set, without effect on the program."""

    inputs: list[torch.Size]
    """Shape of each input; a size that is not fixed is a `SymInt`."""
    outputs: list[torch.Size]
    """Shape of each output."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        # The guards of a file are Python code.
        self.program = program.module(check_guards=False)
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        shapes = {name: value.shape for name, value in values.items() if isinstance(value, Tensor)}
        signature = program.graph_signature
        self.inputs = [shapes[name] for name in signature.user_inputs if name in shapes]
        self.outputs = [shapes[name] for name in signature.user_outputs if name in shapes]

    def forward(self, x: Tensor) -> Tensor:
        return self.program(x)

    def train(self, mode: bool = True) -> "Program":
        self.training = mode
        return self


def load_program(path: str | Path) -> Program:
    """Read an exported program; the file is checked first.

    Args:
        path: a file of `torch.export.save`.

    Returns:
        The program as a network.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds more than a graph and tensors.

    >>> network = nn.Linear(4, 2)
    >>> torch.export.save(torch.export.export(network, (torch.zeros(3, 4),)), "net.pt2")
    >>> load_program("net.pt2")(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no exported program at {path}")
    try:
        check_file(path)
        check_archive(path)
        check_program(path)
        # `torch.export.load` would also read the older format, and print tracebacks.
        from torch.export.pt2_archive._package import load_pt2

        with _weights_only():
            return Program(load_pt2(str(path)).exported_programs["model"])
    except Exception as error:  # PyTorch raises its own kinds for damaged files
        reason = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
        raise ValueError(
            f"can't read {path}: {reason[:150]}; expected a file of torch.export.save that holds "
            "nothing but a graph and tensors"
        ) from error


def check_archive(path: Path) -> None:
    """Raise an error if a file of `torch.save` asks for more memory than it has bytes.

    PyTorch compresses text at most, so its own archives hardly unpack to more. Its restricted
    unpickler makes any `bytearray` of zeros, for which a few bytes give the length.

    Args:
        path: a file of `torch.save` or `torch.export.save`, or any other file.

    Raises:
        ValueError: the archive unpacks to `SMALL` bytes more than it has, or its pickle makes a
            `bytearray`.

    >>> with zipfile.ZipFile("zeros.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    ...     archive.writestr("zeros", bytes(20_000_000))
    >>> check_archive(Path("zeros.zip"))
    Traceback (most recent call last):
        ...
    ValueError: its parts unpack to 20,000,000 bytes, more than the file has
    """
    with path.open("rb") as file:
        _check_parts(file, path.stat().st_size)


def _check_parts(file: IO[bytes], size: int) -> None:
    if not zipfile.is_zipfile(file):
        file.seek(0)
        _check_pickle(file.read(MAX_PICKLE_BYTES))
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > size + SMALL:
            raise ValueError(f"its parts unpack to {unpacked:,} bytes, more than the file has")
        for part in archive.infolist():
            if part.filename.endswith(".pkl"):
                _check_pickle(archive.read(part))


def _check_pickle(content: bytes) -> None:
    if b"\nbytearray\n" in content:
        raise ValueError("its pickle makes a bytearray, which no weights need")


def check_program(path: Path) -> None:
    """Raise an error unless an archive holds one program that only computes with tensors.

    Args:
        path: a file of `torch.export.save`.

    Raises:
        ValueError: the archive or its graph has something else.
        RuntimeError: the archive is damaged.

    >>> program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    >>> torch.export.save(program, "linear.pt2")
    >>> check_program(Path("linear.pt2"))
    """
    # The reader that loads the program, so that both see the same records.
    reader = torch._C.PyTorchFileReader(str(path))
    records = reader.get_all_records()
    if "serialized_exported_program.json" in records:
        raise ValueError("a PyTorch older than 2.8 saved it; export it again")
    for record in records:
        if not RECORD.fullmatch(record):
            raise ValueError(f"it holds {record!r}, which no graph of tensors needs")
    for record in records:
        if record.endswith(".json"):
            content = reader.get_record(record)
            if len(content) > MAX_GRAPH_BYTES:
                raise ValueError(f"{record} has more than {MAX_GRAPH_BYTES:,} bytes")
            try:
                _check_value(json.loads(content), "")
            except RecursionError:
                raise ValueError(f"{record} is nested too deeply") from None
        elif record == SAMPLE_INPUTS:
            content = reader.get_record(record)
            _check_parts(io.BytesIO(content), len(content))


def _check_value(value: Any, key: str) -> None:
    """Check a value of a graph's JSON, found under a key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not PLAIN.fullmatch(name):
                raise ValueError(f"its graph has a field {name[:80]!r}")
            if name == "use_pickle" and inner:
                raise ValueError("it holds a pickled tensor, which exports of plain tensors do not")
            if name != "metadata":  # text about the source code, which nothing executes
                _check_value(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    match key:
        case "expr_str":
            check_expression(text)
            return
        case "target" | "as_operator":
            allowed = OPERATOR.fullmatch(text)
        case "in_spec" | "out_spec":
            allowed = not text or all(map(_is_plain_container, _containers(json.loads(text))))
        case "name" | "as_name" | "forward_arg_names":
            allowed = not text or text.isidentifier()
        case "as_string" | "as_strings" | "guards_code":  # constants, and code that is not used
            allowed = True
        case _:
            allowed = PLAIN.fullmatch(text)
    if not allowed:
        raise ValueError(f"its graph has the {key or 'text'} {text[:80]!r}, which is not allowed")


def _containers(spec: Any) -> Iterator[Any]:
    """Yield the kind and context of each container in the structure of a program's inputs."""
    if isinstance(spec, dict):
        yield spec.get("type"), spec.get("context")
    inner = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    for value in inner:
        yield from _containers(value)


def _is_plain_container(container: tuple[Any, Any]) -> bool:
    kind, context = container
    known = kind in (None, "builtins.tuple", "builtins.list", "builtins.dict")
    return known and (context is None or PLAIN.fullmatch(re.sub(r'[\[\]",]', "", str(context))))  # type: ignore


def check_expression(text: str) -> None:
    """Raise an error unless the expression of a size is arithmetic of numbers and symbols.

    Args:
        text: an expression as SymPy's `srepr` writes it.

    Raises:
        ValueError: it is something else, or it could take long to evaluate.

    >>> check_expression("Mul(Integer(4), Symbol('s77', positive=True, integer=True))")
    >>> check_expression("__import__('os').getcwd()")
    Traceback (most recent call last):
        ...
    ValueError: its graph has the size "__import__('os').getcwd()", which is not arithmetic
    """
    try:
        allowed = len(text) <= MAX_EXPRESSION and _is_arithmetic(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        allowed = False
    if not allowed:
        raise ValueError(f"its graph has the size {text[:80]!r}, which is not arithmetic")


def _is_arithmetic(node: ast.expr, *, in_power: bool = False) -> bool:
    """Whether an expression has only calls of `FUNCTIONS` with numbers; powers are not nested."""
    match node:
        case ast.Name(id="true" | "false"):
            return True
        case ast.Constant(value=int() as number):
            return abs(number) < LARGEST
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_arithmetic(operand, in_power=in_power)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            first, *others = [*arguments, *(keyword.value for keyword in keywords)]
            if name in LITERALS:
                text = first.value if isinstance(first, ast.Constant) else None
                plain = isinstance(text, str) and LITERALS[name].fullmatch(text) is not None
                return plain and all(map(_is_small, others))
            power = name in POWERS
            small = not power or (not in_power and all(map(_is_small, others)))
            inner = all(_is_arithmetic(value, in_power=power or in_power) for value in arguments)
            return name in FUNCTIONS and not keywords and small and inner
    return False


def _is_small(node: ast.expr) -> bool:
    """Whether this is a whole number up to `MAX_EXPONENT` or a truth value; `Integer(n)` counts."""
    match node:
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _is_small(inner)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_small(operand)
        case ast.Constant(value=int() as number):
            return number <= MAX_EXPONENT
    return False


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make `torch.load` inside the reader of programs unpickle tensors only."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
