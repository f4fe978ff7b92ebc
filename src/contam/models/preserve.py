"""Two context managers that leave a model exactly as it was, also after an exception."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from contam.rng import preserve_rng


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores modes and the random state on exit.

    Compiled networks run as they were written, and attention without torch's fast path for
    inference. Neither calls the hooks of all modules, and both round differently.

    Source: ours, one protection for every forward pass that measures.

    >>> model = nn.Dropout()
    >>> with evaluating(model):
    ...     print(model.training, torch.is_grad_enabled())
    False False
    >>> model.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # Whoever compiled a network has imported the compiler, which takes seconds.
    compiler = "torch._dynamo" in sys.modules
    eager = torch.compiler.set_stance("force_eager") if compiler else nullcontext()
    with preserve_rng(), torch.no_grad(), eager:
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for module, mode in modes:
                module.training = mode


@contextmanager
def preserve_model(*models: nn.Module) -> Iterator[None]:
    """Restore train/eval modes, `.grad`, `requires_grad`, buffers and the random state on exit.

    `torch.inference_mode` is off inside, since probes and heat maps need gradients.

    Source: ours, one protection for everything that works on a user's network.

    >>> model = nn.Linear(1, 1)
    >>> with preserve_model(model):
    ...     _ = model.eval().requires_grad_(False)
    >>> model.training, model.weight.requires_grad
    (True, True)
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    parameters = [
        (parameter, parameter.requires_grad, parameter.grad)
        for model in models
        for parameter in model.parameters()
    ]
    buffers = [(buffer, buffer.clone()) for model in models for buffer in model.buffers()]
    inference = torch.is_inference_mode_enabled()
    with preserve_rng(), torch.inference_mode(False) if inference else nullcontext():
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, requires_grad, gradient in parameters:
                # Setting the flag of a tensor inside a graph raises, so only what changed is set.
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
