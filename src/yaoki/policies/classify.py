"""After a failure: did it happen, is it worth a retry, is the service throttling us?

    failure = classify(error)
    failure.kind            safe        certainly not carried out: any call may be repeated
                            ambiguous   may have been carried out: repeat only what is idempotent
                            throttled   turned away for load: repeat after the service's delay
                            permanent   repeating it changes nothing
    failure.happened        False: the effect certainly does not exist. None: nobody knows.

Errors are recognised by protocol, never by service, from tables with their sources in `protocols.py`, by the name of the
module and the class, so that no driver is imported. Your own go first:

    classify.register(SeatTaken, Failure("permanent", happened=False, healthy=True))
    classify.register(ApiError, lambda error: classify.http(error.status, error.headers))

What nobody knows is permanent: an unknown error is more often a bug than a glitch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from yaoki import errors, runtime

Kind = Literal["safe", "ambiguous", "throttled", "permanent"]

MARK = "__yaoki_attempts__"  # where a retry leaves its mark on the error that it raises in the end
DOUBT = "__yaoki_in_doubt__"  # and where those do who sent the call elsewhere as well (hedge, failover, fallback)


class Failure(NamedTuple):
    """What one error means.

    Attributes:
        kind: see the module.
        happened: False: the effect certainly does not exist; None: nobody knows.
        retry_after_s: what the service asked for, seconds from now, if it did. inf: it said not to come back.
        healthy: the service did its work and this is its answer (not found, declined): no reason to open a breaker.
        known: was the error in a table? An unknown one is permanent, and counts as a failure of the service.
    """

    kind: Kind
    happened: Literal[False] | None = None
    retry_after_s: float | None = None
    healthy: bool = False
    known: bool = True

    def worth_a_retry(self, *, idempotent: bool | None = None) -> bool:
        """May a call that failed so be made again? `idempotent`: is repeating it harmless?"""
        return self.kind in ("safe", "throttled") or (self.kind == "ambiguous" and idempotent is True)

    @property
    def throttled(self) -> bool:
        return self.kind == "throttled"


SAFE = Failure("safe", happened=False)
AMBIGUOUS = Failure("ambiguous")
THROTTLED = Failure("throttled", happened=False)
REFUSED = Failure("permanent", happened=False, healthy=True)  # it arrived, and the answer was no
MISTAKE = Failure("permanent", happened=False)                 # never sent: a bad address, a bad certificate
PERMANENT = Failure("permanent")
UNKNOWN = Failure("permanent", known=False)

EVER = -1  # instead of `marks.made`: any mark counts, also of an earlier call
NOTE = "yaoki: "  # how the notes begin that policies write on errors

Reader = Callable[[Any], "Failure | None"]


TYPES_KEPT = 1024  # of a program that makes exception types as it goes, no more are remembered


class Classifier:
    """Answers for errors; `classify` is the process's own. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered: dict[type[BaseException], Reader] = {}
        self._readers: dict[type[BaseException], tuple[Reader, ...]] = {}

    def __call__(self, error: BaseException) -> Failure:
        """What `error` means. Never raises, whatever the error's attributes do."""
        readers = self._readers.get(type(error))
        if readers is None:
            readers = self._readers_of(type(error))
        if not readers:
            return UNKNOWN
        for reader in readers:
            try:
                found = reader(error)
            except Exception:
                found = None  # a stand-in with odd attributes: go on as if its table did not know it
            if found is not None:
                return found
        return UNKNOWN

    def _readers_of(self, kind: type[BaseException]) -> tuple[Reader, ...]:
        """Who may know errors of this type: what was registered, then the tables, most derived class first. Kept for the next error."""
        from yaoki.policies import protocols  # noqa: PLC0415 - the tables are read at the first failure, not at import

        registered = [self._registered[base] for base in kind.__mro__ if base in self._registered]
        readers = (*registered, *protocols.readers(kind))
        if len(self._readers) >= TYPES_KEPT:
            self._readers = {}
        self._readers[kind] = readers
        return readers

    def register(self, kind: type[BaseException], meaning: Failure | Reader) -> None:
        """Say what errors of this type (and its subclasses) mean. Goes before the tables; the last one said counts."""
        reader: Reader = (lambda _: meaning) if isinstance(meaning, Failure) else meaning
        with self._lock:
            self._registered = {**self._registered, kind: reader}
            self._readers = {}

    def nothing_happened(self, error: BaseException, since: int = EVER) -> bool:
        """Is it certain that the effect does not exist? False also when another attempt of the same call is in doubt.

        since: look only at marks that were left after this many (`marks.made`).
        """
        return not is_doubted(error, since) and self(error).happened is False

    @staticmethod
    def http(status: int, headers: Mapping[str, str] | None = None) -> Failure:
        """What an HTTP answer with this status means. `headers`: for Retry-After, `x-should-retry`."""
        from yaoki.policies import protocols  # noqa: PLC0415

        return protocols.http(status, headers or {}, unix_now=runtime.unix_time())


classify = Classifier()


def nothing_happened(error: BaseException) -> bool:
    """`classify.nothing_happened`, for those who import names."""
    return classify.nothing_happened(error)


class Marks:
    """Numbers the marks of this process, so that one of an earlier call is told from one of the call under way.

    A program may keep one error object and raise it again and again, as `Mock(side_effect=error)` does. A policy that looks for
    marks of its own call reads `made` when the call begins; what has a higher number was left since.
    """

    __slots__ = ("_lock", "made")

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()

    def number(self) -> int:
        """A higher one than any before."""
        with self._lock:
            self.made += 1
            return self.made


marks = Marks()


def mark_attempts(error: BaseException, attempts: int, *, in_doubt: bool) -> None:
    """Leave on `error` how many attempts were made, and whether an earlier one may have happened."""
    _write(error, MARK, (attempts, in_doubt, marks.number()))


def mark_in_doubt(error: BaseException) -> None:
    """Leave on `error`, which says that nothing happened, that the call may have happened elsewhere all the same."""
    _write(error, DOUBT, marks.number())


def _write(error: BaseException, name: str, value: object) -> None:
    try:
        setattr(error, name, value)
    except (AttributeError, TypeError):
        pass  # an exception with __slots__ and no room: its note still tells


def is_doubted(error: BaseException, since: int = EVER) -> bool:
    """May another attempt of the call have happened, whatever `error` itself says?"""
    mark = getattr(error, MARK, None)
    return (mark is not None and mark[1] and mark[2] > since) or getattr(error, DOUBT, EVER) > since


def forget_before(error: BaseException, since: int) -> None:
    """Take off `error` what policies wrote on it in earlier calls."""
    mark = getattr(error, MARK, None)
    if mark is not None and mark[2] <= since:
        delattr(error, MARK)
        error.__notes__ = [note for note in getattr(error, "__notes__", ()) if not note.startswith(NOTE)]
    if getattr(error, DOUBT, since + 1) <= since:
        delattr(error, DOUBT)


def hand_on_history(error: BaseException, other: BaseException) -> None:
    """Write on `other`, which the caller gets, what retries wrote on `error`, which the policy saw in its place."""
    for note in getattr(error, "__notes__", ()):
        other.add_note(note)
    if hasattr(error, MARK):
        mark_attempts(other, attempts_made(error), in_doubt=getattr(error, MARK)[1])
    if is_doubted(error):
        mark_in_doubt(other)


def has_mark(error: BaseException, since: int = EVER) -> bool:
    """Has a retry nearer to the call already dealt with `error`, or with the error that it was raised from?"""
    mark = getattr(error, MARK, None)
    if mark is not None and mark[2] > since:
        return True
    cause = error.__cause__
    return cause is not None and any(getattr(each, MARK, (0, False, EVER))[2] > since for each in _chain(cause))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):  # a chain longer than this is not one that a person wrote
        if error is None:
            return
        yield error
        error = error.__cause__


def attempts_made(error: BaseException) -> int:
    """How many attempts a retry made before it raised `error`; 1 if none was in between."""
    mark = getattr(error, MARK, None)
    return mark[0] if mark is not None else 1


def of_yaoki(error: errors.YaokiError) -> Failure | None:
    """Our own errors, by the tree in `errors.py`."""
    if isinstance(error, errors.SuspendedError):
        return REFUSED
    if isinstance(error, errors.InProgressError):
        return SAFE._replace(happened=None)  # this request did nothing, but its twin with the same key is at it
    if isinstance(error, errors.RefusedError):
        return SAFE._replace(retry_after_s=error.fields.get("retry_after"))
    if isinstance(error, errors.InDoubtError):
        return AMBIGUOUS
    if isinstance(error, errors.DeclinedError):
        return REFUSED
    if isinstance(error, errors.UsageError):
        return MISTAKE
    if isinstance(error, errors.ExhaustedError) and error.__cause__ is not None:
        return classify(error.__cause__)
    return None
