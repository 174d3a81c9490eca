"""Every way out of a process: a call is visited, struck or not, lands at its service, and is answered.

    a call ──▶ point: is a fault planned here? ──no──▶ ~~~ network ~~~▶ effect at the service ──▶ ~~~ ▶ reply
                         └─yes─▶ strike.py: refuse, lose the reply, land late, cut the power, ...

An effect lands in the context of the service, not of the caller: a request under way survives the death of its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from heapq import heappush
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki import effect as effects
from yaoki.chaos import faults
from yaoki.chaos.faults import At
from yaoki.explore.blocking import strike_blocking
from yaoki.explore.clockwork import Handle
from yaoki.explore.dialect import FAKE, Dialect
from yaoki.explore.process import Life, PowerCut, here, owner
from yaoki.explore.strike import strike
from yaoki.explore.topology import LATENCY_S

if TYPE_CHECKING:
    from yaoki.explore.conditions import Conditions
    from yaoki.explore.loop import VirtualLoop
    from yaoki.explore.schedules import Line
    from yaoki.explore.states import States
    from yaoki.explore.topology import Topology

Variants = Mapping[str, Callable[[], Any]]


class Point(msgspec.Struct, frozen=True, gc=False):
    """One visit of one place where a fault can strike.

    Attributes:
        free: may another fault be added here? (not while an outage rules)
    """

    site: str
    nth: int
    kind: At
    service: str
    process: str
    time_s: float
    fault: str
    free: bool


class Points:
    """The points of one universe. `world.World` is one.

    Args:
        plan: `(site, nth)` → fault.
        most_calls: calls after which retries count as unbounded.
    """

    loop: VirtualLoop
    base: Context
    notes: list[tuple[float, str, str]] | None
    topology: Topology | None
    conditions: Conditions | None

    def __init__(self, plan: dict[tuple[str, int], str] | None, *, most_calls: int) -> None:
        self.plan = plan or {}
        self.most_calls = most_calls
        self.latency_s = LATENCY_S
        self.points: list[Point] = []
        self.fired: list[tuple[str, int, str]] = []
        self.counts: dict[str, int] = {}
        self.watchers: list[Callable[[Any], Any]] = []
        self.landing = 0  # effects on their way that nobody waits for
        self.states: States | None = None  # kept only while somebody asks
        self.line: Line | None = None  # of requests under way, only while their order is explored
        self._first_run = ""

    # ── leaving a process ──

    def call(self, service: str, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, dialect: Dialect = FAKE,
             timeout_s: float | None = 5.0, variants: Variants | None = None, keys: Iterable[str] = ()) -> asyncio.Future[Any]:
        """Carry out `effect` at `service`, over the network; await the answer.

        Args:
            effect: what the service does, at once; its return value or exception is the answer. It may return a
                coroutine, which then runs in the service's own context.
            dialect: how faults look to this kind of caller.
            timeout_s: seconds after which the caller's client gives up on an answer; None: never.
            variants: what happens instead of `effect` under a fault of the point's own (a stale read, a message twice).
            keys: what it touches at the service, if not everything: requests that touch nothing in common need not be reordered.
        """
        loop = self.loop
        future: asyncio.Future[Any] = loop.create_future()
        life = owner.get()
        if life is not None and not life.alive:
            return future  # a dead process sends nothing, and nothing answers it
        fault, site = self.visit(service, op, kind, life)
        if self.states is not None:
            self.states.listen(future, life, site, fault)
            self.states.offers[len(self.points) - 1] = tuple(variants or ())
        if fault:
            strike(self, fault, future, effect, life, service, site, dialect, timeout_s, variants)  # type: ignore[arg-type]
            return future
        due = loop._now + (self.latency_s if self.topology is None else self.topology.one_way_s(here(), service))
        landing = Handle(self.land, (future, effect), self.base, due)
        if self.line is None:  # `loop.set_timer(landing)`, written out: every call comes this way
            loop._sequence += 1
            heappush(loop._timers, (due, 0.0 if loop._order is None else loop._order.random(), loop._sequence, landing))
        else:
            self.line.send(f"{site}@{self.counts[site]}", here(), service, kind, keys, due, landing)
        return future

    def call_blocking(self, service: str, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, dialect: Dialect = FAKE,
                      timeout_s: float | None = 5.0, variants: Variants | None = None) -> Any:
        """The same for code that is not async. Nothing else runs until it returns."""
        life = owner.get()
        if life is not None and not life.alive:
            raise PowerCut
        fault, site = self.visit(service, op, kind, life)
        if fault:
            return strike_blocking(self, fault, effect, life, service, site, dialect, timeout_s, variants)  # type: ignore[arg-type]
        value = effect()
        self.watch()
        if self.states is not None:
            self.states.sent(life, site)
            self.states.heard(life, site, value)
        return value

    # ── visiting ──

    def visit(self, service: str, op: str, kind: At, life: Life | None) -> tuple[str, str]:
        """Count the visit of a site; which fault strikes there (or ""), and the site."""
        current = effects.current.get()
        if current is None:
            site = f"{service}.{op}"
        elif current.run == self._first_run and not current.undo:
            site = f"{current.step}>{service}.{op}"
        else:
            site = f"{self._step(current)}>{service}.{op}"
        counts = self.counts
        nth = counts.get(site, 0)
        counts[site] = nth + 1
        if self.plan or self.conditions is not None:
            fault, free = self._fault(site, nth, service, kind)
        else:
            fault, free = "", True
        if self.states is not None:
            self.states.mark()
        loop, points = self.loop, self.points
        loop.wakes = 0
        points.append(Point(site, nth, kind, service, "" if life is None else life.name, loop._now, fault, free))
        if len(points) > self.most_calls:
            self.stop(f"{len(points)} calls and no end; the last one is {site}")
        if self.notes is not None:
            self.note("" if life is None else life.name, f"→ {site}" + (f"  ⚡ {fault}" if fault else ""))
        return fault, site

    def _step(self, current: effects.Effect) -> str:
        """By which step something is called: a name that outlives edits of the code. The first run goes without its name."""
        step = f"{current.step}!undo" if current.undo else current.step
        if current.run == self._first_run:
            return step
        if not self._first_run:
            self._first_run = current.run
            return step
        return f"{current.run}/{step}"

    def _fault(self, site: str, nth: int, service: str, kind: At) -> tuple[str, bool]:
        """What strikes here, and whether another fault could have been added."""
        fault = self.plan.pop((site, nth), "")
        if fault:
            self.fired.append((site, nth, fault))
            return (self.rules().begin_outage(service, fault) if faults.find(fault).lasts else fault), True
        if self.conditions is None:
            return "", True
        return self.conditions.strike(service, here(), kind, self.loop._now)

    def unfired(self) -> list[str]:
        """Planned faults that were never reached."""
        return [f"{site}@{nth}={fault}" for (site, nth), fault in self.plan.items()]

    # ── landing: the request has arrived ──

    def land(self, future: asyncio.Future[Any], effect: Callable[[], Any]) -> None:
        """Carry out the effect and answer."""
        try:
            value = effect()
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if type(value) is CoroutineType:
                self.serve(value, future)
                return
            if not future.done():
                future.set_result(value)
        if self.watchers:
            self.watch()

    def serve(self, work: Any, future: asyncio.Future[Any] | None, then: Callable[[], None] | None = None) -> None:
        """Run a service's coroutine, then answer (or not, when `future` is None), then call `then`."""
        task = self.loop.create_task(work, context=self.base.copy())

        def finish(done: asyncio.Task[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if future is not None and not future.done() and not done.cancelled():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(done.result())
            self.watch()
            if then is not None:
                then()

        task.add_done_callback(finish, context=self.base)

    def watch(self) -> None:
        """Let the invariants that must hold at every moment look at the state."""
        for watcher in self.watchers:
            said = watcher(self)
            if said:
                self.break_(getattr(watcher, "name", getattr(watcher, "__name__", "always")), str(said))

    # ── what a world adds ──

    def rules(self) -> Conditions:
        """The conditions of this universe, to add to."""
        raise NotImplementedError

    def break_(self, invariant: str, why: str) -> None:
        """Report a broken invariant."""
        raise NotImplementedError

    def stop(self, why: str) -> None:
        """End the execution here, as one that would not end by itself."""
        raise NotImplementedError

    def note(self, lane: str, words: str) -> None:
        """Add a line to the timeline."""
        raise NotImplementedError
