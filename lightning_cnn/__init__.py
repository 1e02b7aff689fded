"""Tracked CNN experiments on PyTorch Lightning: one YAML each, one command, a number to trust."""

__version__ = "0.1.0"
