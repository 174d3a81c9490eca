"""An asyncio event loop on virtual time: nothing waits, everything is in order, and what hangs says why.

    ready (FIFO, as asyncio documents) ──empty?──▶ advance the clock to the next timer ──none?──▶ DeadlockError

Only timers that fall due at the same instant may be reordered (`order`), because that is what a network and a scheduler
do; reordering `call_soon` would break what asyncio promises and report failures that cannot happen.

A power cut (`drop`) is not an exception: tasks of the dead process are never resumed, so that no `finally` of theirs
runs, and they are kept alive until the universe ends, because the garbage collector would run it. `bury` then closes them.

Thousands of loops are made each second, so a loop sets only the attributes that it needs, and has handles of its own.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, TypeVar, TypeVarTuple, cast
from weakref import WeakSet

from yaoki.errors import UsageError
from yaoki.explore.waiting import describe_tasks

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Where the clock starts. Far from zero and from any real clock, so that a mixture of the two is seen at once.
START_S = 50_000.0
# Rounds of callbacks at one instant before it is called a livelock: a thousand times what a step of a saga needs.
SPIN_LIMIT = 100_000
# Times the clock may move while nothing is called: two hours of an engine that only looks whether anybody wants something.
IDLE_LIMIT = 15_000


class DeadlockError(UsageError):
    """Nothing is left that could wake anybody. `waiting` names each task, where it stands and what for."""

    code = "YK-2401"
    why = "A task waits for something that no timer, reply or other task will ever bring."


class LivelockError(UsageError):
    """Work goes on for ever without the clock, or past the time limit of the scenario. `waiting` names the tasks."""

    code = "YK-2402"
    why = "Something repeats itself without end: a retry without a limit, or a loop without a wait."


class EscapeError(UsageError):
    """Code inside the universe reached for the real world. `where` is its line."""

    code = "YK-2403"
    why = "A real clock, socket, thread or random number makes an execution impossible to repeat."


class Handle:
    """A callback that is to run: what `asyncio.Handle` and `TimerHandle` are to their callers, and half as dear."""

    __slots__ = ("args", "callback", "context", "gone", "time")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, time: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.time = time
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.time


class VirtualLoop(base_events.BaseEventLoop):
    """One thread, virtual time, no file descriptors.

    Args:
        owner: the context variable that says which process a callback belongs to (for `drop`).
        order: draws the order of timers that are due together; None keeps the order in which they were set.
        limit_s: virtual seconds after which an execution counts as a livelock.

    Attributes:
        finished: set it to end `run`.
    """

    def __init__(self, owner: ContextVar[Any], *, order: Random | None = None, limit_s: float = 86_400.0) -> None:  # no super: see above
        self._debug = False
        self._closed = False
        self._thread_id = None
        self._exception_handler = None
        self._task_factory = None
        self._asyncgens: Any = None
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, float, int, Handle]] = []
        self._now = START_S
        self._sequence = 0
        self._order = order
        self._owner = owner
        self._special = False  # is any process dead or paused? Asked at every callback, so it is one attribute
        self._dead: set[Any] = set()
        self._paused: dict[Any, list[Handle]] = {}
        self._graves: list[Any] = []
        # With the process each belongs to: before Python 3.12 a task does not tell its context.
        self._tasks: list[tuple[asyncio.Task[Any], object]] = []
        self.labels: dict[Any, str] = {}
        self._until = START_S + limit_s
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]
        self.finished = False
        self.wakes = 0  # of the clock, since the last call to anything outside (the world sets it back)
        self.failures: list[dict[str, Any]] = []

    def __del__(self, _warn: Any = None) -> None:
        """No file descriptor is left open, so there is nothing to warn of."""

    def __repr__(self) -> str:
        return f"<VirtualLoop at {self._now - START_S:.3f} s>"

    # ── the clock ──

    def time(self) -> float:
        return self._now

    def advance_blocking(self, delay_s: float) -> None:
        """Let time pass while one thread blocks. What falls due meanwhile runs late, as it does on a blocked loop."""
        self._now += delay_s

    # ── scheduling ──

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, self._now)
        if self._special:
            self._put(handle)
        else:
            self._ready.append(handle)
        return cast("asyncio.Handle", handle)

    def _put(self, handle: Handle) -> None:
        """Some processes are dead or stand still: is this one's?"""
        life = handle.context.get(self._owner)
        if life in self._dead:
            self._graves.append(handle)
        elif life in self._paused:
            self._paused[life].append(handle)
        else:
            self._ready.append(handle)

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        when = self._now + delay
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        self._sequence += 1
        heappush(self._timers, (when, 0.0 if self._order is None else self._order.random(), self._sequence, handle))
        return cast("asyncio.TimerHandle", handle)

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        self._sequence += 1
        heappush(self._timers, (when, 0.0 if self._order is None else self._order.random(), self._sequence, handle))
        return cast("asyncio.TimerHandle", handle)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None, **_kwargs: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name or getattr(coro, "__qualname__", "task"), context=context)
        self._tasks.append((task, self._owner.get() if context is None else context.get(self._owner)))
        return task

    # ── running ──

    def run(self) -> None:
        """Run until `finished`.

        Raises:
            DeadlockError: nothing is scheduled any more, and it is not finished.
            LivelockError: the time limit passed, or callbacks repeat at one instant without end.
        """
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=self._asyncgen_finalizer_hook)
        # A universe may be explored inside a test that runs on a loop of its own.
        outer = events._get_running_loop()
        events._set_running_loop(self)
        self._thread_id = 1  # type: ignore[assignment]
        try:
            ready, rounds = self._ready, 0
            while not self.finished:
                if not ready:
                    self._wake_next()
                    rounds = 0
                elif (rounds := rounds + 1) > SPIN_LIMIT:
                    self._spinning()
                for _ in range(len(ready)):
                    if not ready:  # a power cut emptied it on the way
                        break
                    handle = ready.popleft()
                    if not handle.gone:
                        try:
                            handle.context.run(handle.callback, *handle.args)
                        except Exception as error:
                            self.failures.append({"message": "a callback failed", "exception": error})
        finally:
            self._thread_id = None
            events._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)

    def _wake_next(self) -> None:
        """Move the clock to the next timer that still counts, and make everything ready that is due then."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][3].gone:
            heappop(timers)
        if not timers:
            waiting = self.waiting()
            raise DeadlockError(f"everything waits and nothing can wake it: {'; '.join(waiting) or 'no task is left'}",
                                do="look at the first task named: what should have answered it?", waiting=waiting)
        when = timers[0][0]
        if when > self._now:
            self._now = when
            self.wakes += 1
            if when > self._until or self.wakes > IDLE_LIMIT:
                self._too_late()
        while timers and timers[0][0] <= self._now:
            handle = heappop(timers)[3]
            if not handle.gone:
                if self._special:
                    self._put(handle)
                else:
                    ready.append(handle)

    def _too_late(self) -> None:
        waiting = self.waiting()
        idle = f", the last {self.wakes:,} times without a call to anything" if self.wakes > IDLE_LIMIT else ""
        raise LivelockError(f"still going after {self._now - START_S:.0f} s of virtual time{idle}: {'; '.join(waiting)}",
                            do="bound the loop or retry named here, or raise the limit of the scenario", waiting=waiting)

    def _spinning(self) -> None:
        waiting = self.waiting()
        raise LivelockError(f"{SPIN_LIMIT} rounds without the clock moving: {'; '.join(waiting)}",
                            do="a loop without a wait: the task named here never sleeps", waiting=waiting)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Kept for the report: an exception that nobody retrieved."""
        self.failures.append(context)

    def waiting(self) -> list[str]:
        """Each unfinished task of a living process: its name, where it stands, what it waits for."""
        return self.described(task for task, _ in self.unfinished())

    def described(self, tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
        return describe_tasks(tasks, self.labels)

    def unfinished(self) -> list[tuple[asyncio.Task[Any], object]]:
        """Tasks that are neither done nor dead, with their process, oldest first."""
        return [(task, owner) for task, owner in self._tasks if not task.done() and owner not in self._dead]

    # ── power cuts and pauses ──

    def drop(self, owner: object) -> None:
        """Stop everything that belongs to `owner`, at once and without a word."""
        self._dead.add(owner)
        self._special = True
        self._graves.extend(self._paused.pop(owner, ()))
        self._sort_again()
        # Timers of the dead must not keep the clock going: an execution that only waits for them is deadlocked.
        mine = [entry for entry in self._timers if entry[3].context.get(self._owner) is owner]
        if mine:
            self._graves.extend(mine)
            self._timers[:] = [entry for entry in self._timers if entry[3].context.get(self._owner) is not owner]
            heapify(self._timers)

    def pause(self, owner: object, length_s: float) -> None:
        """Let `owner` stand still: its timers and answers are kept, and come all at once afterwards."""
        self._paused.setdefault(owner, [])
        self._special = True
        self._sort_again()
        context = copy_context()
        context.run(self._owner.set, None)
        self.call_later(length_s, self._resume, owner, context=context)

    def _resume(self, owner: object) -> None:
        self._ready.extend(self._paused.pop(owner, ()))

    def branch(self) -> VirtualLoop:
        """A loop that starts at this one's instant: for what runs while everything here is blocked."""
        inner = VirtualLoop(self._owner, order=self._order)
        inner._now, inner._until = self._now, self._until
        inner.labels, inner._dead, inner._paused, inner._special = self.labels, self._dead, self._paused, self._special
        return inner

    def merge_into(self, outer: VirtualLoop) -> None:
        """The branch has ended: what it left to do, now and later, is done by `outer`."""
        outer._now = max(outer._now, self._now)
        outer.failures += self.failures
        outer._tasks += self._tasks
        outer._ready.extend(self._ready)
        for when, tie, _, handle in self._timers:
            outer._sequence += 1
            heappush(outer._timers, (when, tie, outer._sequence, handle))
        self._ready.clear()
        self._timers.clear()
        for name in ("call_soon", "call_later", "call_at", "time"):
            setattr(self, name, getattr(outer, name))

    def _sort_again(self) -> None:
        handles = list(self._ready)
        self._ready.clear()
        for handle in handles:
            self._put(handle)

    def bury(self) -> None:
        """The universe has ended: close what is left, newest first, and forget it."""
        left = [task for task, _ in reversed(self._tasks) if not task.done()]
        if left or self._asyncgens:
            self._close_all(left)
        self._closed = True
        self._tasks.clear()
        self._graves.clear()
        self._ready.clear()
        self._timers.clear()
        self.labels.clear()

    def _close_all(self, tasks: list[asyncio.Task[Any]]) -> None:
        outer = events._get_running_loop()
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=self._asyncgen_finalizer_hook)
        try:
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
            for generator in list(self._asyncgens or ()):
                _close(generator.aclose())
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(outer)

    def _keep_generator(self, generator: Any) -> None:
        if self._asyncgens is None:
            self._asyncgens = WeakSet()
        self._asyncgens.add(generator)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        self._asyncgens.discard(agen)
        if not self._closed:
            self.create_task(agen.aclose())

    # ── what a machine has and a universe has not ──

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """No threads here: the function runs at once, in place."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _real(name: str) -> Callable[..., Any]:
    def refuse(_self: VirtualLoop, *_args: Any, **_kwargs: Any) -> Any:
        raise EscapeError(f"loop.{name} was called inside the explorer, which has no real network, processes or signals",
                          do="reach services by host name (httpx, requests), or fake what needs the machine", where=name)

    return refuse


for _name in ("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection", "create_unix_server",
              "getaddrinfo", "getnameinfo", "sock_connect", "sock_recv", "sock_sendall", "sock_accept", "add_reader",
              "add_writer", "subprocess_exec", "subprocess_shell", "connect_read_pipe", "connect_write_pipe", "add_signal_handler"):
    setattr(VirtualLoop, _name, _real(_name))


def _close(coro: Any) -> None:
    # A `finally` that awaits answers the first GeneratorExit with "ignored"; the next one reaches what is outside it.
    for _ in range(20):
        try:
            coro.close()
        except RuntimeError:
            continue
        except BaseException:  # noqa: S110  the process is dead: what its clean-up raises concerns nobody
            pass
        return
