"""Networks that learn dominoes: cases, looks at them, and the figures that are drawn of the looks.

A cue is whatever could tell the class: the core, or a spurious feature that goes along with it.
"""
