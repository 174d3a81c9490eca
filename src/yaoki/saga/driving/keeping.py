"""The history of a run in memory: folded, and written together with what follows from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from yaoki import events, runtime
from yaoki.saga.child import has_unsaid_undo
from yaoki.saga.define import Saga
from yaoki.saga.family import tell_parent
from yaoki.saga.journal.port import Append, Ask, Journal
from yaoki.saga.locking import Holding
from yaoki.saga.machine import Machine
from yaoki.saga.mapping import brought_over
from yaoki.saga.records import (
    Abort,
    Adopted,
    Failure,
    Header,
    Kind,
    Late,
    Record,
    Resolution,
    Retried,
    RunState,
    Stored,
)
from yaoki.saga.undoing import as_a_whole, would_stay

if TYPE_CHECKING:
    from collections.abc import Callable

    from yaoki.saga.child import Kin

_FAILURE = msgspec.json.Decoder(Failure)
_encode = msgspec.json.encode


class Keeping:
    """One run in memory.

    Args:
        saga: its definition. `stored`: the run as the journal has it.
        journal: where records go.
        is_stopping: asked before new work is begun; True hands the run over to the next start.
        answered: told the number of each request once what came of it is durable.
        is_new: it was created a moment ago, so that no step of it can have been started.
        value: its input, where that was decoded already.
        kin: starts runs for this one, and is told when it has asked something of another.

    Raises:
        machine.HistoryError, msgspec.ValidationError: when the definition does not fit the run any more.
    """

    # What most runs never have. Python keeps objects of up to thirty attributes closer together, and a run's driver has nearly as many.
    held = False  # by a pause: then `is_stopping` says so
    parked = False  # given back because of that
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, saga: Saga[Any], stored: Stored, journal: Journal, is_stopping: Callable[[], bool],
                 answered: Callable[[int], None], *, is_new: bool = False, value: Any = UNSET, kin: Kin | None = None) -> None:
        self.saga = saga
        self.kin = kin
        self.asks: list[Ask] = []  # of other runs; written with the next records
        self.header: Header = stored.header
        self.machine = Machine(saga.graph)
        self.input = saga.input.decode(stored.header.input) if value is UNSET else value
        self.results: dict[str, Any] = {}
        self.last_result = b"null"
        self._rt = rt = runtime.current()
        self.clock = rt.monotonic
        self.progress_at = rt.monotonic()
        self.waiting_for = ""
        self.is_stopping = is_stopping
        self.journal = journal
        self.hold = journal.hold if journal.shared else None  # awaited before each effect
        self.unix_time = rt.unix_time
        self.now = journal.now if journal.shared else rt.unix_time
        self._let_go = False  # did the last entry give the run back to the journal?
        self._letting_go = False  # does the one that is being written?
        self._answered = answered
        self._seq = 0
        self.notes: list[Record] = []  # of earlier attempts; written with the next records
        self._running: dict[str, asyncio.Task[Record | None]] = {}
        self._in_hand = 0  # the number of the request that is being answered
        self._asked: list[tuple[str, Any, int]] = []  # what people, or the deadline, ask for
        self._wakes: list[asyncio.Future[None]] = []
        self.locks = Holding(self, saga.keys) if saga.keys else None
        records, self._mapped = brought_over(saga, stored, rt.unix_time())
        for record in records:
            self._take_in(record)
        self._seq = len(stored.records)
        # What is ready now may have been running when an earlier process died.
        # One that is a transaction left nothing behind, and one whose key is held by another was not begun.
        self.perhaps_started = () if is_new else tuple(name for name in self.machine.start if not saga.steps[name].tx)
        if self.locks is not None and self.perhaps_started:
            waits = self.locks.certainly_waits(self.perhaps_started)
            self.perhaps_started = tuple(name for name in self.perhaps_started if name not in waits)

    # ── taking in ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_in(self, record: Record) -> None:
        """Fold a record that is durable already."""
        if record.kind == "done":
            self._keep_result(record.step, record.data)
        elif record.kind == "late":
            self._keep_result(record.step, bytes(msgspec.json.decode(record.data, type=Late).result))
        elif record.kind == "adopted":
            self._keep_result(record.step, bytes(msgspec.json.decode(record.data, type=Adopted).result))
        elif record.kind == "skipped":
            self._keep_result(record.step, b"null")
        elif record.kind == "anew" and self.machine.rewinding is not None:
            for number in self.machine.rewinding.numbers:
                self.results.pop(self.machine.graph.names[number], None)
        elif record.kind == "resolved" and not self.machine.is_undone_now(record.step):
            decided = msgspec.json.decode(record.data, type=Resolution)
            if decided.decision == "done":
                self._keep_result(record.step, bytes(decided.result))
        self.machine.apply(record)
        self._seq += 1

    def _keep_result(self, name: str, data: bytes) -> None:
        if name not in self.results and name in self.saga.steps:
            self.results[name] = self.saga.steps[name].result.decode(data)
        if name == self.machine.graph.names[-1]:
            self.last_result = data

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, *records: Record) -> None:
        """Apply, and make durable, together with the abort that a failure brings and with the run's end."""
        machine = self.machine
        if (len(records) == 1 and records[0].kind == "done" and machine.abort is None and machine.rewinding is None
                and machine.undo_asked is None and not self.notes):
            entry = self._entry_of_done(records[0])
        else:
            entry = self.entry_of(*records)
        await self.journal.append(entry)
        self.written(entry)

    def entry_of(self, *records: Record) -> Append:
        """Apply, and say what is to be written."""
        if self.notes:
            records, self.notes = (*self.notes, *records), []
        if self._asked and records:
            records = self._retried_first(records)
        for record in records:
            self._take_in(record)
        machine = self.machine
        # The common case has no consequences.
        if len(records) != 1 or records[0].kind != "done" or machine.turns_back or machine.undo_asked is not None:
            records = self._with_consequences(records)
        return self._entry(records)

    def _entry_of_done(self, record: Record) -> Append:
        """The same, where all that happened is that a step is done: most records are this."""
        machine, seq, step = self.machine, self._seq, record.step
        if step not in self.results or step == machine.graph.names[-1]:
            self._keep_result(step, record.data)
        machine.apply(record)
        self._seq = seq + 1
        if machine.is_going_on and self.header.state is RunState.RUNNING:
            return Append(self.header.no, seq, (record,), at=record.at)
        return self._entry((record,))

    def _retried_first(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """A step that failed while it is to be taken back anyway: then its failure must not abort the run."""
        failed = next((each.step for each in records if each.kind is Kind.FAILED and "/" not in each.step), "")
        if not failed or self.machine.turns_back or (found := self._retry_of(failed)) is None:
            return records
        if self.machine.is_parked(failed):  # it waited, and is taken back at once
            records = tuple(each for each in records if each.step != failed)
        return (found[0], *records)

    def _with_consequences(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """A failure brings the abort; an abort, or a retry, settles the steps that nobody runs any more; and what is taken back is made anew."""
        more: list[Record] = []
        if failed := self.machine.failed:
            more.append(self._abort_after(failed, records))
            self._take_in(more[-1])
        elif (asked := self.machine.undo_asked) and self.machine.state is RunState.COMPLETED:  # and not before, for it was past its pivot
            more.append(self._abort(as_a_whole(asked, self._would_stay())))
            self._take_in(more[-1])
        for lost in self._lost():
            more.append(lost)
            self._take_in(lost)
        if self.machine.is_taken_back:
            more.append(Record(Kind.ANEW, "", b"", runtime.unix_time()))
            self._take_in(more[-1])
        return (*records, *more)

    def _entry(self, records: tuple[Record, ...]) -> Append:
        state, now = self.machine.state, self.now()
        seq = self._seq - len(records)
        due_at = self._due_at() if self.machine.waits or state is RunState.BLOCKED else None
        self._letting_go = due_at is not None
        asks: tuple[Ask, ...] = ()
        if self.asks:
            asks, self.asks = tuple(self.asks), []
        if state is self.header.state:
            return Append(self.header.no, seq, records, at=now, due_at=due_at, asks=asks)
        result, reason = self.last_result if state is RunState.COMPLETED else b"", self._reason(state)
        if state.is_end:
            asks += tell_parent(self.header, state, result, reason)
        return Append(self.header.no, seq, records, state, result, reason, now, due_at, asks)

    def written(self, entry: Append) -> None:
        header = self.header
        self._let_go = entry.due_at is not None
        if entry.state is not None:
            header.state, header.reason = entry.state, entry.reason
            if entry.state.is_end:
                header.finished_at, header.result = entry.at, entry.result
        if entry.asks and self.kin is not None:
            self.kin.asked()
        self.progress_at = self._rt.monotonic()
        if events.wanted():
            self._tell(entry.records)

    # ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _reason(self, state: RunState) -> str:
        if state is RunState.BLOCKED:
            step = self.machine.graph.names[self.machine.blocked[-1]]
            return f"{step} needs a person"
        return self.machine.abort.reason if self.machine.abort else ""

    def _abort_after(self, failed: str, records: tuple[Record, ...]) -> Record:
        asked = next((data for kind, data, _ in self._asked if kind in {"cancel", "undo"}), None)
        if asked is not None:  # it gave up for that
            return self._abort(msgspec.structs.replace(asked, step=failed, started=self._started()))
        cause = next((record for record in records if record.step == failed and record.kind == "failed"), None)
        why = f"{failed}: {_FAILURE.decode(cause.data)}" if cause else f"{failed}: resolved as not done"
        return self._abort(Abort(why, failed, self._started()))

    def _would_stay(self, started: tuple[str, ...] = ()) -> tuple[str, ...]:
        return would_stay(self.machine, lambda name: has_unsaid_undo(self.saga.steps[name]), started)

    def _started(self) -> tuple[str, ...]:
        return tuple(name for name in self.machine.start if name in self._running or name in self.perhaps_started)

    def _abort(self, abort: Abort) -> Record:
        return Record(Kind.ABORT, "", _encode(abort), runtime.unix_time())

    def _lost(self) -> list[Record]:
        """Steps to be undone that nobody runs any more, for their process died: they are in doubt."""
        if not self.machine.turns_back:
            return []
        data = _encode(Failure("ProcessDied", "nobody knows how far it came", in_doubt=True))
        now = runtime.unix_time()
        return [Record(Kind.FAILED, name, data, now) for name in self.machine.awaited if name not in self._running]

    def is_under_way(self, name: str = "") -> bool:
        """Does this step, or its undo, run at this moment beside others? "": does any?"""
        return name in self._running if name else bool(self._running)

    def _due_at(self) -> float | None:
        """See `resting.py`."""
        raise NotImplementedError

    def _retry_of(self, name: str) -> tuple[Record, int] | None:
        """See `answering.py`."""
        raise NotImplementedError

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, written: tuple[Record, ...]) -> None:
        run, saga = self.header.id, self.saga.name
        for record in written:
            if record.kind is Kind.ABORT and self.machine.abort:
                events.emit(events.RunAborting(run=run, saga=saga, reason=self.machine.abort.reason))
            elif record.kind is Kind.BLOCKED:
                reason = str(_FAILURE.decode(record.data))
                events.emit(events.RunBlocked(run=run, saga=saga, step=record.step, reason=reason))
            elif record.kind is Kind.RETRIED:
                retried = msgspec.json.decode(record.data, type=Retried)
                events.emit(events.RunRetried(run=run, saga=saga, step=retried.step, steps=retried.steps, who=retried.who))
            elif record.kind is Kind.UNDO_ASKED and self.machine.undo_asked:
                events.emit(events.RunUndoAsked(run=run, saga=saga, reason=self.machine.undo_asked.reason))
        if self.header.state.is_end:
            took = self.header.finished_at - self.header.created_at
            events.emit(events.RunFinished(run=run, saga=saga, outcome=self.header.state.value, duration_s=took))
