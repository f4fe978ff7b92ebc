"""ARM: the network reads a context of its batch, which a context network computes."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective, pooled

KERNEL = 5
"""Width of the filters of the context network."""


class ARMSettings(AlgorithmSettings, frozen=True):
    """Settings of ARM."""

    batch_size: PositiveInt = 8
    """Examples from every domain in a step; also those that share a context in evaluation."""
    context_width: PositiveInt = 64
    """Channels of the context network's two hidden layers."""


@final
class ARM(Objective):
    """Adaptive risk minimization with contextual meta-learning.

    A context network turns each image into a channel, which is averaged over the batch of its
    domain and appended to the input of the network's first convolution. That convolution is
    replaced, in place, by a `ContextConvolution`, so that the network still takes images. The new
    filters are 0 at first; so the network starts with the same outputs, and learns to use the
    context.

    The logits of an example depend on its batch. In evaluation mode, every `batch_size` consecutive
    examples share a context, so they should be in random order and of one domain.

    Source: App. E.4; Zhang et al. (2021), ARM-CML.

    Raises:
        ValueError: the network has no two-dimensional convolution, or its first one has groups.
    """

    name = "ARM"
    Settings = ARMSettings
    settings: ARMSettings

    def build(self) -> None:
        """Replace the first convolution; the context network becomes a part of the network."""
        read_context(
            self.network, width=self.settings.context_width, support=self.settings.batch_size
        )

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk with the context of each domain."""
        x, y, _ = pooled(batches)
        layer = next(m for m in self.network.modules() if isinstance(m, ContextConvolution))
        with layer.sharing([len(batch.y) for batch in batches]):
            features = self.features(x)
        return {"risk": F.cross_entropy(self.logits(features), y)}


class ContextConvolution(nn.Module):
    """A convolution that also reads a channel with the context of each example's group.

    Args:
        convolution: the convolution to extend; it is copied.
        width: channels of the hidden layers of the context network.
        support: consecutive examples that share a context.

    Source: ours; Zhang et al. (2021).

    >>> layer = ContextConvolution(nn.Conv2d(3, 4, 3), width=8, support=2)
    >>> layer(torch.zeros(5, 3, 6, 6)).shape
    torch.Size([5, 4, 4, 4])
    """

    def __init__(self, convolution: nn.Conv2d, *, width: int, support: int) -> None:
        super().__init__()
        inputs = convolution.in_channels
        self.context = nn.Sequential(
            nn.Conv2d(inputs, width, KERNEL, padding=KERNEL // 2),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, KERNEL, padding=KERNEL // 2),
        )
        self.convolution = copy.deepcopy(convolution)
        self.convolution.in_channels = inputs + 1
        weight = convolution.weight.detach()
        extended = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)
        self.convolution.weight = nn.Parameter(extended)
        self.support = support
        self._sizes: list[int] | None = None

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        groups = self.context(x).split(self._sizes or self.support)
        contexts = [group.mean(0, keepdim=True).expand_as(group) for group in groups]
        return self.convolution(torch.cat([x, torch.cat(contexts)], dim=1))

    @contextmanager
    def sharing(self, sizes: Sequence[int]) -> Iterator[None]:
        """Share contexts within groups of these sizes instead of `support` examples.

        Args:
            sizes: numbers of consecutive examples.
        """
        self._sizes = list(sizes)
        try:
            yield
        finally:
            self._sizes = None


def read_context(network: Classifier, *, width: int, support: int) -> ContextConvolution:
    """Replace the first convolution of a network, in place, by one that reads a context.

    Args:
        network: the network.
        width: channels of the hidden layers of the context network.
        support: consecutive examples that share a context.

    Returns:
        The new convolution.

    Raises:
        ValueError: the network has no two-dimensional convolution, or its first one has groups.

    Source: ours, any network can read the context, not only the published one.

    >>> from contam.models.small import small_cnn
    >>> network = small_cnn(width=4)
    >>> read_context(network, width=8, support=2) is network.encoder.conv1
    True
    """
    name, first = next(
        ((name, m) for name, m in network.encoder.named_modules() if isinstance(m, nn.Conv2d)),
        ("", None),
    )
    if first is None or not name or first.groups > 1:
        raise ValueError(
            "ARM appends a channel to the input of the first convolution, but the encoder "
            f"{type(network.encoder).__name__} has no two-dimensional convolution without groups "
            "to start with; choose a convolutional network, or another algorithm"
        )
    layer = ContextConvolution(first, width=width, support=support)
    parent, _, attribute = name.rpartition(".")
    setattr(network.encoder.get_submodule(parent), attribute, layer)
    return layer
