"""How strongly a layer responds to familiar backgrounds, without any shifted image.

These are candidates for a measure of contamination: each is read off a trained network on ID
backgrounds. `contamination_pairs` tests whether they predict what contamination costs.
"""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from contam.measures.activation import activation_asymmetry
from contam.measures.variance import variance_shares


class BackgroundResponse(NamedTuple):
    """Responses of a layer to backgrounds that are exchanged behind the same objects."""

    relative: float
    """Variance over the backgrounds of an object, relative to the variance of the class means."""
    within: float
    """Share of the variance within classes that is due to backgrounds, in [0, 1]."""
    interaction: float
    """Share of the class response that depends on the background: interaction over class and
    interaction, in [0, 1]."""


def background_response(
    values: Float[Tensor, "objects backgrounds neurons"], y: Int[Tensor, " objects"]
) -> BackgroundResponse:
    """Measure how a layer responds when backgrounds are exchanged behind the same objects.

    Variances are summed over the neurons.

    Args:
        values: Activations of each object on each background.
        y: Class of each object; every class has the same number of objects.

    Raises:
        ValueError: If classes differ in size, if there are fewer than two classes or backgrounds,
            or if the class means are equal.

    Source: ours, candidates for a measure of contamination.

    >>> import torch
    >>> values = torch.tensor([[[4.0], [6.0]], [[0.0], [2.0]]])  # the background adds 2
    >>> response = background_response(values, torch.tensor([0, 1]))
    >>> [round(value, 6) for value in response]
    [0.25, 1.0, 0.0]
    """
    shares = variance_shares(values, y)
    if shares.of_class == 0:
        raise ValueError("the class means are equal, so nothing can be relative to their variance")
    values = values.double()
    total = (values - values.mean(dim=(0, 1))).square().mean(dim=(0, 1)).sum()
    behind = float(values.var(dim=1, correction=0).mean(dim=0).sum() / total)
    return BackgroundResponse(
        relative=behind / shares.of_class,
        # Without variance within classes, backgrounds have no part in it.
        within=behind / (1 - shares.of_class) if shares.of_class < 1 else 0.0,
        interaction=shares.of_interaction / (shares.of_class + shares.of_interaction),
    )


def gate_drive(
    rates: Float[Tensor, "classes neurons"],
    values: Float[Tensor, "*examples neurons"],
    alone: Float[Tensor, "backgrounds neurons"],
) -> float:
    """How strongly backgrounds alone drive the neurons whose gates are open for some classes only.

    In the theory, a background is learned because gates are asymmetric, and its mean response then
    opens and closes them. This is the mean activation on backgrounds without an object, weighted by
    the asymmetry of the activation rates, relative to the neurons' root mean square activation.

    Args:
        rates: Activation rate of each neuron for each class.
        values: Activations on images.
        alone: Activations on backgrounds without an object.

    Returns:
        A number that is 0 if no neuron is asymmetric or if backgrounds alone do not drive any.

    Raises:
        ValueError: If a rate is not in [0, 1], or no neuron is active on the images.

    Source: ours; Eq. 7, the two factors of the gradient on a background feature.

    >>> import torch
    >>> rates, values = torch.tensor([[1.0, 0.5], [0.0, 0.5]]), torch.tensor([[2.0, 1.0]])
    >>> gate_drive(rates, values, alone=torch.tensor([[3.0, 3.0]]))
    0.5
    """
    asymmetry = activation_asymmetry(rates.double())
    strength = values.double().flatten(0, -2).square().mean(dim=0).sqrt()
    if not strength.any():
        raise ValueError("no neuron is active on the images, so nothing can be relative to them")
    return float((asymmetry * alone.double().mean(dim=0).abs()).sum() / strength.sum())
