"""Messages in a SQLite file: WAL, `synchronous=FULL`, one writer that commits for everybody who waits (group commit).

Row ids follow the order of commits, because SQLite has one writer at a time; so a reader that goes up by row id skips
nothing. Several processes may share the file: each looks every few milliseconds whether another one wrote (PRAGMA
data_version, which reads one counter in shared memory).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from yaoki import runtime
from yaoki.errors import StoreError
from yaoki.messages.envelope import Message
from yaoki.messages.store import sqlite_reads as reads
from yaoki.messages.store import sqlite_sql as sql
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.port import (
    Durability,
    Entry,
    GroupLag,
    Held,
    Page,
    Position,
    Settlement,
    Share,
    ended_by_handler,
)

T = TypeVar("T")
Connected = tuple[runtime.Worker, sqlite3.Connection]

BUSY_S = 10.0
"""How long a write waits for another process's write before it gives up."""
LOOK_S = 0.01
"""How often a waiting reader looks for another process's commits, at first; up to ten times rarer when all is quiet."""


POWER = Durability(survives="power", kill="nothing", power_cut="nothing")
PROCESS = Durability(survives="process", kill="nothing", power_cut="the last commits, up to a checkpoint (NORMAL)")


class SqliteStore:
    """A `Store` in one file. Open it with `await SqliteStore.open(path)`.

    Args:
        path: of the file; created, readable by this user only, if missing.
        power_safe: survive a power cut (synchronous=FULL), not only a killed process (NORMAL, several times faster).
    """

    def __init__(self, path: str, writing: Connected, reading: Connected, *, power_safe: bool) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.durability = POWER if power_safe else PROCESS
        self.decisions = 0
        self.bell = Bell()
        self._writer, self._write = writing
        self._reader, self._read = reading
        self._writes: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._appends: list[tuple[Sequence[Message], asyncio.Future[Any]]] = []
        self._lock = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._looker: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, power_safe: bool = True) -> SqliteStore:
        """Open the file, creating it and its tables as needed. Raises `StoreError` if it is not ours to use."""
        file = os.fspath(path)
        writing = await _connect(file, "yaoki-messages-write", power_safe=power_safe)
        try:
            reading = await _connect(file, "yaoki-messages-read", power_safe=power_safe)
        except BaseException:
            worker, connection = writing
            await worker.run(connection.close)
            worker.close()
            raise
        return cls(file, writing, reading, power_safe=power_safe)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, messages: Sequence[Message]) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._appends.append((messages, future))
        await self._flushed(future)

    async def settle(self, group: str, settlement: Settlement) -> None:
        now = runtime.unix_time()
        await self._do(lambda connection: sql.settle(connection, group, settlement, now))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the next commit. What it raises undoes only its own part of it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writes.append((work, future))
        result: T = await self._flushed(future)
        return result

    async def _flushed(self, future: asyncio.Future[Any]) -> Any:
        if self._flusher is None:
            self._flusher = runtime.spawn(self._flush(), name="yaoki-messages-flush")
        return await future

    async def _flush(self) -> None:
        """Commit until nothing waits. What arrives during a commit forms the next one."""
        try:
            while self._writes or self._appends:
                async with self._lock:
                    appends, self._appends = self._appends, []
                    writes, self._writes = self._writes, []
                    await self._commit(appends, writes)
                self.bell.ring()
        finally:
            self._flusher = None

    async def _commit(self, appends: list[tuple[Sequence[Message], asyncio.Future[Any]]],
                      writes: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]]) -> None:
        futures = [future for _, future in appends] + [future for _, future in writes]
        try:
            outcomes = await self._writer.run(
                sql.commit, self._write, [each for each, _ in appends], [work for work, _ in writes])
        except Exception as error:
            outcomes = [_as_store_error(error, self.path)] * len(futures)
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue  # cancelled while it waited; the write stands
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTx]:
        async with self._lock:
            try:
                await self._writer.run(sql.begin, self._write)
            except BaseException as error:
                # Cancelled, it may begin all the same, and one thread does both: so this comes after it.
                await _to_the_end(self._writer.run(self._write.rollback))
                if isinstance(error, sqlite3.Error):
                    raise _as_store_error(error, self.path) from error
                raise
            try:
                yield SqliteTx(self._write)
            except BaseException:
                await _to_the_end(self._writer.run(self._write.rollback))
                raise
            try:
                await _to_the_end(self._writer.run(self._write.commit))
            except sqlite3.Error as error:
                await _to_the_end(self._writer.run(self._write.rollback))
                raise _as_store_error(error, self.path) from error
        self.bell.ring()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, types: Collection[str] | None, after: Mapping[int, Position], limit: int) -> Page:
        return await self._look_up(reads.read, types, dict(after), limit)

    async def held_beyond(self, group: str, after: Mapping[int, Position]) -> list[tuple[int, Position]]:
        return await self._look_up(reads.held_beyond, group, dict(after))

    async def is_done(self, group: str, part: int, position: Position) -> bool:
        return await self._look_up(reads.is_done, group, part, position[1])

    async def due(self, group: str, parts: Collection[int], *, now: float, limit: int) -> list[tuple[Entry, Held]]:
        return await self._look_up(reads.due, group, tuple(parts), now, limit)

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        return await self._look_up(reads.lag, group, runtime.unix_time())

    async def held(self, *, group: str | None = None, states: Collection[str] = ("quarantined", "dead"),
                   key: str | None = None, limit: int = 100) -> list[tuple[str, Entry, Held]]:
        return await self._look_up(reads.held, group, tuple(states), key, limit)

    async def get(self, message_id: str) -> list[Entry]:
        return await self._look_up(reads.get, message_id)

    async def starting_with(self, prefix: str, *, limit: int = 10_000) -> list[Entry]:
        return await self._look_up(reads.starting_with, prefix, limit)

    async def _look_up(self, query: Callable[..., T], *args: Any) -> T:
        try:
            return await self._reader.run(query, self._read, *args)
        except sqlite3.Error as error:
            raise _as_store_error(error, self.path) from error

    async def wait_changed(self, timeout_s: float) -> None:
        heard = self.bell.rings
        if self._looker is None:
            self._looker = runtime.spawn(self._look(), name="yaoki-messages-look")
        await self.bell.wait(heard, timeout_s)

    async def _look(self) -> None:
        """Ring when another process has written, as long as somebody waits for it."""
        try:
            seen = await self._reader.run(reads.data_version, self._read)
            pause_s, idle = LOOK_S, 0
            while idle < 3:
                await runtime.sleep(pause_s)
                version = await self._reader.run(reads.data_version, self._read)
                if version != seen:
                    seen, pause_s = version, LOOK_S
                    self.bell.ring()
                pause_s = min(pause_s * 1.1, LOOK_S * 10)
                idle = 0 if self.bell.is_awaited else idle + 1
        finally:
            self._looker = None

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def declare(self, group: str, types: Collection[str], *, since: str) -> None:
        await self._do(lambda connection: sql.declare(connection, group, sorted(types), since, runtime.unix_time()))

    async def forget(self, group: str) -> None:
        await self._do(lambda connection: sql.forget(connection, group))

    async def balance(self, group: str, worker: str, ttl_s: float, *, draining: Collection[int] = (), under_way: int = 0) -> Share:
        return await self._do(lambda connection: sql.balance(
            connection, group, worker, ttl_s, draining=draining, under_way=under_way, now=runtime.unix_time()))

    async def release(self, group: str, worker: str, parts: Collection[int], *, leaving: bool) -> None:
        await self._do(lambda connection: sql.release(connection, group, worker, parts, leaving=leaving))

    async def blocked_keys(self, group: str, parts: Collection[int]) -> dict[int, set[str]]:
        found = await self._look_up(reads.blocked, group, tuple(parts))
        if found.orphans:
            await self._do(lambda connection: sql.wake_orphans(connection, group, tuple(parts)))
        return found.keys

    # ── what a person decides ────────────────────────────────────────────────────────────────────────────────────

    async def rewrite(self, group: str, rows: Sequence[Held]) -> None:
        self.decisions += 1
        await self._do(lambda connection: sql.hold(connection, group, rows))

    async def discard(self, group: str, rows: Sequence[tuple[int, Position]]) -> None:
        self.decisions += 1
        await self._do(lambda connection: sql.drop(connection, group, rows, runtime.unix_time()))

    async def prune(self, older_than_s: float, *, limit: int = 10_000, runs: bool = True,
                    patient: bool = True) -> int:  # noqa: ARG002 (rows are deleted here either way)
        before = runtime.unix_time() - older_than_s
        return await self._do(lambda connection: sql.prune(connection, before, limit, runs=runs))

    async def close(self) -> None:
        """Finish what was begun, and close the file."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.wait([self._looker])
        await self._writer.run(self._write.close)
        await self._reader.run(self._read.close)
        self._writer.close()
        self._reader.close()


async def _connect(path: str, name: str, *, power_safe: bool) -> Connected:
    worker = runtime.current().worker(name)
    try:
        return worker, await worker.run(sql.connect, path, power_safe, BUSY_S)
    except (sqlite3.Error, OSError, StoreError) as error:
        worker.close()
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be used for messages: {error}",
                         do="name a SQLite file, or one that does not exist yet, in a folder that can be written",
                         path=path) from error


class SqliteTx:
    """A transaction on the store's own connection; others wait meanwhile, so keep it short."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    async def settle(self, group: str, settlement: Settlement) -> None:
        if not self.connection.in_transaction:
            raise ended_by_handler(group)
        sql.settle(self.connection, group, settlement, runtime.unix_time())


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` even through a cancellation, which is raised afterwards."""
    task = runtime.spawn(work, name="yaoki-messages-finish")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _as_store_error(error: Exception, path: str) -> Exception:
    if isinstance(error, sqlite3.Error):
        return StoreError(f"the messages in {path} cannot be read or written: {error}",
                          do="see that the disk has room and that no other program holds the file", path=path)
    return error
