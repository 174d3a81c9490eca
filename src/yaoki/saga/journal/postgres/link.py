"""One connection to the server, found again whenever it breaks.

A broken connection leaves open whether its last statement was committed. Nothing here guesses: a statement is simply sent
again, and those that write are made so that the second time does nothing (`statements.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import msgspec

from yaoki import runtime
from yaoki.errors import ConfigError, JournalError
from yaoki.policies import backoff
from yaoki.text import without_password

T = TypeVar("T")
Connection = Any  # asyncpg's own type has no parameters that help here

# Classes and codes of SQLSTATE after which the same statement may be sent again: the connection is lost or refused, the
# server stops, starts or became a standby, or the transaction was chosen to end a deadlock.
# Source: PostgreSQL manual, appendix A.
AGAIN = ("08", "57P", "53300", "40001", "40P01", "25006", "25P03", "55P03", "57014")

# Our statements reach for few rows by their keys, whatever the tables' size. Left to itself the planner makes a plan while the
# tables are small, scans them whole, and keeps that plan while they grow.
PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
         "jit": "off"}

BACKOFF = backoff.exponential(0.05, cap=1.0)


class Target(msgspec.Struct, frozen=True):
    """Where the journal is, and how to speak to it.

    Attributes:
        dsn: libpq URI, without our own words.
        lease_s: seconds without a sign of life after which a worker's runs are taken over.
        bouncer: is PgBouncer in transaction mode between? Then nothing of a session is used, and waking is by polling.
        relaxed: commits are not awaited on disk (`durability="process"`).
    """

    dsn: str
    lease_s: float = 15.0
    bouncer: bool = False
    relaxed: bool = False

    @staticmethod
    def of(url: str, *, durability: str = "power") -> Target:
        """`postgresql://...?lease=15&bouncer=yes`. Raises ConfigError."""
        parts = urlsplit(url)
        try:
            _ = parts.port if "," not in parts.netloc else None  # of several hosts each has its own
        except ValueError as error:
            raise ConfigError(f"the port in {without_password(url)} is not a number from 0 to 65535", do="postgresql://user@host:5432/database") from error
        words = dict(parse_qsl(parts.query))
        lease, bouncer = words.pop("lease", "15"), words.pop("bouncer", "no")
        try:
            lease_s = float(lease.removesuffix("s"))
        except ValueError:
            lease_s = 0.0
        if lease_s < 1:
            raise ConfigError(f"lease={lease} is not a number of seconds, at least 1", do="15 is the default")
        if bouncer not in {"yes", "no"}:
            raise ConfigError(f"bouncer={bouncer} is neither yes nor no", do="bouncer=yes with PgBouncer in transaction mode")
        dsn = urlunsplit(parts._replace(query=urlencode(words)))
        return Target(dsn, lease_s, bouncer == "yes", durability == "process")

    async def connect(self, role: str) -> Connection:
        """A new connection. Raises what asyncpg raises."""
        settings = {"application_name": f"yaoki {role}", **PLANS, **self._gone_settings(role)}
        if self.relaxed:
            settings["synchronous_commit"] = "off"
        return await asyncpg.connect(self.dsn, timeout=10.0, command_timeout=max(5.0, self.lease_s),
                                     statement_cache_size=0 if self.bouncer else 100,
                                     server_settings=None if self.bouncer else settings)

    def _gone_settings(self, role: str) -> dict[str, str]:
        """So that what a worker has locked is free a lease after it stopped or its machine vanished, in whatever transaction that was.

        What a step does with its own transaction is the step's affair, until its end is written (`statements.STEP_END`).
        """
        seconds = max(1, round(self.lease_s / 3))
        keepalives = {"tcp_keepalives_idle": str(seconds), "tcp_keepalives_interval": str(seconds), "tcp_keepalives_count": "2"}
        return keepalives if role == "step" else {**keepalives, "idle_in_transaction_session_timeout": self.idle_for}

    @property
    def idle_for(self) -> str:
        """How long the server keeps a transaction of a worker that says nothing."""
        return f"{round(self.lease_s * 1000)}ms"

    @property
    def shown(self) -> str:
        """The address without a password; of several hosts all."""
        parts = urlsplit(self.dsn)
        return f"{parts.netloc.rpartition('@')[2] or 'localhost'}{parts.path}"


def is_lost(error: BaseException) -> bool:
    """May the same statement be sent again, on a new connection if need be?"""
    if isinstance(error, asyncpg.PostgresError):
        return str(getattr(error, "sqlstate", "") or "").startswith(AGAIN)
    return isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, asyncio.IncompleteReadError))


class Link:
    """A connection for one purpose; one statement at a time.

    Args:
        target: where. role: what it is for, shown in `pg_stat_activity`.
        patience_s: seconds to go on trying to reach the server; None: until closed.
        connected: awaited with each new connection.
    """

    def __init__(self, target: Target, role: str, *, patience_s: float | None,
                 connected: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self._target = target
        self._role = role
        self._patience_s = patience_s
        self._connected = connected
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._interrupted = False  # was somebody cancelled in the middle? Then the connection may be inside a transaction of theirs
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on the connection; again on a new one when it breaks. Raises JournalError when patience ends."""
        async with self._lock:
            began, failures = runtime.monotonic(), 0
            while True:
                try:
                    return await work(await self._ready())
                except asyncio.CancelledError:
                    self._interrupted = True
                    raise
                except Exception as error:
                    if not is_lost(error):
                        if not isinstance(error, asyncpg.PostgresError):
                            raise  # ours, or a bug
                        raise _explained(error, self._target) from error
                    if not isinstance(error, asyncpg.PostgresError) or self._connection is None or self._connection.is_closed():
                        self._drop()
                    failures += 1
                    waited = runtime.monotonic() - began
                    if self._closed or (self._patience_s is not None and waited > self._patience_s):
                        raise JournalError(f"{self._target.shown} does not answer: {error}",
                                           do="start the server, or check the address; nothing was lost") from error
                await runtime.sleep(BACKOFF.delay(failures, 0.0, runtime.rng()))

    async def ready(self) -> None:
        """Have a connection now rather than when it is first needed."""
        async def nothing(connection: Connection) -> None:
            del connection

        await self.run(nothing)

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        return await self.run(lambda c: c.fetch(sql, *values))

    async def execute(self, sql: str, *values: Any) -> str:
        return await self.run(lambda c: c.execute(sql, *values))

    async def _ready(self) -> Connection:
        if self._interrupted:
            # Closed in order, so that what was under way has ended, one way or the other, before anything else is asked.
            await self._end()
            self._interrupted = False
        return self._connection or await self._connect()

    async def _connect(self) -> Connection:
        connection = await self._target.connect(self._role)
        self._connection = connection
        if self._connected is not None:
            await self._connected(connection)
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def reopen(self) -> None:
        """After `close`: be patient again."""
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        if not self._lock.locked():
            await self._end()
        self._drop()

    async def _end(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=2.0)
        self._drop()


def _explained(error: asyncpg.PostgresError, target: Target) -> JournalError:
    """The server's error as ours, with what to do."""
    state = str(getattr(error, "sqlstate", "") or "")
    if state in {"28P01", "28000"}:
        return JournalError(f"{target.shown} refuses the user or password: {error}", do="correct the address (--db)")
    if state == "3D000":
        return JournalError(f"{target.shown}: {error}", do="create the database, then run `yk db upgrade`")
    if state == "26000":
        return JournalError(f"{target.shown} forgets prepared statements: a pooler in transaction mode is between",
                            do="add bouncer=yes to the address, as in postgresql://host/database?bouncer=yes")
    if state == "23505":
        return JournalError(f"another worker has written this record already: {error}", do="this is a bug: report it")
    if state in {"42501", "3F000", "42P01"}:
        return JournalError(f"{target.shown}: {error}", do="run `yk db upgrade` as a user who may create schemas, and grant it")
    if state.startswith("53"):
        return JournalError(f"{target.shown} is out of space or memory: {error}", do="free some and start again: nothing was lost")
    return JournalError(f"{target.shown}: {error}", do="see the server's log; nothing was acknowledged")
