"""What predictions of returns are worth: statistics, portfolios, baselines and the page that shows them. No torch."""
