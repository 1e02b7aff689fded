"""Choose a setting before a training begins."""
