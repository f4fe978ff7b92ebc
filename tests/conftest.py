"""What every test has: checked shapes, and no deadline on a machine that others use too."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("contam", "shape_checks.tensors_alone")

settings.register_profile("shared machine", deadline=None, print_blob=True)
settings.load_profile("shared machine")
