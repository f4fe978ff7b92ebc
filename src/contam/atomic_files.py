"""Writes files so that a process which is killed leaves the old content or the new one."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

UNFINISHED = ".writing-"
"""Prefix of the names of temporary files, which are renamed when they are complete."""


class WriteError(ValueError):
    """A file can't be written; the message suggests a fix."""


def write_atomically(path: Path, content: bytes, *, resumes: bool = False) -> None:
    """Write a file so that other processes see either the old content or the new one.

    Args:
        path: the file; missing parent folders are created.
        content: the new content.
        resumes: whether the same command resumes where it fails, which the message then says.

    Raises:
        WriteError: the file can't be written; the message suggests a fix.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes" / "a.txt"
    >>> write_atomically(path, b"abc")
    >>> path.read_bytes()
    b'abc'
    """
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    with explain_errors(path, resumes=resumes):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Create the folder of a file before the work whose result it is to hold.

    A file that can't be written is reported before the work. Folders that are empty when the work
    fails are removed again.

    Args:
        path: the file.

    Raises:
        WriteError: the file can't be written; the message suggests a fix.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "new" / "page.html"
    >>> with reserved(page):
    ...     page.parent.is_dir()
    True
    """
    new = [folder for folder in path.parents if not folder.exists()]
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}")
    with explain_errors(path):
        if path.is_dir():
            raise OSError("it is a folder")
        if path.parent.exists() and not path.parent.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    try:
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def explain_errors(path: Path, *, resumes: bool = False) -> Iterator[None]:
    """Re-raise `OSError` as a `WriteError` with a suggested fix.

    Args:
        path: the file or folder that the block writes.
        resumes: whether the same command resumes where it fails, which the message then says.

    Raises:
        WriteError: the block raises `OSError`; waiting too long for a lock is left as it is.

    >>> with explain_errors(Path("page.html")):
    ...     raise OSError("it is a folder")
    Traceback (most recent call last):
        ...
    contam.atomic_files.WriteError: page.html: can't be written (it is a folder); choose ...
    """
    again = "run the same command again" + ": finished parts are kept" * resumes
    try:
        yield
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        fix = {
            errno.ENOSPC: f"free some space and {again}",
            errno.EDQUOT: f"free some space and {again}",
            errno.EACCES: "choose another --out, or change its permissions",
            errno.EROFS: "choose another --out",
        }.get(error.errno or 0, f"choose another name, or fix this and {again}")
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); {fix}") from None
