"""Garbage collection while thousands of short universes come and go.

A collection walks everything that is alive, and with a usual heap of imports that costs 20 ms: more than a hundred
executions. So what is there already is frozen, the collector is off while an execution runs (which also keeps it from
running a dead process's clean-up at a random moment), and what executions leave behind is collected every so many.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

# An execution leaves a few hundred objects in cycles; so this many hold about ten megabytes.
EVERY = 500


@contextlib.contextmanager
def tidy() -> Iterator[Callable[[], None]]:
    """Inside: call what it gives after each execution."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    left = EVERY

    def collect() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            gc.collect()
            left = EVERY

    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
