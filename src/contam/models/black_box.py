"""Classifiers without layers to look into: predict functions and scikit-learn estimators."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NOTE = (
    "The model is a black box, so its layers, its head and an untrained copy are not examined. The "
    "verdict rests on accuracies by set, class and domain, and on altered images."
)
"""What the audit of a black box leaves out."""


class BlackBox(nn.Module):
    """A predict function as a network without layers.

    Args:
        predict: function from a batch of inputs, a float tensor on the CPU, to scores (batch,
            classes) as an array or a tensor: logits or probabilities.
        name: name of the model in messages and records.

    Source: ours, so that an audit reads every classifier through one `LogitsAdapter`.

    >>> BlackBox(lambda x: x.numpy())(torch.ones(1, 2))
    tensor([[1., 1.]])
    """

    def __init__(self, predict: Callable[[Tensor], Any], name: str = "") -> None:
        super().__init__()
        self.predict = predict
        self.name = name or getattr(predict, "__name__", type(predict).__name__)

    def __deepcopy__(self, memo: dict[int, Any]) -> "BlackBox":
        # The function may hold what can't be copied, such as a session or a connection.
        return BlackBox(self.predict, self.name)

    def forward(self, x: Tensor) -> Any:
        """The output for a batch; arrays become tensors."""
        scores: Any = self.predict(x.cpu())
        if hasattr(scores, "to_numpy"):  # a table of pandas
            scores = scores.to_numpy()
        if isinstance(scores, list | tuple) and not any(isinstance(s, Tensor) for s in scores):
            scores = np.asarray(scores)
        if isinstance(scores, np.ndarray) and scores.dtype.kind in "fiub":
            scores = torch.from_numpy(np.ascontiguousarray(scores))
        elif isinstance(scores, np.ndarray):  # names of classes, which the adapter refuses
            scores = torch.zeros(len(scores), dtype=torch.int64)
        if isinstance(scores, Tensor) and not scores.is_floating_point() and scores.ndim > 1:
            return scores.float()  # one-hot rows
        return scores


def black_box(model: Any) -> BlackBox | None:
    """Wrap a predict function or an estimator of scikit-learn.

    Args:
        model: a function from a batch to scores, or an object with `predict_proba`, which gets the
            flattened inputs as an array.

    Returns:
        The model as a network; None if it is neither.

    >>> black_box(lambda x: x).name
    '<lambda>'
    >>> black_box(3) is None
    True
    """
    if isinstance(model, nn.Module | type):
        return None
    estimate = getattr(model, "predict_proba", None)
    if callable(estimate):
        return BlackBox(lambda x: estimate(x.flatten(1).numpy()), type(model).__name__)
    return BlackBox(model) if callable(model) else None


def takes_a_batch(function: Callable[..., Any]) -> bool:
    """Whether a function needs exactly one argument, as a predict function does.

    Args:
        function: any function.

    >>> takes_a_batch(lambda x: x), takes_a_batch(lambda: 0), takes_a_batch(lambda x, y: x)
    (True, False, False)
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    return len(required) == 1 and required[0].kind is not inspect.Parameter.KEYWORD_ONLY
