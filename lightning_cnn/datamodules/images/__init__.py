"""Data sets of labeled images."""
