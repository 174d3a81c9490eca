"""What came of one execution: small, comparable, and kept only as long as the report needs it."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from yaoki.explore.plan import Plan, Settings, token

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from yaoki.explore.states import Key
    from yaoki.explore.world import Point, World


class Violation(NamedTuple):
    """An invariant, by name, and in what way it does not hold."""

    invariant: str
    why: str


class Execution:
    """One execution.

    Attributes:
        answer: what `main` returned or raised, as text; "" when it did not end.
        outcome: one word for the matrix: ok, error, undone, blocked, cancelled, stuck.
        effects: units held at each service by subject, where not zero: `("payment", "t1/pay") → 1`.
        points: every visit of every site, in order.
        covered: it was given up, because its schedule has an equal that was executed before.
        clock: who decided by time, where that was watched; "" nobody.
        fired: index into `points` of the last planned fault; -1 without one.
        on_files: does a journal of it lie in files, which a copy of the process would share?
        offers: what points can do of their own (a message twice), by their index; kept with the digests.
        stuck: why it did not end, or "".
        unfired: planned faults that were never reached; void: one that was, and can do nothing there, or "".
    """

    __slots__ = ("answer", "calls", "clock", "covered", "crashes", "digests", "effects", "error", "fired", "logs", "offers", "on_files", "outcome", "plan", "points", "reached", "runs", "settings",
                 "stuck", "time_s", "timeline", "unfired", "value", "violations", "void")

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan = plan
        self.settings = settings
        self.answer = ""
        self.outcome = ""
        self.value: Any = None
        self.error: BaseException | None = None
        self.effects: dict[tuple[str, str], int] = {}
        self.runs: dict[str, str] = {}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.points: list[Point] = []
        self.fired = -1
        self.calls = -1
        self.stuck = ""
        self.unfired: tuple[str, ...] = ()
        self.void = ""
        self.violations: tuple[Violation, ...] = ()
        self.reached: frozenset[str] = frozenset()
        self.timeline: list[tuple[float, str, str]] = []
        self.digests: list[Key] = []
        self.offers: Mapping[int, Collection[str]] = {}
        self.time_s = 0.0
        self.clock = ""
        self.covered = False
        self.crashes = 0
        self.on_files = False

    @property
    def token(self) -> str:
        return token(self.plan, self.settings)

    def settle(self, world: World) -> None:
        """Take what the end of the run left, before anybody judges it."""
        self.calls = len(world.points)
        process = world.main
        if process is not None and process.done:
            self.value, self.error = process.result, process.error
            self.answer = f"raises {_named(self.error)}" if self.error is not None else f"returns {self.value!r}"
        self.effects = {(name, subject): net for name, state in world.services.items()
                        for subject, net in getattr(state, "net", {}).items() if net}
        self.runs = {key: value for state in world.journals for key, value in state.outcomes().items()}
        self.outcome = self._word()

    def _word(self) -> str:
        if self.stuck:
            return "stuck"
        if self.runs:
            for worst in ("blocked", "running", "undoing", "undone", "cancelled"):
                if worst in self.runs.values():
                    return worst
            return "completed"
        return "error" if self.error is not None else "ok"

    def take(self, world: World) -> None:
        """Take what else the report needs; the world is over."""
        self.points = world.points if self.calls < 0 else world.points[:self.calls]
        self.crashes = world.crashes
        self.on_files = any(getattr(journal, "on_files", False) for journal in world.journals)
        self.reached = frozenset(world.reached)
        self.logs = {name: state.log for name, state in world.services.items() if hasattr(state, "log")} if world.notes is not None else {}
        self.timeline = world.notes or []
        if world.states is not None:
            self.digests, self.offers = world.states.keys, world.states.offers
        self.time_s = world.loop._now
        self.clock = world.clock_reads.where if world.clock_reads is not None else ""
        if self.plan:
            wanted = {(each.site, each.nth) for each in self.plan}
            for index in range(len(self.points) - 1, -1, -1):
                if (self.points[index].site, self.points[index].nth) in wanted:
                    self.fired = index
                    break

    @property
    def signature(self) -> tuple[str, ...]:
        """Which invariants are broken: what shrinking keeps."""
        return tuple(sorted({each.invariant for each in self.violations}))

    def digest(self) -> str:
        """Equal for equal executions, in any process and with any hash seed."""
        text = repr((self.answer, self.outcome, sorted(self.effects.items()), sorted(self.runs.items()), self.stuck, self.violations,
                     [(p.site, p.nth, p.fault, p.process, round(p.time_s, 9)) for p in self.points]))
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _named(error: BaseException | None) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "CancelledError"
    return f"{type(error).__name__}: {error}"
