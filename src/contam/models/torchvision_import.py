"""The one mend of torchvision, whose wheel may not fit the torch beside it.

Its C++ operators are built for one build of torch. Beside another, CPU-only build they do not load,
and its import fails while it describes them; so do timm's and open_clip's. None of the networks
here uses those operators, so declaring that they exist is enough.
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
"""What torch forgets as soon as nobody holds it."""


def import_torchvision() -> None:
    """Import torchvision, mended where its operators do not load; needed once in each process.

    A mended torchvision can neither suppress overlapping boxes nor decode images.

    Source: ours.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: its import fails for another reason.
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
