"""Launchers and Slurm. Imports no torch."""
