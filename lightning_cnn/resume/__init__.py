"""Stopping and going on: files that are written whole, and locks. Imports neither torch nor Lightning."""
