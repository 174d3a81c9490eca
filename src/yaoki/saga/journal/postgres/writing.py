"""Writing: batches, each one statement under the fence, and steps in a transaction of their own.

A batch is written once, however often it has to be sent: its number lets it through once (`statements.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import JournalError
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.port import Append, Created, NewRun, TransactionLost
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.batch import Batch
from yaoki.saga.journal.postgres.kin import asks_of, send_asking
from yaoki.saga.journal.postgres.lanes import KnownLanes, lane_of
from yaoki.saga.journal.postgres.link import Connection, Link
from yaoki.saga.journal.postgres.rows import header_made, header_of
from yaoki.saga.journal.postgres.spares import Spares
from yaoki.saga.journal.postgres.standing import Standing
from yaoki.saga.journal.postgres.stepping import CommitLost, transacted
from yaoki.saga.records import Header


class Writing(Standing):
    """For a journal that has joined as a worker."""

    _side: Link
    _writer: Link
    _spares: Spares
    _group: GroupCommit
    _batch: int
    _claim: int
    _failed: JournalError | None  # why this incarnation writes nothing more
    _lanes: KnownLanes
    _held: set[int]  # what this incarnation owns, as far as it knows

    def create(self, run: NewRun) -> Awaitable[Created]:
        return self._group.submit(run)

    def append(self, entry: Append) -> Awaitable[None]:
        return self._group.submit(entry)

    async def _commit(self, operations: list[NewRun | Append]) -> list[Created | None]:
        """Write a batch once, however often it has to be sent."""
        if (reason := self._lost or self._failed) is not None:
            raise reason
        batch = Batch(operations)
        if batch.created:
            await self._lanes.know({lane_of(run) for run in batch.created}, self._writer)
        incarnation, number = self.incarnation, self._batch + 1
        statement, values = batch.prepared(self._lanes.numbers)
        asks = asks_of(batch.asking)
        sent_at = 0.0

        async def send(connection: Connection) -> list[Any]:
            nonlocal sent_at
            sent_at = runtime.monotonic()
            if asks:
                rows = await send_asking(connection, statement, [incarnation, number, self._claim, *values], asks)
            else:
                rows = await connection.fetch(statement, incarnation, number, self._claim, *values)
            return rows or await self._sent_before(connection, number)

        try:
            rows = await self._writer.run(send)
        except JournalError as error:
            # What was handed in after this builds upon it: written alone, it would leave a gap in a history.
            self._failed = error
            raise
        except Exception as error:
            self._failed = JournalError(f"a batch could not be written: {error!r}",
                                        do="this is a bug: report it; the worker starts again from what is durable")
            raise self._failed from error
        self._batch = number
        if self._lease is not None:
            self._lease.renewed(sent_at)
        answers = await self._answers(batch.created, rows) if batch.created else {}
        self._held.difference_update(batch.let_go)
        return [answers[id(each)] if isinstance(each, NewRun) else None for each in operations]

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        incarnation = self.incarnation
        try:
            async with self._spares.one() as connection:
                entry = await transacted(connection, incarnation, work, self._was_refused, self.target.idle_for)
        except CommitLost as lost:
            # Two statements, so that the second sees what the first one waited for.
            await self._side.fetch("SELECT no FROM yaoki.run WHERE no = $1 FOR UPDATE", run)
            (row,) = await self._side.fetch(sql.STEP_FOUND, run, lost.entry.seq)
            if not row[0]:
                raise TransactionLost from lost
            entry = lost.entry
        if entry.due_at is not None or (entry.state is not None and entry.state.is_end):
            self._held.discard(run)
        return entry

    async def _sent_before(self, connection: Connection, number: int) -> list[Any]:
        """The fence did not let the batch through: was it there already, or are we dead?"""
        row = await connection.fetchrow(sql.DID_COMMIT, self.incarnation)
        if row is not None and row["batch"] == number:
            if events.wanted():
                events.emit(events.DoubtSettled(worker=self.name))
            return []
        if events.wanted():
            events.emit(events.BatchRefused(worker=self.name))
        self._was_fenced()
        assert self._lost is not None
        raise self._lost

    async def _answers(self, runs: list[NewRun], rows: list[Any]) -> dict[int, Created]:
        made = {row["id"]: row["no"] for row in rows if row["no"] is not None and row["id"] is not None} if rows else {}
        others = [run.id for run in runs if run.id not in made]
        found: dict[str, tuple[Header, int | None]] = {}
        if others:
            for statement in (sql.BY_IDS, sql.PAST_BY_IDS):  # in the order in which a run moves
                for row in await self._writer.fetch(statement, others):
                    found.setdefault(row["id"], (header_of(row), row.get("owner")))
        answers: dict[int, Created] = {}
        for run in runs:
            no = made.pop(run.id, None)
            if no is not None:
                header, new = header_made(run, no), True
                found[run.id] = (header, None)
            else:
                header, owner = found[run.id]
                # Sent twice, so nothing says which rows are new: what we own and never heard of, this batch has made.
                new = not rows and owner == self.incarnation and header.no not in self._held and header.created_at == run.at
                header = msgspec.structs.replace(header)
            if new and run.keep:
                self._held.add(header.no)
            answers[id(run)] = Created(header, new)
        return answers
