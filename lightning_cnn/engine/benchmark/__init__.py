"""Times networks and saved runs."""
