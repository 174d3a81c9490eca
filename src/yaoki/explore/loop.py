"""An asyncio event loop on virtual time: nothing waits, everything is in order, and what hangs says why.

Only timers that fall due at the same instant may be reordered (`order`), because that is what a network and a scheduler
do; reordering `call_soon` would break what asyncio promises and report failures that cannot happen.

A power cut (`drop`) is not an exception: tasks of the dead process are never resumed, so that no `finally` of theirs
runs, and they are kept alive until the universe ends, because the garbage collector would run it. `bury` then closes them.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import traceback
from asyncio import events
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from heapq import heapify, heappush
from random import Random
from types import CoroutineType
from typing import Any, TypeVar, TypeVarTuple

from yaoki.explore.clockwork import IDLE_LIMIT, SPIN_LIMIT, START_S, Clockwork, Handle
from yaoki.explore.outside import shut
from yaoki.explore.stuck import DeadlockError, EscapeError, LivelockError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(Clockwork):
    """A loop whose processes can lose power or stand still.

    Args:
        owner: the context variable that says which process a callback belongs to.
        order: draws the order of timers that are due together; None keeps the order in which they were set.
        limit_s: virtual seconds after which an execution counts as a livelock.
    """

    def __init__(self, owner: ContextVar[Any], *, order: Random | None = None, limit_s: float = 86_400.0) -> None:
        super().__init__(owner, order=order, limit_s=limit_s)
        self._dead: set[Any] = set()
        self._paused: dict[Any, list[Handle]] = {}
        self._begun: dict[Any, int] = {}  # of what stands still: how much of it was ready before
        self._graves: list[Any] = []

    def unfinished(self) -> list[tuple[asyncio.Task[Any], object]]:
        """Tasks that are neither done nor dead, with their process, oldest first."""
        return [(task, owner) for task, owner in self._tasks if not task.done() and owner not in self._dead]

    # ── power cuts and pauses ──

    def drop(self, owner: object) -> None:
        """Stop everything that belongs to `owner`, at once and without a word."""
        self._dead.add(owner)
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
        self._sort_again()
        context = copy_context()
        context.run(self._owner.set, None)
        self.call_later(length_s, self._resume, owner, context=context)

    def _resume(self, owner: object) -> None:
        kept, begun = self._paused.pop(owner, []), self._begun.pop(owner, 0)
        if self._order is not None:
            came = kept[begun:]
            self._order.shuffle(came)
            kept[begun:] = came
        self._ready.extend(kept)

    def _put(self, handle: Handle) -> None:
        """Where a callback goes while some processes are dead or stand still."""
        life = handle.context.get(self._owner)
        if life in self._dead:
            self._graves.append(handle)
        elif life in self._paused:
            self._paused[life].append(handle)
        else:
            self._ready.append(handle)

    def _sort_again(self) -> None:
        self._enqueue = self._put
        handles = list(self._ready)
        self._ready.clear()
        for handle in handles:
            self._put(handle)

    # ── a loop for what runs while everything here is blocked ──

    def branch(self) -> VirtualLoop:
        """A loop that starts at this one's instant."""
        inner = VirtualLoop(self._owner, order=self._order)
        inner._now, inner._until = self._now, self._until
        inner.watched = self.watched
        inner.labels, inner._dead, inner._paused = self.labels, self._dead, self._paused
        if self._dead or self._paused:
            inner._enqueue = inner._put
        return inner

    def merge_into(self, outer: VirtualLoop) -> None:
        """The branch has ended: what it left to do, now and later, is done by `outer`."""
        outer._now = max(outer._now, self._now)
        if self._dead or self._paused:
            outer._enqueue = outer._put
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

    # ── the end ──

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

    def forget(self) -> None:
        """Let go of what refers back to this loop. Futures may still tell it, as they vanish, that nobody retrieved their error."""
        del self.create_future
        self._enqueue = self._ready.append
        self._dead.clear()
        self._paused.clear()
        self._begun.clear()
        self.failures.clear()

    def _close_all(self, tasks: list[asyncio.Task[Any]]) -> None:
        outer = events._get_running_loop()
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=self._asyncgen_finalizer_hook)
        # Frameworks format a traceback of the end of their lifespan, which takes as long as three requests; nobody reads it.
        formatted, traceback.format_exc = traceback.format_exc, _nothing
        try:
            known = len(self._tasks)
            while tasks:
                for task in tasks:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro())
                # What a clean-up has begun must not begin either.
                tasks, known = [task for task, _ in self._tasks[known:]], len(self._tasks)
            for generator in list(self._asyncgens or ()):
                _close(generator.aclose())
        finally:
            traceback.format_exc = formatted
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(outer)

    # ── threads ──

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """No threads here: the function runs at once, in place."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


shut(VirtualLoop)


def _nothing(*_args: object, **_kwargs: object) -> str:
    return ""


def _close(coro: Any) -> None:
    """Close a coroutine, after what it awaits.

    From outside, a `finally` that awaits answers with "ignored GeneratorExit", and whoever awaits it is ended by that error, without
    it. So each is closed for itself, from the inside, and again while it awaits something new. One that never began has begun nothing
    of what it was given either, and Python would warn of that.
    """
    if type(coro) is CoroutineType and coro.cr_frame is not None and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        for given in coro.cr_frame.f_locals.values():
            if type(given) is CoroutineType:
                _close(given)
    for _ in range(20):
        inner = getattr(coro, "cr_await", None)
        if isinstance(inner, CoroutineType):
            _close(inner)
        try:
            coro.close()
        except RuntimeError:
            continue
        except BaseException:  # noqa: S110  the process is dead: what its clean-up raises concerns nobody
            pass
        return


__all__ = ["IDLE_LIMIT", "SPIN_LIMIT", "START_S", "DeadlockError", "EscapeError", "LivelockError", "VirtualLoop"]
