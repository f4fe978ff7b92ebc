"""The base classes of the callbacks of Lightning and Hugging Face, which are never required."""

from contextlib import suppress
from importlib import import_module

from contam.models.torchvision_import import import_torchvision


def base_of(name: str, *modules: str) -> type:
    """The class of that name in the first of the modules that is installed.

    Source: ours, so that importing an adapter needs none of them.

    Raises:
        ValueError: none of them is.
    """
    with suppress(ImportError):
        # Both import torchvision where there is one.
        import_torchvision()
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            continue
    raise ValueError(f"{modules[0].partition('.')[0]} is not installed; this adapter is for it")
