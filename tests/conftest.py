"""What every test has: checked shapes, and no deadline on a machine that others use too."""

from hypothesis import settings
from jaxtyping import install_import_hook
from support import shape_checks

install_import_hook("contam", f"{shape_checks.__name__}.{shape_checks.tensors_alone.__name__}")

settings.register_profile("shared machine", deadline=None, print_blob=True)
settings.load_profile("shared machine")
