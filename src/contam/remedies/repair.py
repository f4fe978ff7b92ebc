"""What a repair of a trained network is: what it needs, what it is fitted to, what it returns.

A repair is a frozen dataclass in a file of its own, of one of three kinds:

* `HeadRepair` makes new weights of the linear head from the features that the head reads;
* `Conversion` changes the layers without data, and then fits a fresh head to ID data;
* `ImageRepair` changes the network by means of images.

To add one, write a subclass and list it in `contam.remedies.REPAIRS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Batch
from contam.inputs import as_domain
from contam.inputs.parts import some_of
from contam.models.linear_head import LinearHead, find_head, head_of, with_head
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import observe
from contam.models.preserve import evaluating

Need = Literal[
    "linear head", "ID labels", "ID groups", "OOD inputs", "OOD labels", "batch norm", "base"
]
"""What a repair may need besides the network."""


@dataclass(frozen=True)
class Repair(ABC):
    """A way to repair a trained network without training it again."""

    name: ClassVar[str]
    """As in `Audit.repair` and in records."""
    needs: ClassVar[frozenset[Need]]

    @property
    def title(self) -> str:
        """The name with the settings that distinguish it from others of the same kind."""
        return self.name

    @property
    def call(self) -> str:
        """The expression that makes this repair."""
        return f"{type(self).__name__}()"

    @property
    def code(self) -> str:
        """Lines of Python that repair a network `model` by `id_data` and `ood_data`."""
        ood = ", ood=ood_data" if self.uses_ood else ""
        return (
            f"from contam.remedies import {type(self).__name__}\n\n"
            f"repaired = {self.call}.fit(model, id=id_data{ood})\n"
        )

    @property
    def uses_ood(self) -> bool:
        """Whether the fit uses OOD examples."""
        return bool(self.needs & {"OOD inputs", "OOD labels"})

    def labels(self, y: Int[Tensor, " n"]) -> int:
        """Return the number of OOD labels that a fit uses, of examples with these labels."""
        return 0

    @abstractmethod
    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        """Return why the repair does not fit the network or the data; empty if it fits.

        Args:
            network: the network.
            id: ID examples. Repairs of the head read labels and groups only.
            ood: OOD examples.
        """

    @abstractmethod
    def fit(self, network: nn.Module, *, id: Any, ood: Any = None, batch_size: int = 64) -> Any:
        """Return a repaired copy of a network; the network itself stays as it was.

        Args:
            network: returns logits in any form of `LogitsAdapter`.
            id: ID data of any form of `contam.inputs`, as the network takes it. The domain of an
                example is its group.
            ood: OOD data, for repairs that use it; labels are needed only by those that use
                labels. Names of classes, such as those of folders, are numbered as in `id`.
            batch_size: number of examples in a forward pass.

        Returns:
            The copy; of a `LogitsAdapter`, an adapter.

        Raises:
            ValueError: the data can't be read, a label has no logit, or the repair does not fit the
                network or the data.
        """


class HeadRepair(Repair):
    """A repair that gives the network's linear head other weights."""

    @abstractmethod
    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        """Return the repaired head.

        Args:
            head: the network's own head.
            id: features (n, width) of ID examples with labels and groups.
            ood: the same of OOD examples; without any, it is empty.
        """

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        return "there are no OOD examples" if self.uses_ood and not len(ood.y) else ""

    @final
    def fit(self, network: nn.Module, *, id: Any, ood: Any = None, batch_size: int = 64) -> Any:
        adapter, id, ood = _read(self, network, id, ood)
        name = find_head(adapter, _on_device(adapter, id.x[:2]))
        head = head_of(adapter, name)
        for title, part in (("ID", id), ("OOD", ood)):
            if len(part.y) and int(part.y.max()) >= len(head.bias):
                raise ValueError(
                    f"{title} labels {int(part.y.min())}..{int(part.y.max())} don't fit "
                    f"{len(head.bias)} logits, numbered from 0"
                )
        known, new = (head_features(adapter, part, batch_size=batch_size) for part in (id, ood))
        return _as_given(network, with_head(adapter, name, self.fit_head(head, known, new)))


class Conversion(Repair):
    """A repair that changes the layers without data, and then fits a fresh head to ID data."""

    @abstractmethod
    def convert(self, network: LogitsAdapter) -> LogitsAdapter:
        """Return a copy with other layers."""

    @final
    def fit(self, network: nn.Module, *, id: Any, ood: Any = None, batch_size: int = 64) -> Any:
        from contam.remedies.fresh_head import FreshHead

        adapter, id, ood = _read(self, network, id, ood)
        converted = FreshHead().fit(self.convert(adapter), id=id, batch_size=batch_size)
        return _as_given(network, converted)


class ImageRepair(Repair):
    """A repair that changes the network by means of inputs."""

    @abstractmethod
    def fit_network(
        self, network: LogitsAdapter, id: Batch, ood: Batch, *, batch_size: int
    ) -> LogitsAdapter:
        """Return a repaired copy.

        Args:
            network: the network.
            id: ID inputs with labels and groups.
            ood: OOD inputs.
            batch_size: number of examples in a forward pass.
        """

    @final
    def fit(self, network: nn.Module, *, id: Any, ood: Any = None, batch_size: int = 64) -> Any:
        adapter, id, ood = _read(self, network, id, ood)
        repaired = self.fit_network(adapter, id, ood, batch_size=batch_size)
        return _as_given(network, repaired)


def head_features(network: LogitsAdapter, data: Batch, *, batch_size: int = 64) -> Batch:
    """Return examples with the features that the linear head reads in place of their inputs.

    Args:
        network: the network.
        data: inputs with labels and groups.
        batch_size: number of examples in a forward pass.

    Source: ours, features are read once for all repairs of a head.

    Raises:
        ValueError: the logits are not the output of a linear layer.

    >>> data = Batch(torch.tensor([[-1.0, 2.0]]), torch.tensor([1]), torch.tensor([0]))
    >>> head_features(LogitsAdapter(nn.Sequential(nn.ReLU(), nn.Linear(2, 2))), data).x.tolist()
    [[0.0, 2.0]]
    """
    rows = []
    for observation in observe(network, _batches(data, batch_size), (), head=True):
        if observation.head is None:
            raise ValueError("the logits are not the output of a linear layer")
        rows.append(observation.head.float().cpu())
    return data._replace(x=torch.cat(rows) if rows else torch.empty(0, 0))


def predict(
    network: LogitsAdapter, x: Float[Tensor, "n ..."], *, batch_size: int = 64
) -> Int[Tensor, " n"]:
    """Return the predicted classes.

    >>> predict(LogitsAdapter(nn.Sequential(nn.Identity())), torch.eye(2)).tolist()
    [0, 1]
    """
    with evaluating(network):
        parts = [network(_on_device(network, part)).argmax(1).cpu() for part in x.split(batch_size)]
    return torch.cat(parts) if len(x) else torch.arange(0)


def _read(
    repair: Repair, network: nn.Module, id: Any, ood: Any
) -> tuple[LogitsAdapter, Batch, Batch]:
    """The network and the data in the forms that repairs work on, checked."""
    adapter = network if isinstance(network, LogitsAdapter) else LogitsAdapter(network)
    known, classes = _examples(id)
    if repair.uses_ood and ood is None:
        raise ValueError(f"{repair.title!r} needs OOD data; give ood=")
    new = known.pick(slice(0, 0))
    if ood is not None:
        new, others = _examples(ood, classes, labeled="OOD labels" in repair.needs)
        if classes and others and classes != others:
            raise ValueError(
                f"the classes are {some_of(classes)} in id= and {some_of(others)} in ood=; "
                "expected the same in the same order"
            )
    reason = repair.applies(adapter, known, new)
    if reason:
        raise ValueError(f"{repair.title!r} does not fit: {reason}")
    return adapter, known, new


def _examples(
    data: Any, classes: tuple[str, ...] | None = None, *, labeled: bool = True
) -> tuple[Batch, tuple[str, ...] | None]:
    """The examples, and the names of their classes if they are known."""
    if isinstance(data, Batch):
        return data, None
    domain = as_domain(data, classes=classes, labeled=labeled)
    parts = list(domain.batches(256))
    return Batch(*map(torch.cat, zip(*parts, strict=True))), domain.classes


def _as_given(network: nn.Module, repaired: LogitsAdapter) -> nn.Module:
    return repaired if isinstance(network, LogitsAdapter) else repaired.network


def _on_device(network: nn.Module, x: Tensor) -> Tensor:
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    return x.to(device)


def _batches(data: Batch, size: int) -> list[Batch]:
    return [data.pick(slice(at, at + size)) for at in range(0, len(data.y), size)]
