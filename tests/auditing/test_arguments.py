"""Wrong arguments of an audit: one line that names the argument, before any work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import contam
from contam.auditing.arguments import LARGEST_SEED, check_arguments, check_reference
from contam.measures.robustness import IMAGENET_LINES

NAMES = "'auto' or a list of at least one name of a layer"
CLASSES = "a list with a name for each logit"
REFERENCE = r"'auto', the name of an encoder, \(name, weights file\), a module or None"
BASELINE = "a CSV file of standard models, or a dict of .*Line by OOD set"
SEED = f"a whole number from 0 to {LARGEST_SEED}"

WRONG = [
    ("layers", 3, NAMES, "3"),
    ("layers", [], NAMES, r"\[\]"),
    ("layers", [3], NAMES, r"\[3\]"),
    ("layers", None, NAMES, "None"),
    ("layers", b"relu", NAMES, "b'relu'"),
    ("classes", 2, CLASSES, "2"),
    ("classes", "cat", CLASSES, "'cat'"),
    ("classes", [], CLASSES, r"\[\]"),
    ("classes", {"cat"}, CLASSES, r"\{'cat'\}"),
    ("reference", ("x",), REFERENCE, r"\('x',\)"),
    ("reference", ("x", 3), REFERENCE, r"\('x', 3\)"),
    ("reference", ("x", "y", "z"), REFERENCE, r"\('x', 'y', 'z'\)"),
    ("reference", 3, REFERENCE, "3"),
    ("reference", "", REFERENCE, "''"),
    ("baseline", 3, BASELINE, "3"),
    ("baseline", [], BASELINE, r"\[\]"),
    ("baseline", {"OOD": 3}, BASELINE, r"\{'OOD': 3\}"),
    ("seed", "0", SEED, "'0'"),
    ("seed", 1.5, SEED, r"1\.5"),
    ("seed", -1, SEED, "-1"),
    ("seed", 2**32, SEED, "4294967296"),
    ("seed", None, SEED, "None"),
    ("seed", True, SEED, "True"),
    ("untrained", 3, "True, False or a module", "3"),
    ("untrained", "yes", "True, False or a module", "'yes'"),
    ("altered", "no", "True or False", "'no'"),
    ("base", 3, "the network before fine-tuning, or a file of its weights", "3"),
    ("remedies", 1, "True or False", "1"),
    ("altered", nn.Linear(2, 2), "True or False", "a module Linear"),
    ("progress", 3, "True, False or a function of a Stage", "3"),
    ("progress", None, "True, False or a function of a Stage", "None"),
    ("transform", 3, "a function from an image to the network's input", "3"),
    ("name", 5, "a text or None", "5"),
    ("name", " ", "a text or None", "' '"),
]


@pytest.mark.parametrize(
    ("argument", "value", "expected", "shown"),
    WRONG,
    ids=[f"{argument}={value!r}"[:40] for argument, value, _, _ in WRONG],
)
def test_a_wrong_argument_gives_one_line(argument, value, expected, shown):
    with pytest.raises(ValueError, match=f"^{argument} is {expected}.*; got {shown}$") as error:
        check_arguments(**{argument: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("layers", "auto"),
        ("layers", ("0",)),
        ("classes", None),
        ("classes", ("cat", "dog")),
        ("reference", None),
        ("reference", "timm:resnet18"),
        ("reference", ("timm:resnet18", Path("w.pth"))),
        ("reference", nn.Identity()),
        ("baseline", "models.csv"),
        ("baseline", IMAGENET_LINES),
        ("seed", LARGEST_SEED),
        ("seed", np.int64(3)),
        ("untrained", nn.Identity()),
        ("progress", print),
        ("name", "ResNet-50"),
    ],
    ids=lambda value: None if isinstance(value, nn.Module) else str(value)[:30],
)
def test_every_documented_kind_is_accepted(argument, value):
    check_arguments(**{argument: value})


class Returns(nn.Module):
    """Ignores its input."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Linear(3, 3), r"does not run on inputs of shape \(8,\): RuntimeError, mat1 and mat2"),
        (nn.Conv2d(3, 4, 3), r"does not run on inputs of shape \(8,\): RuntimeError"),
        (Returns(None), "returns a NoneType for 2 inputs; expected one row of features"),
        (Returns(torch.ones(2)), r"returns a tensor of shape \(2,\) for 2 inputs"),
        (Returns(torch.ones(3, 4)), r"returns a tensor of shape \(3, 4\) for 2 inputs"),
        (Returns((torch.ones(2, 4),)), "returns a tuple for 2 inputs"),
    ],
    ids=["another width", "images", "nothing", "no features", "other examples", "a tuple"],
)
def test_a_reference_that_does_not_fit_gives_one_line(encoder, message):
    with pytest.raises(ValueError, match=message) as error:
        check_reference(encoder, torch.ones(2, 8))
    assert "\n" not in str(error.value) and str(error.value).endswith("or reference=None")


def test_an_audit_checks_its_arguments_first():
    class Broken(nn.Module):
        def forward(self, x):
            raise AssertionError("the network must not run")

    data = torch.rand(12, 8), torch.arange(12) % 3
    with pytest.raises(ValueError, match=r"^seed is a whole number"):
        contam.audit(Broken(), id=data, seed=-1, progress=False)


def test_an_audit_checks_the_reference_on_its_data():
    data = torch.rand(12, 8), torch.arange(12) % 3
    with pytest.raises(ValueError, match="the reference encoder does not run on inputs"):
        contam.audit(nn.Linear(8, 3), id=data, reference=nn.Linear(3, 3), progress=False)
