"""The fields of a fold, and the questions that making and undoing both ask."""

from __future__ import annotations

from collections.abc import Collection

from yaoki.saga.graph import Graph
from yaoki.saga.outside.folded import NOTHING, Folded
from yaoki.saga.parts.state import Parts
from yaoki.saga.records import Abort, Record
from yaoki.saga.rewinding import Rewinding
from yaoki.saga.standing import Step

AWAITS = frozenset({Step.WAITING, Step.READY, Step.PARKED, Step.BLOCKED})
UNDOING = frozenset({Step.TO_UNDO, Step.UNDO_BLOCKED})


class HistoryError(AssertionError):
    """A history that no run can have. It is a bug of Yaoki's, or the journal was changed by hand."""


class State:
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

    @property
    def turns_back(self) -> bool:
        """Is it undoing something: all of it, or what is to be made anew? Then nothing else begins."""
        return self.abort is not None or self.rewinding is not None

    def asked(self, number: int) -> int:
        """How often the step was put to the outside before the question that counts now."""
        return self.rounds.get(number, 0) + self.outside.asks.get(number, 0)

    def _takes(self, number: int) -> bool:
        if self.rewinding is not None and number in self.rewinding.numbers:
            return False
        return self.abort is None and self.steps[number] in AWAITS

    def _is_lost(self, number: int) -> bool:
        """Is what may come of this step now to be undone?"""
        return self.abort is not None or (self.rewinding is not None and number in self.rewinding.numbers)

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

    def _unpark(self, number: int) -> None:
        del self.waits[number]
        self.signals.pop(number, None)

    def _outside(self) -> Folded:
        if self.outside is NOTHING:
            self.outside = Folded()
        return self.outside
