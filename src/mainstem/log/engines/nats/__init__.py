"""A log on NATS JetStream: one log is one JetStream stream, a record's position is its sequence.

    log = await open_nats_log("nats://127.0.0.1:4222/orders")

Where to look: ``address.py`` and ``wire.py`` say how names, records and answers are written; ``calls.py`` checks a call
and makes messages of it; ``connection.py`` has requests and lost connections; ``appending.py``, ``reading.py`` and
``tail.py`` do what they say; ``configuration.py`` makes the stream, or refuses one that would lose records;
``engine.py`` is the log.
"""

from mainstem.log.engines.nats.address import NatsAddress, is_nats, parse_address
from mainstem.log.engines.nats.configuration import open_nats_log
from mainstem.log.engines.nats.engine import NatsLog, NatsSettings

__all__ = ["NatsAddress", "NatsLog", "NatsSettings", "is_nats", "open_nats_log", "parse_address"]
