"""`yaoki.open`: sagas on a journal, for async and for plain programs.

    async with yaoki.open("sqlite:///trips.db", sagas=[book_trip]) as app:
        run = await app.start(book_trip, trip, id="trip-42")
        receipt = await run.result()

    with yaoki.open("sqlite:///trips.db", sagas=[book_trip]) as app:      # a sync program: an event loop in a thread
        receipt = app.start(book_trip, trip, id="trip-42").result()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from yaoki.errors import ConfigError, RunBlockedError, RunError, RunUndoneError
from yaoki.saga.define import Saga
from yaoki.saga.engine import Engine
from yaoki.saga.journal.port import NORMAL, Journal
from yaoki.saga.outside.doors import Doors, SyncDoors
from yaoki.saga.placing import Placing
from yaoki.saga.records import Header, RunState, Stored

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  a saga's input

DEFAULT_CONCURRENCY = 1000


class Run:
    """One run, by its id. Cheap: it holds nothing but the id."""

    __slots__ = ("_engine", "_saga", "id")

    def __init__(self, engine: Engine, saga: Saga[Any], id: str) -> None:  # noqa: A002
        self._engine = engine
        self._saga = saga
        self.id = id

    async def result(self) -> Any:
        """Wait for the end, and return what the saga's last step returned.

        Raises:
            RunUndoneError: the run was undone: nothing of it is left. Says what began it.
            RunBlockedError: it waits for a person.
        """
        return _result(self._saga, await self._engine.wait(self.id))

    async def wait(self) -> RunState:
        """Wait until it has ended or is blocked; returns which, and does not raise."""
        return (await self._engine.wait(self.id)).state

    async def state(self) -> RunState:
        """Where it is now."""
        return (await self.stored()).header.state

    async def stored(self) -> Stored:
        """Header and history, as the journal has them."""
        found = await self._engine.journal.read(self.id)
        assert found is not None
        return found

    async def cancel(self, reason: str = "cancelled") -> None:
        """Ask it to undo itself. After its pivot this changes nothing."""
        await self._engine.cancel(self.id, reason=reason)

    async def signal(self, name: str, answer: Any = None, *, who: str = "") -> None:
        """Answer what its step `name` waits for, or will; the first answer counts. Raises InputError, RunNotFoundError."""
        await self._engine.signal(self.id, name, answer, who=who)

    async def resolve(self, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        """Decide about a blocked step: "retry", "done" (with its result) or "undone"."""
        await self._engine.resolve(self.id, step, decision, result=result, who=who, why=why)


def _result(saga: Saga[Any], header: Header) -> Any:
    if header.state is RunState.COMPLETED:
        return list(saga.steps.values())[-1].result.decode(header.result)
    if header.state is RunState.BLOCKED:
        raise RunBlockedError(f"run {header.id} is blocked: {header.reason}",
                              do=f"look at it with `yk runs show {header.id}`, then `yk runs resolve`",
                              run_id=header.id, reason=header.reason)
    if header.state.is_end:
        raise RunUndoneError(f"run {header.id} was undone: {header.reason}", do="start it again under another id, if that helps",
                             run_id=header.id, reason=header.reason)
    raise RunError(f"run {header.id} is {header.state}", do="wait for it", run_id=header.id)


class App(Doors):
    """Sagas on a journal. Made by `yaoki.open`; opened by `async with`, or by `with` in a plain program."""

    def __init__(self, journal: Journal, sagas: Iterable[Saga[Any]], *, concurrency: int, grace: float,
                 queues: Iterable[str] | None = None) -> None:
        self.engine = Engine(journal, sagas, concurrency=concurrency, queues=queues)
        self.journal = journal
        self._grace = grace
        self._sync: SyncApp | None = None

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

    async def start(self, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "", queue: str = "default",  # noqa: A002
                    priority: int = NORMAL, tenant: str = "", delay: float = 0.0, connection: Any = None) -> Run:
        """Start a run; the same id twice is one run. When this returns, the run is durable and will end, whatever fails.

        Args:
            id: your name for it, and its idempotency key; a new time-ordered id by default.
            traceparent: W3C trace context to go on with.
            queue, priority, tenant: where it waits for its turn, on PostgreSQL: priority 0 (first) to 9; tenants take turns.
            delay: seconds to wait before it begins.
            connection: of yours, with a transaction under way on the database that holds the journal (asyncpg, or async
                psycopg): the run is started if and only if you commit. A run of this id that exists is left as it is.

        Raises:
            InputError, RunConflictError, JournalError, NoTransactionError: nothing was started.
        """
        placing = Placing(queue, priority, tenant, delay)
        if connection is not None:
            return Run(self.engine, saga, await self.engine.start_with(connection, saga, input, id=id, traceparent=traceparent,
                                                                       placing=placing))
        header = await self.engine.start(saga, input, id=id, traceparent=traceparent, placing=placing)
        return Run(self.engine, saga, header.id)

    async def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, queue: str = "default", priority: int = NORMAL,
                         tenant: str = "", delay: float = 0.0) -> int:
        """Start a run for each (id, input), a hundred thousand in seconds. Returns how many were new.

        An empty id is a new one. When it returns all are durable; they are taken up as there is room, here or elsewhere.
        """
        return await self.engine.start_many(saga, inputs, placing=Placing(queue, priority, tenant, delay))

    def run(self, saga: Saga[Any], id: str) -> Run:  # noqa: A002
        """A handle on a run that was started earlier."""
        return Run(self.engine, saga, id)

    def resume(self, saga: Saga[Any]) -> int:
        """Release a saga's brake: begin new runs again. Returns how many had waited."""
        return self.engine.release_brake(saga.name)


class SyncRun(Generic[T]):
    """`Run` for plain programs: the same names, blocking."""

    def __init__(self, app: SyncApp, run: Run) -> None:
        self._app = app
        self._run = run
        self.id = run.id

    def result(self, timeout: float | None = None) -> Any:
        """As `Run.result`. `timeout`: seconds, then TimeoutError; the run goes on."""
        return self._app.call(self._run.result, timeout)

    def wait(self, timeout: float | None = None) -> RunState:
        return self._app.call(self._run.wait, timeout)

    def state(self) -> RunState:
        return self._app.call(self._run.state)

    def cancel(self, reason: str = "cancelled") -> None:
        self._app.call(lambda: self._run.cancel(reason))

    def signal(self, name: str, answer: Any = None, *, who: str = "") -> None:
        self._app.call(lambda: self._run.signal(name, answer, who=who))

    def resolve(self, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        self._app.call(lambda: self._run.resolve(step, decision, result=result, who=who, why=why))


class SyncApp(SyncDoors):
    """An event loop in a thread of its own, and blocking handles on it. Any thread may call them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="yaoki", daemon=True)
        self._thread.start()
        try:
            self.call(app.__aenter__)
        except BaseException:
            self._end()
            raise

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Run a coroutine function in the loop's thread, and wait for it here."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def start(self, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "", queue: str = "default",  # noqa: A002
              priority: int = NORMAL, tenant: str = "", delay: float = 0.0) -> SyncRun[Any]:
        """As `App.start`."""
        return SyncRun(self, self.call(lambda: self._app.start(saga, input, id=id, traceparent=traceparent, queue=queue,
                                                               priority=priority, tenant=tenant, delay=delay)))

    def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, queue: str = "default", priority: int = NORMAL,
                   tenant: str = "", delay: float = 0.0) -> int:
        """As `App.start_many`."""
        return self.call(lambda: self._app.start_many(saga, inputs, queue=queue, priority=priority, tenant=tenant, delay=delay))

    def run(self, saga: Saga[Any], id: str) -> SyncRun[Any]:  # noqa: A002
        """As `App.run`."""
        return SyncRun(self, self._app.run(saga, id))

    def close(self) -> None:
        try:
            self.call(lambda: self._app.__aexit__(None, None, None))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def open(url: str, *, sagas: Iterable[Saga[Any]], concurrency: int = DEFAULT_CONCURRENCY, grace: float = 10.0,  # noqa: A001
         durability: str = "power", queues: Iterable[str] | None = None, name: str = "") -> App:
    """Sagas on the journal at `url`.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database` (any number of workers
            share it; `?lease=15` is the seconds after which a silent one's runs are taken over), or `memory:` (gone with
            the process).
        sagas: the definitions whose runs are started and taken up again here.
        concurrency: runs in memory at once; the rest wait in the journal.
        grace: seconds that steps under way get to end when the app is closed.
        durability: "power": a record survives a power cut; "process": only the death of the process, but faster.
        queues: take only runs of these queues; None: of all. name: of this worker, in `yk workers`. Both on PostgreSQL only.

    Raises:
        ConfigError: the URL is of no known kind.
        JournalLockedError, JournalForeignError: on entering: another process owns it; it is something else.
    """
    journal = journal_at(url, durability=durability)
    if name:
        journal.name = name
    return App(journal, sagas, concurrency=concurrency, grace=grace, queues=queues)


def journal_at(url: str, *, durability: str = "power") -> Journal:
    """The journal that a URL names, not opened yet."""
    scheme, _, rest = url.partition(":")
    maker = JOURNALS.get(scheme)
    if maker is None:
        raise ConfigError(f"no journal of kind {scheme!r} in {url!r}",
                          do=f"use one of: {', '.join(f'{each}:' for each in JOURNALS)} as in sqlite:///trips.db")
    return maker(rest, durability)


def _memory(rest: str, durability: str) -> Journal:
    del rest, durability
    from yaoki.saga.journal.memory import MemoryJournal  # noqa: PLC0415  only who asks for it pays for it

    return MemoryJournal()


def _sqlite(rest: str, durability: str) -> Journal:
    from yaoki.saga.journal.sqlite import SqliteJournal  # noqa: PLC0415

    path = rest.removeprefix("///") if rest.startswith("///") else rest.removeprefix("//")
    if not path:
        raise ConfigError(f"sqlite:{rest} names no file", do="write sqlite:///trips.db, or sqlite:////folder/trips.db")
    return SqliteJournal(path, durability=durability)


def _postgres(rest: str, durability: str) -> Journal:
    try:
        from yaoki.saga.journal.postgres import PostgresJournal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"a journal on PostgreSQL needs {error.name}, which is not installed",
                          do="pip install 'yaoki[postgres]'") from error
    return PostgresJournal(f"postgresql:{rest}", durability=durability)


JOURNALS: Mapping[str, Callable[[str, str], Journal]] = {"sqlite": _sqlite, "memory": _memory, "postgresql": _postgres,
                                                         "postgres": _postgres}

__all__ = ["App", "Run", "SyncApp", "SyncRun", "journal_at", "open"]
