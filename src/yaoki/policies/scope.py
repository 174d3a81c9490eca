"""What a call inherits from the calls around it: one absolute deadline, and whether somebody already repeats it.

    deadline   monotonic seconds after which nobody waits any more; only ever shortened. `inf` when there is none.
    attempt    number of the attempt of the innermost retry around us, from 2; 0 during a first attempt, which is nearly
               always: a call that succeeds at once does not pay for publishing that it would have been repeated.

Both live in one ContextVar as a pair, so that a pipeline publishes them with one write. Tasks and threads started with the
caller's context inherit them, as they should: a deadline of the caller bounds them too. For work that shall outlive the
call that starts it there is `detached()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from math import inf

from yaoki import runtime
from yaoki.errors import AttemptTimeoutError

Scope = tuple[float, int]
"""(deadline, attempt)."""

USEFUL_S = 0.005
"""What cannot be done in 5 ms over a network is not worth beginning: with less time left a call is refused (resile has the same figure)."""

NOTHING: Scope = (inf, 0)
current: ContextVar[Scope] = ContextVar("yaoki_scope", default=NOTHING)


def ambient() -> Scope:
    """The scope in force here."""
    return current.get()


def remaining() -> float:
    """Seconds until the ambient deadline: `inf` when there is none, 0.0 when it has passed.

    Plain functions cannot be interrupted; give this to the client's own timeout argument instead.
    """
    limit = current.get()[0]
    return limit if limit == inf else max(0.0, limit - runtime.monotonic())


PATIENCE = 3.0
"""Who gives up after this many times the usual latency has waited long enough to say that the service is too slow."""


def gave_up(error: BaseException, now: float) -> bool:
    """Was it the caller's own deadline that ended the attempt? Then the failure says little about the service.

    Coroutines are cut off by a timer, which says so; plain functions by their client's timeout, which does not.
    """
    if isinstance(error, AttemptTimeoutError) and error.fields.get("by") == "deadline":
        return True
    return now >= current.get()[0] - USEFUL_S


def attempt() -> int:
    """Number of the attempt under way, from 1."""
    return max(1, current.get()[1])


@contextlib.contextmanager
def until(deadline: float) -> Iterator[None]:
    """Everything in the block has at most until `deadline` (on `runtime.monotonic()`), or less if the caller has less."""
    outer = current.get()
    token = current.set((min(deadline, outer[0]), outer[1]))
    try:
        yield
    finally:
        current.reset(token)


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """Forget the caller's deadline and retries inside the block: for work that shall not end with the call that starts it."""
    token = current.set(NOTHING)
    try:
        yield
    finally:
        current.reset(token)


@contextlib.contextmanager
def repeated(yes: bool = True) -> Iterator[None]:  # noqa: FBT001, FBT002
    """Retries inside the block make one attempt (if `yes`): somebody else repeats the work, or it cannot be repeated at all."""
    outer = current.get()
    token = current.set((outer[0], max(2, outer[1]) if yes else outer[1]))
    try:
        yield
    finally:
        current.reset(token)
