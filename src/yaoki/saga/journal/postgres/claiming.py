"""Taking runs up, and giving them back.

A claim is one statement under the fence, with a counter of its own: `claim`. Sent again after a broken connection, it finds the
counter moved, and reads which runs the first one took. The runs' histories are read for the whole page at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.kin import CLAIM_ENDED, recall
from yaoki.saga.journal.postgres.link import Connection
from yaoki.saga.journal.postgres.reading import Reading
from yaoki.saga.journal.postgres.rows import header_of
from yaoki.saga.journal.postgres.standing import Standing
from yaoki.saga.records import Stored

# What one lane gives at a time at least. Small, so that a tenant with a million runs leaves room for another's ten.
LANE_SHARE = 8


class Claiming(Standing, Reading):
    """For a journal that has joined as a worker."""

    _graphs: list[str] | None
    _queues: list[str] | None
    _claim: int
    _claiming: asyncio.Lock
    _held: set[int]  # what this incarnation owns, as far as it knows
    _released: list[int]
    _unsure: bool  # was the last claim given up on, so that nobody knows what became of it?

    async def take(self, limit: int) -> list[Stored]:
        return await self._taken(await self._claimed(sql.CLAIM, limit, self._graphs, self._queues, LANE_SHARE))

    async def take_one(self, run_id: str) -> Stored | None:
        found = await self._taken(await self._claimed(sql.CLAIM_ONE, run_id))
        return found[0] if found else None

    async def take_ended(self, run_id: str) -> Stored | None:
        await self._side.run(lambda c: recall(c, run_id, self.incarnation))
        found = await self._taken(await self._claimed(CLAIM_ENDED, run_id))
        return found[0] if found else None

    async def _taken(self, rows: list[Any]) -> list[Stored]:
        try:
            return await self._with_records(sorted((header_of(row) for row in rows), key=lambda header: header.no))
        except BaseException:  # nobody will drive them: give them back, or they would be ours until this worker ends
            for row in rows:
                self.release(row["no"])
            raise

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
        (row,) = await self._side.fetch(sql.PEEK, self._graphs, self._queues)
        return row["due"] or bool(self._released), row["asked"]  # what is to be given back goes with the next claim

    async def _claimed(self, statement: str, *values: Any) -> list[Any]:
        await self.flush()
        rows = await self._fenced_claim(statement, *values)
        found = [row for row in rows if row["no"] is not None]
        self._held.update(row["no"] for row in found)
        return found

    async def _fenced_claim(self, statement: str, *values: Any) -> list[Any]:
        async with self._claiming:
            if self._lost is not None:
                raise self._lost
            if self._unsure:
                await self._settle_claim()
            number = self._claim + 1

            async def send(connection: Connection) -> list[Any]:
                rows = await connection.fetch(statement, self.incarnation, number, *values)
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
        """The last claim was given up on while the server was away. What it took, if it came through, goes back."""
        number = self._claim + 1
        (row,) = await self._side.fetch(sql.DID_COMMIT, self.incarnation)
        if row["claim"] == number:
            self._claim = number
            self._released += [each["no"] for each in await self._side.fetch(sql.CLAIMED, self.incarnation, number)]
        self._unsure = False
