"""The application's own process under ``mainstem dev``: loads the file, serves it, and tells the supervisor.

    python -m mainstem.cli.child FILE LISTENER PARENT_PIPE READY_PIPE [--json]

The three behind the file are descriptors: the listening socket, a pipe that ends when the supervisor does, and one that
takes the dashboard's address once it answers. With ``--json`` an error is told as JSON, as the supervisor's events are.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from mainstem.base.errors import MainstemError
from mainstem.cli.collector import collector_at_rest
from mainstem.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, exit_code_of


def _main() -> int:
    file, *descriptors = sys.argv[1:5]
    listener_fd, parent_pipe, ready_pipe = map(int, descriptors)
    try:
        with collector_at_rest() as end_rest:
            # Most of a start is importing, so this is imported where the collector rests already.
            from mainstem.cli.loading import load_application  # noqa: PLC0415
            from mainstem.cli.serve import serve  # noqa: PLC0415

            def tell_supervisor(url: str) -> None:
                end_rest()
                os.write(ready_pipe, url.encode() + b"\n")
                os.close(ready_pipe)

            application = load_application(Path(file))
            listener = socket.socket(fileno=listener_fd)
            answered = serve(application, listener, on_ready=tell_supervisor, parent_pipe=parent_pipe)
            return EXIT_OK if answered else EXIT_FAILED
    except MainstemError as error:
        from mainstem.cli.output import Output  # noqa: PLC0415 (a start that goes well prints nothing)

        Output(as_json="--json" in sys.argv[5:]).error(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(_main())
