"""Every error on one screen, by the one question that matters after a failure: *did it happen?*

    YaokiError
    ├── RefusedError         no: nothing was sent; try elsewhere or again
    │   ├── BreakerOpenError · BulkheadFullError · DeadlineError · RateLimitedError · ThrottledError · SuspendedError · InProgressError
    │   ├── StaleDataError
    ├── InDoubtError         nobody knows: it was sent, and no answer came back
    │   └── AttemptTimeoutError · HeartbeatLostError
    ├── DeclinedError        yes, it arrived, and the answer was no: nothing was done
    ├── ExhaustedError       every attempt failed; the last failure is the cause
    ├── UsageError           a person's mistake, found before anything was sent or stored
    │   ├── ConfigError · DefinitionError · InputError · KeyReusedError · TokenError
    ├── JournalError         the store of runs cannot be used, and nothing was acknowledged
    │   ├── JournalLockedError · JournalForeignError · FencedError
    ├── RunError             how a run ended, for the one who waits for its result
    │   ├── RunUndoneError · RunBlockedError · RunConflictError · RunNotFoundError · TooLateError · AnswerConflictError · InnerStepError
    ├── MessagesError        messages cannot be stored, sent or read
    │   ├── StoreError · BrokerError · NewerVersionError · NoReplyError
    └── LedgerError          the ledger or its audit cannot do this
        ├── VersionConflictError · ContentConflictError · AuditError · RepairRefusedError

A service's own errors (an `httpx.HTTPStatusError`, say) are never wrapped: what a caller catches today it still catches.

Every error has a `code` (its page is `docs/reference/errors/`, and `yk help CODE` prints it), says in `str(error)` what
happened, and in `error.do` what to do next. All survive pickling and JSON (`to_dict`, `from_dict`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self


class YaokiError(Exception):
    """Root of all of Yaoki's own errors.

    Args:
        message: what happened, in one sentence, naming the thing it happened to.
        do: what the reader does next.
        fields: the figures behind the sentence, JSON-able; they become attributes.
    """

    code: ClassVar[str] = "YK-1000"
    why: ClassVar[str] = ""
    happened: ClassVar[bool | None] = None
    """Did the effect happen? False: certainly not. None: nobody knows, or the question does not arise."""

    def __init__(self, message: str, *, do: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.do = do
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        # Only reached when normal lookup fails. `fields` itself is missing while an unpickled error is being filled.
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.do, self.fields), {"__notes__": getattr(self, "__notes__", [])}

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON-able data: `type, code, message, do` and its fields."""
        return {"type": type(self).__name__, "code": self.code, "message": self.message, "do": self.do, **self.fields}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> YaokiError:
        """The error that `to_dict` wrote down. An unknown type comes back as a plain `YaokiError`."""
        fields = dict(data)
        kind = _by_name().get(fields.pop("type", ""), YaokiError)
        fields.pop("code", None)
        return _rebuild(kind, fields.pop("message", ""), fields.pop("do", ""), fields)

    def with_note(self, note: str) -> Self:
        self.add_note(note)
        return self


def _rebuild(kind: type[YaokiError], message: str, do: str, fields: dict[str, Any]) -> YaokiError:
    error = kind.__new__(kind)
    YaokiError.__init__(error, message, do=do, **fields)
    return error


def _by_name() -> dict[str, type[YaokiError]]:
    found: dict[str, type[YaokiError]] = {}
    queue: list[type[YaokiError]] = [YaokiError]
    while queue:
        kind = queue.pop()
        found[kind.__name__] = kind
        queue.extend(kind.__subclasses__())
    return found


# ── did it happen? no ────────────────────────────────────────────────────────────────────────────────────────────────


class RefusedError(YaokiError):
    """Certainly not sent. Trying again, or elsewhere, can do no harm."""

    code = "YK-1100"
    why = "The call was refused on this side, so nothing happened at the service."
    happened = False


class BreakerOpenError(RefusedError):
    """The circuit breaker is open. `retry_after` is seconds until a probe may be let through."""

    code = "YK-1101"
    why = "The service failed so often that calls are not sent to it for a while, to let it recover."


class BulkheadFullError(RefusedError):
    """All of the bulkhead's places and its queue are taken."""

    code = "YK-1102"
    why = "So many calls to this service are under way that another would only wait, and take others down with it."


class DeadlineError(RefusedError, TimeoutError):
    """No time is left to do this, so it was not started. `remaining` is seconds, at most the minimum that is useful."""

    code = "YK-1103"
    why = "The whole operation had a deadline, and an attempt that cannot finish in time is not worth sending."


class RateLimitedError(RefusedError):
    """Our own rate limit is spent. `retry_after` is seconds until the next place."""

    code = "YK-1104"
    why = "Calls to this service are limited to a rate, and this one would exceed it."


class ThrottledError(RefusedError):
    """Shed on this side in proportion to what the service refuses lately."""

    code = "YK-1105"
    why = "The service refuses a share of the calls, so a share of them is not sent."


class SuspendedError(RefusedError):
    """A do that came after its own undo, and was not carried out (saga literature: suspension)."""

    code = "YK-1106"
    why = "The run had already undone this step; a late request must not bring its effect back."


class InProgressError(RefusedError):
    """Another request with the same idempotency key is being carried out right now. `key` names it."""

    code = "YK-1107"
    why = "Two requests with one key are one effect; the second waits for the first one's answer, and may not overtake it."


class StaleDataError(RefusedError):
    """The local copy of pushed data is too old to be read, or was never fetched. `age_s` is seconds, or None."""

    code = "YK-1108"
    why = "Data is pushed ahead of need and good for hours; its source has not been reached for longer than that."


# ── did it happen? nobody knows ──────────────────────────────────────────────────────────────────────────────────────


class InDoubtError(YaokiError):
    """Sent, and no answer came: it may have happened. Repeat with the same idempotency key, or undo."""

    code = "YK-1200"
    why = "The request left this process and its answer did not arrive, so the effect may exist."


class AttemptTimeoutError(InDoubtError, TimeoutError):
    """One attempt took longer than its timeout. `timeout` is seconds."""

    code = "YK-1201"
    why = "No answer arrived in the time given to one attempt; the service may have done the work all the same."


class HeartbeatLostError(AttemptTimeoutError):
    """A step gave no sign of life for longer than its `heartbeat`, and this attempt of it was given up. `timeout` is seconds."""

    code = "YK-1202"
    why = "A step that says nothing may be stuck, so it is tried again, elsewhere if others work on the same journal."


# ── did it happen? it arrived, and the answer was no ─────────────────────────────────────────────────────────────────


class DeclinedError(YaokiError):
    """The service understood and said no: nothing was done, and asking again changes nothing.

    Raise it, or a subclass of it, from a step to say so: the run is undone, and this step needs no undo.
    """

    code = "YK-1300"
    why = "A business reason, not a fault: sold out, card declined, not allowed."
    happened = False


class ExhaustedError(YaokiError):
    """Sent, and every attempt failed; the last failure is `__cause__`."""

    code = "YK-1301"
    why = "The attempts or the time for them ran out."


# ── a person's mistake ───────────────────────────────────────────────────────────────────────────────────────────────


class UsageError(YaokiError):
    """Something was asked for in a way that cannot work. Nothing was sent or stored."""

    code = "YK-2000"
    why = "Found before anything was sent or stored."


class ConfigError(UsageError, ValueError):
    """A setting is unknown, of the wrong kind or out of range."""

    code = "YK-2001"


class DefinitionError(UsageError, TypeError):
    """A saga is defined in a way that cannot run; names the function, the line and the remedy."""

    code = "YK-2002"


class InputError(UsageError, ValueError):
    """An input is not what the saga takes; names the line, the field and what was expected."""

    code = "YK-2003"


class KeyReusedError(UsageError, ValueError):
    """An idempotency key came again with another request. `key` names it."""

    code = "YK-2004"
    why = "A key stands for one request; answering another request with the first one's answer would be a lie."


class ForkedError(UsageError):
    """A handle is used in a process that was forked from the one that opened it. `parent` is that one's process id."""

    code = "YK-2012"
    why = "A forked process has none of its parent's threads, and shares its files and connections with it; both would break."


class ForkError(UsageError):
    """A run cannot be forked there: it is not known, or nothing is left of what it would begin with."""

    code = "YK-2013"
    why = "A fork begins with another run's finished steps, so their effects must still exist."


class RetryFromError(UsageError):
    """A run cannot be retried from that step: it would have to take back what cannot be taken back, or there is nothing to retry."""

    code = "YK-2014"
    why = "What is made anew is a new effect, so nothing of the old one may be left; after the point of no return that is not always so."


class UndoRunError(UsageError):
    """A run cannot be undone: it is undone already, it is a part of another run, or something of it would stay."""

    code = "YK-2015"
    why = "A run that is undone leaves nothing behind, and what was made past the point of no return can often not be taken back."


class TokenError(UsageError, ValueError):
    """A token is not one that this journal's sagas have handed out, or was changed on its way."""

    code = "YK-2020"
    why = "A token names a run, a step and an attempt, and is signed with the journal's own key; this one is not."


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


class JournalError(YaokiError):
    """The store of runs cannot be used. What was acknowledged before is safe; this was not acknowledged."""

    code = "YK-3000"
    why = "A record that is not durable is not acknowledged, so the run stays where it was."


class JournalLockedError(JournalError):
    """Another process runs sagas on this journal."""

    code = "YK-3001"
    why = "Two processes driving the same runs would repeat each other's steps."


class JournalForeignError(JournalError):
    """The file or schema is not a journal of Yaoki's, is damaged, or is newer than this program."""

    code = "YK-3002"
    why = "Writing to a store that is not understood could destroy what it holds."


class FencedError(JournalError):
    """This worker lost its lease; nothing of the batch was written, and another worker goes on with its runs."""

    code = "YK-3003"
    why = "The worker did not renew its lease in time (paused, starved or cut off), so its runs were taken over."


class JournalDamagedError(JournalError):
    """What was read of a run is not what was written: a bit has turned over, or a record is missing. `run_id` is that run.

    Other runs go on. This one is left alone: whatever its history says now, some of it never happened.
    """

    code = "YK-3004"
    why = "Each record is kept with a checksum; going on from a history that is wrong would repeat or skip steps."


# ── how a run ended ──────────────────────────────────────────────────────────────────────────────────────────────────


class RunError(YaokiError):
    """A run has no result to give. `run_id` names it."""

    code = "YK-4000"


class RunUndoneError(RunError):
    """The run was undone: no effect of it is left. `step` and `reason` say what began it."""

    code = "YK-4001"
    why = "A step failed for good, or somebody cancelled the run, and everything that was done was undone."


class RunBlockedError(RunError):
    """The run waits for a person. `step` and `reason` say where and why."""

    code = "YK-4002"
    why = "An undo gave up, a step after the pivot cannot finish, or the code has a bug; nothing is lost."


class RunConflictError(RunError, ValueError):
    """A run of this id exists already, with another saga or another input."""

    code = "YK-4003"
    why = "The id of a run is its idempotency key: the same id is the same run."


class InnerStepError(RunError):
    """An inner step of a flow failed for good. `step` names it, `error` and `reason` say how; what it may have done is undone."""

    code = "YK-4005"
    why = "A flow may go on in another way when one of its inner steps has failed."


class RunNotFoundError(RunError, LookupError):
    """No run of this id is in the journal."""

    code = "YK-4004"


class TooLateError(RunError):
    """The step does not wait any more, so this was not recorded. `step` names it; `undone` says whether the run takes it back."""

    code = "YK-4010"
    why = "An answer or a result came after its step had ended, or when the run undoes itself or has."


class AnswerConflictError(RunError, ValueError):
    """Another answer, or another result, came first and counts. `step` names what it was for."""

    code = "YK-4011"
    why = "The first answer counts, because what follows may have been done already; the same one again is harmless."


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class MessagesError(YaokiError):
    """Messages cannot be stored, sent or read. What was acknowledged before is safe; this was not acknowledged."""

    code = "YK-5000"


class StoreError(MessagesError):
    """The database that holds the messages cannot be used, or holds something else."""

    code = "YK-5001"
    why = "A message that is not durable is not acknowledged."


class BrokerError(MessagesError):
    """The broker did not confirm. The messages stay in the outbox and are sent again: a duplicate has the same id."""

    code = "YK-5002"
    why = "Without the broker's confirmation nobody knows whether it has the message, so it is sent until confirmed."


class NewerVersionError(MessagesError):
    """A message's payload has a newer version than this program knows. `version` is the message's."""

    code = "YK-5003"
    why = "A message of a newer program waits for one that understands it, and is not guessed at."


class NoReplyError(MessagesError, TimeoutError):
    """A request was published and no answer came in its time. It may still be carried out."""

    code = "YK-5004"
    why = "The request is stored and will be handled; only the wait for its answer ended."


class NoTransactionError(UsageError):
    """An event was to be published with data, on a connection that has no transaction open."""

    code = "YK-2010"
    why = "On a connection that commits every statement by itself, the data and the event would not be one."


class DurabilityError(ConfigError):
    """More durability is asked for than the store or broker gives. `asked` and `given` name the classes."""

    code = "YK-2011"
    why = "A message that was acknowledged could be lost by a failure that it was said to survive."


# ── the ledger and its audit ─────────────────────────────────────────────────────────────────────────────────────────


class LedgerError(YaokiError):
    """The ledger or its audit cannot do this. Nothing of it was written."""

    code = "YK-6000"


class VersionConflictError(LedgerError):
    """Somebody else added a version first. `key`, `expected` and `actual` say what stood in the way."""

    code = "YK-6001"
    why = "The change was made for a version that is not the newest any more, so it was not written."
    happened = False


class SchemaError(LedgerError):
    """A content has a shape that this program cannot read. `key`, `version` and `schema` say which."""

    code = "YK-6005"
    why = "It was written by a newer program, or its up-cast is missing or fails; a content is refused rather than guessed at."


class ContentConflictError(LedgerError):
    """Another content is at rest under this name. It was left as it is. `name` says where."""

    code = "YK-6002"
    why = "A version never changes: two contents under one name mean that one of them is wrong, and a person decides which."


class AuditError(LedgerError):
    """A source or sink cannot be audited as asked: it is not there, not allowed, or not what the settings say."""

    code = "YK-6003"
    why = "An audit that cannot read one side proves nothing, and nothing proven is never reported as fine."


class RepairRefusedError(LedgerError):
    """The brake: more would be repaired than a person expects. Nothing was. `wanted` and `limit` say how much."""

    code = "YK-6004"
    why = "So many repairs at once mostly mean that the audit is pointed at the wrong table or bucket."
