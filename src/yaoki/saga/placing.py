"""Where a run waits for its turn: its queue, how urgent it is, whose it is, and how long to wait first."""

from __future__ import annotations

import msgspec

from yaoki.errors import UsageError
from yaoki.saga.journal.port import NORMAL, NewRun


class Placing(msgspec.Struct, frozen=True):
    """How a run is to be taken up.

    Attributes:
        queue: it may have limits (`saga/queue.py`), and workers may be told to serve some queues only.
        priority: 0 (first) to 9 (last).
        tenant: whose it is; tenants take turns, so that one with a million runs does not delay another's ten.
        delay: seconds to wait before it begins.
    """

    queue: str = "default"
    priority: int = NORMAL
    tenant: str = ""
    delay: float = 0.0

    def check(self) -> None:
        """Raises UsageError."""
        if not 0 <= self.priority <= 9:
            raise UsageError(f"priority is 0 (first) to 9 (last), not {self.priority}", do=f"{NORMAL} is the default")
        if not self.delay >= 0:
            raise UsageError(f"delay is seconds, not {self.delay}", do="0 is the default")

    @property
    def is_plain(self) -> bool:
        return self == PLAIN

    def of(self, run: NewRun, now: float) -> NewRun:
        """The run, placed. It is not kept by its creator: others may be more urgent."""
        return msgspec.structs.replace(run, keep=False, due_at=now + self.delay if self.delay else 0.0, queue=self.queue,
                                       priority=self.priority, tenant=self.tenant)


PLAIN = Placing()
