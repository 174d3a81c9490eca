"""Drives one run: asks the machine what is next, does it, records what came of it, and only then goes on.

    machine ──what is next──▶ attempts (`attempt.py`) ──a record──▶ journal ──durable──▶ machine ...

One task a run. A step that is alone is awaited in that task; steps side by side get a task each. A record is durable
before anything that depends on it begins.
"""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from yaoki import events, runtime
from yaoki.errors import RetryFromError
from yaoki.saga.attempt import Attempts, attempt_plainly
from yaoki.saga.child import Kin, end_of_child, heard
from yaoki.saga.define import Saga
from yaoki.saga.family import tell_parent
from yaoki.saga.journal.operations import BLOCKED_UNTIL, PAUSED_UNTIL, Operation
from yaoki.saga.journal.port import Append, Ask, Journal
from yaoki.saga.locking import Holding
from yaoki.saga.machine import Machine
from yaoki.saga.mapping import brought_over
from yaoki.saga.naming import now_called
from yaoki.saga.outside.external import end_of_external, end_of_silence, take_in
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
from yaoki.saga.rewinding import Retry, retried
from yaoki.saga.waiting import end_of_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# A wait that is over sooner than this stays in memory; a longer one is parked, and costs nothing but its row. Parking and being
# taken up again cost two commits.
REST_S = 2.0

_FAILURE = msgspec.json.Decoder(Failure)
_encode = msgspec.json.encode


class Driver:
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

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def drive(self) -> RunState:
        """Go on until the run has ended, is blocked, or is to be handed over. Returns its state then."""
        self._set_deadline()
        machine, running = self.machine, self._running
        try:
            if self._mapped is not None:
                await self._move(self._mapped)
            if self._seq and (self._lost() or machine.failed or machine.is_taken_back):  # it was undoing itself, or about to, when its process died
                await self.write()
            while not self._let_go:
                if self._asked:
                    await self._answer()
                    continue
                if machine.waits and (ripe := machine.ripe(self.now())):
                    if ended := [record for name, data in ripe for record in await self._ends(name, data)]:
                        await self.write(*ended)
                    continue
                undoing = machine.turns_back
                work = [] if self.is_stopping() else machine.undo if undoing else machine.start
                if running:
                    work = [name for name in work if name not in running]
                if self.saga.has_tx and not undoing and len(work) + len(running) > 1:
                    work = self._beside(work)
                if self.locks is not None and work and not undoing:
                    work = await self.locks.allowed(work)
                if len(work) == 1 and not running:  # alone: no task of its own
                    self.waiting_for = work[0]
                    record = await self._attempts(work[0], undo=undoing)
                    if record is not None:
                        await self.write(record)
                elif work or running:
                    for name in work:
                        running[name] = runtime.spawn(self._attempts(name, undo=undoing), name=f"yaoki-{self.header.id}-{name}")
                    await self._next_result()
                elif self.header.state.is_end and not machine.waits:
                    break
                elif (due_at := self._due_at()) is not None:
                    await self._give_back(due_at)
                elif (machine.waits or self._held_up) and not self.is_stopping():
                    await self.pause(max(0.0, self._wakes_at() - self.now()))
                else:
                    break
            if machine.state.is_end and not self.header.state.is_end:  # taken up to be undone, and then it was not to be
                await self.write()
            elif self.held and not self._let_go and not machine.state.is_end:
                await self._give_back(BLOCKED_UNTIL if machine.state is RunState.BLOCKED else PAUSED_UNTIL)
            return machine.state
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            if running:
                await self._abandon()

    def _attempts(self, name: str, *, undo: bool) -> Coroutine[Any, Any, Record | None]:
        step = self.saga.steps[name]
        if not undo and name in self.saga.plain:
            return attempt_plainly(self, step)
        return Attempts(self, step, undo=undo).run()

    async def _ends(self, name: str, data: bytes | None) -> list[Record]:
        """The record that ends a wait; none where a sign of life prolongs it."""
        wait = self.saga.steps[name].wait
        if self.saga.steps[name].child and data is not None:
            return [end_of_child(self.machine, self.saga.steps[name], data, self.now())]
        if wait is None or wait.kind != "token":
            return [end_of_wait(self.saga, name, data, self.now())]
        return [end_of_external(self, name, data, self.now())] if data is not None else await end_of_silence(self, name)

    def is_under_way(self, name: str = "") -> bool:
        """Does this step, or its undo, run at this moment beside others? "": does any?"""
        return name in self._running if name else bool(self._running)

    async def _move(self, mapped: Record) -> None:
        """Write how the history is told from now on, and put the run under this definition."""
        entry, graph = Append(self.header.no, self._seq, (mapped,), at=self.now()), self.saga.graph.hash
        await self.journal.move(self.header.no, entry, graph)
        self._seq += 1
        self.header.graph, self._mapped = graph, None

    async def _next_result(self) -> None:
        """Wait for steps side by side, or for somebody to ask for something; write what is there."""
        self.waiting_for = ", ".join(self._running)
        wake = self._new_wake()
        try:
            waited: list[asyncio.Future[Any]] = [*self._running.values(), wake]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wakes.remove(wake)
            wake.cancel()
        ended = [name for name, task in self._running.items() if task.done()]
        records = [self._running.pop(name).result() for name in ended]
        if written := [record for record in records if record is not None]:
            await self.write(*written)

    def _new_wake(self) -> asyncio.Future[None]:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakes.append(wake)
        return wake

    def wake(self) -> None:
        """Look again at what is asked for, and whether to stop."""
        for each in self._wakes:
            if not each.done():
                each.set_result(None)

    async def pause(self, delay_s: float) -> None:
        """Wait between two attempts; less when somebody asks for something meanwhile."""
        if self._asked or self.is_stopping():
            return
        wake = self._new_wake()
        timer = asyncio.get_running_loop().call_later(delay_s, _release, wake)
        try:
            await wake
        finally:
            timer.cancel()
            self._wakes.remove(wake)

    async def _abandon(self) -> None:
        """Only when this driver itself is cancelled or fails: its steps go with it, and are in doubt."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    # ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def _beside(self, work: list[str]) -> list[str]:
        """What may run now where some steps run alone: the others first, then those one at a time."""
        steps = self.saga.steps
        return [name for name in work if not steps[name].tx] or ([] if self._running else work[:1])

    def _with_consequences(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """A failure brings the abort; an abort, or a retry, settles the steps that nobody runs any more; and what is taken back is made anew."""
        more: list[Record] = []
        if failed := self.machine.failed:
            more.append(self._abort_after(failed, records))
            self._take_in(more[-1])
        elif (asked := self.machine.undo_asked) and self.machine.state is RunState.COMPLETED:  # and not before, for it was past its pivot
            more.append(self._abort(msgspec.structs.replace(asked, whole=True)))
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

    # ── resting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _held_up(self) -> frozenset[str]:
        """Steps that could run, but for a key that another run holds."""
        return self.locks.held_up if self.locks is not None and self.machine.abort is None else frozenset()

    def _due_at(self) -> float | None:
        """When to take the run up again, if there is nothing to do until then (inf: when somebody asks); else None."""
        machine = self.machine
        held_up = self._held_up
        if self._running or self._asked or self.is_stopping() or (machine.undo if machine.turns_back else set(machine.start) - held_up):
            return None
        if not (machine.waits or held_up or machine.state is RunState.BLOCKED) or machine.ripe(self.now()):
            return None
        at = self._wakes_at()
        if at == inf and machine.state is RunState.BLOCKED:
            at = BLOCKED_UNTIL
        return at if at - self.now() > REST_S else None

    def _wakes_at(self) -> float:
        machine, deadline = self.machine, self.header.deadline_at
        at = machine.wakes_at or inf
        return min(at, deadline) if deadline and not machine.abort and not machine.past_pivot else at

    async def hand_back(self, delay_s: float) -> None:
        """Give the run to whoever takes it first, after a while: something is wrong with a step here. Nothing else runs."""
        notes, self.notes = tuple(self.notes), []
        for note in notes:
            self._take_in(note)
        seq = self._seq - len(notes)
        await self.journal.append(Append(self.header.no, seq, notes, at=self.now(), due_at=self.now() + delay_s))
        self._let_go = True

    async def _give_back(self, due_at: float) -> None:
        """Taken up for something that changed nothing: give it back as it was."""
        self._letting_go = True
        await self.journal.append(Append(self.header.no, self._seq, (), at=self.now(), due_at=due_at))
        self._let_go = True

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

    # ── what people ask for ──────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, kind: str, data: Any, no: int = 0) -> None:
        """Take in a request: `cancel` (an `Abort`) or `resolve` (step, `Resolution`). Honoured at the next step boundary."""
        self._asked.append((kind, data, no))
        self.wake()

    @property
    def has_let_go(self) -> bool:
        """Has it given the run back to the journal, or is about to, so that it writes nothing more?"""
        return self._let_go or self._letting_go

    @property
    def unanswered(self) -> list[int]:
        """Numbers of the requests that came too late for this driver, or in whose midst it was stopped."""
        return [no for no in (self._in_hand, *(no for _, _, no in self._asked)) if no]

    @property
    def gives_up(self) -> bool:
        """Is there no point in another attempt of a do, because the run is going to undo itself?"""
        return self.machine.abort is not None or any(kind in {"cancel", "undo"} for kind, _, _ in self._asked)

    def gives_up_on(self, name: str, *, forward: bool) -> bool:
        """The same of one step, which may also be taken back alone. forward: it can only be made, as things are."""
        return (self.gives_up and not forward) or self._is_taken_back(name.partition("/")[0])

    def _is_taken_back(self, name: str) -> bool:
        rewinding = self.machine.rewinding
        if rewinding is not None:
            return self.machine.graph.index[name] in rewinding.numbers
        return self._retry_of(name) is not None

    def _retry_of(self, name: str) -> tuple[Record, int] | None:
        """The record by which a request that is still to be answered takes this step back, and the request's number."""
        for kind, data, no in self._asked:
            if kind == "retry":
                with contextlib.suppress(RetryFromError):
                    record = retried(self.machine, data, (*self._started(), name), self.now())
                    if record is not None and name in msgspec.json.decode(record.data, type=Retried).steps:
                        return record, no
        return None

    def _retried_first(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """A step that failed while it is to be taken back anyway: then its failure must not abort the run."""
        failed = next((each.step for each in records if each.kind is Kind.FAILED and "/" not in each.step), "")
        if not failed or self.machine.turns_back or (found := self._retry_of(failed)) is None:
            return records
        if self.machine.is_parked(failed):  # it waited, and is taken back at once
            records = tuple(each for each in records if each.step != failed)
        return (found[0], *records)

    async def _answer(self) -> None:
        """One after the other, and as long as the run is here: what is left keeps it from being given back between two of them."""
        while self._asked and not self._let_go:
            kind, data, no = self._asked.pop(0)
            self._in_hand = no
            if kind == "cancel":
                await self._cancel(data)
            elif kind == "signal":
                await self._signal(*data)
            elif kind == "child":
                if (heard_of := heard(self.machine, self.header.id, data, runtime.unix_time())) is not None:
                    await self.write(heard_of)
            elif kind == "undo":
                await self._undo_as_a_whole(data)
            elif kind == "complete":
                await take_in(self, data)
            elif kind == "resolve":
                await self._resolve(*data)
            elif kind == "retry":
                await self._retry(data)
            elif kind == "wake" and self.locks is not None:
                self.locks.look_again()
            self._in_hand = 0
            if no:
                self._answered(no)

    async def _cancel(self, abort: Abort) -> None:
        started = self._started()
        if self.machine.abort or self.machine.state.is_end or self.machine.too_late(started):
            return
        await self.write(self._abort(msgspec.structs.replace(abort, started=started)))

    async def _undo_as_a_whole(self, abort: Abort) -> None:
        """The run that started this one undoes itself: now, or, past the pivot, as soon as this one is completed."""
        machine, started = self.machine, self._started()
        if machine.abort or machine.undo_asked:
            return
        if machine.state is RunState.COMPLETED:
            await self.write(self._abort(msgspec.structs.replace(abort, whole=True)))
        elif machine.too_late(started):
            await self.write(Record(Kind.UNDO_ASKED, "", _encode(abort), runtime.unix_time()))
        else:
            await self.write(self._abort(msgspec.structs.replace(abort, started=started)))

    async def _resolve(self, step: str, resolution: Resolution) -> None:
        number = self.machine.graph.index.get(step, -1)
        if number not in self.machine.blocked:
            return
        if wrong := self._misfit(step, resolution):
            reason = f"{step} needs a person: the result that was given is not what it returns: {wrong}"
            await self.journal.append(Append(self.header.no, self._seq, (), RunState.BLOCKED, b"", reason, self.now()))
        else:
            await self.write(Record(Kind.RESOLVED, step, _encode(resolution), runtime.unix_time()))

    async def _retry(self, asked: Retry) -> None:
        """It was looked at when it was asked for; the run may have gone on since. Then the operators' log says why it was not done."""
        try:
            record = retried(self.machine, asked, self._started(), self.now())
        except RetryFromError as error:
            data = msgspec.Raw(_encode({"step": asked.step, "refused": str(error)}))
            await self.journal.log_operation(Operation("refuse retry", "run", self.header.id, asked.who, asked.why, data))
        else:
            if record is not None:
                await self.write(record)

    def _misfit(self, step: str, resolution: Resolution) -> str:
        """Why the result that a person gave is not what the step returns, or "". In the history it would stop every later start."""
        if resolution.decision == "done" and not self.machine.is_undone_now(step):
            try:
                self.saga.steps[step].result.decode(bytes(resolution.result))
            except msgspec.ValidationError as error:
                return str(error)
        return ""

    async def _signal(self, step: str, data: bytes) -> None:
        """Nobody waits for a signal of another name, and after an abort nobody waits at all."""
        step = now_called(self.machine, step)  # it may have been asked by the name that it had
        number = self.machine.graph.index.get(step, -1)
        if number >= 0 and self.machine.graph.nodes[number].waits == "signal" and self.machine.abort is None:
            await self.write(Record(Kind.SIGNAL, step, data, runtime.unix_time()))

    def _set_deadline(self) -> None:
        if self.header.deadline_at and not self.machine.abort:
            left = max(0.0, self.header.deadline_at - self.now())
            late = Abort(f"the run's deadline passed ({self.saga.deadline:g} s)" if self.saga.deadline else "deadline passed")
            if left:
                self._deadline = asyncio.get_running_loop().call_later(left, self.ask, "cancel", late)
            else:
                self.ask("cancel", late)

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, written: tuple[Record, ...]) -> None:
        run, saga = self.header.id, self.saga.name
        for record in written:
            if record.kind is Kind.ABORT and self.machine.abort:
                events.emit(events.RunAborting(run=run, saga=saga, reason=self.machine.abort.reason))
            elif record.kind is Kind.BLOCKED:
                reason = str(_FAILURE.decode(record.data))
                events.emit(events.RunBlocked(run=run, saga=saga, step=record.step, reason=reason))
        if self.header.state.is_end:
            took = self.header.finished_at - self.header.created_at
            events.emit(events.RunFinished(run=run, saga=saga, outcome=self.header.state.value, duration_s=took))


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
