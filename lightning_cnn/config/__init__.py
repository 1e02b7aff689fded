"""Configuration: files and words become checked plain data; what they name is found and trusted here."""
