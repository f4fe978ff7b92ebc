"""Accuracies of 201 ImageNet models on ImageNet's shifts, and lines of the standard ones.

`testbed_models.csv` holds top-1 accuracies in percent. They are the columns of
`robustness_top1s.csv` in the repository modestyachts/imagenet-testbed at commit 28477dc, rounded to
three decimals, without its three rows of models for a part of the classes. The kinds follow that
repository's `plotting/model_types.py`, but models trained on a part of the images are a kind of
their own.
"""

from contam.measures.robustness import Axis, Line
from contam.measures.standard_models import shipped_models


def imagenet_line(shift: str, *, same_classes: bool = False, axis: Axis = "logit") -> Line:
    """Fit the line of the testbed's standard models for a shift of ImageNet.

    Both conventions for the ID accuracy are in use, and their slopes differ: on all of ImageNet's
    validation set, or only on its images of the shift's classes, as in the testbed's own plots.

    Args:
        shift: Name of the shift, such as "ImageNet-R".
        same_classes: Whether the ID accuracy is on the shift's classes only, which the table has
            for ImageNet-R, ImageNet-A and ObjectNet.
        axis: Scale.

    Raises:
        ValueError: If the table has no such column.

    Source: ours, by the protocol of Taori et al. (2020).

    >>> [round(imagenet_line("ImageNet-R", same_classes=same).slope, 2) for same in (False, True)]
    [0.9, 0.63]
    """
    indistribution = f"ImageNet on the classes of {shift}" if same_classes else "ImageNet"
    return shipped_models().line(indistribution, shift, axis=axis)


def same_classes(shift: str) -> Line | None:
    """Fit the accuracy on a shift's classes to that on all of ImageNet, over standard models.

    Args:
        shift: Name of the shift, such as "ImageNet-R".

    Returns:
        The line, or None for a shift with all classes.

    Source: ours, to convert accuracies that were published for all classes.

    >>> line = same_classes("ImageNet-R")
    >>> line.r_squared > 0.99, same_classes("ImageNetV2")
    (True, None)
    """
    column = f"ImageNet on the classes of {shift}"
    models = shipped_models()
    return models.line("ImageNet", column) if column in models.columns else None
