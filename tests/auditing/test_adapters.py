"""Audits every few epochs, in trainers of other libraries."""

import logging
from types import SimpleNamespace

import pytest
import torch
from support.trainers import LabeledPixels, train_with_lightning, train_with_transformers
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from contam.auditing.adapters import PAGE, Audits, hugging_face, lightning
from contam.auditing.api import audit
from contam.auditing.result import Audit
from contam.batch import Batch, Domain

CLASSES = 3


def domain(name: str = "ID", *, count: int = 60, seed: int = 0) -> Domain:
    """Small pictures that are brighter in a corner of their class."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=draws)
    for c in range(CLASSES):
        x[y == c, :, c * 2 : c * 2 + 2, :4] += 0.5
    return Domain(name, Batch(x, y, torch.zeros_like(y)))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
            nn.Linear(4 * 36, CLASSES),
        )  # fmt: skip


def trainer_library(_: str) -> SimpleNamespace:
    return SimpleNamespace(Callback=object, TrainerCallback=object)


SETTINGS = {
    "id": domain(),
    "ood": {"other": domain(seed=1)},
    "untrained": False,
    "reference": None,
}


def test_audits_run_every_so_many_epochs_and_at_the_end():
    audits, model = Audits(every=2, **SETTINGS), network()
    for epoch in (1, 2, 3, 4, 4, 5):
        audits.after(epoch, model)
    audits.after(5, model, last=True)
    last = audits.by_epoch[5]
    audits.after(5, model, last=True)
    assert audits.by_epoch[5] is last
    assert list(audits.by_epoch) == [2, 4, 5]
    assert all(isinstance(result, Audit) for result in audits.by_epoch.values())


@pytest.mark.slow
def test_each_audit_is_of_the_network_at_that_epoch():
    audits, model = Audits(**SETTINGS), network().train()
    first = next(model.parameters())
    for epoch in (1, 2):
        audits.after(epoch, model)
        by_epoch, alone = audits.by_epoch[epoch], audit(model, progress=False, **SETTINGS)
        assert by_epoch.verdict == alone.verdict
        assert by_epoch.evidence.layers == alone.evidence.layers
        assert model.training
        with torch.no_grad():
            first.neg_()
    assert audits.by_epoch[1].evidence.layers != audits.by_epoch[2].evidence.layers


class Stream(IterableDataset):
    """Pictures that come one after the other, as from a network."""

    def __iter__(self):
        x, y, _ = domain().data
        return iter(zip(x, y, strict=True))


@pytest.mark.slow
def test_an_audit_preserves_the_generator_of_a_loader():
    draws = torch.Generator().manual_seed(3)
    loader = DataLoader(Stream(), 20, generator=draws)
    before = draws.get_state()
    audits = Audits(id=loader, untrained=False, on_error="raise")
    audits.after(1, network())
    assert audits.by_epoch[1].evidence.sets[0].overall.count == 60
    assert torch.equal(draws.get_state(), before)


def test_an_audit_that_fails_does_not_end_a_training_by_default(caplog):
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    audits = Audits(**SETTINGS)
    with caplog.at_level(logging.WARNING, logger="contam.audit"):
        audits.after(1, broken)
    (said,) = caplog.messages
    assert said.startswith("audit after epoch 1: ") and "NaN" in said and "\n" not in said
    audits.after(2, network())
    assert list(audits.by_epoch) == [2]
    with pytest.raises(ValueError, match="NaN"):
        Audits(on_error="raise", **SETTINGS).after(1, broken)


@pytest.mark.parametrize("adapter", [Audits, lightning, hugging_face])
@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"every": 0}, ValueError, "at least 1 epoch"),
        ({"on_error": "shout"}, ValueError, "'note' or 'raise'"),
        ({"layer": "auto"}, TypeError, "'layer'"),
        ({"id": iter([domain().data])}, ValueError, "exhaust"),
        ({"ood": {"a": iter([domain().data])}}, ValueError, "exhaust"),
    ],
)
def test_bad_settings_are_rejected_before_training(adapter, given, error, says, monkeypatch):
    monkeypatch.setattr("contam.training.trainer_callbacks.import_module", trainer_library)
    with pytest.raises(error, match=says):
        adapter(**(SETTINGS | given))


def test_without_id_data_there_is_no_audit():
    with pytest.raises(TypeError, match="'id'"):
        Audits(every=2)


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_callbacks_follow_the_protocol(library, monkeypatch, tmp_path):
    monkeypatch.setattr("contam.training.trainer_callbacks.import_module", trainer_library)
    model = network()
    if library == "transformers":
        callback = hugging_face(every=2, **SETTINGS)
        # The last epoch was cut short by max_steps.
        for epoch in (1.0, 2.0, 2.5):
            state = SimpleNamespace(epoch=epoch, is_world_process_zero=True)
            callback.on_epoch_end(None, state, None, model=model, optimizer=None)
        callback.on_train_end(None, state, None, model=model)
        elsewhere = SimpleNamespace(epoch=4.0, is_world_process_zero=False)
        callback.on_epoch_end(None, elsewhere, None, model=model)
    else:
        callback = lightning(every=2, **SETTINGS)
        for epoch in range(3):
            trainer = SimpleNamespace(current_epoch=epoch, is_global_zero=True)
            callback.on_train_epoch_end(trainer, model)
        # By then the trainer counts the epochs that are done.
        trainer.current_epoch = 3
        callback.on_train_end(trainer, model)
        elsewhere = SimpleNamespace(current_epoch=3, is_global_zero=False)
        callback.on_train_epoch_end(elsewhere, model)
    assert list(callback.listener.by_epoch) == [2, 3]


def test_there_is_no_audit_without_training(monkeypatch):
    monkeypatch.setattr("contam.training.trainer_callbacks.import_module", trainer_library)
    callback = lightning(**SETTINGS)
    callback.on_train_end(SimpleNamespace(current_epoch=0, is_global_zero=True), network())
    other = hugging_face(**SETTINGS)
    state = SimpleNamespace(epoch=None, is_world_process_zero=True)
    other.on_train_end(None, state, None, model=network())
    assert not callback.listener.by_epoch and not other.listener.by_epoch


@pytest.mark.slow
def test_audits_are_saved_in_folders(tmp_path):
    audits = Audits(out=tmp_path, **SETTINGS)
    audits.after(1, network())
    folder = tmp_path / "epoch-0001"
    assert Audit.load(folder).evidence == audits.by_epoch[1].evidence
    assert audits.by_epoch[1].verdict.sentence in (folder / PAGE).read_text("utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_as_without_audits(tmp_path):
    callback = lightning(every=2, on_error="raise", **(SETTINGS | {"untrained": True}))
    plain, audited = (
        train_with_lightning(network, domain().data, 3, tmp_path, *callbacks)
        for callbacks in ([], [callback])
    )
    assert list(callback.listener.by_epoch) == [2, 3]
    assert callback.listener.by_epoch[3].evidence.layers
    assert all(torch.equal(value, audited[name]) for name, value in plain.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_trains_as_without_audits(tmp_path):
    pictures = LabeledPixels(domain().data)
    callback = hugging_face(every=2, on_error="raise", **(SETTINGS | {"id": pictures}))
    plain, audited = (
        train_with_transformers(network, domain().data, 5, tmp_path, *callbacks)
        for callbacks in ([], [callback])
    )
    assert list(callback.listener.by_epoch) == [2, 3]
    assert all(torch.equal(value, audited[name]) for name, value in plain.items())
