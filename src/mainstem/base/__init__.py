"""Errors, names, ids and codecs: pure code without any contact with the operating system."""
