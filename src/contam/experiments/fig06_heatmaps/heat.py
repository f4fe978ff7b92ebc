"""The predictions, the features and the heat of a network on some images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.images import FolderDomain
from contam.experiments.support.per_network import one_image
from contam.measures.gradcam import (
    grad_cam,
    grad_cam_plus_plus,
    heat_maps,
    heat_on_object,
    heat_share,
)
from contam.models.blocks import blocks_of
from contam.models.observe import observe

PLUS, PLAIN = "Grad-CAM++", "Grad-CAM"
"""The paper cites Grad-CAM++, which counts only evidence for a class; Grad-CAM counts both."""
BATCH, SMALL_BATCH = 200, 32
"""Images in a batch; those from folders are larger, and their gradients need more memory."""


class ScoredNetwork(nn.Module):
    """A network with the scoring of a test applied to its logits."""

    def __init__(self, network: nn.Module, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.network(x))


def unchanged(logits: Tensor) -> Tensor:
    return logits


def heat_layers(model: nn.Module, images: Domain) -> dict[str, str]:
    """The last residual block, and the last one before it with finer maps.

    Source: ours, heat at two resolutions, because maps of the last block are coarse.

    Raises:
        ValueError: the network has no residual blocks.
    """
    x = one_image(model, images)
    names = [block.name for block in blocks_of(model, x)]
    rows = {name: heat_maps(model, x, name, formula=grad_cam).shape[1] for name in names}
    finer = [name for name in names if rows[name] > rows[names[-1]]]
    return {"last": names[-1], "fine": finer[-1] if finer else names[-1]}


@dataclass(frozen=True)
class Heat:
    """Predictions, features and heat of some images."""

    y: Tensor
    predicted: Tensor
    features: Tensor
    heat: dict[tuple[str, str], Tensor]
    """(n, rows, columns) for the true class, by map ("last" or "fine") and formula."""

    @property
    def answers(self) -> dict[str, Any]:
        correct, count = int((self.predicted == self.y).sum()), len(self.y)
        return {"what": "answers", "correct": correct, "count": count, "accuracy": correct / count}

    def heated(self, mask: Tensor | None) -> Iterator[dict[str, Any]]:
        """Mean heat of the image and of the object, and the object's share of it, for each map."""
        for (where, formula), heat in self.heat.items():
            row = {"what": "heat", "map": where, "side": heat.shape[1], "formula": formula}
            row["picture"] = float(heat.mean())
            if mask is not None:
                row["object"] = float(heat_on_object(heat, mask).mean())
                row["share"] = float(heat_share(heat, mask).nanmean())
                row["area"] = float(mask.float().mean())
            yield row


def observe_heat(
    model: nn.Module, images: Domain, layers: dict[str, str], size: int | None = None
) -> Heat:
    """Predictions, features, and the heat of the true class.

    Args:
        model: the network.
        images: the images.
        layers: layers of the heat, by name.
        size: images in a batch; None for many, or for few from folders, which are larger.

    Source: Fig. 6.
    """
    y, predicted, features = [], [], []
    heat: dict[tuple[str, str], list[Tensor]] = {}
    size = size or (SMALL_BATCH if isinstance(images, FolderDomain) else BATCH)
    for observation in observe(model, images.batches(size), ["network.encoder"]):
        y.append(observation.batch.y.cpu())
        predicted.append(observation.logits.argmax(dim=1).cpu())
        features.append(observation.layers["network.encoder"].cpu())
        for where, layer in layers.items():
            for formula, maps in _both(model, observation.batch, layer).items():
                heat.setdefault((where, formula), []).append(maps.cpu())
    whole = {key: torch.cat(maps) for key, maps in heat.items()}
    return Heat(torch.cat(y), torch.cat(predicted), torch.cat(features), whole)


def _both(model: nn.Module, batch: Batch, layer: str) -> dict[str, Tensor]:
    """Heat by both formulas, from one pass."""
    plain: dict[str, Tensor] = {}

    def formula(maps: Tensor, gradients: Tensor) -> Tensor:
        plain[PLAIN] = grad_cam(maps, gradients)
        return grad_cam_plus_plus(maps, gradients)

    return {PLUS: heat_maps(model, batch.x, layer, batch.y, formula=formula)} | plain
