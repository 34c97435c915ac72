"""Servers that peers need: started for a turn in a directory of their own, on a Unix socket, and ended after it."""
