"""Shortcuts of JPEG compression, of tags at the border, and of the size of the object."""

from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contam.auditing.causes.cause import SIGNIFICANCE, CauseTest
from contam.auditing.causes.corruption import BLOCKIER, QUALITIES
from contam.auditing.causes.shortcut import Exchange, Shortcut, class_signal
from contam.auditing.comparison import PLAUSIBLE, Comparison
from contam.auditing.image_edits import blockiness, jpeg, zoomed_about
from contam.data.object_removal import pasted, without_objects

GRID, MOST_CELLS = 4, 4
"""Rows and columns of cells in which tags are searched for, and cells that a tag may fill."""
WEAKER = 0.5
"""Class signal of a cell of the tag, relative to the strongest cell, at least; and the largest mean
signal of the other cells at the border, relative to that of the tag. If they predict the class as
well, it is the background that does, or an object that fills the image."""
LARGEST_ZOOM = 2.5
"""Factor by which objects are enlarged or reduced at most."""


@final
@dataclass(frozen=True)
class CompressionShortcut(Shortcut):
    """The JPEG quality of the class. Artifacts can be added to images and not be removed.

    Source: ours, a test of file formats that go with the class.
    """

    name = "compression shortcut"
    noun = "a JPEG quality that is correlated with the class"
    heading = "Shortcut: the network relies on JPEG artifacts that are correlated with the class"
    question = "Does the network rely on the JPEG quality?"
    meaning = "The network learned the JPEG quality of the class, which the OOD images do not have."
    property = "the JPEG quality"
    method = (
        "Images are compressed until they have the block artifacts of the ID images of their "
        "class, and of another class."
    )
    advice = "compress all training images to one quality, or to random ones"
    stage = 5

    def exchange(self, comparison: Comparison) -> Exchange | CauseTest:
        own = comparison.id_images
        assert own is not None
        if own.x.shape[1] not in (1, 3) or min(own.x.shape[2:]) < 16:
            return self.not_tested("the images are too small, or have no one or three channels")
        blocks = torch.tensor([blockiness(x[None]) for x in own.x])
        levels = {k: blockiness(own.x[own.y == k]) for k in own.y.unique().tolist()}
        clean, least = min(levels.items(), key=lambda level: level[1])
        if max(levels.values()) < BLOCKIER * least or not (
            class_signal(blocks[:, None], own.y).beyond_chance
        ):
            return CauseTest(
                self.step(
                    None, "no", "Block artifacts are not correlated with the class in the ID data."
                )
            )
        known = {q: blockiness(jpeg(own.x[own.y == clean], q)) for q in QUALITIES} | {None: least}
        qualities = {
            k: min(known, key=lambda q: abs(known[q] - level)) for k, level in levels.items()
        }

        def exchanged(x: Tensor, of: str, rows: Tensor, like: Tensor) -> Tensor:
            x, classes = x.clone(), own.y[like]
            for k in classes.unique().tolist():
                quality = qualities[k]
                if quality is not None:
                    x[classes == k] = jpeg(x[classes == k], quality)
            return x

        return exchanged


@final
@dataclass(frozen=True)
class TagShortcut(Shortcut):
    """A few cells at the border whose content is correlated with the class, such as a text.

    Source: ours; Lapuschkin et al. (2019) describe such a tag.
    """

    name = "tag shortcut"
    noun = "a tag at the border that is correlated with the class"
    heading = "Shortcut: the network relies on a tag at the border of the image"
    question = "Does the network rely on a tag at the border?"
    meaning = "The network learned what stands at one place of the border, and not the object."
    property = "the tags"
    method = (
        "The cells at the border whose content is correlated with the class are replaced by those "
        "of an ID image of the same class, and of another class."
    )
    advice = "cut the tags off, or cover them in all images"
    stage = 4

    def exchange(self, comparison: Comparison) -> Exchange | CauseTest:
        own = comparison.id_images
        assert own is not None
        if min(own.x.shape[2:]) < 4 * GRID:
            return self.not_tested("the images are too small")
        height, width = (side // GRID for side in own.x.shape[2:])
        border = [at for at in product(range(GRID), repeat=2) if {0, GRID - 1} & {*at}]
        cells = [
            (
                slice(row * height, None if row == GRID - 1 else (row + 1) * height),
                slice(column * width, None if column == GRID - 1 else (column + 1) * width),
            )
            for row, column in border
        ]
        signals = [
            class_signal(F.adaptive_avg_pool2d(own.x[:, :, *cell], 4).flatten(1), own.y)
            for cell in cells
        ]
        least = WEAKER * max(signal.excess for signal in signals)
        in_tag = [
            signal.p_value < SIGNIFICANCE / len(border) and signal.excess >= least
            for signal in signals
        ]
        inside, outside = (
            [signal.excess for signal, tagged in zip(signals, in_tag, strict=True) if tagged is of]
            for of in (True, False)
        )
        if not 0 < len(inside) <= MOST_CELLS or mean(outside) > WEAKER * mean(inside):
            return CauseTest(
                self.step(None, "no", "In the ID data, no place at the border is more correlated "
                          "with the class than the others, so there is no tag.")
            )  # fmt: skip
        tag = [cell for cell, tagged in zip(cells, in_tag, strict=True) if tagged]

        def exchanged(x: Tensor, of: str, rows: Tensor, like: Tensor) -> Tensor:
            x = x.clone()
            for cell in tag:
                x[:, :, *cell] = own.x[:, :, *cell][like].to(x)
            return x

        return exchanged


@final
@dataclass(frozen=True)
class SizeShortcut(Shortcut):
    """The size of the object, which is cut out along its mask, or as what differs from the border.

    Source: ours, a test of object sizes that go with the class.
    """

    name = "size shortcut"
    noun = "a size of the object that is correlated with the class"
    heading = "Shortcut: the network relies on the size of the object"
    question = "Does the network rely on the size of the object?"
    meaning = "The network learned the size of the class, which the OOD images do not have."
    property = "the sizes"
    method = (
        "Objects are cut out and enlarged or reduced to the size of the object in an ID image of "
        "the same class, and of another class."
    )
    advice = "train with objects of random sizes, such as by random resized crops"
    stage = 3

    def exchange(self, comparison: Comparison) -> Exchange | CauseTest:
        own = comparison.id_images
        assert own is not None
        name = comparison.inputs.id.name
        masks = {of: comparison.masks(of) for of in (name, comparison.name)}
        if min(plausible for _, plausible in masks.values()) < PLAUSIBLE:
            return self.not_tested("no object stands out in most images; give masks= of both sets")
        sizes = {of: mask.mean((1, 2, 3)).clamp(min=1e-3) for of, (mask, _) in masks.items()}
        if not class_signal(sizes[name].log()[:, None], own.y).beyond_chance:
            return CauseTest(
                self.step(None, "no", "The size of the object is not correlated with the class in "
                          "the ID data.")
            )  # fmt: skip

        def exchanged(x: Tensor, of: str, rows: Tensor, like: Tensor) -> Tensor:
            mask = masks[of][0][rows]
            factor = (sizes[name][like] / sizes[of][rows]).sqrt()
            factor = factor.clamp(1 / LARGEST_ZOOM, LARGEST_ZOOM)
            at = _middle(mask)
            larger, cut = (zoomed_about(part, factor, at) for part in (x, mask.to(x)))
            return pasted(larger, cut, without_objects(x, mask))

        return exchanged


def _middle(mask: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n 2"]:
    """The center of mass of each object, across and down, from -1 to 1."""
    weight = mask[:, 0] / mask.sum((1, 2, 3)).clamp(min=1e-6)[:, None, None]
    height, width = mask.shape[2:]
    across, down = ((torch.arange(side) * 2 + 1) / side - 1 for side in (width, height))
    return torch.stack([(weight.sum(1) * across).sum(1), (weight.sum(2) * down).sum(1)], dim=1)
