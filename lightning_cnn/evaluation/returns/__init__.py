"""Evaluation of predicted returns."""
