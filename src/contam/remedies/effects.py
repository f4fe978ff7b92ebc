"""Measured effects of remedies on networks whose failure is known.

`effects.csv` is the table of the first figure of the experiment `remedy_effects`:

    contam run remedy_effects hour
    contam figures runs/remedy_effects-* --only 1 --format csv

An audit takes its words about remedies from this table alone.
"""

import functools
from importlib import resources
from typing import Literal, NamedTuple, cast

from contam.data.worlds import WORLDS
from contam.text_files import read_csv
from contam.training.changes import CHANGES

Kind = Literal["change", "data", "repair"]
Effect = Literal["helps", "harms", "not shown"]
MOST = 3
"""Remedies that are offered for a cause, the best ones."""
DATA = {
    "training images of the shift": "Train on images of the shifted distribution, too: they "
    "replaced half of the training images.",
    "more training images": "Train on more images: three times as many.",
    "pre-training on diverse backgrounds": "Fine-tune a network that was pre-trained on more "
    "diverse backgrounds.",
}
"""What to do, for remedies that are other training data."""


class KnownEffect(NamedTuple):
    """The effect of a remedy in a world of `contam.data.worlds`, in points of accuracy."""

    remedy: str
    """Name of a change of the training, of other training data, or title of a repair."""
    kind: Kind
    world: str
    seeds: int
    ood_before: float
    ood_change: float
    ood_low: float
    """Lower end of the 95 % interval over seeds."""
    ood_high: float
    id_change: float
    effect: Effect
    """`helps` or `harms` if the change is beyond chance among all effects, else `not shown`."""

    @property
    def what(self) -> str:
        """What to do, as sentences; the remedy's title for a repair."""
        if self.kind == "change":
            masks = " This needs masks of the objects." if CHANGES[self.remedy].needs_masks else ""
            return f"Train again with {self.remedy}: {_lower(CHANGES[self.remedy].what)}{masks}"
        return DATA.get(self.remedy, self.remedy)

    @property
    def words(self) -> str:
        """The effect as a sentence."""
        sure = "" if self.effect != "not shown" else "Not sure among so many comparisons: "
        return (
            f"{sure}{self.ood_change:+.1f} points of OOD accuracy "
            f"({self.ood_low:+.1f} to {self.ood_high:+.1f}), {self.id_change:+.1f} of ID accuracy, "
            f"on small networks of the embedded benchmark ({self.seeds} seeds)."
        )

    @property
    def caveat(self) -> str:
        """Where else the remedy helps or harms, as a sentence."""
        others = [row for row in known_effects()
                  if row.remedy == self.remedy and row.world != self.world]  # fmt: skip
        harms = [row for row in others if row.effect == "harms"]
        if harms:
            listed = ", ".join(f"{row.world} {row.ood_change:+.1f} points" for row in harms)
            return f"It lowers the OOD accuracy of other networks: {listed}."
        helps = [row.world for row in others if row.effect == "helps"]
        if helps:
            return f"It harms no other kind of network there, and also helps: {', '.join(helps)}."
        return "It has no sure effect on other kinds of networks there."


@functools.cache
def known_effects() -> tuple[KnownEffect, ...]:
    """Return the table.

    Source: ours, the experiment `remedy_effects`.

    >>> {row.effect for row in known_effects()} <= {"helps", "harms", "not shown"}
    True
    """
    with resources.as_file(resources.files("contam.remedies") / "effects.csv") as path:
        header, *lines = read_csv(path)
    effects = []
    for line in lines:
        row = dict(zip(header, line, strict=True))
        before, change, low, high, own = (float(row[name]) for name in KnownEffect._fields[4:9])
        kind, effect = cast(Kind, row["kind"]), cast(Effect, row["effect"])
        effects.append(
            KnownEffect(
                row["remedy"], kind, row["world"], int(row["seeds"]), before, change, low, high,
                own, effect,
            )
        )  # fmt: skip
    return tuple(effects)


def helpful(cause: str) -> list[KnownEffect]:
    """Return the trainings that help against a cause of failure.

    Repairs are left out, because an audit measures them on the user's own network.

    Args:
        cause: name of a cause of `contam.auditing`.

    Returns:
        At most `MOST` effects whose interval is above 0: first those that are beyond chance among
        all effects, then the largest gains of OOD accuracy. None for a cause without a world.

    Source: ours, advice rests on trainings of networks whose failure was known.

    >>> helpful("label mismatch")
    []
    """
    worlds = [name for name, world in WORLDS.items() if cause and world.cause == cause]
    rows = [row for row in known_effects()
            if row.world in worlds and row.kind != "repair" and row.ood_low > 0]  # fmt: skip
    return sorted(rows, key=lambda row: (row.effect != "helps", -row.ood_change))[:MOST]


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
