"""Sections 3 and 4 of *Feature Contamination*: data model, networks, training, theorems."""
