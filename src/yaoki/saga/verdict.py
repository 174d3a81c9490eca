"""What the failure of a step means: is it a bug, is it worth another attempt, and may the effect exist? A decider.

Safe by default: an error that nobody can place may have left an effect behind, so the step is undone with it. Only what is
certain counts as "nothing happened": a refusal on this side, a `DeclinedError` of the user's, and what the protocol
defines so (`yaoki.policies.classify`).
"""

from __future__ import annotations

import traceback
from math import inf

import msgspec

from yaoki.errors import DeclinedError, RefusedError, UsageError
from yaoki.policies.classify import attempts_made, classify
from yaoki.saga.records import Failure

# A programming error is not a business failure: it blocks the run, to go on after a fix, so that a bad deploy does not
# undo a day's bookings.
BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError, ArithmeticError, ImportError, SyntaxError,
        NotImplementedError, RecursionError, UsageError, msgspec.ValidationError)

TRACE_LINES = 6


class Verdict(msgspec.Struct, frozen=True):
    """What a failed attempt means.

    Attributes:
        bug: the program is wrong, not the world.
        repeat: another attempt may go better.
        in_doubt: the effect may exist.
        retried: how many attempts a policy further in has made already.
        retry_after_s: what the service asked for, or 0.
    """

    bug: bool
    repeat: bool
    in_doubt: bool
    retried: int = 1
    retry_after_s: float = 0.0


def judge(error: Exception) -> Verdict:
    """What `error`, raised by one attempt of a step, means."""
    if isinstance(error, DeclinedError):
        return Verdict(bug=False, repeat=False, in_doubt=False)
    if isinstance(error, BUGS) and not isinstance(error, RefusedError):
        return Verdict(bug=True, repeat=False, in_doubt=True)
    found = classify(error)
    after_s = found.retry_after_s or 0.0
    # A step is idempotent by its key, so what may have happened is worth repeating. inf: the service said not to come back.
    repeat = found.worth_a_retry(idempotent=True) and after_s != inf
    return Verdict(bug=False, repeat=repeat, in_doubt=not classify.nothing_happened(error), retried=attempts_made(error),
                   retry_after_s=after_s)


def failure(error: Exception, verdict: Verdict, *, attempts: int, undo: bool, in_doubt: bool) -> Failure:
    """The error as it is recorded: type and message, and for a bug where it is."""
    trace = "".join(traceback.format_exception(error)[-TRACE_LINES:]) if verdict.bug else ""
    return Failure(type(error).__name__, str(error)[:500], in_doubt=in_doubt, attempts=attempts, undo=undo, trace=trace)
