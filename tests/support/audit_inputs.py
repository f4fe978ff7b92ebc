"""Small inputs of audits, for their tests."""

import torch
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs
from contam.batch import Batch, Domain
from contam.data.shapes import splits
from contam.inputs.input_set import InputSet
from contam.models.observe import layers_of
from contam.models.small import resnet8, small_cnn

CLASSES = tuple("abcdefghij")


def sample(
    name: str, x: Tensor, y: Tensor, domain: Tensor | None = None, masks: Tensor | None = None
) -> InputSet:
    """A data set in memory."""
    return InputSet(name, Domain(name, Batch(x, y, y * 0 if domain is None else domain)), masks)


def scenes_inputs(*, masks: bool = True, ood: bool = True, width: int = 4) -> AuditInputs:
    """A drawn network on the embedded benchmark."""
    scenes = splits(0, train=40, id_val=40, id_test=200, ood_test=40)

    def of(name: str, key: str) -> InputSet:
        part = scenes[key]
        return sample(name, part.x, part.y, part.domain, part.mask if masks else None)

    model = resnet8(width=width, seed=1)
    return AuditInputs(
        "small", model, CLASSES, of("ID", "id_test"),
        (of("checker", "ood/checker"),) if ood else (),
        tuple(layers_of(model, scenes["id_test"].x[:2])), untrained=resnet8(width=width, seed=2),
        batch_size=50,
    )  # fmt: skip


def noise_inputs(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    classes: int = 3,
    per_class: int = 8,
    layers: tuple[str, ...] = (),
    untrained: nn.Module | None = None,
) -> AuditInputs:
    """Inputs that are noise around a mean of their class, for ID and OOD."""
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(classes * per_class) % classes
    centers = torch.rand(classes, *shape, generator=draws)
    own, new = (
        (centers[y] + 0.1 * torch.rand(len(y), *shape, generator=draws)).clamp(0, 1)
        for _ in range(2)
    )
    return AuditInputs(
        "net", model, CLASSES[:classes], sample("ID", own, y),
        (sample("OOD", 1 - new, y),), layers, untrained=untrained, batch_size=10,
    )  # fmt: skip


def teach(model: nn.Module, data: InputSet, steps: int) -> None:
    """Some steps of Adam on all examples of a data set at once."""
    batch = next(iter(data.domain.batches(len(data))))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
    model.eval()


def cnn(seed: int = 0, classes: int = 3) -> nn.Module:
    """The smallest network with maps."""
    return small_cnn(classes, width=4, seed=seed)
