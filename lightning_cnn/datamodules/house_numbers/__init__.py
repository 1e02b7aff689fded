"""Data sets of house numbers: whole numbers and boxes of digits."""
