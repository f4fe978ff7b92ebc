"""Audits of networks with several labels for each example, and what has no classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from contam import audit, audit_multilabel
from contam.auditing.multilabel import MultilabelAudit
from contam.auditing.result import Audit
from contam.inputs import ImageTable

LABELS = ["red", "green"]
QUIET: dict[str, Any] = {"reference": None, "untrained": False, "progress": False}


def data(n: int = 40) -> tuple[Tensor, Tensor]:
    """Plain colors whose labels are the channels above one half."""
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, 1, 1, generator=draws).expand(n, 3, 6, 6).contiguous()
    return x, (x[:, :2, 0, 0] > 0.5).long()


class Colors(nn.Module):
    """The true logits of both labels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.head.weight = nn.Parameter(torch.eye(3)[:2])
        self.head.bias = nn.Parameter(torch.full((2,), -0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def dicts():
    x, y = data()
    return [{"image": x[k : k + 8], "labels": y[k : k + 8]} for k in range(0, 40, 8)]


class Named(Dataset):
    """Examples as dicts."""

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        x, y = data()
        return {"image": x[number], "labels": y[number]}

    def __len__(self) -> int:
        return 40


FORMS = {
    "tensors": data,
    "arrays": lambda: tuple(part.numpy() for part in data()),
    "labels as floats": lambda: (data()[0], data()[1].float()),
    "a dict": lambda: dict(zip(("x", "y"), data(), strict=True)),
    "a dataset": lambda: TensorDataset(*data()),
    "a loader": lambda: DataLoader(TensorDataset(*data()), batch_size=7),
    "batches as dicts": dicts,
    "a loader of dicts": lambda: DataLoader(Named(), batch_size=7),
    "single examples": lambda: zip(*data(), strict=True),
    "examples with names of groups": lambda: [
        (*part, "ab"[k % 2]) for k, part in enumerate(zip(*data(), strict=True))
    ],
    "labels as lists": lambda: (data()[0], data()[1].tolist()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_label_has_an_audit(form):
    result = audit_multilabel(Colors(), id=FORMS[form](), labels=LABELS, altered=False, **QUIET)
    assert list(result.audits) == LABELS
    table = result.summary()
    assert table["accuracy"].tolist() == [1, 1]
    assert table["with_label"].tolist() == data()[1].sum(0).tolist()
    assert result.audits["red"].evidence.classes == ("not red", "red")


def test_metadata_give_accuracies_for_each_label():
    x, y = data()
    columns = torch.stack([torch.arange(40) % 2, torch.arange(40) % 3], 1)
    for form in ((x, y, columns), TensorDataset(x, y, columns)):
        result = audit_multilabel(Colors(), id=form, labels=LABELS, altered=False, **QUIET)
        for one in result.audits.values():
            assert one.groups()["n"].tolist() == [20, 20, 14, 13, 13]


MODELS = {
    "a network": Colors(),
    "probabilities": nn.Sequential(Colors(), nn.Sigmoid()),
    "a predict function": lambda x: (x.mean((2, 3))[:, :2] - 0.5).numpy(),
}


@pytest.mark.parametrize("kind", MODELS)
def test_logits_of_each_label_decide_it(kind):
    x, y = data()
    shifted = {"dark": (0.6 * x, y)}
    result = audit_multilabel(MODELS[kind], id=(x, y), ood=shifted, labels=LABELS, **QUIET)
    table = result.summary().set_index(["label", "data"])
    for number, label in enumerate(LABELS):
        right = (0.6 * x[:, number, 0, 0] > 0.5) == y[:, number].bool()
        assert table.loc[(label, "ID"), "accuracy"] == 1
        assert table.loc[(label, "dark"), "accuracy"] == pytest.approx(float(right.float().mean()))
        assert table.loc[(label, "dark"), "specificity"] == 1


def write_table(folder: Path, **columns: Any) -> Path:
    """Images of `data`, and a table of their labels with other columns in place of some."""
    x, y = data(12)
    for number, image in enumerate(x):
        Image.fromarray((255 * image.permute(1, 2, 0)).byte().numpy()).save(
            folder / f"{number}.png"
        )
    own = dict(zip(LABELS, y.T.numpy(), strict=True))
    paths = [f"{k}.png" for k in range(12)]
    pd.DataFrame({"path": paths, **own, **columns}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_labels_are_columns_of_a_table(tmp_path):
    table = ImageTable(write_table(tmp_path), label=LABELS)
    result = audit_multilabel(Colors(), id=table, altered=False, **QUIET)
    assert result.summary()["with_label"].tolist() == data(12)[1].sum(0).tolist()


def test_rows_without_a_label_are_left_out_for_that_label(tmp_path):
    table = write_table(tmp_path, green=["", *data(12)[1][1:, 1].tolist()])
    result = audit_multilabel(Colors(), id=str(table), labels=LABELS, altered=False, **QUIET)
    assert result.summary()["n"].tolist() == [12, 11]


def test_constant_columns_of_a_table_are_left_out(tmp_path):
    table = write_table(tmp_path, green=1)
    result = audit_multilabel(Colors(), id=table, labels=LABELS, altered=False, **QUIET)
    assert list(result.audits) == ["red"]
    assert result.left_out == ("Label 'green' is not audited: all of the ID examples has it.",)


def test_uncertain_labels_of_a_table_are_refused(tmp_path):
    table = write_table(tmp_path, green=[-1.0, *data(12)[1][1:, 1].tolist()])
    with pytest.raises(ValueError, match=r"label 'green' has the values '-1', '0', '1'; expected"):
        audit_multilabel(Colors(), id=table, labels=LABELS, altered=False, **QUIET)


def test_progress_is_a_share_of_all_labels():
    done = []
    audit_multilabel(
        Colors(), id=data(), altered=False, reference=None, untrained=False,
        progress=lambda stage: done.append(stage.done),
    )  # fmt: skip
    assert done == sorted(done)
    assert done[-1] == 1


def test_a_label_without_examples_is_left_out():
    x, y = data()
    result = audit_multilabel(
        Colors(), id=(x, y * torch.tensor([1, 0])), labels=LABELS, altered=False, **QUIET
    )
    assert list(result.audits) == ["red"]
    assert "Label 'green' is not audited: none of the ID examples has it." in repr(result)


def test_a_saved_audit_has_a_summary_and_a_page_for_each_label(tmp_path):
    result = audit_multilabel(
        Colors(), id=data(), labels=["a/b", "green"], only=["a/b"], altered=False, **QUIET
    )
    folder = result.save(tmp_path / "made")
    assert pd.read_csv(folder / "summary.csv")["label"].tolist() == ["a/b"]
    assert Audit.load(folder / "00-a-b").evidence.model == "Colors: a/b"
    assert (folder / "00-a-b" / "audit.html").is_file()


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "one class for each example": ((data()[0], data()[1][:, 0]), {}, r"expected rows of 0 and 1"),
    "degrees of labels": ((data()[0], data()[1] + 0.5), {}, "the value 0.5; expected rows of 0"),
    "tensors without examples": (
        (data()[0][:0], data()[1][:0]), {}, "'ID' has no examples: it is empty",
    ),
    "inputs of two shapes": (
        [(data()[0][:2], data()[1][:2]), (data()[0][2:, ..., :4], data()[1][2:])], {},
        "inputs of the shapes .* expected one shape",
    ),
    "rows of two lengths": (
        [(data()[0][:2], data()[1][:2]), (data()[0][2:], data()[1][2:, :1])], {},
        "rows of labels of the shapes .* expected one shape",
    ),
    "a name too few": (data(), {"labels": ["red"]}, "1 names for 2 labels"),
    "a name twice": (data(), {"labels": ["red", "red"]}, "'red' twice"),
    "a label that is none": (data(), {"only": ["blue"]}, "only= has 'blue'"),
    "another number of logits": (
        (data()[0], torch.cat([data()[1], data()[1]], 1)), {}, "2 logits, and .* 4 labels",
    ),
    "no examples": ([], {}, "has no examples"),
    "a folder": ("images", {}, "give a table with a column for each label"),
    "OOD sets under one name": (data(), {"ood": {"ID": data()}}, "two sets are named 'ID'"),
    "no label at all": (data(), {"only": []}, "only= has no label"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_labels_are_refused(case):
    given, more, line = REFUSED[case]
    with pytest.raises(ValueError, match=line):
        audit_multilabel(Colors(), id=given, altered=False, **QUIET, **more)


SENT_ELSEWHERE = {
    "several labels": (data()[1], "contam.audit_multilabel takes several"),
    "real numbers": (np.linspace(0, 9, 40), "a regression has no classes"),
}


@pytest.mark.parametrize("case", SENT_ELSEWHERE)
def test_an_audit_says_what_it_does_not_take(case):
    y, line = SENT_ELSEWHERE[case]
    with pytest.raises(ValueError, match=line):
        audit(Colors(), id=(data()[0], y), **QUIET)


def test_a_table_with_several_columns_of_labels_is_for_multilabel_audits():
    with pytest.raises(ValueError, match="audit_multilabel takes several"):
        audit(Colors(), id=ImageTable(pd.DataFrame(), label=LABELS), **QUIET)


def test_the_result_is_a_table():
    assert repr(MultilabelAudit({})).startswith("Empty DataFrame")
