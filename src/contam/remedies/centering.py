"""Centering of feature maps at test time, with a fresh head."""

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from contam.batch import Batch
from contam.models.logits_adapter import LogitsAdapter
from contam.models.normalization import with_centering
from contam.models.preserve import evaluating
from contam.remedies.repair import Conversion


@final
@dataclass(frozen=True)
class CenteredMaps(Conversion):
    """A network whose feature maps are centered in each image, with a fresh head.

    The other layers keep the weights of a training without centering, so a network that is trained
    with centered maps usually does better.

    Source: ours, the remedy of the embedded benchmark at test time.
    """

    name = "centered maps"
    needs = frozenset({"linear head", "ID labels", "batch norm"})

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        sizes: list[int] = []

        def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sizes.append(inputs[0][0, 0].numel())

        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return "the network has no batch norm of maps"
        hooks = [norm.register_forward_pre_hook(note) for norm in norms]
        try:
            with evaluating(network):
                device = next(network.parameters()).device
                network(id.x[:2].to(device))
        finally:
            for hook in hooks:
                hook.remove()
        return "" if sizes and min(sizes) > 1 else "some maps have a single position"

    def convert(self, network: LogitsAdapter) -> LogitsAdapter:
        return _around(network, with_centering(network.network))


def _around(adapter: LogitsAdapter, network: nn.Module) -> LogitsAdapter:
    """An adapter with the same settings around another network."""
    labels = adapter.labels
    new = LogitsAdapter(network, adapter.pixel_range, allow_nan=adapter.allow_nan, labels=labels)
    new.classes = adapter.classes
    return new
