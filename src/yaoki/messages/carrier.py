"""What the ways in and out of one service's store have in common: between whom they carry, and how they are told to stop.

Each is a reader of the store's log or leads an election by it, under a group of its own; of the processes of one service,
those that hold its leases are at work.
"""

from __future__ import annotations

from yaoki import runtime
from yaoki.messages.brokers.port import Broker
from yaoki.messages.consumer import Pace
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.port import Store


class Carrier:
    """Between one service's store and a broker.

    Args:
        role: what the group is called, after the service.

    Attributes:
        failures: turns in a row that came to nothing, since one was good.
    """

    def __init__(self, store: Store, broker: Broker, *, service: str, role: str, pace: Pace | None = None) -> None:
        self.store = store
        self.broker = broker
        self.service = service
        self.group = f"{service}.{role}"
        self.pace = pace or Pace()
        self.worker = runtime.new_id()
        self.failures = 0
        self._declared = False
        self._balance_at = 0.0
        self._stopping = False
        self._bell = Bell()

    def stop(self) -> None:
        """Finish what is under way, and return from `run`."""
        self._stopping = True
        self._bell.ring()
