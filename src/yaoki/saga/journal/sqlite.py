"""A journal in one SQLite file: the default, and enough for one machine.

WAL with `synchronous=FULL`: a commit returns after its fsync, so an acknowledged record survives a power cut. One thread
owns the connection; commits are gathered (`group.py`); each statement carries many rows, because every call into SQLite
gives up the interpreter's lock and has to win it back.

Source of the settings: sqlite.org/wal.html and sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from yaoki import runtime
from yaoki.errors import JournalError, JournalForeignError, YaokiError
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.lock import OwnerLock
from yaoki.saga.journal.locks.sqlite import SqliteLocks
from yaoki.saga.journal.operations.sqlite import SqliteOperations
from yaoki.saga.journal.port import Append, Ask, Created, NewRun, OneOwner, Request
from yaoki.saga.journal.queues.one_owner import Lane, Turns
from yaoki.saga.journal.queues.sqlite import SqliteQueues
from yaoki.saga.journal.registers.sqlite import SqliteRegisters
from yaoki.saga.journal.schema import prepare
from yaoki.saga.journal.sqlite_reading import SqliteReading, unfinished, unfinished_of
from yaoki.saga.journal.sqlite_writing import SqliteWriting
from yaoki.saga.records import RunState, Stored

T = TypeVar("T")

# Pages in the WAL before it is copied back: 16 MiB. A checkpoint costs two fsyncs of its own, so it should be rare.
CHECKPOINT_PAGES = 4096


class SqliteJournal(SqliteReading, SqliteRegisters, SqliteLocks, SqliteQueues, SqliteOperations, SqliteWriting, OneOwner):
    """Runs in one SQLite file.

    Args:
        path: the file, made when missing; ":memory:" for none.
        durability: "power" (fsync at each commit) or "process" (survives the death of the process, but a power cut may
            take the last commits).
    """

    def __init__(self, path: str | Path, *, durability: str = "power") -> None:
        if durability not in {"power", "process"}:
            raise JournalError(f"durability is 'power' or 'process', not {durability!r}", do="'power' is the default")
        self.path = str(path)
        self._durability = durability
        self._lock = None if self.path == ":memory:" else OwnerLock(Path(self.path))
        self._worker: runtime.Worker | None = None
        self._connection: sqlite3.Connection | None = None
        self._group = GroupCommit(self._commit)
        self._next = 1
        self._cursor = 0  # runs up to here were taken, or were created by this owner
        self._created: set[int] = set()  # numbers above the cursor that this owner holds already
        self._again: list[int] = []  # given back after the cursor had passed them
        self._turns = Turns()
        self._lanes: dict[Lane, int] = {}

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        if self._lock is not None:
            self._lock.acquire()
        try:
            await self._connect(writing=True)
            self._next = 1 + await self._call(lambda c: c.execute("SELECT ifnull(max(no), 0) FROM run").fetchone()[0])
            await self._call(self._know_turns)
        except BaseException:
            await self.close()
            raise

    async def observe(self) -> None:
        if self.path != ":memory:" and not os.path.exists(self.path):  # noqa: ASYNC240, PTH110  once, before anything runs
            raise JournalError(f"there is no journal at {self.path}", do="check the path; `yk run` makes one", path=self.path)
        await self._connect(writing=False)

    async def _connect(self, *, writing: bool) -> None:
        self._worker = runtime.worker("yaoki-sqlite")
        self._connection = await self._on_thread(self._opened, writing)

    def _opened(self, writing: bool) -> sqlite3.Connection:  # noqa: FBT001
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0,
                                     cached_statements=64)
        try:
            prepare(connection, self.path)  # first: another program's file is not even switched to WAL
            if writing:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def close(self) -> None:
        await self._group.drain()
        if self._worker is not None:
            if self._connection is not None:
                await self._on_thread(self._connection.close)
            self._worker.close()
        self._worker = self._connection = None
        if self._lock is not None:
            self._lock.release()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, run: NewRun) -> Awaitable[Created]:
        return self._group.submit(run)

    def append(self, entry: Append) -> Awaitable[None]:
        return self._group.submit(entry)

    # ── taking runs up ───────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, limit: int) -> list[Stored]:
        again, self._again = self._again[:limit], self._again[limit:]
        found = await self._call(lambda c: unfinished_of(c, again)) if again else []
        found += await self._wake_due(limit - len(found))
        while len(found) < limit:
            missing = limit - len(found)
            page = await self._call(lambda c, missing=missing: unfinished(c, self._cursor, missing))  # type: ignore[misc]
            if not page:
                break
            self._cursor = page[-1].header.no
            found += [stored for stored in page if stored.header.no not in self._created]
            self._created = {no for no in self._created if no > self._cursor}
        if self._lanes and found:
            queues = await self._call(lambda c: self._name_queues(c, [stored.header.no for stored in found]))
            for stored in found:
                stored.queue = queues.get(stored.header.no, stored.queue)
        return found

    async def take_one(self, run_id: str) -> Stored | None:
        stored = await self._found(run_id)
        if stored is None or stored.header.state.is_end:
            return None
        no = stored.header.no
        await self._call(lambda c: c.execute("UPDATE run SET wake_at = 0 WHERE no = ? AND wake_at > 0", (no,)))
        self._hold(no)
        return stored

    async def take_ended(self, run_id: str) -> Stored | None:
        stored = await self._found(run_id)
        if stored is None or stored.header.state is not RunState.COMPLETED:
            return None
        self._hold(stored.header.no)
        return stored

    async def _wake_due(self, limit: int) -> list[Stored]:
        """Parked runs whose time has come."""
        if limit <= 0:
            return []
        sql = ("UPDATE run SET wake_at = 0 WHERE no IN (SELECT no FROM run WHERE wake_at > 0 AND lane = 0 AND wake_at <= ? "
               "ORDER BY wake_at LIMIT ?) RETURNING no")
        now = self.now()

        def work(connection: sqlite3.Connection) -> list[int]:
            found = self._wake_lanes(connection, limit, now)
            return found + [no for (no,) in connection.execute(sql, (now, limit - len(found))).fetchall()]

        numbers = await self._call(work)
        for no in numbers:
            self._hold(no)
        return await self._call(lambda c: unfinished_of(c, numbers)) if numbers else []

    def _hold(self, no: int) -> None:
        if no > self._cursor:
            self._created.add(no)

    async def peek(self) -> tuple[bool, bool]:
        sql = ("SELECT EXISTS (SELECT 1 FROM run WHERE wake_at > 0 AND lane = 0 AND wake_at <= ?1) OR EXISTS (SELECT 1 FROM lane l JOIN run r "
               "ON r.lane = l.no AND r.lane > 0 AND r.wake_at > 0 AND r.wake_at <= ?1), EXISTS (SELECT 1 FROM request)")
        now = self.now()
        due, asked = await self._call(lambda c: c.execute(sql, (now,)).fetchone())
        return bool(due), bool(asked)

    def release(self, no: int) -> None:
        if no <= self._cursor:
            self._again.append(no)
        self._let_go(no)

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def purge(self, before: float, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            connection.execute("BEGIN IMMEDIATE")
            old = connection.execute("SELECT no FROM run WHERE finished_at > 0 AND finished_at < ? ORDER BY no LIMIT ?",
                                     (before, limit)).fetchall()
            connection.executemany("DELETE FROM register WHERE scope = (SELECT 'run:' || id FROM run WHERE no = ?)", old)
            connection.executemany("DELETE FROM record WHERE run = ?", old)
            connection.executemany("DELETE FROM attribute WHERE run = ?", old)
            connection.executemany("DELETE FROM run WHERE no = ?", old)
            connection.execute("COMMIT")
            return len(old)

        return await self._call(work)

    async def request(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        await self.request_many([Ask(run_id, kind, data)], at)

    async def requests(self) -> list[Request]:
        sql = "SELECT no, run, kind, data, at FROM request ORDER BY no"
        return await self._call(lambda c: [Request(*row) for row in c.execute(sql)])

    async def carried_out(self, numbers: Sequence[int]) -> None:
        await self._call(lambda c: c.executemany("DELETE FROM request WHERE no = ?", [(no,) for no in numbers]))

    async def save_graph(self, graph_hash: str, saga: str, graph: bytes) -> None:
        sql = "INSERT INTO definition VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        await self._call(lambda c: c.execute(sql, (graph_hash, saga, graph)))

    async def load_graph(self, graph_hash: str) -> bytes | None:
        row = await self._call(lambda c: c.execute("SELECT graph FROM definition WHERE hash = ?", (graph_hash,)).fetchone())
        return None if row is None else row[0]

    # ── the connection's thread ──────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise JournalError(f"the journal {self.path} is closed", do="open it first")
        return await self._on_thread(work, self._connection)

    async def _on_thread(self, work: Callable[..., T], *args: Any) -> T:
        assert self._worker is not None
        try:
            return await self._worker.run(work, *args)
        except YaokiError:
            raise
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error


def _explained(error: sqlite3.Error, path: str) -> JournalError:
    """SQLite's error as ours, with what to do."""
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return JournalForeignError(f"{path} is not a journal, or it is damaged ({text})",
                                   do="name another file, or restore this one from a backup; it was not changed", path=path)
    if "full" in text:
        return JournalError(f"no space left for {path}", do="free some space and start again: nothing was lost", path=path)
    if "readonly" in text or "read-only" in text:
        return JournalError(f"{path} cannot be written", do="make the file and its folder writable", path=path)
    if "unable to open" in text:
        is_folder = Path(path).is_dir()
        return JournalError(f"{path} is a folder" if is_folder else f"{path} cannot be opened",
                            do="name a file in it" if is_folder else "check that the folder exists and is writable", path=path)
    if "locked" in text or "busy" in text:
        return JournalError(f"{path} is busy: another program holds a lock on it", do="end that program and start again", path=path)
    return JournalError(f"{path}: {text}", do="start again; if it stays, check the disk", path=path)
