"""What is taken back, and in which order: by an abort all of it, by a retry from a step what is to be made anew.

A step may be undone when every step that follows it is clear.
"""

from __future__ import annotations

from yaoki.saga.fold.state import UNDOING, HistoryError, State
from yaoki.saga.records import Abort, Retried
from yaoki.saga.rewinding import Rewinding, followers_of
from yaoki.saga.standing import Step

_READY, _DONE = Step.READY, Step.DONE


class Undoing(State):
    """The part of a fold that goes backwards."""

    __slots__ = ()

    # ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
            if step in UNDOING:  # it was to be made anew; now it is undone with the others
                self.steps[number] = _DONE
        self._undoable = []
        kept = {self.graph.index[name] for name in abort.kept if name in self.graph.index}
        blocked, self.blocked = [number for number in self.blocked if self.steps[number] != _DONE], []
        self.waits.clear()
        self.signals.clear()
        for number in reversed(range(len(self.graph))):
            step = self.steps[number]
            if number in self._ready:
                continue  # it is awaited
            if number in self.skipped or number in kept:
                self._clear(number, Step.KEPT if number in kept else Step.CLEAR)
                continue
            if step in {Step.DONE, Step.DOUBTFUL, Step.PARKED} or number in blocked or (
                    step == Step.READY and (number in self.again or self._leaves(number))):
                self._to_undo(number, in_doubt=step != Step.DONE or number in self.doubt)
            else:
                self._clear(number)

    # ── what is to be made anew ──────────────────────────────────────────────────────────────────────────────────────────

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

    def _turned(self, number: int) -> bool:
        """The step has just ended: is it to be undone?"""
        if self.rewinding is not None:
            self.rewinding.awaited.discard(number)
        return self._is_lost(number)

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

    # ── step by step ─────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def _take_from_undoable(self, number: int) -> None:
        if number not in self._undoable:
            raise HistoryError(f"{self.graph.names[number]} is undone before the steps that follow it")
        self._undoable.remove(number)

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

    # ── what comes too late ──────────────────────────────────────────────────────────────────────────────────────────────

    def takes_late(self, number: int) -> bool:
        """Would a result that comes now, while the run undoes itself, help to undo this step?"""
        undoable = self.abort is not None and self._left > 0 and self.graph.nodes[number].undo
        return undoable and self.steps[number] in {Step.READY, Step.TO_UNDO, Step.UNDO_BLOCKED, Step.CLEAR}

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
