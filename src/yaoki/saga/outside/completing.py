"""A step that the outside world ends, by its token: what may be said, what has become of it, and who takes it back.

    asked (attempt n, token n) ──complete──▶ done            the same again: nothing; another one: AnswerConflictError
            │                  ──fail──────▶ failed
            │                  ──silence───▶ asked again (attempt n + 1), or failed in doubt
            └──(the run undoes itself)──▶ complete: the result goes to the undo ──▶ TooLateError(taken_back=True)
                                          complete after the undo ──▶ TooLateError(taken_back=False): take it back yourself

An older attempt's result still counts while the step waits: it is the same effect, with the same idempotency key. Its
failure and its sign of life do not: a newer attempt is under way.

Why a late success is not simply refused: what it tells of has happened. While the run is still undoing itself, the step's
undo gets the result, and is made once more if it had been made already. When the run has ended, nobody is left who could undo
it but the one who did it, so that one is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from yaoki import runtime
from yaoki.errors import AnswerConflictError, InputError, TooLateError
from yaoki.saga.journal.registers import of_run
from yaoki.saga.naming import now_called
from yaoki.saga.outside.seen import Seen, see, settled
from yaoki.saga.outside.token import Token, token_key
from yaoki.saga.records import Failure, Kind
from yaoki.saga.rewinding import of_this_round

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Journal

Tell = Callable[[str, str, bytes], Awaitable[None]]
"""Asks something of a run: run, kind, data."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the outside says that a step ended: with a result, or with an error. attempt: which one says so."""

    attempt: int
    result: msgspec.Raw | UnsetType = UNSET
    error: Failure | UnsetType = UNSET

    def says_as(self, other: Outcome) -> bool:
        """Do both say the same, whichever attempt it was?"""
        if isinstance(self.result, msgspec.Raw) and isinstance(other.result, msgspec.Raw):
            return bool(msgspec.json.decode(self.result) == msgspec.json.decode(other.result))
        return not isinstance(self.result, msgspec.Raw) and not isinstance(other.result, msgspec.Raw)


class Completed(msgspec.Struct, frozen=True):
    """What is asked of the run's driver."""

    step: str
    outcome: Outcome


def counts(seen: Seen, token: Token, outcome: Outcome) -> bool:
    """Is this what the step ended with? False: it has not ended, or its undo has not got the result yet.

    Raises:
        AnswerConflictError: it ended with something else. TooLateError: it waits no more.
    """
    if token.attempt <= seen.machine.rounds.get(seen.machine.graph.index[token.step], 0):
        raise _too_late(seen, token, "the step was taken back, and is made anew", "take back what was done for it", taken_back=False)
    for record in of_this_round(seen.stored.records, token.step):
        if record.step == token.step and record.kind is Kind.SIGNAL:
            if msgspec.json.decode(record.data, type=Outcome).says_as(outcome):
                return True
            raise AnswerConflictError(f"step {token.step} of run {token.run} has ended with something else already",
                                      do="the first result counts: `yk runs show` tells it", run_id=token.run, step=token.step)
        if record.step == token.step and record.kind in {Kind.DONE, Kind.FAILED, Kind.RESOLVED, Kind.SKIPPED}:
            break
        if record.kind is Kind.ABORT:
            break
    if seen.machine.abort is None and seen.machine.takes_answer(token.step):
        if outcome.error is not UNSET and token.attempt <= seen.machine.asked(seen.machine.graph.index[token.step]):
            raise _too_late(seen, token, "a newer attempt is under way", "nothing: only its result counts now", taken_back=True)
        return False
    return _late(seen, token, outcome)


def _late(seen: Seen, token: Token, outcome: Outcome) -> bool:
    header, node = seen.header, seen.node(token.step)
    if outcome.result is UNSET:
        raise _too_late(seen, token, f"the run is {header.state}", "nothing", taken_back=True)
    if seen.last(Kind.LATE, token.step) is not None:
        raise _too_late(seen, token, "the run undoes itself, and its undo of this step has been given the result",
                        "nothing: the run takes it back", taken_back=True)
    if seen.machine.abort is None or header.state.is_end or node is None or not node.undo:
        raise _too_late(seen, token, f"the run is {header.state}", "take back what was done for it: the run will not", taken_back=False)
    return False


def _too_late(seen: Seen, token: Token, why: str, do: str, *, taken_back: bool) -> TooLateError:
    return TooLateError(f"step {token.step} of run {token.run} takes no result any more: {why}", do=do, run_id=token.run, step=token.step,
                        undone=seen.machine.abort is not None, taken_back=taken_back)


async def end(journal: Journal, token: str, *, result: Any = UNSET, error: Failure | UnsetType = UNSET, tell: Tell | None = None,
              wait_s: float = 5.0, check: Callable[[Token, Seen, bytes], None] | None = None) -> bool:
    """Say how a step ended, and wait until it is recorded. False: it is stored, and will be; say it again to know for sure.

    Args:
        result: JSON. error: instead of it. tell: how to ask something of a run; by the journal alone by default.
        check: looks at a result, and raises InputError.

    Raises:
        TokenError, RunNotFoundError, InputError, AnswerConflictError, TooLateError.
    """
    read = Token.read(token, await token_key(journal))
    outcome = Outcome(read.attempt, result if result is UNSET else msgspec.Raw(result), error)
    seen = await see(journal, read.run)
    said, read = read, _today(seen, read)
    _check_step(seen, read)
    if counts(seen, read, outcome):
        return True
    if check is not None and result is not UNSET:
        check(read, seen, result)
    data = msgspec.json.encode(Completed(said.step, outcome))
    await (tell or _by_journal(journal))(read.run, "complete", data)

    async def look() -> bool:
        seen = await see(journal, read.run)
        return counts(seen, _today(seen, said), outcome)

    return await settled(look, wait_s)


async def beat(journal: Journal, token: str, detail: Any = None) -> None:
    """Say that the step is still under way, and how far it is. Raises TokenError, RunNotFoundError, TooLateError: then stop."""
    read = Token.read(token, await token_key(journal))
    seen = await see(journal, read.run)
    said, read = read, _today(seen, read)
    number = _check_step(seen, read)
    if not seen.machine.takes_answer(read.step):
        raise _too_late(seen, read, f"the run is {seen.header.state}", "stop, and take back what was done, if anything was", taken_back=False)
    if read.attempt <= seen.machine.asked(number):
        raise _too_late(seen, read, "it was silent for too long, and a newer attempt is under way", "stop, if that can be done",
                        taken_back=True)
    await journal.write_register(of_run(read.run), said.step, msgspec.json.encode(Beat(read.attempt, detail)), fence=read.attempt)


class Beat(msgspec.Struct, frozen=True):
    """The last sign of life of a step, as its register keeps it."""

    attempt: int
    detail: Any = None


def _today(seen: Seen, token: Token) -> Token:
    """A token names its step as it was called first; a mapping may have renamed it since."""
    return msgspec.structs.replace(token, step=now_called(seen.machine, token.step)) if seen.machine.first_names else token


def _check_step(seen: Seen, token: Token) -> int:
    node = seen.node(token.step)
    if node is None or node.waits != "token":
        raise InputError(f"saga {seen.header.saga!r} has no step {token.step!r} that the outside completes", do="the saga has changed",
                         unknown=True)
    return seen.machine.graph.index[token.step]


def _by_journal(journal: Journal) -> Tell:
    async def tell(run: str, kind: str, data: bytes) -> None:
        await journal.request(run, kind, data, runtime.unix_time())

    return tell
