"""Taking runs up, and giving them back.

A claim is one statement under the fence, with a counter of its own: `claim`. Sent again after a broken connection, it finds the
counter moved, and reads which runs the first one took. The runs' histories are read for the whole page at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from yaoki import runtime
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.kin import CLAIM_ENDED, recall
from yaoki.saga.journal.postgres.lanes import PEEK, WALK, WALK_SHARE, KnownLanes
from yaoki.saga.journal.postgres.link import Connection
from yaoki.saga.journal.postgres.reading import Reading
from yaoki.saga.journal.postgres.rows import header_of
from yaoki.saga.journal.postgres.standing import Standing
from yaoki.saga.journal.queues.postgres import PostgresQueues
from yaoki.saga.records import Stored

# What one lane gives at a time at least. Small, so that a tenant with a million runs leaves room for another's ten.
LANE_SHARE = 8


Ask = Callable[[Connection, int], Awaitable[list[Any]]]


class Claiming(Standing, Reading, PostgresQueues):
    """For a journal that has joined as a worker."""

    _graphs: list[str] | None
    _queues: list[str] | None
    _claim: int
    _claiming: asyncio.Lock
    _held: set[int]  # what this incarnation owns, as far as it knows
    _released: list[int]
    _lanes: KnownLanes
    _hints: list[int]  # lanes that were found to have something, by a walk through all
    _walk_at: float  # not before then, by the monotonic clock, is there another walk
    _news: int  # the newest operation, as of the last look
    _may_be_limited: bool  # may there be something to take from queues with limits?
    _unsure: bool  # was the last claim given up on, so that nobody knows what became of it?

    async def take(self, limit: int) -> list[Stored]:
        """From queues with limits first, for they give few; then from the others."""
        limited = await self._taken(await self._claimed_of_limited(limit)) if self._may_be_limited else []
        if len(limited) == limit:
            return limited
        try:
            return limited + await self._taken(await self._claimed(sql.CLAIM, limit - len(limited), self._graphs, self._queues, LANE_SHARE,
                                                              self._hints))
        except BaseException:
            for stored in limited:
                self.release(stored.header.no)
            raise

    async def take_one(self, run_id: str) -> Stored | None:
        found = await self._taken(await self._claimed(sql.CLAIM_ONE, run_id))
        return found[0] if found else None

    async def take_ended(self, run_id: str) -> Stored | None:
        await self._side.run(lambda c: recall(c, run_id, self.incarnation))
        found = await self._taken(await self._claimed(CLAIM_ENDED, run_id))
        return found[0] if found else None

    async def _taken(self, rows: list[Any]) -> list[Stored]:
        try:
            found = await self._with_records(sorted((header_of(row) for row in rows), key=lambda header: header.no))
            await self._name_queues(found, {row["no"]: row.get("lane") for row in rows})
        except BaseException:  # nobody will drive them: give them back, or they would be ours until this worker ends
            for row in rows:
                self.release(row["no"])
            raise
        return found

    async def _name_queues(self, found: list[Stored], lanes: dict[int, int | None]) -> None:
        await self._lanes.look_up({lane for lane in lanes.values() if lane is not None}, self._side)
        for stored in found:
            stored.queue = self._lanes.queues.get(lanes[stored.header.no] or 0, "default")

    async def owned(self) -> list[tuple[int, str]]:
        return [(row[0], row[1]) for row in await self._side.fetch(sql.OWNED, self.incarnation)]

    def release(self, no: int) -> None:
        self._released.append(no)
        self._held.discard(no)

    async def flush(self) -> None:
        """Give back what was released."""
        if self._released:
            numbers, self._released = self._released, []
            try:
                await self._fenced_claim(sql.RELEASE, numbers)
            except BaseException:
                self._released += numbers
                raise

    async def peek(self) -> tuple[bool, bool]:
        (row,) = await self._side.fetch(PEEK, self._graphs, self._queues)
        found = {gate for gate, has_due in ((0, row["due"]), (1, row["limited"])) if has_due}
        self._hints = row["found"]
        if row["hides"] and len(found) < 2 and runtime.monotonic() >= self._walk_at:
            found |= await self._walk({0, 1} - found)
        self._may_be_limited, self._news = 1 in found, row["news"]
        return bool(found or self._released), row["asked"]  # what is to be given back goes with the next claim

    async def _walk(self, gates: set[int]) -> set[int]:
        """Ask all lanes with these gates. Returns the gates of those that have something."""
        began = runtime.monotonic()
        rows = await self._side.fetch(WALK, self._graphs, self._queues, sorted(gates))
        ended = runtime.monotonic()
        self._walk_at = ended + (ended - began) / WALK_SHARE
        self._hints = self._hints + [row["no"] for row in rows]
        return {row["gate"] for row in rows}

    async def _claimed_of_limited(self, limit: int) -> list[Any]:
        return await self._claimed(lambda connection, number: self._take_limited(connection, self.incarnation, number, limit))

    async def _claimed(self, statement: str | Ask, *values: Any) -> list[Any]:
        await self.flush()
        rows = await self._fenced_claim(statement, *values)
        found = [row for row in rows if row["no"] is not None]
        self._held.update(row["no"] for row in found)
        return found

    async def _fenced_claim(self, statement: str | Ask, *values: Any) -> list[Any]:
        """`statement`: or what asks the server several things, in one transaction that begins with the fence."""
        async with self._claiming:
            if self._lost is not None:
                raise self._lost
            if self._unsure:
                await self._settle_claim()
            number = self._claim + 1

            async def send(connection: Connection) -> list[Any]:
                if isinstance(statement, str):
                    rows = await connection.fetch(statement, self.incarnation, number, *values)
                else:
                    rows = await statement(connection, number)
                if rows:
                    return list(rows)
                row = await connection.fetchrow(sql.DID_COMMIT, self.incarnation)
                if row is None or row["claim"] != number or row["state"] == "dead":
                    self._was_fenced()
                    assert self._lost is not None
                    raise self._lost
                # It came through, and its answer was lost.
                return list(await connection.fetch(sql.CLAIMED, self.incarnation, number))

            self._unsure = True
            rows = await self._side.run(send)
            self._claim, self._unsure = number, False
            return rows

    async def _settle_claim(self) -> None:
        """The last claim was given up on. What it took, if it came through, goes back; if it is still on its way, it comes too late.

        Its number is used up for that. Were it used again, the next claim could be answered with what this one takes.
        """
        number = self._claim + 1
        if not await self._side.fetch(sql.BURN_CLAIM, self.incarnation, number):
            self._was_fenced()
            assert self._lost is not None
            raise self._lost
        self._released += [each["no"] for each in await self._side.fetch(sql.CLAIMED, self.incarnation, number)]
        self._claim, self._unsure = number, False
