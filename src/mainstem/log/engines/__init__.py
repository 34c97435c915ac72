"""Engines beyond the embedded one: each a package that offers the log's contract over a server that exists.

An engine is imported when it is chosen, since each brings a client of its own as an extra.
"""
