"""The same app for plain programs: an event loop in a thread of its own, and blocking handles on it.

    with yaoki.open("postgresql://app@db/trips", sagas=[book_trip]) as app:
        receipt = app.start(book_trip, trip, id="trip-42").result()

Any number of threads may call it. A process that was forked (gunicorn, Celery) has no such thread, and its connections are its
parent's: whoever calls there gets an app of his own, opened with the same words, where a journal has many owners; and an error
that says what to do where it has one.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from yaoki.errors import ForkedError, JournalError, UsageError
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import NORMAL
from yaoki.saga.outside.doors import SyncDoors
from yaoki.saga.queue import Queue
from yaoki.saga.records import RunState, Stored
from yaoki.saga.schedule.doors import SyncSchedules
from yaoki.saga.typed import I, O

if TYPE_CHECKING:
    from yaoki.app.app import App
    from yaoki.app.run import Run

T = TypeVar("T")

# What belongs to a parent is never touched by its child, not even to throw it away: closing the parent's event loop here would
# take its connections off the list of those that the system watches for the parent.
_PARENTS: list[object] = []
_OPEN: weakref.WeakSet[SyncApp] = weakref.WeakSet()


class SyncApp(SyncDoors, SyncSchedules):
    """Made by `with yaoki.open(...)`. Any thread may call it."""

    def __init__(self, app: App) -> None:
        self._guard = threading.Lock()
        self._closed = False
        self._begin(app)
        _OPEN.add(self)

    _app: App

    def _begin(self, app: App) -> None:
        self._app = app
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="yaoki", daemon=True)
        self._thread.start()
        try:
            self._run(app.__aenter__, None)
        except BaseException:
            self._end()
            raise

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Run a coroutine function in the loop's thread, and wait for it here.

        Raises:
            ForkedError: this process was forked from the one that opened it, and the journal has one owner.
            UsageError: called by the loop's own thread, which would wait for itself.
            JournalError: it is closed.
        """
        if self._process != os.getpid():
            self._open_again()
        if self._closed:
            raise JournalError("this app is closed", do="use it inside its `with` block")
        if threading.current_thread() is self._thread:
            raise UsageError("a blocking handle is used by an async step, which would wait for itself",
                             do="write the step as a plain def, which runs in a thread; or await an async app")
        return self._run(work, timeout)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def _open_again(self) -> None:
        with self._guard:
            if self._process == os.getpid():
                return  # another thread was quicker
            if not self._app.journal.shared:
                raise ForkedError("this app was opened before the process was forked, and its journal has one owner: the parent",
                                  do="open it in the process that uses it (gunicorn: in post_fork, without --preload), or let one worker "
                                     "process serve; with a postgresql:// journal any number of processes may", parent=self._process)
            _PARENTS.extend((self._app, self._loop, self._thread))
            self._begin(self._app.again())

    # ── as App ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, saga: Saga[I, O], input: I, *, id: str = "", traceparent: str = "", queue: str | Queue = "",  # noqa: A002
              priority: int = NORMAL, tenant: str = "", delay: float = 0.0, attributes: Mapping[str, Any] | None = None,
              connection: Any = None) -> SyncRun[O]:
        """As `App.start`. connection: a psycopg one, with a transaction under way on the database that holds the journal."""
        if connection is not None:
            from yaoki.saga.journal.postgres.joining import start_with_blocking  # noqa: PLC0415  only where it is used

            new = self.call(lambda: self._app.prepared(saga, input, id=id, traceparent=traceparent, queue=queue, priority=priority,
                                                       tenant=tenant, delay=delay, attributes=attributes))
            start_with_blocking(connection, new)
            return SyncRun(self, saga, new.id)
        run = self.call(lambda: self._app.start(saga, input, id=id, traceparent=traceparent, queue=queue, priority=priority, tenant=tenant,
                                                delay=delay, attributes=attributes))
        return SyncRun(self, saga, run.id)

    def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, queue: str | Queue = "", priority: int = NORMAL,
                   tenant: str = "", delay: float = 0.0) -> int:
        """As `App.start_many`."""
        return self.call(lambda: self._app.start_many(saga, inputs, queue=queue, priority=priority, tenant=tenant, delay=delay))

    def run(self, saga: Saga[Any, O], id: str) -> SyncRun[O]:  # noqa: A002
        """As `App.run`."""
        return SyncRun(self, saga, id)

    def handle(self, saga: Saga[Any, O], id: str) -> Run[O]:  # noqa: A002
        """The run's handle in the loop's thread: for `call`."""
        return self._app.run(saga, id)

    def fork(self, saga: Saga[Any, O], run: str, step: str, *, id: str = "", who: str = "", why: str = "") -> SyncRun[O]:  # noqa: A002
        """As `App.fork`."""
        made = self.call(lambda: self._app.fork(saga, run, step, id=id, who=who, why=why))
        return SyncRun(self, saga, made.id)

    def pause(self, what: Saga[Any] | Queue | str, *, who: str = "", why: str = "") -> bool:
        """As `App.pause`."""
        return self.call(lambda: self._app.pause(what, who=who, why=why))

    def resume(self, what: Saga[Any] | Queue | str, *, who: str = "", why: str = "") -> bool:
        """As `App.resume`."""
        return self.call(lambda: self._app.resume(what, who=who, why=why))

    def retry(self, run: str, step: str = "", *, from_: str = "", who: str = "", why: str = "") -> None:
        """As `App.retry`."""
        self.call(lambda: self._app.retry(run, step, from_=from_, who=who, why=why))

    def undo(self, run: str, reason: str = "undone", *, past_pivot: bool = False, who: str = "") -> None:
        """As `App.undo`."""
        self.call(lambda: self._app.undo(run, reason, past_pivot=past_pivot, who=who))

    # ── closing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        if self._closed or self._process != os.getpid():
            return  # it is the parent's, and stays open there
        try:
            self._run(lambda: self._app.__aexit__(None, None, None), None)
        finally:
            self._closed = True
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def forked(self) -> None:
        """In a child: another thread of the parent may have had the guard, and will never give it back here."""
        self._guard = threading.Lock()


class SyncRun(Generic[O]):
    """`Run` for plain programs: the same names, blocking. Cheap: it holds nothing but the id."""

    def __init__(self, app: SyncApp, saga: Saga[Any, O], id: str) -> None:  # noqa: A002
        self._app = app
        self._saga = saga
        self.id = id

    def _call(self, name: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        return self._app.call(lambda: getattr(self._app.handle(self._saga, self.id), name)(*args, **more), timeout)

    def result(self, timeout: float | None = None) -> O:
        """As `Run.result`. `timeout`: seconds, then TimeoutError; the run goes on."""
        return cast("O", self._call("result", timeout=timeout))

    def wait(self, timeout: float | None = None) -> RunState:
        return RunState(self._call("wait", timeout=timeout))

    def state(self) -> RunState:
        return RunState(self._call("state"))

    def stored(self) -> Stored:
        found: Stored = self._call("stored")
        return found

    def cancel(self, reason: str = "cancelled", *, who: str = "") -> None:
        self._call("cancel", reason, who=who)

    def undo(self, reason: str = "undone", *, past_pivot: bool = False, who: str = "") -> None:
        self._call("undo", reason, past_pivot=past_pivot, who=who)

    def signal(self, name: str, answer: Any = None, *, who: str = "") -> None:
        self._call("signal", name, answer, who=who)

    def resolve(self, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        self._call("resolve", step, decision, result=result, who=who, why=why)

    def retry(self, step: str = "", *, from_: str = "", who: str = "", why: str = "") -> None:
        self._call("retry", step, from_=from_, who=who, why=why)

    def pause(self, *, who: str = "", why: str = "") -> bool:
        return bool(self._call("pause", who=who, why=why))

    def resume(self, *, who: str = "", why: str = "") -> bool:
        return bool(self._call("resume", who=who, why=why))


def _after_fork() -> None:
    for app in list(_OPEN):
        app.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
