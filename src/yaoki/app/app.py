"""Sagas on a journal: `yaoki.open` makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from yaoki.app.blocking import SyncApp
from yaoki.app.run import Run
from yaoki.saga.define import Saga
from yaoki.saga.engine import Engine
from yaoki.saga.engine.retries import retry_blocked, retry_from
from yaoki.saga.engine.undos import undo_run
from yaoki.saga.journal.port import NORMAL, Journal, NewRun
from yaoki.saga.outside.doors import Doors
from yaoki.saga.placing import Placing
from yaoki.saga.queue import Queue
from yaoki.saga.schedule.doors import Schedules
from yaoki.saga.typed import I, O


class App(Doors, Schedules):
    """Sagas on a journal. Made by `yaoki.open`; opened by `async with`, or by `with` in a plain program."""

    def __init__(self, journal: Journal, sagas: Iterable[Saga[Any]], *, concurrency: int, grace: float, queues: Iterable[str] | None = None,
                 limits: Iterable[Queue] = (), work: bool = True, again: Callable[[], App] | None = None) -> None:
        self.engine = Engine(journal, sagas, concurrency=concurrency, queues=queues, limits=limits, works=work)
        self.journal = journal
        self._grace = grace
        self._sync: SyncApp | None = None
        self._again = again

    def again(self) -> App:
        """Another app, not opened yet, made with the same words: for a process that was forked from this one."""
        assert self._again is not None
        return self._again()

    async def __aenter__(self) -> Self:
        await self.engine.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.engine.close(grace_s=self._grace)

    def __enter__(self) -> SyncApp:
        self._sync = SyncApp(self)
        return self._sync

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._sync is not None
        self._sync.close()

    async def start(self, saga: Saga[I, O], input: I, *, id: str = "", traceparent: str = "", queue: str | Queue = "",  # noqa: A002
                    priority: int = NORMAL, tenant: str = "", delay: float = 0.0, attributes: Mapping[str, Any] | None = None,
                    connection: Any = None) -> Run[O]:
        """Start a run; the same id twice is one run. When this returns, the run is durable and will end, whatever fails.

        Args:
            id: your name for it, and its idempotency key; a new time-ordered id by default.
            traceparent: W3C trace context to go on with.
            queue, priority, tenant: where it waits for its turn: the saga's queue, or "default", unless named; priority 0
                (first) to 9; tenants take turns.
            delay: seconds to wait before it begins.
            attributes: what it can be found by, besides those of its saga: `{"customer": 42}`.
            connection: of yours, with a transaction under way on the database that holds the journal (asyncpg, or async
                psycopg): the run is started if and only if you commit. A run of this id that exists is left as it is.

        Raises:
            InputError, RunConflictError, JournalError, NoTransactionError: nothing was started.
        """
        placing = Placing(_queue(queue, saga), priority, tenant, delay)
        if connection is not None:
            return Run(self.engine, saga, await self.engine.start_with(connection, saga, input, id=id, traceparent=traceparent,
                                                                       placing=placing, attributes=attributes))
        header = await self.engine.start(saga, input, id=id, traceparent=traceparent, placing=placing, attributes=attributes)
        return Run(self.engine, saga, header.id)

    async def prepared(self, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "", queue: str | Queue = "",  # noqa: A002
                       priority: int = NORMAL, tenant: str = "", delay: float = 0.0,
                       attributes: Mapping[str, Any] | None = None) -> NewRun:
        """A run as `start` would make it, for who writes it himself (`journal/postgres/joining.py`)."""
        placing = Placing(_queue(queue, saga), priority, tenant, delay)
        return self.engine.starting.prepared(saga, input, id, traceparent=traceparent, placing=placing, attributes=attributes)

    async def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, queue: str | Queue = "", priority: int = NORMAL,
                         tenant: str = "", delay: float = 0.0) -> int:
        """Start a run for each (id, input), a hundred thousand in seconds. Returns how many were new.

        An empty id is a new one. When it returns all are durable; they are taken up as there is room, here or elsewhere.
        """
        return await self.engine.start_many(saga, inputs, placing=Placing(_queue(queue, saga), priority, tenant, delay))

    def run(self, saga: Saga[Any, O], id: str) -> Run[O]:  # noqa: A002
        """A handle on a run that was started earlier."""
        return Run(self.engine, saga, id)

    # ── operating ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def pause(self, what: Saga[Any] | Queue | str, *, who: str = "", why: str = "") -> bool:
        """Pause a saga or a queue: nothing of it begins until it is resumed. False: it is paused already.

        Attempts under way end; every worker knows within a second. A name alone is that of a saga which was opened here, else of a queue.
        """
        kind, name = self._named(what)
        done = await self.journal.pause(kind, name, who=who, why=why)
        await self.engine.gates.look_now()
        return done

    async def resume(self, what: Saga[Any] | Queue | str, *, who: str = "", why: str = "") -> bool:
        """End a pause, and release a saga's brake. False: there was neither."""
        kind, name = self._named(what)
        waited = self.engine.release_brake(name) if kind == "saga" and name in self.engine.sagas else 0
        done = await self.journal.resume(kind, name, who=who, why=why)
        await self.engine.gates.look_now()
        return done or waited > 0

    async def retry(self, run: str, step: str = "", *, from_: str = "", who: str = "", why: str = "") -> None:
        """Try the blocked steps of a run again, or one of them, by their old keys; or, `from_` a step on, make it anew with all that follows.

        Made anew: what may exist of those steps is undone first, and they get keys of their own: see `saga/rewinding.py`.

        Raises:
            RunNotFoundError, UsageError: the step is not blocked. RetryFromError: it cannot be made anew; nothing was asked.
        """
        if from_:
            await retry_from(self.engine, run, from_, who=who, why=why)
        else:
            await retry_blocked(self.engine, run, step, who=who, why=why)

    async def undo(self, run: str, reason: str = "undone", *, past_pivot: bool = False, who: str = "") -> None:
        """As `Run.undo`, by the run's id. Raises RunNotFoundError, UndoRunError."""
        await undo_run(self.engine, run, reason, past_pivot=past_pivot, who=who)

    def _named(self, what: Saga[Any] | Queue | str) -> tuple[str, str]:
        if isinstance(what, str):
            return ("saga" if what in self.engine.sagas else "queue"), what
        return ("saga" if isinstance(what, Saga) else "queue"), what.name

    async def fork(self, saga: Saga[Any, O], run: str, step: str, *, id: str = "", who: str = "", why: str = "") -> Run[O]:  # noqa: A002
        """Start a run that begins where another one stood before `step`: see `saga/forking.py`. Raises ForkError, RunNotFoundError."""
        return Run(self.engine, saga, await self.engine.forks.start(run, step, id, who=who, why=why))


def _queue(given: str | Queue, saga: Saga[Any]) -> str:
    if given:
        return given if isinstance(given, str) else given.name
    return saga.queue.name if saga.queue is not None else "default"
