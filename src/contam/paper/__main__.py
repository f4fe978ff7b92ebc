"""`python -m contam.paper` writes the page of the paper map to the standard output."""

import sys

from contam.paper import markdown

sys.stdout.write(markdown())
