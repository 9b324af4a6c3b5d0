"""`xlner report`: finished runs as one HTML page, with the numbers behind it as JSON."""
