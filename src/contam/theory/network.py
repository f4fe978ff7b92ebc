"""Two-layer networks as formulas, and multi-layer networks as modules.

Letters, as in the paper: m neurons, d0 features, N examples; f (N, d0) examples in feature
coordinates; W (m, d0) hidden weights in the same coordinates, W[k, j] = <w_k, m_j>; a (m,) output
weights; h (N,) outputs; y (N,) labels -1 and +1. With an orthonormal dictionary the formulas hold
for inputs and weights in the ambient space too.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "identity": lambda value: value,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def output(
    W: Float[Tensor, "m d0"],
    a: Float[Tensor, " m"],
    f: Float[Tensor, "n d0"],
    activation: str = "relu",
) -> Float[Tensor, " n"]:
    """Output of the two-layer network, h(x) = sum_k a_k act(<w_k, x>).

    Args:
        W: hidden weights.
        a: output weights.
        f: examples.
        activation: a name in `ACTIVATIONS`.

    Returns:
        One output for each example.

    Source: Eq. 2.

    >>> output(torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5, 0.5]), torch.tensor([[4.0]]))
    tensor([2.])
    """
    return ACTIVATIONS[activation](f @ W.T) @ a


def empirical_loss(
    W: Float[Tensor, "m d0"],
    a: Float[Tensor, " m"],
    f: Float[Tensor, "n d0"],
    y: Int[Tensor, " n"],
    *,
    activation: str = "relu",
    weight_decay: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean hinge loss of a batch, plus the L2 term lambda / 2 ||W||^2.

    Args:
        W: hidden weights.
        a: output weights.
        f: examples.
        y: labels, -1 and +1.
        activation: a name in `ACTIVATIONS`.
        weight_decay: lambda.

    Returns:
        The loss, a scalar.

    Source: Eq. 3.

    >>> W, a = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5, -0.5])
    >>> empirical_loss(W, a, torch.tensor([[1.0], [-4.0]]), torch.tensor([1, -1]))
    tensor(0.2500)
    """
    hinge = F.relu(1 - y * output(W, a, f, activation)).mean()
    return hinge + weight_decay / 2 * W.square().sum()


def hidden_gradient(
    W: Float[Tensor, "m d0"],
    a: Float[Tensor, " m"],
    f: Float[Tensor, "n d0"],
    y: Int[Tensor, " n"],
    activation: str = "relu",
) -> Float[Tensor, "m d0"]:
    """Gradient of the mean hinge loss with respect to the hidden weights, in closed form.

    For one example it is -a_k y 1{y h(x) <= 1} 1{<w_k, x> >= 0} x; in a linear network the last
    indicator is absent.

    Args:
        W: hidden weights.
        a: output weights.
        f: examples.
        y: labels, -1 and +1.
        activation: "relu" or "identity".

    Returns:
        The gradient, in the shape of W.

    Raises:
        ValueError: the activation is neither "relu" nor "identity".

    Source: Lemma A.1, Eq. 12, Lemma C.1, Eq. 49.

    >>> W, a = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5, -0.5])
    >>> hidden_gradient(W, a, torch.tensor([[1.0], [-4.0]]), torch.tensor([1, -1])).tolist()
    [[-0.25], [0.0]]
    """
    if activation not in ("relu", "identity"):
        raise ValueError(
            f"the closed form holds for activation 'relu' and 'identity', not {activation!r}"
        )
    z = f @ W.T
    inside = (y * (ACTIVATIONS[activation](z) @ a) <= 1).to(f.dtype)
    gate = (z >= 0).to(f.dtype) if activation == "relu" else torch.ones_like(z)
    return -a[:, None] * (gate.T @ (f * (y * inside)[:, None])) / len(f)


def sgd_step(
    W: Float[Tensor, "m d0"],
    gradient: Float[Tensor, "m d0"],
    *,
    step_size: float,
    weight_decay: float,
) -> Float[Tensor, "m d0"]:
    """Take one step of SGD with weight decay.

    Args:
        W: hidden weights.
        gradient: gradient of the loss without the L2 term.
        step_size: the learning rate, eta in the paper.
        weight_decay: coefficient of the L2 term, lambda in the paper.

    Returns:
        The hidden weights after the step.

    Source: Eq. 4.

    >>> W, gradient = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    >>> sgd_step(W, gradient, step_size=0.5, weight_decay=0.0)
    tensor([[0.]])
    """
    return (1 - step_size * weight_decay) * W - step_size * gradient


class MLP(nn.Module):
    """A network of any depth that takes examples in feature coordinates.

    With a dictionary, the network computes the input x = M f first and its first layer has weights
    in R^d; without one, the first layer's weights are the projections on the features.

    Args:
        hidden: hidden layers, first layer first.
        head: output layer.
        activation: a name in `ACTIVATIONS`, or "leaky_relu".
        slope: slope of leaky_relu for negative inputs.
        dictionary: the matrix M.
        before: module that is applied to examples first.
        normalization: module that is applied to the first layer's pre-activations.

    Source: ours, networks of any depth; with one hidden layer it is `output`.

    >>> network = MLP(
    ...     [linear(torch.tensor([[1.0], [-1.0]]))],
    ...     linear(torch.tensor([[0.5, 0.5]])),
    ...     activation="relu",
    ...     slope=0.0,
    ... )
    >>> network(torch.tensor([[4.0]])).tolist()
    [2.0]
    """

    def __init__(
        self,
        hidden: list[nn.Linear],
        head: nn.Linear,
        *,
        activation: str,
        slope: float,
        dictionary: Float[Tensor, "d d0"] | None = None,
        before: nn.Module | None = None,
        normalization: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(hidden)
        self.head = head
        self.activation = activation
        self.slope = slope
        self.before, self.normalization = before, normalization
        self.dictionary: Tensor | None
        self.register_buffer("dictionary", dictionary, persistent=False)

    def forward(self, f: Float[Tensor, "n d0"]) -> Float[Tensor, "n *outputs"]:
        """Compute outputs.

        Args:
            f: examples in feature coordinates.

        Returns:
            Outputs (n,), or (n, outputs) with several.
        """
        *_, last = self.preactivations(f)
        h = self.head(self.activate(last))
        return h[:, 0] if h.shape[1] == 1 else h

    def preactivations(self, f: Float[Tensor, "n d0"]) -> list[Float[Tensor, "n m"]]:
        """Compute the pre-activations of each hidden layer.

        Args:
            f: examples in feature coordinates.

        Returns:
            One tensor for each hidden layer, the first layer first.
        """
        value = f if self.before is None else self.before(f)
        value = value if self.dictionary is None else value @ self.dictionary.T
        preactivations = []
        for layer in self.hidden:
            z = layer(value)
            first = not preactivations
            preactivations.append(
                self.normalization(z) if first and self.normalization is not None else z
            )
            value = self.activate(preactivations[-1])
        return preactivations

    def activate(self, value: Tensor) -> Tensor:
        """Apply the activation function.

        Args:
            value: pre-activations of any shape.

        Returns:
            Activations of the same shape.
        """
        if self.activation == "leaky_relu":
            return F.leaky_relu(value, self.slope)
        return ACTIVATIONS[self.activation](value)

    def copy(self) -> "MLP":
        """Copy the network, far cheaper than by a deep copy, for evaluation.

        Returns:
            A network with its own weights; batch norm uses its running statistics.
        """
        layers = []
        for layer in self.layers:
            bias = None if layer.bias is None else layer.bias.detach().clone()
            layers.append(linear(layer.weight.detach().clone(), bias))
            layers[-1].weight.requires_grad_(layer.weight.requires_grad)
        return MLP(
            layers[:-1],
            layers[-1],
            activation=self.activation,
            slope=self.slope,
            dictionary=self.dictionary,
            before=deepcopy(self.before),
            normalization=deepcopy(self.normalization),
        ).eval()

    @property
    def layers(self) -> list[nn.Linear]:
        """All linear layers, the head last."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Linear)]

    @property
    def first(self) -> nn.Linear:
        """The first hidden layer."""
        return self.layers[0]

    @property
    def projections(self) -> Float[Tensor, "m d0"]:
        """<w_k, m_j> of the first layer's neurons with every feature."""
        W = self.first.weight.detach()
        return W if self.dictionary is None else W @ self.dictionary


def linear(weight: Float[Tensor, "outputs inputs"], bias: Tensor | None = None) -> nn.Linear:
    """Make a layer with given weights, without drawing random numbers.

    Args:
        weight: the weights, which the layer shares.
        bias: one bias for each output; None for a layer without biases.

    Returns:
        The layer.

    Source: ours, because `simulate` draws all initial weights itself.

    >>> linear(torch.tensor([[2.0, 1.0]]))(torch.tensor([[1.0, 1.0]])).tolist()
    [[3.0]]
    """
    # On the meta device the layer does not draw weights from the global random state.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
