"""`Participant`: the shell for DB-API connections (sqlite3, psycopg)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.errors import DeclinedError, InProgressError, UsageError
from yaoki.saga.participant import decide
from yaoki.saga.participant.decide import Answer, Row
from yaoki.saga.participant.table import Statements, style_of

Connection = Any  # PEP 249 names no type


class Participant:
    """Does and undoes effects by key, each at most once, in the caller's transaction.

    Every method works inside the transaction that is open on `connection` (on SQLite best opened with `BEGIN IMMEDIATE`)
    and never commits: what it wrote and what the work wrote become durable together, or neither does. Do not answer the
    caller before that commit. Thread-safe; connections are as safe as their driver makes them.

    Args:
        table: where the keys are kept, in the service's own database.
        style: how the driver writes parameters; found out for sqlite3 and psycopg.
        wait: while another transaction carries out the same key, wait for it (True), or raise `InProgressError`
            (PostgreSQL only; SQLite has one writer, whose busy timeout is the connection's own).
    """

    def __init__(self, table: str = "yaoki_effects", *, style: str | None = None, wait: bool = True) -> None:
        self.table = table
        self.wait = wait
        self._style = style
        self._statements: dict[str, Statements] = {}
        if style is not None:
            self._sql_of(style)

    def create(self, connection: Connection) -> None:
        """Make the table if it is not there. Commit afterwards."""
        _run(connection, self._sql(connection).create)

    def do(self, connection: Connection, key: str, work: Callable[[], Any], *, request: Any = b"") -> Answer:
        """Call `work` if this key is new; otherwise give its first answer again.

        `work` writes through the same connection and returns JSON-able data. A `DeclinedError` from it is an answer too:
        its writes are rolled back, the refusal is kept, and every repetition gets it again. Anything else it raises ends
        in the caller's rollback, and the key stays unused.

        Args:
            request: what was asked for, in any JSON-able form or as bytes; the same key with another one is refused.

        Raises:
            DeclinedError: the service said no, now or before. Commit all the same: the answer must be kept.
            SuspendedError: the key was undone before; nothing was done.
            KeyReusedError: the key belongs to another request; nothing was done.
            InProgressError: another transaction carries it out now (`wait=False`).
            UsageError: the key is malformed, or no transaction is open.
        """
        sql = self._begin(connection, key)
        asked = decide.fingerprint(request)
        if _run(connection, sql.claim, (key, "doing", asked, runtime.unix_time())) is None:
            return decide.answer_again(self._known(connection, sql, key), asked)
        _run(connection, "SAVEPOINT yaoki_work")
        try:
            answer = _json(work())
        except DeclinedError as error:
            _run(connection, "ROLLBACK TO SAVEPOINT yaoki_work")
            self._finish(connection, sql, key, "declined", _json(error.to_dict()))
            raise
        _run(connection, "RELEASE SAVEPOINT yaoki_work")
        self._finish(connection, sql, key, "done", answer)
        return Answer(msgspec.json.decode(answer))  # what a repetition gets, to the letter

    def undo(self, connection: Connection, key: str, work: Callable[[Any], Any]) -> Answer:
        """Reverse what `do` did under this key: `work` gets the do's answer. Succeeds too when there is nothing to reverse.

        An undo whose do never came leaves a tombstone, so that a do that comes later is refused.

        Raises:
            InProgressError: another transaction works on the key now (`wait=False`).
            UsageError: the key is malformed, or no transaction is open.
        """
        sql = self._begin(connection, key)
        if _run(connection, sql.claim, (key, "undone", "", runtime.unix_time())) is not None:
            return Answer(None)
        row = self._known(connection, sql, key)
        if row.state == "undone":
            return Answer(msgspec.json.decode(row.undo_answer), replayed=True)
        answer = _json(work(msgspec.json.decode(row.answer)) if decide.undoes(row) else None)
        _run(connection, sql.undone, (answer, runtime.unix_time(), key))
        return Answer(msgspec.json.decode(answer))

    def look(self, connection: Connection, key: str) -> Row | None:
        """What is kept of this key, or None. Changes nothing, locks nothing."""
        found = _run(connection, self._sql(connection).peek, (key,))
        return None if found is None else Row(*found)

    def purge(self, connection: Connection, *, older_than: float, limit: int = 1000) -> int:
        """Forget at most `limit` keys that did not change for `older_than` seconds; returns how many.

        Keep them longer than the longest run and the latest request can last: a key that is forgotten is a new key.
        """
        cursor = connection.cursor()
        try:
            cursor.execute(self._sql(connection).purge, (runtime.unix_time() - older_than, limit))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def _begin(self, connection: Connection, key: str) -> Statements:
        decide.check_key(key)
        style = self._style or style_of(connection)
        if _autocommits(connection):
            raise UsageError("no transaction is open, so the effect and its key could not be kept together",
                             do="open one: BEGIN IMMEDIATE on SQLite, `with connection.transaction():` on psycopg", key=key)
        sql = self._sql_of(style)
        if not self.wait and style != "qmark" and _run(connection, sql.try_lock, (key,)) != (True,):
            raise InProgressError(f"another request carries out {key!r} now", do="ask again in a moment", key=key)
        return sql

    def _known(self, connection: Connection, sql: Statements, key: str) -> Row:
        found = _run(connection, sql.select, (key,))
        if found is None:  # purged between two statements; the caller's repetition finds a new key
            raise InProgressError(f"{key!r} was purged while it was asked for", do="ask again", key=key)
        return Row(*found)

    def _finish(self, connection: Connection, sql: Statements, key: str, state: str, answer: str) -> None:
        _run(connection, sql.done, (state, answer, runtime.unix_time(), key))

    def _sql(self, connection: Connection) -> Statements:
        return self._sql_of(self._style or style_of(connection))

    def _sql_of(self, style: str) -> Statements:
        sql = self._statements.get(style)
        if sql is None:
            sql = self._statements[style] = Statements(self.table, style)
        return sql


def _run(connection: Connection, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
    """The first row, or None."""
    cursor = connection.cursor()
    try:
        cursor.execute(sql, values)
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else tuple(row)
    finally:
        cursor.close()


def _autocommits(connection: Connection) -> bool:
    """Would the next statement be committed on its own?"""
    info = getattr(connection, "info", None)
    if info is not None and hasattr(info, "transaction_status"):  # psycopg: 0 is idle
        return bool(connection.autocommit) and info.transaction_status == 0
    if hasattr(connection, "in_transaction"):  # sqlite3
        if connection.in_transaction:
            return False
        return connection.isolation_level is None or getattr(connection, "autocommit", -1) is True
    return False


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
