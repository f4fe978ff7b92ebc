"""Short trainings with the callbacks of Lightning and of Hugging Face transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from contam.batch import Batch
from contam.models.torchvision_import import import_torchvision


class LabeledPixels(Dataset):
    """Examples as a Hugging Face trainer takes them."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.y)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"pixel_values": self.batch.x[i], "labels": int(self.batch.y[i])}


def train_with_lightning(
    network: Callable[[], nn.Module], batch: Batch, epochs: int, folder: Path, *callbacks: Any
) -> dict[str, Tensor]:
    """The trained weights; minibatches have 30 examples."""
    import_torchvision()
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule, Trainer  # pyright: ignore[reportMissingImports]

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x)

        def training_step(self, batch, _):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
            default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(batch.x, batch.y), 30, shuffle=True))
    return module.state_dict()


def train_with_transformers(
    network: Callable[[], nn.Module], batch: Batch, steps: int, folder: Path, *callbacks: Any
) -> dict[str, Tensor]:
    """The trained weights; minibatches have 30 examples."""
    import_torchvision()
    transformers = pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, pixel_values, labels=None):
            logits = self.inner(pixel_values)
            loss = None if labels is None else F.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits}

    model = Model()
    settings = transformers.TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=30, report_to=[], seed=5,
        save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        transformers.Trainer(
            model, settings, train_dataset=LabeledPixels(batch), callbacks=list(callbacks)
        ).train()
    return model.state_dict()
