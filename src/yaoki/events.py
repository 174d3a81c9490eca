"""What happens, as frozen records. Telemetry, the dashboard and tests read only these.

    with events.listen(print):            # or listen(queue.append, kinds=(BreakerOpened,))
        ...

An event is built only while somebody listens (`if events.wanted(): events.emit(...)`), so that silence costs nothing.
A listener is called at once, in the thread or task where the thing happened. It must be quick; what it raises is logged
and swallowed, because watching a call must not be able to break it.

Names are past tense. Times are seconds since 1970 (`at`), lengths are seconds. No event carries an argument, a result or
a header of a user's call: they may be secret.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from yaoki import runtime

log = logging.getLogger("yaoki.events")
log.addHandler(logging.NullHandler())


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="event"):
    """Something that happened. `at`: seconds since 1970, UTC."""

    at: float = msgspec.field(default_factory=runtime.unix_time)


Listener = Callable[[Any], object]

_lock = threading.Lock()
_listeners: tuple[tuple[Listener, tuple[type[Event], ...]], ...] = ()


def wanted() -> bool:
    """Does anybody listen? Ask before building an event on a hot path."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Give `event` to every listener that wants its kind."""
    for listener, kinds in _listeners:
        if isinstance(event, kinds):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of events failed on %s", type(event).__name__)


def subscribe(listener: Listener, *, kinds: tuple[type[Event], ...] = (Event,)) -> Callable[[], None]:
    """Call `listener` with each event of these kinds from now on. Returns a function that ends it."""
    global _listeners
    entry = (listener, kinds)
    with _lock:
        _listeners = (*_listeners, entry)

    def unsubscribe() -> None:
        global _listeners
        with _lock:
            _listeners = tuple(each for each in _listeners if each is not entry)

    return unsubscribe


@contextlib.contextmanager
def listen(listener: Listener, *, kinds: tuple[type[Event], ...] = (Event,)) -> Iterator[None]:
    """`subscribe` for the length of a block."""
    unsubscribe = subscribe(listener, kinds=kinds)
    try:
        yield
    finally:
        unsubscribe()


def to_json(event: Event) -> bytes:
    """One line of JSON, with the kind as `event`."""
    return msgspec.json.encode(event)


# ── calls and policies: `service` names the downstream, `policy` the part of its pipeline ────────────────────────────


class CallEvent(Event, frozen=True, kw_only=True):
    """About one call to a service, or the policy that guards it."""

    service: str


class CallFinished(CallEvent, frozen=True, kw_only=True):
    """A whole call, all attempts included, ended.

    outcome: ok, ok_after_retry, failed, failed_after_retry, rejected_breaker, rejected_bulkhead, rejected_rate,
        rejected_throttle, deadline, cancelled.
    """

    outcome: str
    duration_s: float
    attempts: int = 1
    error: str = ""


class AttemptFailed(CallEvent, frozen=True, kw_only=True):
    """One attempt failed. classification: safe, ambiguous, throttled, permanent."""

    attempt: int
    error: str
    classification: str
    duration_s: float = 0.0


class RetryScheduled(CallEvent, frozen=True, kw_only=True):
    """Another attempt will be made after `delay_s`. `attempt` is the number of the one to come, from 2."""

    attempt: int
    delay_s: float
    error: str


class RetrySuppressed(CallEvent, frozen=True, kw_only=True):
    """A retry that the rules allow was not made. reason: budget, deadline, nested, not_idempotent, retry_after."""

    attempt: int
    reason: str
    error: str


class BreakerChanged(CallEvent, frozen=True, kw_only=True):
    """The circuit breaker changed state (closed, open, half_open, forced_open, forced_closed, disabled)."""

    before: str
    after: str
    reason: str
    open_for_s: float = 0.0


class SharedStateLost(CallEvent, frozen=True, kw_only=True):
    """The store of shared breakers cannot be reached: this node is on its own until it can."""

    error: str


class SharedStateRegained(CallEvent, frozen=True, kw_only=True):
    """The store of shared breakers answers again."""


class CallRejected(CallEvent, frozen=True, kw_only=True):
    """A policy refused a call before it was sent. policy: breaker, bulkhead, rate, throttle, deadline, limit, shed."""

    policy: str
    retry_after_s: float = 0.0


class HedgeSent(CallEvent, frozen=True, kw_only=True):
    """The call was slow (`delay_s`), or an attempt of it failed (0), so a copy was sent. `copy` counts from 2."""

    copy: int
    delay_s: float


class HedgeWon(CallEvent, frozen=True, kw_only=True):
    """A copy was answered first; the others were cancelled."""

    copy: int
    duration_s: float


class LimitChanged(CallEvent, frozen=True, kw_only=True):
    """The adaptive limit of calls under way moved by at least one. `rtt_s`: mean round trip of the window behind it."""

    before: int
    after: int
    rtt_s: float
    in_flight: int


class EndpointEjected(CallEvent, frozen=True, kw_only=True):
    """An endpoint failed so much that it gets nothing but a probe now and then. `times`: how often in a row."""

    endpoint: str
    for_s: float
    times: int
    error: str


class EndpointReturned(CallEvent, frozen=True, kw_only=True):
    """A probe of an ejected endpoint succeeded; its share grows back."""

    endpoint: str


class FallbackUsed(CallEvent, frozen=True, kw_only=True):
    """The call failed and the fallback gave the answer."""

    error: str


class FallbackFailed(CallEvent, frozen=True, kw_only=True):
    """The fallback raised. `exercise`: it was run for practice, and the caller did not notice."""

    error: str
    exercise: bool


class FallbackDiffered(CallEvent, frozen=True, kw_only=True):
    """Run for practice beside a healthy call, the fallback gave another result. `difference`: what the comparison said."""

    difference: str


class FallbackUnproven(CallEvent, frozen=True, kw_only=True):
    """The fallback has not once succeeded for `idle_s`, longer than its window: do not count on it."""

    idle_s: float


class StaleServed(CallEvent, frozen=True, kw_only=True):
    """A fetch failed and an expired value was served in its place. `age_s`: since it was fetched."""

    age_s: float
    error: str


class PushedUpdated(CallEvent, frozen=True, kw_only=True):
    """The local copy of pushed data was replaced. `bytes`: its size on disk, 0 when it is not saved."""

    bytes: int


class PushedFailed(CallEvent, frozen=True, kw_only=True):
    """The source of pushed data, or the disk, failed; the local copy stays as it is. `age_s`: how old that is."""

    error: str
    age_s: float


class PushedStale(CallEvent, frozen=True, kw_only=True):
    """The local copy is older than its alarm allows. It is still read until `valid_for_s` more seconds have passed."""

    age_s: float
    valid_for_s: float


class FaultInjected(CallEvent, frozen=True, kw_only=True):
    """A fault was made to happen on purpose. `fault` is an id of `yaoki.chaos.faults`."""

    fault: str
    where: str = ""


# ── runs of sagas ────────────────────────────────────────────────────────────────────────────────────────────────────


class RunEvent(Event, frozen=True, kw_only=True):
    """About one run."""

    run: str
    saga: str


class RunStarted(RunEvent, frozen=True, kw_only=True):
    """The run's start is durable."""


class RunRecovered(RunEvent, frozen=True, kw_only=True):
    """An unfinished run was taken up again from the journal, with this many records of history."""

    records: int


class StepStarted(RunEvent, frozen=True, kw_only=True):
    """A step, or its undo, is begun."""

    step: str
    undo: bool = False


class StepFinished(RunEvent, frozen=True, kw_only=True):
    """The step's, or its undo's, success is durable."""

    step: str
    duration_s: float
    attempts: int = 1
    undo: bool = False


class StepFailed(RunEvent, frozen=True, kw_only=True):
    """An attempt of a step, or of its undo, failed. `final`: no further attempt is made."""

    step: str
    error: str
    attempt: int
    in_doubt: bool
    final: bool
    undo: bool = False
    retry_in_s: float = 0.0


class RunAborting(RunEvent, frozen=True, kw_only=True):
    """The run began to undo itself."""

    reason: str


class RunBlocked(RunEvent, frozen=True, kw_only=True):
    """The run waits for a person."""

    step: str
    reason: str


class RunFinished(RunEvent, frozen=True, kw_only=True):
    """outcome: completed, undone, cancelled."""

    outcome: str
    duration_s: float


class RunStuck(RunEvent, frozen=True, kw_only=True):
    """The run made no progress for `idle_s`, longer than its saga allows."""

    idle_s: float
    waiting_for: str


class RunsStranded(Event, frozen=True, kw_only=True):
    """Runs wait that were started with a graph which no live worker can run: start one with the old code, or see `yk plan`."""

    saga: str
    graph: str
    runs: int


class RunsBlocked(Event, frozen=True, kw_only=True):
    """Runs of a saga wait for a person; said once a minute for as long as they do. runs: up to a thousand.

    oldest_s: seconds since the last progress of the one that waits longest.
    """

    saga: str
    runs: int
    oldest_s: float


class SagaPaused(Event, frozen=True, kw_only=True):
    """The brake: so many runs of this saga abort lately that no new ones are begun until somebody resumes it."""

    saga: str
    aborted: int
    finished: int


class ScheduleEvent(Event, frozen=True, kw_only=True):
    """About one schedule, by its name."""

    schedule: str


class ScheduleFired(ScheduleEvent, frozen=True, kw_only=True):
    """The run of an instant was started, or found started by another worker."""

    run: str


class ScheduleLeftOut(ScheduleEvent, frozen=True, kw_only=True):
    """So many instants were left out: the last run had not ended, or nobody was there within the time to catch up."""

    left_out: int


class WorkerEvent(Event, frozen=True, kw_only=True):
    """About one worker process, by its name."""

    worker: str


class WorkerJoined(WorkerEvent, frozen=True, kw_only=True):
    """A worker, or a new incarnation of one, registered. `incarnation`: its number."""

    incarnation: int


class WorkerFenced(WorkerEvent, frozen=True, kw_only=True):
    """This worker had been declared dead; it dropped `runs` runs, which others go on with, and starts again."""

    runs: int


class BatchRefused(WorkerEvent, frozen=True, kw_only=True):
    """The journal refused a whole batch of this worker, because it had been declared dead."""


class DoubtSettled(WorkerEvent, frozen=True, kw_only=True):
    """The connection broke before a commit was answered, and reading back showed that it had gone through."""


class WorkerDied(WorkerEvent, frozen=True, kw_only=True):
    """A worker's lease ran out; its `runs` unfinished runs were set free."""

    runs: int


class JournalCommitted(Event, frozen=True, kw_only=True):
    """One batch of records became durable."""

    records: int
    runs: int
    duration_s: float


# ── ledger and audit ─────────────────────────────────────────────────────────────────────────────────────────────────


class EpochSealed(Event, frozen=True, kw_only=True):
    """A stretch of a ledger's partition was sealed. `rows` 0: nothing changed, which is a statement too."""

    ledger: str
    part: int
    epoch: int
    rows: int


class WatermarkHeld(Event, frozen=True, kw_only=True):
    """An open transaction keeps a ledger from sealing since `held_s`. `holder`: process, age and query."""

    ledger: str
    held_s: float
    holder: str


class FindingOpened(Event, frozen=True, kw_only=True):
    """An audit named something that is not as it should be. `delay_s`: since the change was committed, 0 if not known."""

    finding: str
    kind: str
    sink: str
    key: str = ""
    version: int = -1
    part: str = ""
    delay_s: float = 0.0
    bound_s: float = 0.0


class FindingClosed(Event, frozen=True, kw_only=True):
    """A finding was closed with evidence read again from the sink, or declared lost. state: closed, acknowledged, lost."""

    finding: str
    kind: str
    sink: str
    state: str
    note: str = ""


class VerdictReached(Event, frozen=True, kw_only=True):
    """What an audit proved about a partition: QUIET, FLOWING, LOSS, TRIGGER_STUCK, ... `before`: its last verdict."""

    sink: str
    part: str
    kind: str
    before: str
    reason: str


class AuditAdvanced(Event, frozen=True, kw_only=True):
    """An audit finished a look. All that was committed until `audited_through` is at rest in the sink or named in a finding.

    For alarms: the age of `audited_through`; `open_findings`, `lost` (of those: no copy exists anywhere) and the `worst`
    verdict; `longest_delay_s`, measured from a commit to the finding that named its loss, beside the bounds promised.
    """

    sink: str
    audited_through: float
    open_findings: int
    loss_bound_s: float
    stuck_bound_s: float
    duration_s: float
    longest_delay_s: float = 0.0
    lost: int = 0
    worst: str = ""


class DrillEnded(Event, frozen=True, kw_only=True):
    """A version that was dropped on purpose was named by the audit, after `delay_s`; or was not within `bound_s`."""

    sink: str
    found: bool
    delay_s: float
    bound_s: float


class LedgerPruned(Event, frozen=True, kw_only=True):
    """Old rows were let go. `held`: partitions that keep more than is asked for, because somebody still needs it."""

    ledger: str
    rows: int
    held: int


# ── messages: `group` names the reader (service and handler) ─────────────────────────────────────────────────────────


class MessageEvent(Event, frozen=True, kw_only=True):
    """About one message on its way through one reader. `link`: the traceparent of where it was published."""

    group: str
    message: str
    type: str
    link: str = ""


class MessageHandled(MessageEvent, frozen=True, kw_only=True):
    """Its effect and the mark that it was handled are durable. `age_s`: since it was published."""

    duration_s: float
    age_s: float
    attempt: int = 1


class MessageFailed(MessageEvent, frozen=True, kw_only=True):
    """An attempt failed. `state`: retry, quarantined (its key waits for a person) or dead (its key goes on)."""

    error: str
    attempt: int
    state: str
    retry_in_s: float = 0.0


class PartitionsChanged(Event, frozen=True, kw_only=True):
    """A reader took up or gave back partitions. `held`: how many it has now."""

    group: str
    worker: str
    held: int


class ReaderFenced(Event, frozen=True, kw_only=True):
    """A reader lost its leases; what it had not written is handled again by whoever has them now."""

    group: str
    worker: str


class RelayStalled(Event, frozen=True, kw_only=True):
    """The broker does not confirm; the messages wait in the outbox. `failures`: in a row."""

    broker: str
    error: str
    failures: int
    retry_in_s: float


class ReadingHeld(Event, frozen=True, kw_only=True):
    """A transaction that does not end has kept committed messages from being read for `held_s`.

    holder: its process, database, start and query, or the name of a prepared transaction.
    """

    held_s: float
    holder: str


class DurabilityWarned(Event, frozen=True, kw_only=True):
    """A broker gives less than its name suggests; `loses` says what a failure may take."""

    broker: str
    given: str
    loses: str
