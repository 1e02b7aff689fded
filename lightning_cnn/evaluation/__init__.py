"""What predictions are worth: confidence, statistics, portfolios, baselines and the page that shows them."""
