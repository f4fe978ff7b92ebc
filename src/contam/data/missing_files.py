"""The error that names all missing files of a data set at once."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path


class MissingFilesError(ValueError):
    """Files of a data set are missing.

    Args:
        kind: name of the data set.
        folder: its folder.
        missing: the missing files and folders.
        ending: an ending that the files may have, too, such as `.gz`.

    >>> print(MissingFilesError("svhn", Path("data"), ["train_32x32.mat", "test_32x32.mat"]))
    data is not a complete svhn: missing train_32x32.mat, test_32x32.mat
    """

    def __init__(
        self, kind: str, folder: Path, missing: Sequence[str], *, ending: str = ""
    ) -> None:
        also = f" (plain or with {ending})" if ending else ""
        self.missing = f"{', '.join(missing)}{also}"
        super().__init__(f"{folder} is not a complete {kind}: missing {self.missing}")


def check_files(
    kind: str, folder: Path, part: str, files: Mapping[str, Sequence[str]], *, ending: str = ""
) -> None:
    """Check that a folder has the files of a part of a data set.

    Args:
        kind: name of the data set.
        folder: its folder.
        part: the part that is needed; the others may be absent.
        files: names of the files of each part.
        ending: an ending that a file may have, too, such as `.gz`.

    Raises:
        MissingFilesError: a file of the part is missing; the message names the missing files of
            all parts.

    Source: ours, one message that names every missing file.

    >>> _ = Path("a.gz").write_bytes(b"")
    >>> check_files("toy", Path("."), "train", {"train": ["a"], "test": ["b"]}, ending=".gz")
    """
    missing = {
        split: [
            name
            for name in names
            if not any((folder / f"{name}{end}").is_file() for end in {"", ending})
        ]
        for split, names in files.items()
    }
    if missing[part]:
        raise MissingFilesError(kind, folder, [*chain(*missing.values())], ending=ending)
