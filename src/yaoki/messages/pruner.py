"""Takes out of a store what is old and done, a little at a time, for as long as the service runs.

Several processes of a service may do it at once: what one has deleted the other does not find.
"""

from __future__ import annotations

from yaoki import events, runtime
from yaoki.errors import MessagesError
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.port import Store

AT_ONCE = 5_000
"""Messages in one transaction. SQLite has one writer, and others wait for it: this many take some tens of milliseconds."""
PAUSE_S = 0.2
RUNS_S = 35 * 86_400.0
"""Words of choreographed runs are kept at least so long: a step of one may be tried for thirty days."""


async def prune_now(store: Store, *, keep_s: float) -> int:
    """Delete at once all that may go. Returns how many messages did, about where whole tables were dropped."""
    gone = 0
    while found := (await store.prune(keep_s, limit=AT_ONCE, runs=False, patient=False)
                    + await store.prune(max(keep_s, RUNS_S), limit=AT_ONCE, patient=False)):
        gone += found
        await runtime.sleep(PAUSE_S / 10)  # others want to write, too
    return gone


class Pruner:
    """Keeps the log of one store as long as was declared.

    Args:
        keep_s: seconds that a message is kept after it was published. A repetition of it after that is taken for new.
    """

    def __init__(self, store: Store, *, keep_s: float) -> None:
        self.store = store
        self.keep_s = keep_s
        self.pruned = 0
        self._bell = Bell()
        self._stopping = False

    def stop(self) -> None:
        """Return from `run` after the batch under way."""
        self._stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Prune until `stop`: what has come of age in the meantime, a hundredth of `keep_s` at a time, at most an hour."""
        every_s = min(3600.0, max(1.0, self.keep_s / 100))
        while not self._stopping:
            heard = self._bell.rings
            try:
                more = await self._prune()
            except MessagesError as error:
                events.emit(events.RelayStalled(broker=self.store.url, error=str(error), failures=1, retry_in_s=every_s))
                more = False
            await self._bell.wait(heard, PAUSE_S if more else every_s)

    async def _prune(self) -> bool:
        """One batch. True if there may be more."""
        found = await self.store.prune(self.keep_s, limit=AT_ONCE, runs=False)
        runs = await self.store.prune(max(self.keep_s, RUNS_S), limit=AT_ONCE)
        self.pruned += found + runs
        return max(found, runs) >= AT_ONCE
