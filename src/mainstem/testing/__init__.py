"""What tests import: a disk and a clock that fail and move as a test wants it.

``SimulatedDisk`` stands in for ``mainstem.host.disk.SystemDisk`` and ``SimulatedClock`` for
``mainstem.host.clock.SystemClock``.
"""

from mainstem.testing.clock import SimulatedClock
from mainstem.testing.disk import DiskOperation, OperationKind, PowerCutError, SimulatedDisk
from mainstem.testing.volume import SECTOR_BYTES, Chooser, keep_all, keep_none, keep_some

__all__ = [
    "SECTOR_BYTES",
    "Chooser",
    "DiskOperation",
    "OperationKind",
    "PowerCutError",
    "SimulatedClock",
    "SimulatedDisk",
    "keep_all",
    "keep_none",
    "keep_some",
]
