"""Messages: `group` names the reader (service and handler)."""

from __future__ import annotations

from yaoki.events.telling import Event


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
