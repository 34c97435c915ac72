"""Our application from process start until one job has run and the dashboard has shown a page; then it stays up.

It starts as the process does that ``mainstem dev`` runs an application in (``mainstem.cli.child``): the garbage
collector rests from before the first import until the server answers.
"""

from __future__ import annotations

from mainstem.cli.collector import collector_at_rest

if __name__ == "__main__":
    with collector_at_rest() as end_rest:
        from bench.contenders.start_mainstem_app import main

        main(end_rest)
