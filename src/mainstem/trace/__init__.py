"""Trace context (W3C) and the span model: nothing here needs the log."""
