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

from collections.abc import Iterable

import msgspec

from yaoki.saga.fold.making import Making
from yaoki.saga.fold.state import UNDOING, HistoryError
from yaoki.saga.graph import Graph
from yaoki.saga.naming import renamed_again
from yaoki.saga.records import Abort, Failure, Late, Mapped, Record, Resolution, Retried, RunState, Waiting
from yaoki.saga.standing import Step

__all__ = ["HistoryError", "Machine", "Step", "decide"]

_READY = Step.READY  # an enum's member is a slow thing to look up
_FAILURES = frozenset({Step.FAILED, Step.DOUBTFUL})
_ABORT = msgspec.json.Decoder(Abort)
_FAILURE = msgspec.json.Decoder(Failure)
_WAITING = msgspec.json.Decoder(Waiting)
_RESOLUTION = msgspec.json.Decoder(Resolution)
_LATE = msgspec.json.Decoder(Late)
_RETRIED = msgspec.json.Decoder(Retried)
_MAPPED = msgspec.json.Decoder(Mapped)
_LOCKED = msgspec.json.Decoder(frozenset[str])


class Machine(Making):
    """The fold of one run's history, and what it says is next. Its attributes: `fold.state.State`."""

    __slots__ = ()

    # ── what is next ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def start(self) -> list[str]:
        """Steps to be running now, in order of definition; those that run already are among them."""
        if self.rewinding is not None:
            return [self.graph.names[number] for number in self._ready if number not in self.rewinding.awaited]
        return [] if self.abort else list(map(self.graph.names.__getitem__, self._ready))

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

    # ── about one step ───────────────────────────────────────────────────────────────────────────────────────────────────

    def takes_answer(self, name: str) -> bool:
        """Would an answer to this step be taken in now?"""
        return self._takes(self.graph.index[name])

    def is_parked(self, name: str) -> bool:
        return self.graph.index[name] in self.waits

    def is_undone_now(self, name: str) -> bool:
        """Is this step to be undone, or is its undo under way, or blocked?"""
        return self.steps[self.graph.index[name]] in UNDOING

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

    @property
    def renames(self) -> bool:
        """Is any step called otherwise outside than by its name?"""
        return bool(self.rounds or self.first_names)

    # ── what happened ────────────────────────────────────────────────────────────────────────────────────────────────────

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


def decide(graph: Graph, history: Iterable[Record]) -> Machine:
    """The whole machine as one pure function: history in, a machine that says what is next out."""
    machine = Machine(graph)
    for record in history:
        machine.apply(record)
    return machine
