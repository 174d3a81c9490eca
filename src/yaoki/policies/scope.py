"""What a call inherits from the calls around it: one absolute deadline, and whether somebody already retries.

Both live in one ContextVar as `(deadline, attempt)`, so that a pipeline publishes them with one write:

    deadline   monotonic seconds after which nobody waits any more; only ever shortened. `inf` when there is none.
    attempt    number of the attempt of the innermost retry around us, from 1; 0 when nobody retries.

Tasks and threads started with the caller's context inherit it, as they should: a deadline of the caller bounds them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from math import inf

from yaoki import runtime

Scope = tuple[float, int]

NOTHING: Scope = (inf, 0)
current: ContextVar[Scope] = ContextVar("yaoki_scope", default=NOTHING)


def remaining() -> float:
    """Seconds until the ambient deadline: `inf` when there is none, 0.0 when it has passed.

    Plain functions cannot be interrupted; give this to the client's own timeout argument instead.
    """
    limit = current.get()[0]
    return limit if limit == inf else max(0.0, limit - runtime.monotonic())


def attempt() -> int:
    """Number of the attempt under way, from 1; 0 outside any retry."""
    return current.get()[1]


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """Forget the caller's deadline and retries inside the block: for work that outlives the call that started it."""
    token = current.set(NOTHING)
    try:
        yield
    finally:
        current.reset(token)
