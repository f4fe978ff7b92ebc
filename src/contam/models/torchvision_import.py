"""A workaround for torchvision wheels that were built for another build of torch.

Then torchvision's C++ operators do not load, and its import fails while it registers their fake
versions; so do the imports of timm and open_clip. No network here uses those operators, so
declaring that they exist is enough.
"""

import importlib
import sys

import torch

_NOT_LOADED = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []
"""Libraries of torch, which are unregistered when no reference is left."""


def import_torchvision() -> None:
    """Import torchvision, also where its operators do not load; needed once in each process.

    Without its operators, torchvision can neither suppress overlapping boxes nor decode images.

    Source: ours, since a CPU build of torch is often installed beside another build's torchvision.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: its import fails for another reason.

    >>> import_torchvision()
    >>> hasattr(sys.modules["torchvision"], "models")
    True
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _NOT_LOADED not in str(error):
            raise
    else:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    importlib.import_module("torchvision")
