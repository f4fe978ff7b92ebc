"""`contam where`: find an item of the papers in the code."""

from typing import Annotated

import tyro


def where(item: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ITEM")]) -> int:
    """Print where an item of the papers is in the code: contam where "Eq. 61".

    Args:
        item: an equation, definition, lemma, theorem, figure, table or section of the first paper;
            an item of the second paper, such as "Murali Fig. 6"; or "Question 1", "Check 2".
    """
    from contam import paper

    print("\n".join(paper.where(item)))
    return 0
