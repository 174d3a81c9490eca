"""Virtual time for tests of single parts: an event loop whose clock jumps to the next timer, and a runtime on it.

    def test_waits():
        assert run(main()) == ...             # hours of sleeping take no time

    clock = Clock()                           # for plain functions: `with runtime.use(clock): ...`
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from yaoki import runtime
from yaoki.runtime import RealRuntime

T = TypeVar("T")


class Clock(RealRuntime):
    """A runtime that never really sleeps. `start` is odd on purpose: code that mixes clocks shows."""

    def __init__(self, *, start: float = 1_000_003.7, seed: int = 0) -> None:
        super().__init__()
        self.now = start
        self.slept: list[float] = []
        self.rng = Random(seed)
        self.monotonic = lambda: self.now
        self.unix_time = lambda: 1_700_000_000.0 + self.now
        self.sleep_blocking = self._sleep_blocking

    def _sleep_blocking(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s

    async def run_blocking(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return fn(*args, **kwargs)

    def worker(self, name: str) -> Any:
        return _Inline()


class _Inline:
    """A worker without a thread: time must not pass while it works."""

    async def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return fn(*args, **kwargs)

    def close(self) -> None:
        """Nothing to end."""


class _JumpingSelector(selectors.DefaultSelector):
    clock: Clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(0.05)  # only another thread can wake this loop
        self.clock.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing is ready to run."""

    def __init__(self, clock: Clock) -> None:
        selector = _JumpingSelector()
        selector.clock = clock
        self.clock = clock
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.clock.now


def run(main: Coroutine[Any, Any, T], *, clock: Clock | None = None) -> T:
    """Run `main` on virtual time with a runtime to match, and check that it leaves no task behind."""
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
        assert not left, f"tasks were left behind: {left}"
        return result
    finally:
        loop.close()
