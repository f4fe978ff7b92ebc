"""Checks of an audit's arguments before any work, with one line for each wrong one."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.measures.robustness import Line
from contam.models.preserve import evaluating

LARGEST_SEED = 2**32 - 1
"""Largest seed that scikit-learn takes."""


def check_arguments(**arguments: Any) -> None:
    """Check those arguments of `audit` whose kind is wrong whatever the network and data are.

    Args:
        arguments: some arguments of `audit` by name.

    Source: ours, mistakes are reported before minutes of work.

    Raises:
        ValueError: an argument is of a wrong kind; the message says what is expected.

    >>> check_arguments(layers="auto", seed=0)
    >>> check_arguments(seed=1.5)
    Traceback (most recent call last):
        ...
    ValueError: seed is a whole number from 0 to 4294967295; got 1.5
    """
    for name, value in arguments.items():
        accepts, expected = _EXPECTED[name]
        if not accepts(value):
            raise ValueError(f"{name} is {expected}; got {_shown(value)}")


def check_reference(encoder: nn.Module, x: Float[Tensor, "some ..."]) -> None:
    """Run the reference encoder on some inputs of the audit.

    Args:
        encoder: the encoder.
        x: inputs.

    Source: ours, mistakes are reported before minutes of work.

    Raises:
        ValueError: it does not run, or does not return features of each input.

    >>> check_reference(nn.Linear(3, 3), torch.ones(2, 8))
    Traceback (most recent call last):
        ...
    ValueError: the reference encoder does not run on inputs of shape (8,): RuntimeError, mat1 \
and mat2 shapes cannot be multiplied (2x8 and 3x3); give one of the same inputs, or reference=None
    """
    fix = "give one of the same inputs, or reference=None"
    shape = tuple(x.shape[1:])
    try:
        with evaluating(encoder):
            features = encoder(x)
    except torch.OutOfMemoryError:
        return  # Reported by the passes, which try smaller batches.
    except Exception as error:  # The encoder is the user's own code.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the reference encoder does not run on inputs of shape {shape}: "
            f"{type(error).__name__}, {reason}; {fix}"
        ) from None
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(x):
        returned = (
            f"a tensor of shape {tuple(features.shape)}"
            if isinstance(features, Tensor)
            else f"a {type(features).__name__}"
        )
        raise ValueError(
            f"the reference encoder returns {returned} for {len(x)} inputs; expected one row of "
            f"features for each; {fix}"
        )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
    )


def _are_classes(value: Any) -> bool:
    return value is None or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0
    )


def _is_reference(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str | Path)
    return value is None or isinstance(value, nn.Module) or (isinstance(value, str) and value != "")


def _is_baseline(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(line, Line) for line in value.values())
    return value is None or isinstance(value, str | Path)


def _is_seed(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_flag(value) and 0 <= int(value) <= LARGEST_SEED


_EXPECTED = {
    "name": (lambda v: v is None or (isinstance(v, str) and v.strip() != ""), "a text or None"),
    "layers": (
        lambda v: isinstance(v, str) or _are_names(v),
        "'auto' or a list of at least one name of a layer",
    ),
    "classes": (
        _are_classes,
        "a list with a name for each logit, in the order of the logits",
    ),
    "reference": (
        _is_reference,
        "'auto', the name of an encoder, (name, weights file), a module or None",
    ),
    "baseline": (
        _is_baseline,
        "a CSV file of standard models, or a dict of contam.measures.robustness.Line by OOD set",
    ),
    "untrained": (lambda v: _is_flag(v) or isinstance(v, nn.Module), "True, False or a module"),
    "altered": (_is_flag, "True or False"),
    "remedies": (_is_flag, "True or False"),
    "base": (
        lambda v: v is None or isinstance(v, nn.Module | str | Path),
        "the network before fine-tuning, or a file of its weights",
    ),
    "progress": (
        lambda v: _is_flag(v) or callable(v),
        "True, False or a function of a Stage",
    ),
    "transform": (
        lambda v: v is None or callable(v),
        "a function from an image to the network's input",
    ),
    "seed": (_is_seed, f"a whole number from 0 to {LARGEST_SEED}"),
}
"""Whether each argument is accepted, and what is expected otherwise."""


def _shown(value: Any) -> str:
    """A value in a few characters, or its kind where that says more."""
    if isinstance(value, nn.Module):
        return f"a module {type(value).__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__}: {text[:57]}..."
