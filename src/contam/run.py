"""Writes and reads run folders; no other module writes them.

    <experiment>-<hash of the resolved config>/
      run.json               config, versions, sessions, and a digest of each file and of itself
      tables/<part>.jsonl      records, one JSON object per line
      arrays/<part>.safetensors
      checkpoints/<part>.safetensors   only while a part is unfinished

A part (for example one seed of one network) is written atomically: its files are renamed into
place first and entered in `run.json` last. A process that is killed at any point leaves a valid
folder, and the same command resumes the run.

When several processes compute one run, only the main process writes. `Run.write` waits until the
part is written before it returns in the other processes; if it can't be written, all of them stop.
"""

import contextlib
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors import safe_open as open_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from contam.atomic_files import UNFINISHED, explain_errors, write_atomically
from contam.session import Session, current_commit, this_session, versions
from contam.text_files import read_json
from contam.theory.features import LARGEST
from contam.training.distributed import rank, together

FORMAT = 1
DIGEST = "sha256"
"""Field of run.json with the digest of its other fields."""
PART_NAME = re.compile(r"[A-Za-z0-9_.=+-]+(/[A-Za-z0-9_.=+-]+)*")

DataFrame: TypeAlias = Any
"""A `pandas.DataFrame`: it has no type stubs, and what checkers infer from its code is wrong."""


class RunError(ValueError):
    """A run folder can't be used; the message suggests a fix."""


class Written(BaseModel):
    """Digest and size of a file when it was written."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """Content of run.json."""

    model_config = ConfigDict(extra="forbid")

    format: int
    experiment: str
    config: dict[str, Any]
    finished: bool = False
    sessions: list[Session] = []
    files: dict[str, Written] = {}


class Run:
    """The results of one experiment under one config, in a folder.

    `Run.start` creates or resumes a run for writing; `Run.load` opens one for reading. As a context
    manager, a run that was started releases its lock on exit.

    >>> import tempfile
    >>> class Config(BaseModel):
    ...     seeds: int = 1
    >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run:
    ...     run.write("seed0", [{"accuracy": 0.5}])
    ...     run.finish()
    >>> Run.load(run.folder).read("seed0")
    [{'accuracy': 0.5}]
    """

    def __init__(
        self, folder: Path, manifest: Manifest, lock: FileLock | None, *, follows: bool = False
    ) -> None:
        self.folder = folder
        self._manifest = manifest
        self._lock = lock
        self._follows = follows  # True in processes that do not write
        self._clock = time.monotonic()
        self._processor_clock = time.process_time()

    @classmethod
    def start(cls, root: Path, experiment: str, config: BaseModel, *, wait: bool = False) -> "Run":
        """Create the run of an experiment under a config, or resume it, and lock it for writing.

        Args:
            root: the folder of all runs; it is created if it does not exist.
            experiment: name of the experiment.
            config: the resolved config; it decides the folder's name.
            wait: wait while another process writes the run, instead of raising an error.

        Returns:
            The run, open for writing. If it was finished, its parts are all there.

        Raises:
            RunError: another process writes the run, its files are damaged, the folder holds other
                files, or it can't be written.

        >>> import tempfile
        >>> class Config(BaseModel):
        ...     seeds: int = 2
        >>> root = Path(tempfile.mkdtemp())
        >>> with Run.start(root, "toy", Config()) as run:
        ...     run.write("seed0", [{"accuracy": 0.5}])
        >>> with Run.start(root, "toy", Config()) as resumed:
        ...     resumed.has("seed0"), resumed.has("seed1"), resumed.finished
        (True, False, False)
        """
        values = config.model_dump(mode="json")
        folder = cls.place(root, experiment, config)
        run = None
        with together():
            if rank() == 0:
                run = cls._start(folder, experiment, values, wait)
        with together():  # Parts may be added when all processes have read the manifest.
            return run or cls(folder, _read_manifest(folder), None, follows=True)

    @classmethod
    def _start(cls, folder: Path, experiment: str, values: dict[str, Any], wait: bool) -> "Run":
        """Create or resume a run, and lock it."""
        with explain_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=wait)
        try:
            with explain_errors(folder):
                lock.acquire()
        except Timeout:
            raise RunError(
                f"{folder}: another process is writing this run; wait for it, or stop it"
            ) from None
        try:
            for temporary in folder.rglob(f"{UNFINISHED}*"):
                temporary.unlink()
            if (folder / "run.json").exists():
                manifest = _read_manifest(folder)
                if manifest.experiment != experiment or manifest.config != values:
                    raise RunError(
                        f"{folder}/run.json: its config does not match the folder's name; "
                        "move the folder away and run again"
                    )
            elif foreign := [p.name for p in folder.iterdir() if p.name != ".lock"]:
                raise RunError(
                    f"{folder}: has no run.json but holds {foreign[0]!r}; it is not a run folder: "
                    "choose another --out, or move it away"
                )
            else:
                manifest = Manifest(format=FORMAT, experiment=experiment, config=values)
            run = cls(folder, manifest, lock)
            if not manifest.finished:
                manifest.sessions.append(this_session())
                run._save_manifest()
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Open a run for reading; each file is checked against its digest when it is read.

        Args:
            folder: the folder of the run.

        Raises:
            RunError: the folder has no run.json, or it is damaged or in another format.
        """
        return cls(folder, _read_manifest(folder), None)

    @classmethod
    def find(cls, root: Path, experiment: str, config: BaseModel) -> "Run":
        """Open the run of an experiment under a config for reading.

        Args:
            root: the folder of all runs.
            experiment: name of the experiment.
            config: the resolved config.

        Raises:
            RunError: as for `load`.
        """
        return cls.load(cls.place(root, experiment, config))

    @classmethod
    def place(cls, root: Path, experiment: str, config: BaseModel) -> Path:
        """Return the folder of an experiment under a config; it need not exist.

        Args:
            root: the folder of all runs.
            experiment: name of the experiment.
            config: the resolved config.

        Raises:
            ValueError: a whole number of the config is larger than any computation can use.

        >>> class Config(BaseModel):
        ...     seeds: int = 1
        >>> Run.place(Path("runs"), "toy", Config()).name
        'toy-407205e7'
        """
        values = config.model_dump(mode="json")
        _check_numbers(values)
        return root / f"{experiment}-{digest(experiment, values)}"

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self._manifest.experiment

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as JSON values."""
        return self._manifest.config

    @property
    def finished(self) -> bool:
        """Whether `finish` was called: every part is written."""
        return self._manifest.finished

    @property
    def sessions(self) -> list[Session]:
        """The processes that computed the run, in order."""
        return self._manifest.sessions

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Explain that another version of contam wrote the run, where its parts can't be read.

        Raises:
            RunError: what the block needs is missing, and another version wrote a part of the run.

        >>> import tempfile
        >>> class Config(BaseModel):
        ...     seeds: int = 1
        >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run, run.reading():
        ...     run.config["seeds"]
        1
        """
        try:
            yield
        except (AttributeError, IndexError, KeyError, ValidationError) as error:
            here = versions()["contam"], current_commit()
            others = {
                (session.versions.get("contam"), session.commit) for session in self.sessions
            } - {here}
            if not others:
                raise
            version, commit = next(iter(others))
            code = f" of commit {commit[:7]}" if commit else ""
            what = f"{error.error_count()} fields" if isinstance(error, ValidationError) else error
            raise RunError(
                f"{self.folder}: contam {version}{code} wrote it in a form that this version can't "
                f"read ({what}); run the same command again into another folder (--out)"
            ) from error

    def has(self, part: str) -> bool:
        """Whether the part is written."""
        return _table(part) in self._manifest.files

    def parts(self, prefix: str = "") -> list[str]:
        """Sorted names of the written parts that start with `prefix`."""
        names = (
            path.removeprefix("tables/").removesuffix(".jsonl")
            for path in self._manifest.files
            if path.startswith("tables/")
        )
        return sorted(name for name in names if name.startswith(prefix))

    def write(
        self,
        part: str,
        records: Iterable[Mapping[str, Any]],
        arrays: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a part atomically, and delete its checkpoints.

        Args:
            part: name of the part: letters, digits, "_", "-", "=", "." and "/".
            records: rows of the part's table. Tensors and arrays become lists, and numbers that
                are not finite become null.
            arrays: tensors to keep beside the table, by name.

        Raises:
            ValueError: the name of the part has other characters.
            RunError: the run is open for reading only.
            WriteError: the folder can't be written.

        >>> import tempfile
        >>> import torch
        >>> class Config(BaseModel):
        ...     seeds: int = 1
        >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run:
        ...     run.write("seed0", [{"loss": float("nan")}], {"weight": torch.ones(2)})
        >>> run.read("seed0"), run.arrays("seed0")
        ([{'loss': None}], {'weight': tensor([1., 1.])})
        """
        with together():
            lines = "".join(json.dumps(_plain(record)) + "\n" for record in records).encode()
            files = {_table(part): lines}
            if arrays is not None:
                files[_arrays(part)] = to_safetensors(_contiguous(arrays))
            for path, content in files.items():
                self._put(self.folder / path, content)
            for path, content in files.items():
                self._manifest.files[path] = Written(
                    sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
                )
            self._save_manifest()
            if not self._follows:
                checkpoint = self._checkpoint_path(part)
                checkpoint.unlink(missing_ok=True)
                shutil.rmtree(checkpoint.with_suffix(""), ignore_errors=True)

    def read(self, part: str) -> list[dict[str, Any]]:
        """Read the records of a part.

        Args:
            part: name of the part.

        Returns:
            The records as they were written; missing values are None.

        Raises:
            RunError: the part is not written yet, or its file is damaged.
        """
        return [json.loads(line) for line in self._content(_table(part)).decode().splitlines()]

    def table(self, prefix: str = "") -> DataFrame:
        """Read the records of all parts that start with `prefix` as one table.

        Args:
            prefix: the name of a part, or a prefix that several parts share, such as `"net/"`.

        Returns:
            Rows in the order of `parts(prefix)`, with the part's name in the column `part` and a
            column for each key of a record. A column's type follows from its values alone: `int64`
            or `Int64` (with missing values) for whole numbers, `float64` (missing is NaN) for
            others, `bool` or `boolean` for truth values, and `object` for everything else.

        Raises:
            RunError: a part is damaged.

        >>> import tempfile
        >>> from pydantic import BaseModel
        >>> class Config(BaseModel):
        ...     seeds: int = 2
        >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run:
        ...     for seed in range(2):
        ...         run.write(f"net/seed{seed}", [{"seed": seed, "accuracy": 0.9 - seed / 10}])
        >>> run.table("net/")
                part  seed  accuracy
        0  net/seed0     0       0.9
        1  net/seed1     1       0.8
        """
        import pandas

        rows = [{"part": part} | row for part in self.parts(prefix) for row in self.read(part)]
        columns = dict.fromkeys(key for row in rows for key in row)
        values = {key: [row.get(key) for row in rows] for key in columns}
        return pandas.DataFrame(
            {key: pandas.Series(column, dtype=_dtype(column)) for key, column in values.items()}
        )

    def arrays(self, part: str) -> dict[str, Tensor]:
        """Read the tensors that were written with a part.

        Args:
            part: name of the part.

        Returns:
            The tensors by name, on the CPU.

        Raises:
            RunError: the part is not written yet or has no tensors, or its file is damaged.
        """
        self._content(_arrays(part))
        return _load_tensors(self.folder / _arrays(part))[0]

    def save_checkpoint(
        self, part: str, state: Mapping[str, Tensor], records: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Write the state of an unfinished part, so that an interrupted run can resume.

        Args:
            part: name of the part.
            state: the tensors to resume from, by name.
            records: the records of the part up to now.

        Raises:
            ValueError: the name of the part has characters that are not allowed.
            WriteError: the folder can't be written.
        """
        header = {
            "records": json.dumps([_plain(record) for record in records]),
            "part": self._checkpoint_name(part),
        }
        self._put(self._checkpoint_path(part), to_safetensors(_contiguous(state), header))

    def checkpoint(self, part: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]] | None:
        """Read the checkpoint of an unfinished part.

        Args:
            part: name of the part.

        Returns:
            The tensors and the records that `save_checkpoint` wrote last; None if there is no
            checkpoint.

        Raises:
            RunError: the file is damaged, or it is a checkpoint of something else.

        >>> import tempfile
        >>> import torch
        >>> class Config(BaseModel):
        ...     seeds: int = 1
        >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run:
        ...     run.save_checkpoint("seed0", {"weight": torch.zeros(2)}, [{"step": 10}])
        ...     run.checkpoint("seed0")
        ({'weight': tensor([0., 0.])}, [{'step': 10}])
        """
        path = self._checkpoint_path(part)
        if not path.exists():
            return None
        tensors, metadata = _load_tensors(path)
        name = self._checkpoint_name(part)
        try:
            if metadata.get("part", name) != name:
                raise ValueError
            return tensors, list(json.loads(metadata["records"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunError(
                f"{path}: is not the checkpoint of {part!r} of this run; delete this file and run "
                "again: only its part is computed again"
            ) from None

    def finish(self) -> None:
        """Mark the run as finished, after every part is written."""
        with together():
            self._manifest.finished = True
            self._save_manifest()

    def _checkpoint_path(self, part: str) -> Path:
        return self.folder / "checkpoints" / f"{_named(part)}.safetensors"

    def _checkpoint_name(self, part: str) -> str:
        return f"{self.experiment}-{digest(self.experiment, self.config)}/{part}"

    def _content(self, path: str) -> bytes:
        """Read a file, and check it against its digest in the manifest."""
        full = self.folder / path
        expected = self._manifest.files.get(path)
        if expected is None:
            raise RunError(f"{full}: is not computed yet; run the experiment to its end")
        try:
            content = full.read_bytes()
        except OSError as error:
            raise RunError(
                f"{full}: can't be read ({error.strerror}); restore it, or delete {self.folder} "
                "and run again"
            ) from None
        if len(content) != expected.bytes or hashlib.sha256(content).hexdigest() != expected.sha256:
            raise RunError(
                f"{full}: does not match its digest (damaged or edited); restore it, or delete "
                f"{self.folder} and run again"
            )
        return content

    def _put(self, path: Path, content: bytes) -> None:
        if not self._follows:
            write_atomically(path, content, resumes=True)

    def _save_manifest(self) -> None:
        if self._follows:
            return
        if self._lock is None:
            raise RunError(f"{self.folder}: is open for reading only; use 'Run.start' to write")
        session = self._manifest.sessions[-1]
        session.seconds = round(time.monotonic() - self._clock, 2)
        session.processor_seconds = round(time.process_time() - self._processor_clock, 2)
        content = self._manifest.model_dump(mode="json")
        text = json.dumps(content | {DIGEST: _sha256_of(content)}, indent=1)
        write_atomically(self.folder / "run.json", text.encode() + b"\n", resumes=True)


def digest(experiment: str, config: Mapping[str, Any]) -> str:
    """Hash the name of an experiment and its config.

    Args:
        experiment: name of the experiment.
        config: the resolved config as JSON values; the order of keys does not matter.

    Returns:
        Eight hexadecimal digits.

    >>> digest("toy", {"seeds": 1, "steps": 10}) == digest("toy", {"steps": 10, "seeds": 1})
    True
    """
    text = json.dumps([FORMAT, experiment, config], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _sha256_of(content: Mapping[str, Any]) -> str:
    """Hash JSON values; the order of keys and white space do not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_numbers(value: Any, field: str = "") -> None:
    """Raise an error if a whole number of a config is above `LARGEST`; a seed may be."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_numbers(inner, f"{field}.{name}" if field else name)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, field)
    elif isinstance(value, int) and abs(value) > LARGEST and not field.endswith("seed"):
        raise ValueError(f"field {field!r} must be at most {LARGEST:,}")


def _named(part: str) -> str:
    if not PART_NAME.fullmatch(part) or ".." in part:
        raise ValueError(f"part name {part!r}: use letters, digits, '_', '-', '=', '.' and '/'")
    return part


def _table(part: str) -> str:
    return f"tables/{_named(part)}.jsonl"


def _arrays(part: str) -> str:
    return f"arrays/{_named(part)}.safetensors"


def _read_manifest(folder: Path) -> Manifest:
    path = folder / "run.json"
    if not path.is_file():
        what = "has no run.json" if folder.is_dir() else "is not a folder"
        raise RunError(f"{folder}: {what}; give the folder that 'contam run' printed")
    try:
        content = read_json(path)
    except ValueError as error:
        raise RunError(f"{error}; restore it, or delete {folder} and run again") from None
    try:
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise RunError(
                f"{path}: field 'format' is {content['format']!r}, this version reads {FORMAT}; "
                "use the version of contam that made it"
            )
        # Earlier versions wrote no digest of run.json itself.
        written = content.pop(DIGEST, None) if isinstance(content, dict) else None
        manifest = Manifest.model_validate(content)
        if written is not None and written != _sha256_of(content):
            raise RunError(
                f"{path}: does not match its digest (damaged or edited); restore it, or delete "
                f"{folder} and run again"
            )
        return manifest
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(root)"
        raise RunError(
            f"{path}: field {field!r}: {first['msg'].lower()}; it is not a run folder, or it "
            "is damaged: give another folder, or delete it and run again"
        ) from None


def _load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with open_safetensors(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{path}: can't be read ({error}); delete this file and run again: only its part "
            "is computed again"
        ) from None


def _plain(value: Any) -> Any:
    """Convert a value to JSON values; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _dtype(values: Iterable[Any]) -> str:
    """Return the pandas type of a column of JSON values, where None is a missing value."""
    kinds = {type(value) for value in values}
    present = kinds - {type(None)}
    if present == {int}:
        return "int64" if present == kinds else "Int64"
    if present == {bool}:
        return "bool" if present == kinds else "boolean"
    return "float64" if present <= {int, float} else "object"


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
