"""Decide what a run does next, from its history and nothing else.

    machine = Machine(graph)
    for record in history:
        machine.apply(record)
    machine.start      names of steps to start          (running)
    machine.failed     a step failed for good: now abort
    machine.undo       names of steps to undo           (undoing, or a part of it is to be made anew)
    machine.state      running, undoing, blocked, completed, undone, cancelled

No await, no clock, no randomness, no I/O. The same object drives runs in the engine, under the explorer, choreographed in
each service, and on other engines; `decide(graph, history)` is the whole of it as one pure function.

A step, as the machine sees it:

    waiting ─needs done─▶ ready ─done─▶ done ──────┐
                            │                      ├─(abort)─▶ to undo ─undone─▶ clear
                            ├─failed, in doubt ────┘               │
                            ├─failed, certainly not there ─────────┼──────────▶ clear
                            ├─blocked ◀─ a person decides ─▶ ... ◀─┘
                            └─parked (waits for a time or a signal) ─▶ done, or failed: the time was over

`clear` means: nothing of this step is left, or ever was. A step may be undone when every step that follows it is clear,
so undo runs in the reverse order of the graph, branches side by side.

Source: Garcia-Molina and Salem, Sagas, SIGMOD 1987, with the graph of actions of steno (Oxide) and in-doubt steps added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from yaoki.saga.graph import Graph
from yaoki.saga.naming import renamed_again
from yaoki.saga.outside.folded import NOTHING, Folded
from yaoki.saga.parts.state import Parts
from yaoki.saga.records import Abort, Failure, Late, Mapped, Record, Resolution, Retried, RunState, Waiting
from yaoki.saga.rewinding import Rewinding, followers_of
from yaoki.saga.standing import Step

__all__ = ["HistoryError", "Machine", "Step", "decide"]

_READY, _DONE = Step.READY, Step.DONE  # an enum's member is a slow thing to look up
_FAILURES = frozenset({Step.FAILED, Step.DOUBTFUL})
_AWAITS = frozenset({Step.WAITING, Step.READY, Step.PARKED, Step.BLOCKED})
_UNDOING = frozenset({Step.TO_UNDO, Step.UNDO_BLOCKED})
_ABORT = msgspec.json.Decoder(Abort)
_FAILURE = msgspec.json.Decoder(Failure)
_WAITING = msgspec.json.Decoder(Waiting)
_RESOLUTION = msgspec.json.Decoder(Resolution)
_LATE = msgspec.json.Decoder(Late)
_RETRIED = msgspec.json.Decoder(Retried)
_MAPPED = msgspec.json.Decoder(Mapped)
_LOCKED = msgspec.json.Decoder(frozenset[str])


class HistoryError(AssertionError):
    """A history that no run can have. It is a bug of Yaoki's, or the journal was changed by hand."""


class Machine:
    """The fold of one run's history.

    Attributes:
        steps: where each step is, by number.
        doubt: numbers of the steps to undo whose effect is not known to exist; their undo gets `None`.
        abort: why the run undoes itself, or None.
        blocked: numbers of the steps that need a person, in the order in which they came to need one.
        waits: until when each parked step waits, by number; 0.0: no limit.
        signals: by number of the step, the first signal that came for it, until it is done.
        skipped: numbers of the steps whose condition did not hold, or that another run did; they count as done, and leave nothing
            that is to be undone.
        begun: numbers of the steps that are made at most once, and were begun.
        again: by number of a step, how often a person had it tried again.
        parts: of each step that is made of parts, what has become of them.
        rewinding: what is being taken back, to be made anew; or None. See `rewinding.py`.
        rounds: by number of a step, how much was made of it before it was begun anew: a number that only grows.
        first_names: of steps that a mapping renamed, by today's name: see `naming.py`.
        retries: the requests by which the run was taken back so far.
        undo_asked: the abort that follows once the run is completed, for by then it could only go forward; or None.
    """

    __slots__ = ("_holding", "_left", "_missing", "_ready", "_undoable", "abort", "again", "begun", "blocked", "doubt", "first_names", "graph",
                 "outside", "parts", "retries", "rewinding", "rounds", "signals", "skipped", "steps", "undo_asked", "waits")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[int] = [0] * len(graph)  # Step, as plain ints: this is a hot path
        self._missing = graph.need_counts.copy()  # needs that are not done yet
        self._holding = graph.follower_counts  # followers that are not clear yet; copied at abort
        self._left = len(graph)  # steps that are not done yet, or not clear yet once undoing
        self._ready: list[int] = list(graph.roots)
        self._undoable: list[int] = []
        self.doubt: set[int] = set()
        self.abort: Abort | None = None
        self.undo_asked: Abort | None = None
        self.again: dict[int, int] = {}  # such a step may have left something when it was blocked
        self.parts: dict[int, Parts] = {}
        self.blocked: list[int] = []
        self.waits: dict[int, float] = {}
        self.signals: dict[int, bytes] = {}
        self.skipped: set[int] = set()
        self.begun: set[int] = set()
        self.rewinding: Rewinding | None = None
        self.rounds: dict[int, int] = {}
        self.first_names: dict[str, str] = {}
        self.retries: set[str] = set()
        self.outside: Folded = NOTHING  # dealings with the world outside, if there are any
        for number in graph.roots:
            self.steps[number] = Step.READY

    # ── what is next ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def start(self) -> list[str]:
        """Steps to be running now, in order of definition; those that run already are among them."""
        if self.rewinding is not None:
            return [self.graph.names[number] for number in self._ready if number not in self.rewinding.awaited]
        return [] if self.abort else [self.graph.names[number] for number in self._ready]

    @property
    def awaited(self) -> list[str]:
        """Steps that are to be undone, were started before that, and have not ended: no undo begins before they do.

        A process that takes up such a run finds nobody to wait for: it records them as failed in doubt.
        """
        if self.rewinding is not None:
            return [self.graph.names[number] for number in self._ready if number in self.rewinding.awaited]
        return [self.graph.names[number] for number in self._ready] if self.abort else []

    @property
    def undo(self) -> list[str]:
        """Steps whose undo is to be running now."""
        if self._ready if self.rewinding is None else self.rewinding.awaited:
            return []
        return [self.graph.names[number] for number in self._undoable]

    @property
    def turns_back(self) -> bool:
        """Is it undoing something: all of it, or what is to be made anew? Then nothing else begins."""
        return self.abort is not None or self.rewinding is not None

    @property
    def is_taken_back(self) -> bool:
        """Is nothing left of what is to be made anew? Then the next record says so."""
        return self.rewinding is not None and not self.rewinding.left

    @property
    def failed(self) -> str:
        """The step that failed for good while the run was not aborted yet, or "": the next record is the abort."""
        if self.abort:
            return ""
        return next((self.graph.names[n] for n, step in enumerate(self.steps) if step in _FAILURES), "")

    @property
    def state(self) -> RunState:
        if self._left == 0:
            if self.abort is None:
                return RunState.COMPLETED
            return RunState.CANCELLED if self.abort.cancelled else RunState.UNDONE
        if self.blocked:
            return RunState.BLOCKED
        return RunState.UNDOING if self.abort else RunState.RUNNING

    @property
    def is_going_on(self) -> bool:
        """Running, and not waiting for anything but its steps: the common case, cheap to ask."""
        return bool(self._left) and self.abort is None and not self.blocked and not self.waits

    def ripe(self, now: float) -> list[tuple[str, bytes | None]]:
        """Parked steps that wait no longer: what was signalled, or None where the time is over. In order of definition."""
        names = self.graph.names
        return [(names[number], self.signals.get(number)) for number, until in sorted(self.waits.items())
                if number in self.signals or (until and until <= now)]

    @property
    def wakes_at(self) -> float:
        """When the first parked step's time is over; 0.0: never."""
        return min((until for until in self.waits.values() if until), default=0.0)

    @property
    def past_pivot(self) -> bool:
        """Is the pivot done, so that the run can only go forward?"""
        return self.graph.pivot >= 0 and self.steps[self.graph.pivot] == Step.DONE

    def too_late(self, started: Collection[str]) -> bool:
        """Can the run only go forward, because its pivot is done, or may be and could not be undone?

        started: steps that run, or that may have been running when a process died.
        """
        pivot = self.graph.pivot
        if pivot < 0 or self.steps[pivot] == Step.DONE:
            return pivot >= 0
        if self.graph.nodes[pivot].undo:
            return False
        begun = self.graph.names[pivot] in started or pivot in self.again
        return self.steps[pivot] in {Step.BLOCKED, Step.DOUBTFUL} or (self.steps[pivot] == Step.READY and begun)

    def takes_answer(self, name: str) -> bool:
        """Would an answer to this step be taken in now?"""
        return self._takes(self.graph.index[name])

    def _takes(self, number: int) -> bool:
        if self.rewinding is not None and number in self.rewinding.numbers:
            return False
        return self.abort is None and self.steps[number] in _AWAITS

    def is_parked(self, name: str) -> bool:
        return self.graph.index[name] in self.waits

    def is_undone_now(self, name: str) -> bool:
        """Is this step to be undone, or is its undo under way, or blocked?"""
        return self.steps[self.graph.index[name]] in _UNDOING

    def asked(self, number: int) -> int:
        """How often the step was put to the outside before the question that counts now."""
        return self.rounds.get(number, 0) + self.outside.asks.get(number, 0)

    @property
    def renames(self) -> bool:
        """Is any step called otherwise outside than by its name?"""
        return bool(self.rounds or self.first_names)

    def is_done(self, name: str) -> bool:
        return self.steps[self.graph.index[name]] == Step.DONE

    def has_begun(self, name: str) -> bool:
        """Was this step, which is made at most once, begun already?"""
        return self.graph.index[name] in self.begun

    def is_doubtful(self, name: str) -> bool:
        return self.graph.index[name] in self.doubt

    def hears(self, name: str, *, undone: bool) -> bool:
        """Does it matter to this step that its child run has ended, completed or undone?"""
        number = self.graph.index.get(name, -1)
        if number < 0 or not self.graph.nodes[number].child:
            return False
        if self.steps[number] == Step.TO_UNDO:
            return undone
        return self.graph.nodes[number].waits == "child" and self._takes(number)

    # ── what happened ────────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, record: Record) -> None:
        """Take in one record. Raises HistoryError for one that cannot come here; then nothing has changed."""
        kind = record.kind
        if kind == "done":  # the commonest by far
            number = self.graph.index.get(record.step, -1)
            if number < 0:
                self._part(record)
            elif self.steps[number] == _READY and self.abort is None and self.rewinding is None:
                self._ready.remove(number)
                self._advance(number)
            else:
                self._done(number)
        elif "/" in record.step:
            self._part(record)
        elif kind == "undone":
            self._undone(self._number(record))
        elif kind == "failed":
            self._failed(self._number(record), _FAILURE.decode(record.data))
        elif kind == "abort":
            self._abort(_ABORT.decode(record.data))
        elif kind == "blocked":
            self._blocked(self._number(record))
        elif kind == "waiting":
            self._park(self._number(record), _WAITING.decode(record.data))
        elif kind == "signal":
            self._signalled(self._number(record), record.data)
        elif kind in {"skipped", "adopted"}:
            self._skip(self._number(record))
        elif kind == "started":
            self._begun(self._number(record))
        elif kind == "undo-asked":
            self.undo_asked = _ABORT.decode(record.data)
        elif kind == "resolved":
            self._resolved(self._number(record), _RESOLUTION.decode(record.data))
        elif kind == "again":
            self._ask_again(self._number(record))
        elif kind == "late":
            late = _LATE.decode(record.data)
            self._late(self._number(record), again=late.again, alone=late.alone)
        elif kind == "locked":
            self._outside().locked = _LOCKED.decode(record.data)
        elif kind == "retried":
            self._retried(_RETRIED.decode(record.data))
        elif kind == "anew":
            self._anew()
        elif kind == "mapped":
            self.first_names = renamed_again(self.first_names, _MAPPED.decode(record.data).renamed)
        elif kind != "attempts":  # those are for people
            raise HistoryError(f"unknown kind of record: {kind}")

    def parts_of(self, name: str) -> Parts:
        """What has become of the parts of this step."""
        return self.parts.setdefault(self.graph.index[name], Parts())

    def _part(self, record: Record) -> None:
        """Something happened to a part of a step: begun while its step is made, undone then or while its step is undone."""
        name, _, part = record.step.partition("/")
        number = self.graph.index.get(name, -1)
        if number < 0 or not self.graph.nodes[number].parts:
            raise HistoryError(f"{self.graph.saga} has no step {record.step!r}")
        parts, step = self.parts_of(name), self.steps[number]
        making, undoing = step == Step.READY, step == Step.TO_UNDO
        if not parts.take(part, record, begins=making and not self._is_lost(number), ends=making, undoes=making or undoing):
            raise HistoryError(f"{record.step} is {parts.states.get(part)}, its step {Step(step).name}, and now it is {record.kind}")

    def _leaves(self, number: int) -> bool:
        """May parts of this step have left something?"""
        return number in self.parts and self.parts[number].left > 0

    def _number(self, record: Record) -> int:
        try:
            return self.graph.index[record.step]
        except KeyError:
            raise HistoryError(f"{self.graph.saga} has no step {record.step!r}") from None

    def _expect(self, number: int, *allowed: Step) -> None:
        if self.steps[number] not in allowed:
            raise HistoryError(f"{self.graph.names[number]} is {Step(self.steps[number]).name}, "
                               f"not {' or '.join(step.name for step in allowed)}")

    def _done(self, number: int) -> None:
        if self.steps[number] != _READY:
            self._expect(number, Step.READY, Step.PARKED)
            self._unpark(number)
        else:
            self._ready.remove(number)
        if self._turned(number):
            self._to_undo(number, in_doubt=False)
            return
        self._advance(number)

    def _park(self, number: int, waiting: Waiting) -> None:
        """An abort that came before makes waiting pointless: what it did before it waited is undone.

        What another run has to undo is waited for in the same way.
        """
        if self.steps[number] == Step.TO_UNDO and self.graph.nodes[number].child:
            self._take_from_undoable(number)
            self.waits[number] = waiting.until
            return
        self._expect(number, Step.READY)
        if not self.graph.nodes[number].waits:
            raise HistoryError(f"{self.graph.names[number]} is not a step that waits")
        self._ready.remove(number)
        if self._turned(number):
            self._to_undo(number, in_doubt=True)
            return
        self.steps[number] = Step.PARKED
        self.waits[number] = waiting.until
        if waiting.limit:
            self._outside().limits[number] = waiting.limit

    def _unpark(self, number: int) -> None:
        del self.waits[number]
        self.signals.pop(number, None)

    def _signalled(self, number: int, data: bytes) -> None:
        """The first one counts: a second answer to the same question changes nothing."""
        node = self.graph.nodes[number]
        if node.waits not in {"signal", "token"} and not node.child:
            raise HistoryError(f"{self.graph.names[number]} does not wait for a signal")
        if self._takes(number) or (node.child and self.steps[number] == Step.TO_UNDO):
            self.signals.setdefault(number, data)

    def _skip(self, number: int) -> None:
        self._expect(number, Step.READY)
        self._ready.remove(number)
        self.skipped.add(number)
        if self._turned(number):
            self._clear(number)
        else:
            self._advance(number)

    def _begun(self, number: int) -> None:
        self._expect(number, Step.READY)
        self.begun.add(number)

    def _advance(self, number: int) -> None:
        self.steps[number] = _DONE
        self._left -= 1
        missing = self._missing
        for follower in self.graph.followers[number]:
            missing[follower] -= 1
            if not missing[follower] and (self.rewinding is None or follower not in self.rewinding.numbers):
                self.steps[follower] = _READY
                self._ready.append(follower)

    def _failed(self, number: int, failure: Failure) -> None:
        if self.steps[number] == Step.PARKED:
            self._unpark(number)
        else:
            self._expect(number, Step.READY)
            self._ready.remove(number)
        in_doubt = failure.in_doubt or number in self.again or number in self.outside.asks or self._leaves(number)
        if not self._turned(number):
            self.steps[number] = Step.DOUBTFUL if in_doubt else Step.FAILED
        elif in_doubt:
            self._to_undo(number, in_doubt=True)
        else:
            self._clear(number)

    def _blocked(self, number: int) -> None:
        self._expect(number, Step.READY, Step.PARKED, Step.TO_UNDO)
        if self.steps[number] == Step.PARKED:  # what it was told is not what it waits for
            self._unpark(number)
            self.steps[number] = Step.BLOCKED
        elif self.steps[number] == Step.READY:
            self._ready.remove(number)
            if self._turned(number):  # nobody will run it again, so there is nothing to decide: undo it
                self._to_undo(number, in_doubt=True)
                return
            self.steps[number] = Step.BLOCKED
        else:
            if number in self.waits:
                self._unpark(number)
            else:
                self._take_from_undoable(number)
            self.steps[number] = Step.UNDO_BLOCKED
        self.blocked.append(number)

    def _resolved(self, number: int, resolution: Resolution) -> None:
        self._expect(number, Step.BLOCKED, Step.UNDO_BLOCKED)
        undoing = self.steps[number] == Step.UNDO_BLOCKED
        self.blocked.remove(number)
        if resolution.decision == "retry":
            self.steps[number] = Step.TO_UNDO if undoing else Step.READY
            (self._undoable if undoing else self._ready).append(number)
            if not undoing:
                self.again[number] = self.again.get(number, 0) + 1
            self.begun.discard(number)  # a person says so
        elif undoing:
            self._clear(number, Step.KEPT if resolution.decision == "done" else Step.CLEAR)
        elif resolution.decision == "done":
            self._advance(number)
        else:
            self.steps[number] = Step.DOUBTFUL if self._leaves(number) else Step.FAILED

    def _abort(self, abort: Abort) -> None:
        whole = abort.whole and self._left == 0
        if self.abort or (self.too_late(abort.started) and not whole):
            raise HistoryError("a run is aborted once, and never after its pivot, or while nobody knows of it")
        self.abort = abort
        self._left = len(self.graph)
        self._holding = self.graph.follower_counts.copy()
        rewinding, self.rewinding = self.rewinding, None
        started = {self.graph.index[name] for name in abort.started} | (rewinding.awaited if rewinding is not None else set())
        self._ready = [number for number in self._ready if number in started]
        for number, step in enumerate(self.steps):
            if step in _UNDOING:  # it was to be made anew; now it is undone with the others
                self.steps[number] = _DONE
        self._undoable = []
        blocked, self.blocked = [number for number in self.blocked if self.steps[number] != _DONE], []
        self.waits.clear()
        self.signals.clear()
        for number in reversed(range(len(self.graph))):
            step = self.steps[number]
            if number in self._ready:
                continue  # it is awaited
            if number in self.skipped:
                self._clear(number)
                continue
            if step in {Step.DONE, Step.DOUBTFUL, Step.PARKED} or number in blocked or (
                    step == Step.READY and (number in self.again or self._leaves(number))):
                self._to_undo(number, in_doubt=step != Step.DONE or number in self.doubt)
            else:
                self._clear(number)

    # ── taking back what is to be made anew ──────────────────────────────────────────────────────────────────────────

    def _is_lost(self, number: int) -> bool:
        """Is what may come of this step now to be undone?"""
        return self.abort is not None or (self.rewinding is not None and number in self.rewinding.numbers)

    def _turned(self, number: int) -> bool:
        """The step has just ended: is it to be undone?"""
        if self.rewinding is not None:
            self.rewinding.awaited.discard(number)
        return self._is_lost(number)

    def _retried(self, retried: Retried) -> None:
        if self.turns_back or not self._left:
            raise HistoryError("a run that has ended, or turns back already, is not retried")
        self.retries.add(retried.id)
        rewinding = self.rewinding = Rewinding(followers_of(self.graph, retried.steps))
        started = {self.graph.index[name] for name in retried.started if name in self.graph.index}
        self._ready = [number for number in self._ready if number not in rewinding.numbers or number in started]
        rewinding.awaited = set(rewinding.numbers.intersection(self._ready))
        self._holding = self.graph.follower_counts.copy()
        for number in sorted(rewinding.numbers, reverse=True):
            if number not in rewinding.awaited:
                self._take_back(number)

    def _take_back(self, number: int) -> None:
        step = self.steps[number]
        self.waits.pop(number, None)
        self.signals.pop(number, None)
        if number in self.blocked:
            self.blocked.remove(number)
        if step == _DONE:
            self._left += 1
            for follower in self.graph.followers[number]:
                self._missing[follower] += 1
        left_something = step in {_DONE, Step.PARKED, Step.BLOCKED} or (step == _READY and (number in self.again or self._leaves(number)))
        if left_something and number not in self.skipped:
            self._to_undo(number, in_doubt=step != _DONE)
        else:
            self._clear(number)

    def _anew(self) -> None:
        """Nothing is left of these steps: forget that they were ever made, but not how often."""
        rewinding = self.rewinding
        if rewinding is None or rewinding.left:
            raise HistoryError("steps are made anew once they are taken back, and not before")
        self.rewinding = None
        for number in sorted(rewinding.numbers):
            self.rounds[number] = self.asked(number) + self.again.pop(number, 0) + 1
            for numbers in (self.doubt, self.skipped, self.begun, self.outside.known):
                numbers.discard(number)
            for kept in (self.parts, self.signals, self.outside.asks, self.outside.limits):
                kept.pop(number, None)
            self.steps[number] = _READY if not self._missing[number] else Step.WAITING
            if not self._missing[number]:
                self._ready.append(number)

    # ── undoing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _to_undo(self, number: int, *, in_doubt: bool) -> None:
        self.steps[number] = Step.TO_UNDO
        if in_doubt and number not in self.outside.known:
            self.doubt.add(number)
        if not self._holding[number]:
            self._may_undo(number)

    def _may_undo(self, number: int) -> None:
        if self.graph.nodes[number].undo:
            self._undoable.append(number)
        else:  # declared to need none
            self._clear(number)

    def _undone(self, number: int) -> None:
        self._expect(number, Step.TO_UNDO)
        if number in self.outside.once_more:
            self.outside.once_more.discard(number)
            return
        if number in self.waits:
            self._unpark(number)
        else:
            self._take_from_undoable(number)
        self._clear(number)

    # ── the world outside ────────────────────────────────────────────────────────────────────────────────────────────

    def _outside(self) -> Folded:
        if self.outside is NOTHING:
            self.outside = Folded()
        return self.outside

    def takes_late(self, number: int) -> bool:
        """Would a result that comes now, while the run undoes itself, help to undo this step?"""
        undoable = self.abort is not None and self._left > 0 and self.graph.nodes[number].undo
        return undoable and self.steps[number] in {Step.READY, Step.TO_UNDO, Step.UNDO_BLOCKED, Step.CLEAR}

    def postpone(self, number: int, until: float) -> None:
        """A sign of life: the parked step waits on. Not from history: it is read again by whoever takes the run up."""
        self._expect(number, Step.PARKED)
        self.waits[number] = until

    def _ask_again(self, number: int) -> None:
        """Nothing was heard of it; what it may have left makes it doubtful should it fail."""
        self._expect(number, Step.PARKED)
        self._unpark(number)
        self.steps[number] = Step.READY
        self._ready.append(number)
        asks = self._outside().asks
        asks[number] = asks.get(number, 0) + 1

    def _late(self, number: int, *, again: bool, alone: bool) -> None:
        """What nobody knew is known now: the undo gets the result, also if it had been made without.

        Steps before it wait for it once more, unless something is under way, which may be their undos.
        """
        if not self.takes_late(number):
            raise HistoryError(f"{self.graph.names[number]} takes no late result")
        outside = self._outside()
        outside.known.add(number)
        self.doubt.discard(number)
        if again:
            outside.once_more.add(number)
        if self.steps[number] == Step.CLEAR:
            self.steps[number] = Step.TO_UNDO
            self._left += 1
            if alone:
                for needed in self.graph.needs[number]:
                    self._holding[needed] += 1
                self._undoable = [each for each in self._undoable if each not in self.graph.needs[number]]
            else:
                outside.returned.add(number)
            self._undoable.append(number)

    def _take_from_undoable(self, number: int) -> None:
        if number not in self._undoable:
            raise HistoryError(f"{self.graph.names[number]} is undone before the steps that follow it")
        self._undoable.remove(number)

    def _clear(self, number: int, step: Step = Step.CLEAR) -> None:
        self.steps[number] = step
        if self.rewinding is None:
            self._left -= 1
        else:
            self.rewinding.left -= 1
        if number in self.outside.returned:
            self.outside.returned.discard(number)
            return  # those before it were freed when it was undone the first time
        for needed in self.graph.needs[number]:
            self._holding[needed] -= 1
            if not self._holding[needed] and self.steps[needed] == Step.TO_UNDO and needed not in self.waits:
                self._may_undo(needed)


def decide(graph: Graph, history: Iterable[Record]) -> Machine:
    """The whole machine as one pure function: history in, a machine that says what is next out."""
    machine = Machine(graph)
    for record in history:
        machine.apply(record)
    return machine
