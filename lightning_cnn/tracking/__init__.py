"""What is remembered of a run: its folder, its record, and the loggers that write into it."""
