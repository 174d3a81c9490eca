"""Locks of a journal in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from yaoki import runtime
from yaoki.saga.journal.locks import Claim
from yaoki.saga.journal.port import Request
from yaoki.saga.records import Header

T = TypeVar("T")


class MemoryLocks:
    """Lists of claims by key. What it reads of the journal is declared here."""

    _claims: dict[str, list[Claim]]
    _headers: dict[int, Header]
    _numbers: dict[str, int]
    _parked: dict[int, float]
    _requests: dict[int, Request]
    _next_request: int

    async def _beside(self, what: str, write: Callable[[], T]) -> T:
        del what
        return write()

    async def claim_lock(self, run_id: str, key: str) -> str:
        def write() -> str:
            self._sweep(key, but=run_id)
            queue = self._claims.setdefault(key, [])
            if all(claim.run != run_id for claim in queue):
                queue.append(Claim(key, run_id, runtime.unix_time(), not queue))
            return queue[0].run

        return await self._beside("lock", write)

    async def settle_locks(self, run_id: str = "") -> bool:
        def write() -> bool:
            keys = [key for key, queue in self._claims.items() if not run_id or any(claim.run == run_id for claim in queue)]
            return any([self._sweep(key) for key in keys])  # noqa: C419  all of them

        return await self._beside("unlock", write)

    async def claims(self, run_id: str = "", *, family: bool = False) -> list[Claim]:
        queues = [self._living(key) for key in sorted(self._claims)]
        below = f"{run_id}/"
        return [claim for queue in queues
                if not run_id or any(each.run == run_id or (family and each.run.startswith(below)) for each in queue) for claim in queue]

    def _living(self, key: str) -> list[Claim]:
        living = [claim for claim in self._claims.get(key, ()) if self._is_unfinished(claim.run)]
        return [msgspec.structs.replace(claim, holds=not place) for place, claim in enumerate(living)]

    def _is_unfinished(self, run_id: str) -> bool:
        number = self._numbers.get(run_id)
        return number is not None and not self._headers[number].state.is_end

    def _sweep(self, key: str, *, but: str = "") -> bool:
        living = self._living(key)
        if len(living) == len(self._claims.get(key, ())):
            return False
        if living:
            self._claims[key] = living
        else:
            self._claims.pop(key, None)
        if living and living[0].run != but:
            self._wake(living[0].run)
        return True

    def _wake(self, run_id: str) -> None:
        # On a fresh number each time: the simulated workers of one journal count for themselves.
        number = self._next_request = max(self._next_request, *(no + 1 for no in self._requests), 1)
        self._requests[number] = Request(number, run_id, "wake", b"{}", runtime.unix_time())
        self._next_request += 1
        if self._numbers[run_id] in self._parked:
            self._parked[self._numbers[run_id]] = 0.0
