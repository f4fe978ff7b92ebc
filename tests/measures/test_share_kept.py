"""The share of effective robustness that students keep, by any line of standard models."""

from statistics import fmean

import pytest
import torch

from contam.measures.published import published
from contam.measures.robustness import IMAGENET_LINES, Line, effective_robustness, fit_line
from contam.measures.standard_models import shipped_models
from contam.measures.testbed import imagenet_line

SHIFTS = tuple(IMAGENET_LINES)
NETWORKS = ("RN50", "RN101", "ViT-B/16", "RN50x4", "RN50x16")
OWN_CLASSES = ("ImageNet-R", "ImageNet-A", "ObjectNet")


def line(own: str, other: str, low: float = 0.0, high: float = 100.0) -> Line:
    """The line of standard models with an accuracy on all classes between two bounds."""
    pairs = [
        (float(model[own]), float(model[other]))
        for model in shipped_models().rows
        if model["kind"] == "standard" and model[own] and model[other]
        if low <= float(model["ImageNet"]) <= high
    ]
    x, y = torch.tensor(pairs, dtype=torch.float64).T / 100
    return fit_line(x, y)


def robustness(row: str, convention: str) -> float:
    """Mean effective robustness over the five shifts."""
    accuracies = published(1)[row]
    own = torch.tensor([accuracies["ImageNet (ID) top-1"] / 100], dtype=torch.float64)
    points = []
    for shift in SHIFTS:
        x, chosen = own, imagenet_line(shift)
        if convention == "85 models":
            chosen = IMAGENET_LINES[shift]
        elif convention == "own classes" and shift in OWN_CLASSES:
            x = line("ImageNet", f"ImageNet on the classes of {shift}").expected(own)
            chosen = imagenet_line(shift, same_classes=True)
        elif convention == "two pieces" and shift == "ImageNet-A":
            resnet50 = 76.13
            below = accuracies["ImageNet (ID) top-1"] <= resnet50
            chosen = line("ImageNet", shift, *((0, resnet50) if below else (resnet50, 100)))
        ood = torch.tensor([accuracies[f"{shift} top-1"] / 100], dtype=torch.float64)
        points.append(float(effective_robustness(x, ood, chosen)))
    return fmean(points)


@pytest.mark.parametrize("convention", ["85 models", "80 models", "own classes", "two pieces"])
def test_the_share_that_students_keep_hardly_depends_on_the_convention(convention):
    kept = [
        robustness(f"Distilled {name}", convention) / robustness(f"CLIP-{name}", convention)
        for name in NETWORKS
    ]
    assert fmean(kept) == pytest.approx(0.405, abs=0.01)
    assert min(kept) == kept[2] == pytest.approx(0.34, abs=0.015)
    assert max(kept) == kept[4] == pytest.approx(0.48, abs=0.015)
