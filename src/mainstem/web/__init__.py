"""The dashboard and the HTTP API: one ASGI application that is mounted under any prefix.

Where to look: ``projection.py`` makes the page state from the log; ``panels/`` are what the core shows; ``shell.py``
puts a page together; ``hub.py`` keeps it live; ``security.py`` lets in whom it should (``identity.py`` is what of that
needs no web framework); ``application.py`` joins them.
"""
