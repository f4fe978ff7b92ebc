"""The documentation's Python and its `contam` commands run, in the order of each page."""

import re
import shlex
from pathlib import Path

import pytest

from contam.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def expanded(word: str) -> list[str]:
    """The paths that a word with a star stands for: the shell's star leaves out hidden ones."""
    if "*" not in word:
        return [word]
    return sorted(str(path) for path in Path().glob(word) if not path.name.startswith("."))


def named(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """One folder for all pages, so that a run which two of them name is computed once."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)
    for name in [name for name in names if name.startswith("test_")]:
        names[name]()


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh")], ids=named)
def test_commands_of_a_page_run(page, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    for line in "".join(blocks(page, "sh")).splitlines():
        command, *given = shlex.split(line, comments=True)
        if command == "make":
            assert f"\n{given[0]}:" in (ROOT / "Makefile").read_text("utf-8")
        if (command, *given) == ("make", "demo"):
            command, given = "contam", ["run", "fig03_two_layer", "laptop"]
        # The laptop presets take minutes; smoke runs leave folders of the same kind.
        given = ["smoke" if word == "laptop" else word for word in given]
        if command != "contam":
            continue
        given, _, into = " ".join(map(shlex.quote, given)).partition(" '>' ")
        words = [each for word in shlex.split(given) for each in expanded(word)]
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as leaving:  # --help leaves this way
            code = leaving.code
        said = capsys.readouterr()
        assert not code, f"{line}: {said.err}"
        if into:
            Path(into).write_text(said.out, "utf-8")


def test_the_documentation_asks_nothing_of_other_servers():
    for page in PAGES:
        assert not re.search(r"(src|href)\s*=|\]\(https?://|!\[", page.read_text("utf-8")), page
