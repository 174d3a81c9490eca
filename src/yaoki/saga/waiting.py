"""Steps that wait: what they wait for, and how a wait ends. Deciders.

    begins (its function has run) ──▶ parked ──the time is over──▶ done (a sleep), its `otherwise`, or failed
                                        └─────the signal came──▶ done, with what was signalled
"""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import InputError
from yaoki.saga import codec
from yaoki.saga.records import Failure, Kind, Record, Waiting

if TYPE_CHECKING:
    from yaoki.saga.define import Saga, Step

UNSET: Any = object()


class Wait(msgspec.Struct, frozen=True):
    """What a step waits for.

    Attributes:
        kind: "sleep": the seconds that its function returns; "signal": somebody's answer; "token": the outside completes it.
        timeout_s: how long to wait for the answer; None: for ever.
        otherwise: the result when no answer came; UNSET: the step fails, and the run undoes itself.
        heartbeat_s: of a token: how long nothing may be heard before the step is asked again; None: for ever.
    """

    kind: str
    timeout_s: float | None = None
    otherwise: Any = UNSET
    heartbeat_s: float | None = None


def begin_of_wait(step: Step[..., Any], value: Any, now: float) -> Record:
    """The record after the step's function has run. Raises TypeError for a sleep whose function returned no length."""
    wait = step.wait
    assert wait is not None
    if wait.kind == "sleep":
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:  # noqa: PLR0124  NaN
            raise TypeError(f"{step.name} returns how long to sleep: seconds or a timedelta, not {value!r}")
        until = now + max(0.0, seconds)
    else:
        until = now + wait.timeout_s if wait.timeout_s is not None else 0.0
    if wait.heartbeat_s is not None:
        waiting = Waiting(min(until or inf, now + wait.heartbeat_s), limit=until)
    else:
        waiting = Waiting(until, limit=until if wait.kind == "token" else 0.0)
    return Record(Kind.WAITING, step.name, msgspec.json.encode(waiting), now)


def check_answer(saga: Saga[Any], name: str, data: bytes) -> None:
    """Raises InputError for an answer that nobody waits for, or that is not of the type that the step takes."""
    step = saga.steps.get(name)
    waiting = [each.name for each in saga.steps.values() if each.wait is not None and each.wait.kind == "signal"]
    if step is None or name not in waiting:
        raise InputError(f"saga {saga.name!r} has no step {name!r} that waits for an answer",
                         do=f"name one of: {', '.join(waiting)}" if waiting else "define one with @saga.wait_for(...)")
    try:
        step.result.decode(data)
    except msgspec.ValidationError as error:
        raise InputError(f"this is not what {name} waits for: {error}", do="send the type that wait_for(...) names") from error


def end_of_wait(saga: Saga[Any], name: str, signalled: bytes | None, now: float) -> Record:
    """The record that ends a wait. `signalled`: what came, or None: the time is over."""
    wait = saga.steps[name].wait
    assert wait is not None
    if signalled is not None:
        try:
            saga.steps[name].result.decode(signalled)
        except msgspec.ValidationError as error:
            failure = Failure("ValidationError", f"the signal is not what {name} waits for: {error}")
            return Record(Kind.BLOCKED, name, msgspec.json.encode(failure), now)
        return Record(Kind.DONE, name, signalled, now)
    if wait.kind == "sleep":
        return Record(Kind.DONE, name, b"null", now)
    if wait.otherwise is not UNSET:
        return Record(Kind.DONE, name, codec.encode(wait.otherwise), now)
    failure = Failure("SignalTimeout", f"nobody answered within {wait.timeout_s:g} s", in_doubt=False)
    return Record(Kind.FAILED, name, msgspec.json.encode(failure), now)
