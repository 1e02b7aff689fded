"""What predictions of returns are worth."""
