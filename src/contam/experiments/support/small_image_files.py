"""One error for all missing files of an experiment on small images."""

from collections.abc import Callable, Iterable

from contam.data.missing_files import MissingFilesError

HINT = "Nothing is downloaded: put the files there, or give another folder with --folder"


def check_readable(reads: Iterable[Callable[[], object]]) -> None:
    """Read data sets, so that everything that is missing or malformed is reported at once.

    Args:
        reads: functions that read one data set each.

    Raises:
        ValueError: at least one of them raised a ValueError; the message joins all of them.
    """
    problems: list[ValueError] = []
    for read in reads:
        try:
            read()
        except ValueError as problem:
            problems.append(problem)
    if problems:
        hint = any(isinstance(problem, MissingFilesError) for problem in problems)
        text = "; ".join(dict.fromkeys(map(str, problems)))
        raise ValueError(f"{text}. {HINT}" if hint else text)
