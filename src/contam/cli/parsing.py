"""Parse command lines and YAML configs with tyro; report every mistake in one line."""

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from contam.text_files import read_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

TYRO = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def parse(
    target: Any,
    arguments: Sequence[str],
    *,
    prog: str,
    default: Any = None,
    constructors: AbstractContextManager[Any] | None = None,
) -> Any:
    """Parse arguments into a call or a record.

    Args:
        target: a command (a function), or the type of a record of flags.
        arguments: the words that follow the command's name.
        prog: the command's name in help texts and messages.
        default: default record, where `target` is a type.
        constructors: a tyro registry for types that tyro does not know.

    Returns:
        The record; for a command, a function without arguments that runs it.

    Raises:
        ValueError: an argument is unknown, missing or out of range; one line.
    """
    more = {} if default is None else {"default": default}
    if not isinstance(target, type):
        target = deferred(target)
    with one_line_errors(), constructors or contextlib.nullcontext():
        return tyro.cli(target, args=list(arguments), prog=prog, config=TYRO, **more)


def deferred(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """Keep a command's signature, but return the call instead of making it.

    >>> deferred(lambda code: code)(3)()
    3
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return wrapped


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the parser's messages and failed validations into a ValueError of one line."""
    from pydantic import ValidationError

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise ValueError(_in_one_line(printed.getvalue())) from None


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """Suggest the known name that is spelled most like `name`; list all if none is close.

    >>> nearest("smok", ["smoke", "paper"]), nearest("x", ["smoke", "paper"])
    ("did you mean 'smoke'?", 'choose from smoke, paper')
    """
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag, given as `--flag value` or `--flag=value`; None without one.

    >>> value_of("--out", ["--out=a"]), value_of("--out", ["--out", "b"]), value_of("--out", [])
    ('a', 'b', None)
    """
    for word, following in zip(arguments, [*arguments, None][1:], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def config_from_yaml(path: Path, base: "BaseModel") -> "BaseModel":
    """Read a config from a YAML file; fields that the file lacks keep the values of `base`.

    Raises:
        ValueError: the file can't be read or has a bad field; names the file, one line.
    """
    from pydantic import ValidationError

    try:
        fields = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"--config {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"--config {path}: needs lines 'field: value'; --print-config shows them")
    try:
        return type(base).model_validate(_merged(base.model_dump(), fields))
    except ValidationError as error:
        raise ValueError(f"--config {path}: {first_error(error)}") from None
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from None


def config_to_yaml(config: "BaseModel", command: str) -> str:
    """The config as YAML that `--config` reads; the command stands above it as a comment."""
    import yaml

    header = f"# {command} --config THIS_FILE\n"
    return header + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def first_error(error: "ValidationError") -> str:
    """The first mistake in a config, as one line."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not field or fault["type"] == "value_error":  # these messages name the field themselves
        return message
    return f"field {field!r}: {message}, not {fault['input']!r}"


def _merged(base: Mapping[str, Any], fields: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """Replace values of nested fields. Distributions of weights are replaced as a whole."""
    merged = dict(base)
    for name, value in fields.items():
        if name not in base:
            raise ValueError(f"no field {f'{inside}{name}'!r}; {nearest(str(name), list(base))}")
        nested = isinstance(base[name], dict) and isinstance(value, dict)
        if nested and not name.endswith("_weights"):
            value = _merged(base[name], value, f"{inside}{name}.")  # noqa: PLW2901
        merged[name] = value
    return merged


def _in_one_line(message: str) -> str:
    """The parser's framed message as one sentence, with the flag that was probably meant."""
    sections: list[list[str]] = [[]]
    for line in message.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text.strip("─-") == "" or line.startswith(("╭", "╰")):
            sections.append([])
        else:
            sections[-1].append(text)
    # Without a frame around it, the title is a section of its own in front.
    fault, *rest = [section for section in sections if section][not message.startswith("╭") :]
    details = "\n".join(line for section in rest for line in section)
    # Flags of other commands do not help; the parser names the command that has them.
    meant = re.search(r"^(--\S+)", details, re.MULTILINE) if "in contam" not in details else None
    hint = f"; did you mean {meant[1]}?" if meant and "Perhaps you meant" in details else ""
    helps = re.search(r"(?:see|run) (contam .*--help)", details)
    missing = re.match(r"Missing from (contam[\w ]*): ", " ".join(fault))
    flags = dict.fromkeys(re.findall(r"(--[a-z][\w-]*) [A-Z{]", " ".join(fault)))
    if missing is not None and flags:  # positional arguments are named by the parser itself
        return f"{missing[1]} needs {' and '.join(flags)} ({missing[1]} --help lists all)"
    sentence = re.sub(r"^Error parsing [\w.\- ]+: (?=\w+=)", "", " ".join(fault))
    return sentence + hint + (f" ({helps[1]} lists all)" if helps else "")
