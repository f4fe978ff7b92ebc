"""`python -m contam` is `contam`."""

import sys

from contam.cli import main

sys.exit(main())
