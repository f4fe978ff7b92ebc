"""The untrained control: the same network with weights drawn anew."""

import copy

import torch
from torch import nn

from contam.models.logits_adapter import LogitsAdapter
from contam.rng import seeded


def untrained(model: LogitsAdapter, seed: int) -> tuple[nn.Module | None, str]:
    """A copy of a network with weights drawn anew, and a note on what could not be drawn.

    Weights are drawn by the `reset_parameters` of their modules; the weights of other modules stay
    as they are, and the note names them.

    Args:
        model: the network; unchanged.
        seed: random seed of the weights.

    Returns:
        The copy, or None where nothing can be drawn or the network can't be copied; and the note,
        which may be empty.

    Source: ours, the control of every number about learning.
    """
    try:
        # On the CPU, where a seed determines the weights on every machine.
        control = copy.deepcopy(model).cpu()
    except Exception as error:  # a user's network may refuse to be copied in its own way
        message = " ".join(str(error).split())[:120]
        return None, f"No control by an untrained network: this one can't be copied ({message})."
    drawn: set[int] = set()
    with seeded(seed, "audit/untrained"):
        for module in control.network.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(reset):
                reset()
                drawn |= {id(value) for value in module.parameters(recurse=False)}
    kept = [name for name, value in control.named_parameters() if id(value) not in drawn]
    if not drawn:
        return None, (
            "No control by an untrained network: none of its modules has reset_parameters; give "
            "one as untrained=."
        )
    some = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
    note = f"The untrained network keeps {some}, which nothing draws anew." if kept else ""
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    return control.requires_grad_(False).to(device), note
