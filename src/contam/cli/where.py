"""`contam where`: find a numbered item of the paper in the code."""

from typing import Annotated

import tyro


def where(item: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ITEM")]) -> int:
    """Print where a numbered item of the paper is in the code: contam where "Eq. 61".

    Args:
        item: an equation, definition, lemma, theorem, figure, table or appendix section.
    """
    from contam import paper

    print("\n".join(paper.where(item)))
    return 0
