"""How much work ``flow_app.py`` does."""

RUNS = 8
"""Runs of its workflow."""

ROUNDS = 70
"""Rounds of each run, each with an event."""
