"""Evaluation of predictions: confidence, directions of metrics, and returns."""
