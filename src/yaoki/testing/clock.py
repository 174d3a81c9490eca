"""Virtual time: a runtime that never sleeps, and an event loop whose clock jumps to the next timer.

    with runtime.use(Clock()) as clock:       # plain functions: sleeping moves the clock
        ...
    run(main())                               # coroutines: time passes when nothing is ready to run

One thread, one universe: what would run in a thread (`run_blocking`) runs in place. Threads that a program starts by itself
(`asyncio.to_thread`) really run, and virtual time stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from yaoki import runtime
from yaoki.runtime import Random

P = ParamSpec("P")
T = TypeVar("T")

# Odd on purpose and far from any real clock, so that code which mixes two clocks shows.
START_S = 1_000_003.7
WALL_S = 1_700_000_000.0  # added to the monotonic seconds: a wall clock in November 2023


class Clock:
    """A runtime whose time passes only when somebody sleeps, and whose randomness and ids come from `seed`.

    Attributes:
        now: monotonic seconds; a test may add to it.
        slept: what plain functions have slept, in order, seconds.
    """

    def __init__(self, *, start: float = START_S, seed: int = 0) -> None:
        self.now = start
        self.slept: list[float] = []
        self.rng = Random(seed)
        self._ids = 0

    def monotonic(self) -> float:
        return self.now

    def unix_time(self) -> float:
        return WALL_S + self.now

    def new_id(self) -> str:
        """A UUID of version 7 of this universe: its milliseconds, then a counter."""
        self._ids += 1
        return f"{int(self.unix_time() * 1000) << 80 | 7 << 76 | 2 << 62 | self._ids:032x}"

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)  # noqa: TID251 - this is the door, of another world

    def sleep_blocking(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work, name=name)

    async def run_blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In place, without a thread: time must not pass while it works, and everything stays in order."""
        return fn(*args, **kwargs)

    def worker(self, name: str) -> _Inline:  # noqa: ARG002
        return _Inline()


class _Inline:
    """A worker without a thread."""

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    def close(self) -> None:
        """Nothing to end."""


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait for sockets: moves the clock on instead."""

    def __init__(self, clock: Clock, may_jump: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._may_jump = may_jump

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or not self._may_jump():
            # Nothing is planned, or a thread is at work: look again soon, really.
            return super().select(0.05 if timeout is None else min(timeout, 0.05))
        self._clock.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing is ready to run."""

    def __init__(self, clock: Clock) -> None:
        self._threads = 0
        self._clock = clock
        super().__init__(_JumpingSelector(clock, lambda: self._threads == 0))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = super().run_in_executor(executor or ThreadPoolExecutor(4), func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self._threads -= 1


def run(main: Coroutine[Any, Any, T], *, clock: Clock | None = None) -> T:
    """Run `main` on virtual time and return what it returns.

    Raises:
        AssertionError: it left tasks behind; names them.
    """
    clock = clock or Clock()
    loop = VirtualLoop(clock)
    try:
        with runtime.use(clock):
            task = loop.create_task(main)
        result = loop.run_until_complete(task)
        left = [each for each in asyncio.all_tasks(loop) if not each.done()]
        for each in left:
            each.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            raise AssertionError(f"tasks were left behind: {', '.join(each.get_name() for each in left)}")
        return result
    finally:
        loop.close()
