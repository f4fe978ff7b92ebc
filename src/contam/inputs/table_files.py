"""Tables with one row for each image: CSV, TSV, Parquet, JSON and JSON Lines files, data frames."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from contam.data.folders import SUFFIXES as IMAGES
from contam.inputs.parts import KEYS, some_of
from contam.text_files import check_file, read_json, read_text

if TYPE_CHECKING:
    from pandas import DataFrame

PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img_path")
"""Names of the column of paths, in order of preference; then those of images in dicts."""
TEXT = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables as text, with their usual separator."""
SEPARATORS = ",;\t"
RECORDS = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
SUFFIXES = (*TEXT, *RECORDS, *PARQUET)


class Rows(NamedTuple):
    """The usable rows of a table."""

    files: list[Path]
    y: Tensor | list[str]
    domain: list[str] | None
    background: list[str] | None
    root: Path | None
    """The folder that holds all files, if one was given or all paths are relative to one."""
    notes: list[str]
    domain_column: str = ""
    """Name of the column of the domains."""
    others: dict[str, list[str]] = {}  # noqa: RUF012, never changed
    """The other columns; a missing value is an empty text."""


@dataclass(frozen=True)
class ImageTable:
    """A table with paths, labels and groups of images, and the rows to take from it.

    Columns that are not named are found by their usual names, such as `path`, `label` and `domain`.

    Args:
        source: a file (.csv, .tsv, .parquet, .json, .jsonl), a pattern of files such as
            `shards/*.csv`, or a data frame.
        path: column of the images' paths.
        label: column of the class names or indices; several columns are the labels of
            `contam.audit_multilabel`.
        domain: column of the domains, or several columns whose combinations are the domains.
        background: column of the background labels.
        where: values by column; other rows are left out.
        root: folder of relative paths; by default that of the file.

    Source: ours, because published data sets describe their images by tables.

    >>> ImageTable("labels.csv", label="diagnosis", where={"split": "val"}).name
    'val'
    """

    source: Any
    path: str | None = None
    label: str | Sequence[str] | None = None
    domain: str | Sequence[str] | None = None
    background: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    root: str | Path | None = None

    @property
    def name(self) -> str:
        """The values of `where`, or the name of the file without its suffix."""
        if self.where:
            return " ".join(map(str, self.where.values()))
        stem = Path(self.source).stem if isinstance(self.source, str | Path) else ""
        return stem if stem and "*" not in stem else "table"

    def has_labels(self, keys: Mapping[str, str]) -> bool:
        """Return whether every file of the table has a column of labels.

        Args:
            keys: names of columns by part.

        Raises:
            ValueError: a file can't be read, or a named column is missing.
        """
        what, frames = self._frames()
        return all("y" in self._columns(frame, keys, what, needed=()) for _, frame in frames)

    def rows(
        self,
        keys: Mapping[str, str],
        classes: Sequence[str] | None = None,
        *,
        labeled: bool = True,
    ) -> Rows:
        """Read the table.

        Args:
            keys: names of columns by part (`x`, `y`, `domain`, `background`) that this table does
                not name itself.
            classes: names of the classes, if they are known; numbers among them are names.
            labeled: whether labels are read; otherwise the label of all images is 0.

        Returns:
            The rows that have a path and a label.

        Raises:
            ValueError: a file can't be read, a column is missing, or no row is left.
        """
        if not isinstance(self.label, str | None):
            raise ValueError(
                "an audit takes one column of labels; contam.audit_multilabel takes several"
            )
        what, frames = self._frames()
        files: list[Path] = []
        columns: dict[str, list[str]] = {"y": [], "domain": [], "background": []}
        others: dict[str, list[str]] = {}
        domain_column = ""
        incomplete = total = 0
        roots = {Path(self.root) if self.root is not None else folder for folder, _ in frames}
        for folder, frame in frames:
            frame = self._chosen(frame, what)  # noqa: PLW2901
            total += len(frame)
            names = self._columns(frame, keys, what, needed=("x", "y") if labeled else ("x",))
            values = {part: _texts(frame, column) for part, column in names.items()}
            if not labeled:
                values["y"] = ["0"] * len(frame)
            whole = [bool(p and label) for p, label in zip(values["x"], values["y"], strict=True)]
            incomplete += whole.count(False)
            root = Path(self.root) if self.root is not None else folder
            paths = [path.replace("\\", "/") for path in values["x"]]  # of Windows
            files += [root / path for path, good in zip(paths, whole, strict=True) if good]
            for part, column in columns.items():
                if part in values:
                    column += [v for v, good in zip(values[part], whole, strict=True) if good]
            domain_column = ", ".join(names.get("domain", ()))
            for column, texts in _other_columns(frame, names).items():
                # A column that an earlier file of a pattern lacks stays too short, and is dropped.
                others.setdefault(column, []).extend(
                    text for text, good in zip(texts, whole, strict=True) if good
                )
        if not files:
            wanted = ", ".join(f"{column} {value!r}" for column, value in self.where.items())
            raise ValueError(
                f"{what} has no row with a path{' and a label' if labeled else ''}"
                + (f" and {wanted}" if wanted else "")
            )
        files, notes = _with_suffix(files, what)
        _check_files(files, what)
        if incomplete:
            lacking = "no path or no label" if labeled else "no path"
            notes.append(f"{incomplete} of {total} rows of {what} have {lacking}.")
        domain, background = (
            columns[part] if len(columns[part]) == len(files) else None
            for part in ("domain", "background")
        )
        root = next(iter(roots)) if len(roots) == 1 else None
        if root is not None and not all(file.is_relative_to(root) for file in files):
            root = None
        names = labeled and set(columns["y"]) <= set(classes or ())
        y = columns["y"] if names else _labels(columns["y"])
        others = {name: column for name, column in others.items() if len(column) == len(files)}
        return Rows(files, y, domain, background, root, notes, domain_column, others)

    def values_of(self, files: Sequence[Path], root: Path | None, part: str) -> list[str]:
        """Return the value of each image in a column that this table has for it.

        Args:
            files: the images.
            root: the folder of the images; paths in the table are relative to it, or are names of
                files.
            part: the part of an example, such as `background`.

        Returns:
            One text for each file.

        Raises:
            ValueError: a column is missing, or an image has no row.
        """
        what, frames = self._frames()
        known: dict[str, str] = {}
        for _, frame in frames:
            frame = self._chosen(frame, what)  # noqa: PLW2901
            names = self._columns(frame, {}, what, needed=("x", part))
            known |= dict(zip(*(_texts(frame, names[p]) for p in ("x", part)), strict=True))
        values = []
        for file in files:
            inside = root is not None and file.is_relative_to(root)
            relative = file.relative_to(root).as_posix() if inside and root is not None else ""
            value = known.get(relative) or known.get(str(file)) or known.get(file.name)
            if not value:
                raise ValueError(f"{what} has no {part} for {relative or file}")
            values.append(value)
        return values

    def _frames(self) -> tuple[str, list[tuple[Path, "DataFrame"]]]:
        """The name for messages, and each frame with its folder."""
        if not isinstance(self.source, str | Path):
            return "the table", [(Path(), self.source)]
        if "*" not in str(self.source):
            file = Path(self.source)
            return file.name, [(file.parent, read_table(file))]
        files = matching(str(self.source))
        if not files:
            raise ValueError(f"no file matches {self.source}")
        return str(self.source), [(file.parent, read_table(file)) for file in files]

    def _chosen(self, frame: "DataFrame", what: str) -> "DataFrame":
        """The rows with the wanted values."""
        for column, wanted in self.where.items():
            if column not in frame:
                raise ValueError(
                    f"{what} has no column {column!r}; it has {some_of(list(frame.columns))}"
                )
            texts = _texts(frame, [column])
            chosen = [str(v) for v in (wanted if isinstance(wanted, list | tuple) else [wanted])]
            kept = [text in chosen for text in texts]
            if not any(kept):
                raise ValueError(
                    f"{what} has no row with {column} {' or '.join(chosen)}; it has "
                    f"{some_of(sorted(set(texts)))}"
                )
            frame = frame.loc[kept]
        return frame

    def _columns(
        self, frame: "DataFrame", keys: Mapping[str, str], what: str,
        needed: Sequence[str] = ("x", "y"),
    ) -> dict[str, list[str]]:  # fmt: skip
        """The columns of each part of an example."""
        named = {"x": self.path, "y": self.label, "domain": self.domain,
                 "background": self.background}  # fmt: skip
        usual = {part: (*PATHS, *KEYS[part]) if part == "x" else KEYS[part] for part in named}
        by_lower = {str(column).lower(): str(column) for column in frame.columns}
        chosen: dict[str, list[str]] = {}
        for part, value in named.items():
            given = value or keys.get(part)
            if given is not None:
                columns = [given] if isinstance(given, str) else list(given)
                for column in columns:
                    if column not in frame:
                        raise ValueError(
                            f"{what} has no column {column!r}; it has "
                            f"{some_of(list(frame.columns))}"
                        )
                chosen[part] = columns
                continue
            column = next((by_lower[name] for name in usual[part] if name in by_lower), None)
            if column is not None:
                chosen[part] = [column]
            elif part in needed:
                has = some_of(list(frame.columns))
                word = {"x": "path", "y": "label"}.get(part)
                if word is None:  # A table beside the images, whose columns have no parameters.
                    first, last = ", ".join(usual[part][:-1]), usual[part][-1]
                    raise ValueError(
                        f"{what} has no column {first} or {last}; it has {has}; rename the column "
                        f"that holds the {part} of each image"
                    )
                raise ValueError(
                    f"{what} has the columns {has}; which holds the {word} of each image? Name it "
                    f"with {word}="
                )
        return chosen


def _with_suffix(files: list[Path], what: str) -> tuple[list[Path], list[str]]:
    """Complete paths without a suffix if the images have one, and note it."""
    first = files[0]
    if first.suffix or first.is_file():
        return files, []
    suffix = next((s for s in IMAGES if first.with_name(first.name + s).is_file()), None)
    if suffix is None:
        return files, []
    complete = [f if f.suffix else f.with_name(f.name + suffix) for f in files]
    return complete, [f"The paths in {what} have no suffix; {suffix} was added."]


def _check_files(files: Sequence[Path], what: str) -> None:
    """Raise if the paths are addresses, or if none of them is a file."""
    if re.search(r"(^|/)\w{2,}:/", str(files[0])):
        raise ValueError(
            f"{what} has addresses such as {files[0]}; nothing is downloaded, so give files"
        )
    if not any(file.is_file() for file in files[:1000]):
        raise ValueError(
            f"{what} names images such as {files[0]}, and there is no such file; give the folder "
            "of its paths as root="
        )


def table_of(data: Any) -> ImageTable | None:
    """Return the table that a path or a data frame means, or None.

    Args:
        data: an `ImageTable`, a data frame, or the path of a table, which may end with
            `:COLUMN=VALUE,...` to choose rows.

    Raises:
        ValueError: the text after the path does not choose rows, or it is a file of another kind.

    >>> table_of("labels.csv:split=val,site=3").where
    {'split': 'val', 'site': '3'}
    >>> table_of("folder") is None
    True
    """
    if isinstance(data, ImageTable):
        return data
    if type(data).__name__ == "DataFrame" and hasattr(data, "columns"):
        return ImageTable(data)
    if not isinstance(data, str | Path) or Path(data).is_dir():
        return None
    suffixes = "|".join(suffix[1:] for suffix in SUFFIXES)
    match = re.match(rf"(.*\.(?:{suffixes}))(?::(.*))?$", str(data), re.IGNORECASE | re.DOTALL)
    if match is None:
        if Path(data).is_file():
            raise ValueError(
                f"{data} is neither a folder nor a table that can be read; tables are "
                f"{', '.join(SUFFIXES)}"
            )
        return None
    path, rows = match.groups()
    where = {}
    for part in filter(None, (rows or "").split(",")):
        column, equals, value = part.partition("=")
        if not (column and equals):
            raise ValueError(f"{data}: {part!r} chooses no rows; expected {path}:COLUMN=VALUE")
        where[column.strip()] = value.strip()
    return ImageTable(path, where=where)


def read_table(file: Path) -> "DataFrame":
    """Read a table from a file; values of CSV and TSV files stay texts.

    Args:
        file: the file; its suffix gives the format. JSON is a list of records or a dict of columns.

    Returns:
        The data frame.

    Raises:
        ValueError: there is no such file, it is damaged, or a library is missing.

    >>> _ = Path("a.jsonl").write_text('{"path": "1.png", "label": 3}')
    >>> read_table(Path("a.jsonl")).to_dict("list")
    {'path': ['1.png'], 'label': [3]}
    """
    import pandas as pd

    if not file.exists():
        raise ValueError(f"no table at {file}")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{file} is no table that can be read; tables are {', '.join(SUFFIXES)}")
    if suffix in PARQUET:
        return _of_parquet(file)
    if suffix == ".json":
        return _of_records(read_json(file), file)
    text = read_text(file)
    try:
        if suffix in RECORDS:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return _of_records(rows, file)
        separator = max(TEXT[suffix] + SEPARATORS, key=text.partition("\n")[0].count)
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no readable table: {_in_one_line(error)}") from None


def _of_parquet(file: Path) -> "DataFrame":
    import pandas as pd

    try:
        check_file(file)
        return pd.read_parquet(file, engine="pyarrow")
    except ImportError as error:
        raise ValueError(
            f"reading {file.name} needs pyarrow; run pip install -e '.[tables]' in a clone of "
            "contam, or save the table as CSV"
        ) from error
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f"{file} is no readable table: {_in_one_line(error)}") from None


def _of_records(content: Any, file: Path) -> "DataFrame":
    import pandas as pd

    columns = isinstance(content, Mapping) and all(isinstance(v, list) for v in content.values())
    rows = isinstance(content, list) and all(isinstance(row, Mapping) for row in content)
    if not content or not (columns or rows):
        raise ValueError(f"{file} is no table: expected a list of records, or a dict of columns")
    return pd.DataFrame(content)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:150]


def matching(pattern: str) -> list[Path]:
    """Return the files and folders that match a pattern with stars, sorted.

    Args:
        pattern: a relative or an absolute pattern, such as `data/*/labels.csv`.

    >>> Path("b.csv").touch()
    >>> matching("b*.csv")
    [PosixPath('b.csv')]
    """
    path = Path(pattern)
    start = Path(path.anchor)
    return sorted(start.glob(str(path.relative_to(start) if path.anchor else path)))


def _texts(frame: "DataFrame", columns: Sequence[str]) -> list[str]:
    """The values of a column as texts; of several columns, their combinations."""
    if len(columns) > 1:
        parts = [_texts(frame, [column]) for column in columns]
        return [
            ", ".join(f"{name} {value}" for name, value in zip(columns, row, strict=True))
            for row in zip(*parts, strict=True)
        ]
    values = frame[columns[0]].tolist()
    nested = next((v for v in values if isinstance(v, dict | list | bytes)), None)
    if nested is not None:
        raise ValueError(
            f"the column {columns[0]!r} holds a {type(nested).__name__}, not a text or a number; "
            "load such tables with datasets.load_dataset, and give the dataset"
        )
    return [_text(value) for value in values]


def _other_columns(frame: "DataFrame", names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The columns of texts and numbers that are no path, label or domain.

    Of several domain columns, whose combinations are the domains, each is one.
    """
    used = {c for part, some in names.items() if part != "domain" or len(some) == 1 for c in some}
    texts = {}
    for column in frame.columns:
        if column not in used and str(column) and not str(column).startswith("Unnamed:"):
            with suppress(ValueError):  # Of dicts, lists or bytes.
                texts[str(column)] = _texts(frame, [column])
    return texts


def _text(value: Any) -> str:
    """A value as text, empty if it is missing.

    Whole floats, to which a missing value turns a column of whole numbers, lose their point.
    """
    import pandas as pd

    if not isinstance(value, str) and pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _labels(texts: list[str]) -> Tensor | list[str]:
    """Class indices if all labels are whole numbers, else class names.

    Raises:
        ValueError: the labels are real numbers.
    """
    if any(re.fullmatch(r"0\d+", text) for text in texts):
        return texts  # with zeros in front, numbers are names
    if all(re.fullmatch(r"[+-]?\d{1,9}(\.0*)?", text) for text in texts):
        return torch.tensor([int(float(text)) for text in texts])
    if all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", t, re.IGNORECASE) for t in texts):
        raise ValueError(
            f"labels are numbers such as {texts[0]}; an audit needs classes, so give names or "
            "whole numbers (a regression has none)"
        )
    return texts
