"""Data sets of ships seen from above."""
