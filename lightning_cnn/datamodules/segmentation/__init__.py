"""Data sets of images with masks: a class for each pixel."""
