"""Garbage collection while thousands of short universes come and go.

A collection walks everything that is alive, and with a usual heap of imports that costs 20 ms: more than a hundred
executions. So what is there already is frozen, the collector is off while an execution runs (which also keeps it from
running a dead process's clean-up at a random moment). A universe that has ended is taken apart where it refers to itself, so
that counting references frees nearly all of it at once and the next one finds its memory warm; what is left in cycles is
collected every so many executions.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaoki.explore.world import World

# An execution leaves some twenty objects in cycles (tracebacks, mostly); so this many hold about two megabytes.
EVERY = 1000
# Five services with their stores leave ten thousand, and databases hang on them: so many more objects than there were are enough.
MOST_LEFT = 50_000


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
        if left <= 0 or gc.get_count()[0] > MOST_LEFT:
            gc.collect()
            left = EVERY

    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def take_apart(world: World) -> None:
    """Cut the references that make circles of a universe. Nobody may use it any more: what it came to is in the `Execution`."""
    for thing in world.circular:
        vars(thing).clear()
    for process in world.processes:
        vars(process).clear()
    world.loop.forget()
    vars(world).clear()
