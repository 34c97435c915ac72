"""Long-running destruction, with one line of JSON at its end: ``make chaos``."""
