"""What plain functions need that coroutines get from their loop: a thread to run in while the caller keeps an eye on the time."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from contextvars import copy_context
from typing import Any

from yaoki import runtime
from yaoki.policies import scope

THREADS = 64  # each call that outlives its timeout keeps one until it returns; when all are kept, calls wait for one

_lock = threading.Lock()
# A pooled thread may wait for another one (a hedge around a timeout in a thread). If they were of one pool, as many hedged calls
# as it has threads would take them all, and wait for each other. So what is begun in a thread of one pool runs in the next.
_pools: list[ThreadPoolExecutor] = []
_here = threading.local()


def _threads() -> ThreadPoolExecutor:
    depth: int = getattr(_here, "depth", 0)
    with _lock:
        while len(_pools) <= depth:
            _pools.append(ThreadPoolExecutor(THREADS, thread_name_prefix=f"yaoki-timeout-{len(_pools)}",
                                             initializer=_arrive, initargs=(len(_pools) + 1,)))
        return _pools[depth]


def _arrive(depth: int) -> None:
    _here.depth = depth


def submit(fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
    """Run `fn(*args)` in a pooled thread."""
    return _threads().submit(fn, *args)


def _forget_threads() -> None:
    """A forked child has none of its parent's threads, and may have been forked while the lock was held."""
    global _pools, _lock, _here
    _pools, _lock, _here = [], threading.Lock(), threading.local()


os.register_at_fork(after_in_child=_forget_threads)


def in_thread(inner: Callable[..., Any], timeout_s: float, expired: Callable[[float, str], Exception],
              late: Callable[[], Exception]) -> Callable[..., Any]:
    """`inner` in a pooled thread with the caller's context, given up after `timeout_s` or at the ambient deadline.

    Args:
        expired: makes the error of a call given up, from the seconds allowed and "timeout" or "deadline".
        late: makes the error of a call for which no time is left.
    """
    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        now = runtime.monotonic()
        allowed_s = min(timeout_s, scope.current.get()[0] - now)
        if allowed_s <= 0:
            raise late()
        with scope.until(now + allowed_s):
            future = _threads().submit(copy_context().run, inner, *args, **kwargs)
            return _wait(future, timeout_s, allowed_s, expired)

    return call


def _wait(future: Future[Any], timeout_s: float, allowed_s: float, expired: Callable[[float, str], Exception]) -> Any:
    try:
        return future.result(allowed_s)
    except WaitTimeoutError:
        if future.done():
            return future.result()  # finished this instant, or the TimeoutError is the function's own
        future.cancel()  # if it has not begun, it never will
    raise expired(allowed_s, "timeout" if allowed_s == timeout_s else "deadline")
