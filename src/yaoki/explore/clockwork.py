"""The works of the virtual loop: a clock that nobody waits for, what is ready, and what falls due.

    ready (FIFO, as asyncio documents) ──empty?──▶ advance the clock to the next timer ──none?──▶ DeadlockError

Thousands of loops are made each second and each callback is handled in a microsecond or two, so a loop sets only the
attributes that it needs and has handles of its own.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from heapq import heappop, heappush
from random import Random
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVarTuple
from weakref import WeakSet

import msgspec

from yaoki.explore.stuck import DeadlockError, LivelockError
from yaoki.explore.waiting import describe_tasks

if TYPE_CHECKING:
    from yaoki.explore.schedules import Line

Ts = TypeVarTuple("Ts")

# Where the clock starts. Far from zero and from any real clock, so that a mixture of the two is seen at once.
START_S = 50_000.0
# Callbacks at one instant before it is called a livelock: a thousand times what a hundred steps of sagas need.
SPIN_LIMIT = 300_000
_SPINS = range(SPIN_LIMIT)
# Times the clock may move while nothing is called: two hours of an engine that only looks whether anybody wants something.
IDLE_LIMIT = 15_000


class Handle(msgspec.Struct):
    """A callback that is to run: what `asyncio.Handle` and `TimerHandle` are to their callers, and a quarter as dear."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    time: float = 0.0
    gone: bool = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.time


class Clockwork(base_events.BaseEventLoop):
    """One thread, virtual time, no file descriptors. See `loop.VirtualLoop`, which adds that processes die.

    Attributes:
        finished: set it to end `run`.
        wakes: how often the clock moved since the last call to anything outside (the world sets it back).
        labels: what is known about a future that somebody waits for, in words.
        failures: exceptions that nobody retrieved.
    """

    # What every loop begins with and hardly anybody asks for. (What is often read is quicker as an attribute of the object.)
    _debug = _closed = False
    _thread_id = _exception_handler = _task_factory = None
    _asyncgens: Any = None
    get_debug = staticmethod(bool)  # asked for each future: False, without a frame of ours

    def __init__(self, owner: ContextVar[Any], *, order: Random | None = None, limit_s: float = 86_400.0) -> None:  # no super: see above
        self._ready: deque[Handle] = deque()
        # Where a callback goes that is to run. Once a process is dead or stands still, that depends on whose it is: `_put`.
        self._enqueue: Callable[[Handle], None] = self._ready.append
        self._timers: list[tuple[float, float, int, Handle]] = []
        self._now = START_S
        self._sequence = self.wakes = 0
        self._order = order
        self._owner = owner
        # With the process each belongs to: before Python 3.12 a task does not tell its context.
        self._tasks: list[tuple[asyncio.Task[Any], object]] = []
        self.labels: dict[Any, str] = {}
        self._until = START_S + limit_s
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]
        self.finished = False
        self.line: Line | None = None  # of requests under way, only while their order is explored
        self.watched: Callable[[FrameType], None] | None = None  # told who asks for the time
        self.failures: list[dict[str, Any]] = []

    def __del__(self, _warn: Any = None) -> None:
        """No file descriptor is left open, so there is nothing to warn of."""

    def __repr__(self) -> str:
        return f"<VirtualLoop at {self._now - START_S:.3f} s>"

    # ── the clock ──

    def time(self) -> float:
        if self.watched is not None:
            self.watched(sys._getframe(1))
        return self._now

    def advance_blocking(self, delay_s: float) -> None:
        """Let time pass while one thread blocks. What falls due meanwhile runs late, as it does on a blocked loop."""
        self._now += delay_s

    # ── scheduling ──

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        handle: Any = Handle(callback, args, copy_context() if context is None else context)
        self._enqueue(handle)
        return handle  # type: ignore[no-any-return]

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        handle: Any = Handle(callback, args, copy_context() if context is None else context, when)
        self.set_timer(handle)
        return handle  # type: ignore[no-any-return]

    def set_timer(self, handle: Handle) -> None:
        """Let this callback run when it is due. Every request of a universe comes this way."""
        self._sequence += 1
        heappush(self._timers, (handle.time, 0.0 if self._order is None else self._order.random(), self._sequence, handle))

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
        self._thread_id = 1
        try:
            self._turn()
        finally:
            self._thread_id = None
            events._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)

    def _turn(self) -> None:
        """Run what is ready, one after the other; where nothing is, move the clock."""
        ready = self._ready
        popleft = ready.popleft
        while not self.finished:
            if not ready:
                self._wake_next()
                if not ready:  # it was for somebody who is dead, or stands still
                    continue
            for _ in _SPINS:
                handle = popleft()
                if not handle.gone:
                    args = handle.args
                    try:
                        # Written out, because a call with a tuple of arguments takes three times as long.
                        if not args:
                            handle.context.run(handle.callback)
                        elif len(args) == 1:
                            handle.context.run(handle.callback, args[0])
                        else:
                            handle.context.run(handle.callback, *args)
                    except Exception as error:
                        self._failed(error)
                if not ready or self.finished:
                    break
            else:
                self._spinning()
        # Who was to run in this very instant is not left behind.
        for _ in range(len(ready)):
            if not ready:  # a power cut emptied it on the way
                break
            handle = popleft()
            if not handle.gone:
                try:
                    handle.context.run(handle.callback, *handle.args)
                except Exception as error:
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures.append({"message": "a callback failed", "exception": error})

    def _wake_next(self) -> None:
        """Move the clock to the next timer that still counts, and make everything ready that is due then."""
        timers = self._timers
        while timers and timers[0][3].gone:
            heappop(timers)
        if self.line is not None and self.line.next(self):
            return
        if not timers:
            self._hanging()
        when, _, _, handle = heappop(timers)
        if when > self._now:
            self._now = when
            self.wakes += 1
            if when > self._until or self.wakes > IDLE_LIMIT:
                self._too_late()
        put = self._enqueue
        put(handle)
        now = self._now
        while timers and timers[0][0] <= now:
            handle = heappop(timers)[3]
            if not handle.gone:
                put(handle)

    def _hanging(self) -> NoReturn:
        waiting = self.waiting()
        raise DeadlockError(f"everything waits and nothing can wake it: {'; '.join(waiting) or 'no task is left'}",
                            do="look at the first task named: what should have answered it?", waiting=waiting)

    def _too_late(self) -> None:
        waiting = self.waiting()
        idle = f", the last {self.wakes:,} times without a call to anything" if self.wakes > IDLE_LIMIT else ""
        raise LivelockError(f"still going after {self._now - START_S:.0f} s of virtual time{idle}: {'; '.join(waiting)}",
                            do="bound the loop or retry named here, or raise the limit of the scenario", waiting=waiting)

    def _spinning(self) -> None:
        waiting = self.waiting()
        raise LivelockError(f"{SPIN_LIMIT:,} callbacks without the clock moving: {'; '.join(waiting)}",
                            do="a loop without a wait: the task named here never sleeps", waiting=waiting)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Kept for the report: an exception that nobody retrieved."""
        self.failures.append(context)

    # ── who waits for what ──

    def waiting(self) -> list[str]:
        """Each unfinished task of a living process: its name, where it stands, what it waits for."""
        return self.described(task for task, _ in self.unfinished())

    def described(self, tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
        return describe_tasks(tasks, self.labels)

    def unfinished(self) -> list[tuple[asyncio.Task[Any], object]]:
        """Tasks that are not done, with their process, oldest first."""
        return [each for each in self._tasks if not each[0].done()]

    # ── asynchronous generators, as in `asyncio.base_events` ──

    def _keep_generator(self, generator: Any) -> None:
        if self._asyncgens is None:
            self._asyncgens = WeakSet()
        self._asyncgens.add(generator)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        if self._asyncgens is not None:
            self._asyncgens.discard(agen)
        if not self._closed:
            self.create_task(agen.aclose())
