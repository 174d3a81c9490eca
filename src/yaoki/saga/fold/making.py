"""What becomes of steps that are made, and what follows from that."""

from __future__ import annotations

from yaoki.saga.fold.state import HistoryError
from yaoki.saga.fold.undoing import Undoing
from yaoki.saga.parts.state import Parts
from yaoki.saga.records import Failure, Record, Resolution, Waiting
from yaoki.saga.standing import Step

_READY, _DONE = Step.READY, Step.DONE  # an enum's member is a slow thing to look up


class Making(Undoing):
    """The part of a fold that goes forwards."""

    __slots__ = ()

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

    def _advance(self, number: int) -> None:
        self.steps[number] = _DONE
        self._left -= 1
        missing = self._missing
        for follower in self.graph.followers[number]:
            missing[follower] -= 1
            if not missing[follower] and (self.rewinding is None or follower not in self.rewinding.numbers):
                self.steps[follower] = _READY
                self._ready.append(follower)

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

    # ── what waits ───────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def _signalled(self, number: int, data: bytes) -> None:
        """The first one counts: a second answer to the same question changes nothing."""
        node = self.graph.nodes[number]
        if node.waits not in {"signal", "token"} and not node.child:
            raise HistoryError(f"{self.graph.names[number]} does not wait for a signal")
        if self._takes(number) or (node.child and self.steps[number] == Step.TO_UNDO):
            self.signals.setdefault(number, data)

    def _ask_again(self, number: int) -> None:
        """Nothing was heard of it; what it may have left makes it doubtful should it fail."""
        self._expect(number, Step.PARKED)
        self._unpark(number)
        self.steps[number] = Step.READY
        self._ready.append(number)
        asks = self._outside().asks
        asks[number] = asks.get(number, 0) + 1

    def postpone(self, number: int, until: float) -> None:
        """A sign of life: the parked step waits on. Not from history: it is read again by whoever takes the run up."""
        self._expect(number, Step.PARKED)
        self.waits[number] = until

    # ── what needs a person ──────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── what is made of parts ────────────────────────────────────────────────────────────────────────────────────────────

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
