"""Windows of monthly returns."""
