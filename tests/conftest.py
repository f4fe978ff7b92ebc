"""What every test has: checked shapes, no deadline on a shared machine, one browser, and runs.

Playwright can run once in a process, so its fixture is registered here alone.
"""

import gc
import os
import signal
import sys
from typing import Any

import pytest
from hypothesis import settings
from support.browser import browser
from support.shape_checks import ShapeChecks

__all__ = ["browser"]

SHAPE_CHECKS = ShapeChecks("contam")
sys.meta_path.insert(0, SHAPE_CHECKS)

# A suite that is started in the background may ignore the signals that its tests send.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile("shared machine", deadline=None, print_blob=True)
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Check no shapes in the slow tests alone; a conftest may have imported a part before."""
    if config.option.markexpr == "slow":
        sys.meta_path.remove(SHAPE_CHECKS)


def pytest_collection_finish() -> None:
    """Leave thousands of tests and the libraries out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs of experiments that all test processes share."""
    from support.experiment_runs import SharedRuns

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root = base / "shared runs"
    root.mkdir(exist_ok=True)
    return SharedRuns(root)
