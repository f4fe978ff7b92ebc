"""The documentation: its Python and its commands run, and its pages load only local files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.experiment_runs import SharedRuns

from contam.auditing.causes import NAMES
from contam.auditing.records import HEALTHY, UNDECIDED, UNEXPLAINED
from contam.cli import main
from contam.experiments import find

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def expanded(word: str) -> list[str]:
    """Return the paths that match a word with a star, without hidden ones, as a shell does."""
    if "*" not in word:
        return [word]
    return sorted(str(path) for path in Path().glob(word) if not path.name.startswith("."))


def page_id(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


def finish_run(name: str, runs: SharedRuns) -> None:
    """Copy the smoke run that all tests share, which the command then finds finished."""
    made = runs.smoke(find(name)).folder
    shutil.copytree(made, Path("runs") / made.name, dirs_exist_ok=True)


class Reader(NamedTuple):
    """Somebody who tries all pages in one folder, each command once."""

    folder: Path
    ran: set[str]


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"), set())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's, of its ONNX exporter
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=page_id)
def test_python_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)
    for name in [name for name in names if name.startswith("test_")]:
        names[name]()


def workflow_commands(page: Path) -> list[str]:
    """Return the commands of the GitHub Actions on a page, one line each."""
    workflows = [yaml.safe_load(block) for block in blocks(page, "yaml")]
    jobs = [job for workflow in workflows for job in workflow.get("jobs", {}).values()]
    return [
        line for job in jobs for step in job["steps"] for line in step.get("run", "").split("\n")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh")], ids=page_id)
def test_commands_of_a_page_run(page, reader, shared_runs, monkeypatch, capsys):
    monkeypatch.chdir(reader.folder)
    for line in [*"".join(blocks(page, "sh")).splitlines(), *workflow_commands(page)]:
        if line in reader.ran:
            continue
        reader.ran.add(line)
        command, *given = shlex.split(line, comments=True) or [""]
        if command == "make":
            assert f"\n{given[0]}:" in (ROOT / "Makefile").read_text("utf-8")
        if (command, *given) == ("make", "demo"):
            command, given = "contam", ["run", "fig03_two_layer", "laptop"]
        # These presets take minutes or an hour; smoke runs write the same kind of folder.
        given = ["smoke" if word in ("laptop", "hour") else word for word in given]
        if command != "contam":
            continue
        given, _, into = " ".join(map(shlex.quote, given)).partition(" '>' ")
        words = [argument for word in shlex.split(given) for argument in expanded(word)]
        if words[:1] == ["run"] and words[2:] in ([], ["smoke"]):
            words = [*words[:2], "smoke"]
            finish_run(words[1], shared_runs)
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as leaving:  # raised by --help
            code = leaving.code
        output = capsys.readouterr()
        assert not code, f"{line}: {output.err}"
        if into:
            Path(into).write_text(output.out, "utf-8")


def test_the_guide_explains_every_verdict():
    page = (ROOT / "docs" / "how-to" / "audit.md").read_text("utf-8")
    section = page.split("## What the verdicts mean")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", section, re.M)[1:]
    names = [name for row in rows for name in row.split(", ")]
    assert sorted(names) == sorted({*NAMES, HEALTHY, UNEXPLAINED, UNDECIDED})


def test_pages_load_only_local_files():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not re.search(r"(src|href)\s*=|\]\(https?://", text), page
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
            assert (page.parent / picture).is_file(), f"{page}: {picture}"
        assert text.count("![") == len(re.findall(r"!\[[^\]]+\]\(", text)), f"{page}: no alt text"


@pytest.mark.slow
@pytest.mark.browser
def test_the_built_pages_can_be_searched_from_disk(browser, tmp_path):
    """CI gives the pages that it has built before."""
    pytest.importorskip("mkdocs")
    built = os.environ.get("CONTAM_SITE")
    site = Path(built) if built else tmp_path
    if not built:
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(site)]
        subprocess.run(build, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    tab = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True).new_page()
    requested: list[str] = []
    tab.on("request", lambda request: requested.append(request.url))
    tab.goto((site / "index.html").as_uri())
    tab.click(".md-search__input")
    tab.keyboard.type("prediction depth", delay=20)
    first = tab.locator(".md-search-result__item").first
    first.wait_for()
    assert "prediction depth" in first.inner_text().lower()
    assert [url for url in requested if not url.startswith("file:")] == []
    tab.context.close()
