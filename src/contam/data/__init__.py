"""Functions that return a `Shift`."""
