"""The real SQLite journal in a universe: in memory, or in a file whose write-ahead log a power cut really tears.

    open_app(world, saga, storage="sqlite")     the real statements, in memory: what was committed outlives the process
    open_app(world, saga, storage="file")       a real file: after each power cut SQLite recovers a copy of what was on the disk

    disk.torn, in a file:   commit ──▶ db + db-wal ──copied, the log cut off inside the last transaction──▶ recovery ──▶ the next life

A dead process never closes its connection (that would checkpoint); the next one opens a copy of the files as they were.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import finalize

from yaoki.chaos.faults import At
from yaoki.errors import ConfigError, JournalLockedError
from yaoki.explore.dialect import DISK
from yaoki.explore.journal import at_once, turned, what_is_committed
from yaoki.explore.process import Life, owner
from yaoki.explore.runtime import InlineWorker
from yaoki.explore.world import World
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Append, Created, NewRun
from yaoki.saga.journal.schema import prepare
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.journal.sums import record_sum
from yaoki.saga.machine import HistoryError, Machine
from yaoki.saga.records import Kind, Record, Stored

T = TypeVar("T")

_numbers = itertools.count(1)


class _Torn(BaseException):
    """Power was lost in the middle of a transaction: nothing of the dead process runs any more, not even its clean-up."""


class _Shared(sqlite3.Connection):
    """A connection that a journal may close, and that stays open.

    tear: so many writes are still carried out, and then the power is lost; -1: it is not.
    """

    tear = -1

    def close(self) -> None:
        """It belongs to the disk, not to the process."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.tear >= 0:
            self._torn_at(sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.tear >= 0:
            self._torn_at(sql)
        return super().executemany(sql, *values)

    def _torn_at(self, sql: str) -> None:
        if sql.startswith(("BEGIN", "SELECT")):
            return
        if self.tear == 0:
            raise _Torn
        self.tear -= 1


class SqlitePlatter:
    """What is durable of one journal: a database in memory, or a file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sagas: dict[str, Saga[Any]] = {}
        self.held_by: tuple[object, Life | None] = (None, None)
        self.connection = self._made()
        finalize(self, _close, self.__dict__)

    def _made(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Shared)
        connection.deserialize(_template())
        return connection

    def start_again(self) -> None:
        """A new life opens it: an open transaction died with the last one."""
        if self.connection.in_transaction:
            self.connection.rollback()

    def tear(self, commit: Callable[[], object]) -> None:
        """Power is lost in the middle of `commit`, after its first write. Whoever opens it next finds the transaction open."""
        shared: Any = self.connection
        shared.tear = 1
        try:
            commit()
        except _Torn:
            pass
        finally:
            shared.tear = -1

    def rot(self) -> None:
        """A bit of an unfinished run turns over: of its last record that has any."""
        row = self.connection.execute("SELECT r.run, r.seq, r.data FROM record r JOIN run ON run.no = r.run WHERE run.finished_at = 0 AND r.data <> x''"
                                      " ORDER BY r.run, r.seq DESC").fetchone()
        if row is not None:
            self.connection.execute("UPDATE record SET data = ? WHERE run = ? AND seq = ?", (turned(row[2]), row[0], row[1]))

    @property
    def has_history(self) -> bool:
        """Is there anything to read back?"""
        sql = "SELECT EXISTS (SELECT 1 FROM run JOIN record ON record.run = run.no WHERE run.finished_at = 0)"
        return bool(self.connection.execute(sql).fetchone()[0])

    # ── what the universe asks ──

    def outcomes(self) -> dict[str, str]:
        """State of each run, by id."""
        return dict(self.connection.execute("SELECT id, state FROM run ORDER BY no").fetchall())

    def audit(self) -> str:
        """What is wrong with a history, or ""."""
        for number, name, of, state in self.connection.execute("SELECT no, id, saga, state FROM run ORDER BY no").fetchall():
            saga = self.sagas.get(of)
            rows = self.connection.execute("SELECT kind, step, data, at, seq, sum FROM record WHERE run = ? ORDER BY seq", (number,)).fetchall()
            if saga is None or any(record_sum(number, seq, kind, step, data) != found for kind, step, data, _, seq, found in rows):
                continue  # of a damaged history nothing can be said
            machine = Machine(saga.graph)
            try:
                for kind, step, data, at, _, _ in rows:
                    machine.apply(Record(Kind(kind), step, data, at))
            except HistoryError as error:
                return f"run {name} has a history that no run can have: {error}"
            if machine.state.value != state:
                return f"run {name} says {state}, and its history says {machine.state.value}"
        return ""

    def digest(self) -> Any:
        """Everything durable that a later run could depend on: not the times, and not what is told for people."""
        return (self.connection.execute("SELECT id, state FROM run ORDER BY no").fetchall(),
                self.connection.execute("SELECT run, kind, step, data FROM record WHERE kind <> ? ORDER BY run, seq", (Kind.ATTEMPTS.value,)).fetchall())


class FilePlatter(SqlitePlatter):
    """A real file in a folder of its own; every life reads what the last one had written, as SQLite recovers it."""

    on_files = True

    def __init__(self, name: str) -> None:
        self._stem = _folder() / f"journal-{next(_numbers)}"
        self._generation = 0
        super().__init__(name)
        finalize(self, _remove, self._stem)

    @property
    def path(self) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{self._generation}.db")

    def _made(self) -> sqlite3.Connection:
        self.path.write_bytes(_template())
        return self._opened()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=_Shared)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # what is on the disk is decided here, and not by the kernel's cache
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def start_again(self) -> None:
        self._recover(self._wal_size())

    def tear(self, commit: Callable[[], object]) -> None:
        before = self._wal_size()
        commit()
        # A third is past the first statement of a batch, and before its last: where a journal without transactions would show.
        self._recover(before + (self._wal_size() - before) // 3)

    def _wal_size(self) -> int:
        wal = Path(f"{self.path}-wal")
        return wal.stat().st_size if wal.exists() else 0

    def _recover(self, wal_bytes: int) -> None:
        """Open a copy of the files, with so much of the write-ahead log, as after a power cut."""
        old, last = self.connection, self.path
        wal = Path(f"{last}-wal")
        kept = wal.read_bytes()[:wal_bytes] if wal.exists() else b""
        self._generation += 1
        shutil.copyfile(last, self.path)
        if kept:
            Path(f"{self.path}-wal").write_bytes(kept)
        sqlite3.Connection.close(old)
        self.connection = self._opened()


class SimSqliteJournal(SqliteJournal):
    """One life of the real journal on a platter of a universe.

    Args:
        world: the universe; None: none, every commit succeeds at once.
    """

    def __init__(self, world: World | None, platter: SqlitePlatter) -> None:
        super().__init__(":memory:")  # no file of its own, hence no lock of the operating system's
        self._world = world
        self._platter = platter

    async def open(self) -> None:
        """Own the platter. A power cut frees it, as the operating system frees a dead process's lock."""
        holder, life = self._platter.held_by
        if holder is not None and holder is not self and (life is None or life.alive):
            raise JournalLockedError(f"journal {self._platter.name!r} is owned by another engine", do="close that one first")
        self._platter.start_again()
        self._platter.held_by = (self, owner.get())
        await super().open()

    async def close(self) -> None:
        await super().close()
        if self._platter.held_by[0] is self:
            self._platter.held_by = (None, None)

    async def _connect(self, *, writing: bool) -> None:
        del writing
        self._worker = InlineWorker()
        self._connection = self._platter.connection

    async def take(self, limit: int) -> list[Stored]:
        """What is read for the first time in this life is read from the disk: a place where a bit may turn over."""
        if self._world is not None and self._cursor == 0 and self._platter.has_history:
            self._world.call_blocking(self._platter.name, "load", lambda: None, kind=At.LOAD, dialect=DISK, timeout_s=None,
                                      variants={"disk.bitrot": self._platter.rot})
        return await super().take(limit)

    async def _commit(self, batch: list[NewRun | Append]) -> list[Created | None]:
        return await self._at_point(what_is_committed(batch), lambda: at_once(super(SimSqliteJournal, self)._commit(batch)))

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        """What the step writes and what is recorded of it are one commit, and one point."""
        context = copy_context()  # the step's own: its code asks what effect it is
        return await self._at_point("transact", lambda: context.run(at_once, super(SimSqliteJournal, self).transact(run, work)))

    async def _at_point(self, what: str, write: Callable[[], T]) -> T:
        if self._world is None:
            return write()
        kept: list[T] = []
        await self._world.call(self._platter.name, what, lambda: kept.append(write()), kind=At.COMMIT, dialect=DISK, timeout_s=None,
                               variants={"disk.torn": lambda: self._platter.tear(write)})
        return kept[-1]


def open_platter(name: str, storage: str) -> SqlitePlatter:
    """A journal's disk. storage: "sqlite" in memory, "file" in a real file.

    Raises:
        ConfigError: another word.
    """
    kinds = {"sqlite": SqlitePlatter, "file": FilePlatter}
    if storage not in kinds:
        raise ConfigError(f"storage={storage!r} is no journal of a universe", do="'memory', 'sqlite' (in memory) or 'file'")
    return kinds[storage](name)


@cache
def _template() -> bytes:
    """An empty journal, as bytes."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    prepare(fresh, ":memory:")
    made = fresh.serialize()
    fresh.close()
    return made


@cache
def _folder() -> Path:
    """Where the files are: in memory, where there is such a file system, because they are made and thrown away by the thousand."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
    folder = Path(tempfile.mkdtemp(prefix="yaoki-universe-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _close(of_platter: dict[str, Any]) -> None:
    sqlite3.Connection.close(of_platter["connection"])


def _remove(stem: Path) -> None:
    for each in stem.parent.glob(f"{stem.name}.*"):
        each.unlink(missing_ok=True)
