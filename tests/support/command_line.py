"""The command line, run in the test's own process or in a new one."""

import subprocess
import sys

from contam import cli


def run_contam(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_python(code: str) -> str:
    """What a new interpreter prints; asserts that it succeeds."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
