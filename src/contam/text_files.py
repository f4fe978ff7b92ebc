"""Checks files of unknown origin, and reads text, JSON, YAML and CSV with limits.

Every fault is one line that names the file. No reader runs code, and none can be made to use up
memory or to run without end by a small file.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 256 * 2**20
"""Maximum size of a file in bytes."""
MAX_YAML_BYTES = 100_000
"""Maximum size of a YAML file in bytes; configs have a few thousand."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a file that stands for another one in Git LFS."""
MAX_VALUES = 10_000
"""Maximum number of values of a YAML file, with each alias written out."""


def check_file(path: Path) -> None:
    """Raise an error unless a path is a file with its content.

    Reading a pipe or a device may never end. Where Git LFS is not installed, a clone has small text
    files in place of large ones.

    Args:
        path: the path.

    Raises:
        FileNotFoundError: there is no such path.
        OSError: it is a folder, a pipe, a socket, a device or a pointer of Git LFS.

    >>> check_file(Path("/dev/zero"))
    Traceback (most recent call last):
        ...
    OSError: it is not a regular file
    """
    path.stat()
    if not path.is_file():
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise OSError("it is only a pointer of Git LFS; run 'git lfs pull' to get the file")


def printable(text: str) -> str:
    r"""Escape the parts of a name that can't be written as UTF-8.

    Names of files on Linux are bytes in any encoding; Python decodes others to lone surrogates,
    which can be neither printed nor stored.

    Args:
        text: a name.

    >>> printable("caf\udce9")
    'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def read_text(path: Path, *, max_bytes: int | None = None) -> str:
    r"""Read a file of UTF-8 text, with or without a byte order mark.

    Args:
        path: the file.
        max_bytes: maximum size of the file; by default `MAX_BYTES`.

    Raises:
        ValueError: the file is missing, not regular, too large or not UTF-8; one line.

    >>> _ = Path("note.txt").write_bytes(b"\xef\xbb\xbfgood")
    >>> read_text(Path("note.txt"))
    'good'
    """
    try:
        check_file(path)
        size, limit = path.stat().st_size, MAX_BYTES if max_bytes is None else max_bytes
        if size > limit:
            raise OSError(f"it has {size:,} bytes, more than {limit:,}")
        # Not `read_text`, which would change the line ends inside the quotes of a CSV file.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: the file.

    Raises:
        ValueError: as for `read_text`, or it is not JSON, or it is nested too deeply; one line.

    >>> _ = Path("deep.json").write_text("[" * 100_000)
    >>> read_json(Path("deep.json"))
    Traceback (most recent call last):
        ...
    ValueError: deep.json: is not JSON (it is nested too deeply)
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({_reason(error)})") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values.

    Args:
        path: the file.

    Raises:
        ValueError: as for `read_text`, or it is not YAML, it is nested too deeply, or its aliases
            stand for more than `MAX_VALUES` values; one line.

    >>> _ = Path("config.yaml").write_text("seeds: 3")
    >>> read_yaml(Path("config.yaml"))
    {'seeds': 3}
    """
    import yaml

    text = read_text(path, max_bytes=MAX_YAML_BYTES)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values_below(node, {}) > MAX_VALUES:
            raise ValueError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not YAML: {_reason(error)}") from None


def read_csv(path: Path) -> Iterator[list[str]]:
    r"""Read the rows of a CSV file as text, the header first; blank lines are left out.

    Args:
        path: the file.

    Raises:
        ValueError: as for `read_text`, a row has fewer cells than the header, or a cell has more
            than `csv.field_size_limit()` characters; one line.

    >>> _ = Path("table.csv").write_text("model,id\n\na,0.5\n")
    >>> list(read_csv(Path("table.csv")))
    [['model', 'id'], ['a', '0.5']]
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    width = 0
    try:
        for row in rows:
            if not row:
                continue
            width = width or len(row)
            if len(row) < width:
                raise ValueError(f"{path}, line {rows.line_num} has fewer columns than its header")
            yield row
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num} is not CSV: {error}") from None


def _values_below(node: Any, known: dict[int, int]) -> int:
    """Count the values of a YAML node with its aliases written out."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # for a node that holds itself
        inner = node.value if isinstance(node.value, list) else []
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else [item])]
        known[id(node)] = 1 + sum(_values_below(part, known) for part in parts)
    return known[id(node)]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:300]
