"""`AsyncParticipant`: the shell for asyncpg connections. Same words, same rules as `Participant`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.errors import DeclinedError, InProgressError, UsageError
from yaoki.saga.participant import decide
from yaoki.saga.participant.decide import Answer, Row
from yaoki.saga.participant.table import Statements

Connection = Any  # asyncpg is an extra, and its pool hands out proxies


class AsyncParticipant:
    """Does and undoes effects by key, each at most once, in the caller's transaction on an asyncpg connection.

    Every method runs inside `async with connection.transaction():` and never commits. Cancelling one leaves the
    transaction to the caller's rollback, so nothing of it is kept.

    Args:
        table: where the keys are kept, in the service's own database.
        wait: while another transaction carries out the same key, wait for it (True), or raise `InProgressError`.
    """

    def __init__(self, table: str = "yaoki_effects", *, wait: bool = True) -> None:
        self.table = table
        self.wait = wait
        self._sql = Statements(table, "numeric")

    async def create(self, connection: Connection) -> None:
        """Make the table if it is not there."""
        await connection.execute(self._sql.create)

    async def do(self, connection: Connection, key: str, work: Callable[[], Awaitable[Any]], *, request: Any = b"") -> Answer:
        """Await `work()` if this key is new; otherwise give its first answer again. See `Participant.do`."""
        await self._begin(connection, key)
        asked = decide.fingerprint(request)
        if await connection.fetchrow(self._sql.claim, key, "doing", asked, runtime.unix_time()) is None:
            return decide.answer_again(await self._known(connection, key), asked)
        await connection.execute("SAVEPOINT yaoki_work")
        try:
            answer = _json(await work())
        except DeclinedError as error:
            await connection.execute("ROLLBACK TO SAVEPOINT yaoki_work")
            await connection.execute(self._sql.done, "declined", _json(error.to_dict()), runtime.unix_time(), key)
            raise
        await connection.execute("RELEASE SAVEPOINT yaoki_work")
        await connection.execute(self._sql.done, "done", answer, runtime.unix_time(), key)
        return Answer(msgspec.json.decode(answer))  # what a repetition gets, to the letter

    async def undo(self, connection: Connection, key: str, work: Callable[[Any], Awaitable[Any]]) -> Answer:
        """Reverse what `do` did under this key, or leave a tombstone. See `Participant.undo`."""
        await self._begin(connection, key)
        if await connection.fetchrow(self._sql.claim, key, "undone", "", runtime.unix_time()) is not None:
            return Answer(None)
        row = await self._known(connection, key)
        if row.state == "undone":
            return Answer(msgspec.json.decode(row.undo_answer), replayed=True)
        answer = _json(await work(msgspec.json.decode(row.answer)) if decide.undoes(row) else None)
        await connection.execute(self._sql.undone, answer, runtime.unix_time(), key)
        return Answer(msgspec.json.decode(answer))

    async def look(self, connection: Connection, key: str) -> Row | None:
        """What is kept of this key, or None. Changes nothing, locks nothing."""
        found = await connection.fetchrow(self._sql.peek, key)
        return None if found is None else Row(*found)

    async def purge(self, connection: Connection, *, older_than: float, limit: int = 1000) -> int:
        """Forget at most `limit` keys unchanged for `older_than` seconds; returns how many. See `Participant.purge`."""
        done = await connection.execute(self._sql.purge, runtime.unix_time() - older_than, limit)
        return int(done.rpartition(" ")[2])  # PostgreSQL answers "DELETE 12"

    async def _begin(self, connection: Connection, key: str) -> None:
        decide.check_key(key)
        if not connection.is_in_transaction():
            raise UsageError("no transaction is open, so the effect and its key could not be kept together",
                             do="call it inside `async with connection.transaction():`", key=key)
        if not self.wait and not await connection.fetchval(self._sql.try_lock, key):
            raise InProgressError(f"another request carries out {key!r} now", do="ask again in a moment", key=key)

    async def _known(self, connection: Connection, key: str) -> Row:
        found = await connection.fetchrow(self._sql.select, key)
        if found is None:  # purged between two statements; the caller's repetition finds a new key
            raise InProgressError(f"{key!r} was purged while it was asked for", do="ask again", key=key)
        return Row(*found)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
