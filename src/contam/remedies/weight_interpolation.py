"""Interpolation between a network and the network that it was fine-tuned from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from contam.batch import Batch
from contam.models.linear_head import copy_network
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.repair import ImageRepair


@final
@dataclass(frozen=True)
class WeightInterpolation(ImageRepair):
    """The mean of the weights of a network and of the network that it was fine-tuned from.

    Args:
        base: the network before fine-tuning with the same classes, or its weights.
        share: weight of the fine-tuned network.

    Source: ours, WiSE-FT (Wortsman et al., 2022).

    >>> import torch
    >>> one, two = (nn.Sequential(nn.Linear(1, 2)) for _ in range(2))
    >>> repaired = WeightInterpolation(two).fit(one, id=(torch.zeros(4, 1), [0, 1, 0, 1]))
    >>> bool(torch.allclose(repaired[0].bias, (one[0].bias + two[0].bias) / 2))
    True
    """

    base: nn.Module | Mapping[str, Tensor] = field(repr=False)
    share: float = 0.5

    name = "weight interpolation"
    needs = frozenset({"base"})

    @property
    def call(self) -> str:
        return f"WeightInterpolation(base_model, share={self.share})"

    @property
    def _weights(self) -> Mapping[str, Tensor]:
        return self.base.state_dict() if isinstance(self.base, nn.Module) else self.base

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        own, base = network.network.state_dict(), self._weights
        differing = [k for k in own if k not in base or base[k].shape != own[k].shape]
        if differing:
            return f"the base network has no {differing[0]!r} of the same shape"
        return ""

    def fit_network(
        self, network: LogitsAdapter, id: Batch, ood: Batch, *, batch_size: int
    ) -> LogitsAdapter:
        copied, base = copy_network(network), self._weights
        state = copied.network.state_dict()
        mixed = {
            name: base[name].to(value).lerp(value, self.share)
            if value.is_floating_point()
            else value
            for name, value in state.items()
        }
        copied.network.load_state_dict(mixed)
        return copied
