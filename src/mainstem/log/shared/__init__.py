"""One directory, many processes: the first to open it leads, the others attach to it and get the same contract.

    log = await open_shared_log("data/log")            # in each of four web workers
    await log.append("orders.created", [Record(b"1")])

Where to look: ``protocol.py`` has the messages (pure); ``server.py`` answers them for the leader; ``client.py`` asks;
``log.py`` is the log that leads or follows, and takes over when the leader is gone.
"""

from mainstem.log.shared.log import SharedLog, SharedSettings, open_shared_log

__all__ = ["SharedLog", "SharedSettings", "open_shared_log"]
