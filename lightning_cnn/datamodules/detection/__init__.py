"""Data sets of objects with boxes."""
