"""What participants tell each other about a run, and how its history comes of that: pure.

Every word on a run is a message of the type `saga.<name>` with the run's id as key, so all participants see them in one
order. Its id says what it is about (`book-trip/trip-42/hotel/done`), so a word said twice is one word.

The abort is not told: after a failure, or a cancellation, everybody concludes it by the same rule at the same place of
the order. *Every* step that is ready then counts as started; its owner has been asked to do it, and will say what became of
it: done, failed, or never begun.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from yaoki.errors import InputError
from yaoki.messages.envelope import SAGA_TYPES, Message
from yaoki.saga.define import Saga
from yaoki.saga.machine import HistoryError, Machine
from yaoki.saga.records import Abort, Kind, Record

APPLIED = frozenset({"done", "failed", "blocked", "undone", "resolved", "skipped", "waiting", "signal"})
"""The words that are records of the machine by the same name."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """One word on a run.

    Attributes:
        kind: started, begun, done, skipped, waiting, signal, failed, blocked, undone, resolved, cancel, nudge.
        step: whose. data: JSON: the input, the result, the `Waiting`, the answer, the `Failure`, the `Resolution`, the reason.
        at: seconds since 1970. deadline_at: of a start: when the run undoes itself.
        graph: of a start: the definition's hash.
    """

    kind: str
    step: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    at: float = 0.0
    deadline_at: float = 0.0
    graph: str = ""


_told = msgspec.json.Decoder(Told)


def type_of(saga: Saga[object]) -> str:
    return f"{SAGA_TYPES}{saga.name}"


def prefix_of(saga: Saga[object], run: str) -> str:
    """With what the ids of all words on a run begin."""
    return f"{saga.name}/{run}/"


class Run:
    """One run as its words so far tell it.

    Attributes:
        machine: the same that the engine uses; None before the start is known.
        input: JSON. results: JSON by step. begun: steps (or `step:undo`) whose owner has begun. since: when each step
            became ready or undoable, by the time of the word that made it so. nudges, resolved: how often, by action or step.
        unheeded: words that could not come where they came, as of two processes that both thought a step theirs: the first counts.
    """

    def __init__(self, saga: Saga[object], run: str) -> None:
        self.saga = saga
        self.id = run
        self.machine: Machine | None = None
        self.input = b"null"
        self.deadline_at = 0.0
        self.started_at = 0.0
        self.results: dict[str, bytes] = {}
        self.begun: set[str] = set()
        self.since: dict[str, float] = {}
        self.nudges: dict[str, int] = {}
        self.resolved: dict[str, int] = {}
        self.unheeded: list[Told] = []

    def hear(self, told: Told) -> None:
        """Take in the next word. Words before the start, and second cancellations, say nothing."""
        if told.kind == "started":
            self._start(told)
        elif self.machine is None:
            return
        elif told.kind == "begun":
            self.begun.add(told.step)
        elif told.kind == "nudge":
            self.nudges[told.step] = self.nudges.get(told.step, 0) + 1
        elif told.kind == "cancel":
            self._cancel(told)
        elif told.kind in APPLIED:
            self._apply(told)
        self._note_ready(told.at)

    def _start(self, told: Told) -> None:
        if self.machine is None:
            self.machine = Machine(self.saga.graph)
            self.input, self.deadline_at, self.started_at = bytes(told.data), told.deadline_at, told.at

    def _apply(self, told: Told) -> None:
        machine = self.machine
        assert machine is not None
        try:
            machine.apply(Record(Kind(told.kind), told.step, bytes(told.data), told.at))
        except HistoryError:
            # All hear the same words in the same order, so all leave out the same ones.
            self.unheeded.append(told)
            return
        if told.kind == "resolved":
            self.resolved[told.step] = self.resolved.get(told.step, 0) + 1
        if told.kind == "done":
            self.results[told.step] = bytes(told.data)
        if failed := machine.failed:
            self._abort(Abort(f"{failed} failed", failed, tuple(machine.start)), told.at)

    def _cancel(self, told: Told) -> None:
        """A pivot that cannot be undone, and may be under way, is waited for like one that is done."""
        machine = self.machine
        assert machine is not None
        if machine.abort is None and not machine.state.is_end and not machine.too_late(machine.start):
            why = msgspec.json.decode(told.data, type=Abort)
            self._abort(Abort(why.reason, "", tuple(machine.start), why.cancelled), told.at)

    def _abort(self, abort: Abort, at: float) -> None:
        assert self.machine is not None
        self.machine.apply(Record(Kind.ABORT, "", msgspec.json.encode(abort), at))

    def _note_ready(self, at: float) -> None:
        for name in self.next_actions:
            self.since.setdefault(name, at)

    @property
    def next_actions(self) -> list[str]:
        """What is to be done now: `step`, or `step:undo`. Steps awaited after an abort are among them."""
        if self.machine is None:
            return []
        return [*self.machine.start, *self.machine.awaited, *(f"{name}:undo" for name in self.machine.undo)]

    @property
    def waits(self) -> dict[str, float]:
        """The steps that wait for a time or an answer: until when, in seconds since 1970; 0.0: for ever."""
        if self.machine is None or self.machine.abort is not None:
            return {}
        return {self.saga.graph.names[number]: until for number, until in self.machine.waits.items()}

    def answer_of(self, step: str) -> bytes | None:
        """What came for a step that waits, as JSON; None: nothing yet."""
        return None if self.machine is None else self.machine.signals.get(self.saga.graph.index[step])


def hear_all(saga: Saga[object], run: str, messages: Iterable[Message], *, mine: str = "") -> Run:
    """The run that these messages tell, in this order.

    mine: the source of this service's own words, to be passed over because they come back from the broker; "" if they
    do not.
    """
    found = Run(saga, run)
    for message in messages:
        if message.type == type_of(saga) and (not mine or message.source != mine):
            found.hear(read(message))
    return found


def read(message: Message) -> Told:
    """Raises `InputError` for what no participant would say."""
    try:
        return _told.decode(message.data)
    except msgspec.DecodeError as error:
        raise InputError(f"{message.id} is no word on a run: {error}", do="see who published it: its source is "
                         f"{message.source}") from error
