"""What every test has: checked shapes, no deadline on a shared machine, and one browser.

Playwright can run once in a process, so its fixture is registered here alone.
"""

from hypothesis import settings
from jaxtyping import install_import_hook
from support import shape_checks
from support.browser import browser

__all__ = ["browser"]

install_import_hook("contam", f"{shape_checks.__name__}.{shape_checks.tensors_alone.__name__}")

settings.register_profile("shared machine", deadline=None, print_blob=True)
settings.load_profile("shared machine")
