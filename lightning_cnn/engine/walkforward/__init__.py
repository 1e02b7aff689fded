"""Walk-forward evaluation: folds, each trained on its own past."""
