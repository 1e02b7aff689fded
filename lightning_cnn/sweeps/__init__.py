"""Sweeps: where settings are searched, and the trials that any number of processes share."""
