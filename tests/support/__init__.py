"""Data, networks and small checks that several test modules use; each exists once, here."""
