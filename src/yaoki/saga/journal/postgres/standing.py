"""Whether this worker is alive in the eyes of the others, as far as it can know.

    sure ──no answer for a while──▶ in doubt: begins no effect ──answer──▶ sure ── ... ──declared dead──▶ fenced, until it joins again
"""

from __future__ import annotations

from collections.abc import Callable

from yaoki import runtime
from yaoki.errors import FencedError
from yaoki.saga.journal.postgres.lease import Lease
from yaoki.saga.journal.postgres.link import Target


class Standing:
    """One worker: its incarnation, its lease, and the server's time.

    Attributes:
        target: where its journal is. name: how it is called among others. incarnation: its number; 0: none.
        fenced: called when it was declared dead.
    """

    target: Target
    name: str
    incarnation: int
    fenced: Callable[[], None]
    _lease: Lease | None
    _lost: FencedError | None
    _offset: float  # the server's clock less our monotonic one

    async def _end_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await runtime.run_blocking(lease.stop)

    def _was_fenced(self) -> None:
        if self._lost is None:
            self._lost = FencedError(f"worker {self.name} was declared dead: it gave no sign of life for its lease of "
                                     f"{self.target.lease_s:g} s", do="nothing: it starts again by itself, and others go on with its runs; "
                                     "if it happens often, give a longer lease or more CPU", worker=self.name)
            self.fenced()

    def _was_refused(self) -> FencedError:
        self._was_fenced()
        assert self._lost is not None
        return self._lost

    def now(self) -> float:
        """Seconds since 1970 by the server's clock, as well as it was last measured."""
        offset = self._lease.server_offset if self._lease is not None and self._lease.server_offset else self._offset
        return offset + runtime.monotonic()

    async def hold(self) -> None:
        """Wait until this worker is sure to be alive in the eyes of the others: nobody begins an effect in doubt."""
        while self._lease is not None and self._lease.in_doubt and self._lost is None:
            await runtime.sleep(0.05)

    @property
    def is_sure(self) -> bool:
        return self._lease is not None and not self._lease.in_doubt
