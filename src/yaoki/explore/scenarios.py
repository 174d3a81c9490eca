"""A scenario: what to run in a universe, and what must hold whatever fails in it.

    @scenario(always=[no_overbooking])
    async def two_buyers(world):
        await asyncio.gather(buy("ann"), buy("bob"))

The function is the first process: it runs again from the top after a power cut, with nothing but what is durable (fake
services, stores, queues, `world.disk`). One execution of it under one plan is an `Execution`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, overload

from yaoki.chaos.faults import find
from yaoki.explore import invariants as built_in
from yaoki.explore.branching import Branches
from yaoki.explore.loop import DeadlockError, LivelockError
from yaoki.explore.memory import Memory
from yaoki.explore.outcome import Execution, Violation
from yaoki.explore.plan import PLAIN, Plan, Settings, lookup
from yaoki.explore.schedules import CoveredError, Line, Replay, Search
from yaoki.explore.service_points import attach
from yaoki.explore.states import States
from yaoki.explore.tidy import take_apart
from yaoki.explore.topology import Network
from yaoki.explore.world import World

Check = Callable[[World], object]
Effects = Callable[[World], Mapping[tuple[str, str], int]]


class Scenario:
    """A scenario and its settings.

    Args:
        main: `async def` or `def`, with the `World` as its only parameter, or none.
        setup: called before `main` in each universe: hosts, stock.
        invariants: functions of the world that must hold at the end; they raise AssertionError, or return what is wrong.
        always: the same, asked after each effect.
        steady: run at the end, when all faults are over, ten minutes later: must not raise. Is everything well again?
        atomic: an answer that is an error must leave no effect behind.
        same_answer: the same answer as without faults means the same effects as without faults.
        undoes: may an end without any effect follow from a fault alone? (sagas: yes)
        expects: outcomes that count as an end; by default any answer or error of `main`.
        faults: what may be made to happen, by id, family or prefix; None: the explorer's choice.
        most_calls: calls in one execution after which retries count as unbounded.
        most_per_site: visits of one site, likewise.
        limit: virtual seconds an execution may take.
        outage_calls: calls that an outage lasts.
        blocked_ok: may a run end blocked, waiting for a person? By default never: faults here end.
        effects: reads what services of your own hold: `(service, subject)` → units; a subject of a run begins with `RUN/`.
            Fake services keep these accounts themselves.
        service_points: may faults strike at every `Service` call? By default only where there is no other point.
        timed: does it matter when things happen (leases, expiry)? Then states at different times are different states. By default
            that is found out: it does where anybody looks at a clock. False: it does not, whoever looks.
        network: zones, latencies, loss: see `Network`; None: everything is near, and nothing is lost by itself.
        seal: "patch" makes clocks and randomness virtual wherever they are read; "strict" makes them errors; "off".
    """

    def __init__(self, main: Callable[..., Any], *, name: str = "", setup: Callable[[World], object] | None = None,
                 invariants: Iterable[Check] = (), always: Iterable[Check] = (), steady: Callable[..., Any] | None = None,
                 atomic: bool = False, same_answer: bool = True, faults: Sequence[str] | None = None, most_calls: int = 400,
                 most_per_site: int = 40, limit: float = 86_400.0, outage_calls: int = 5, blocked_ok: bool = False, timed: bool | None = None,
                 effects: Effects | None = None, service_points: bool | None = None, network: Network | None = None, seal: str = "patch") -> None:
        self.main = main
        self.name = name or getattr(main, "__name__", "scenario")
        self.setup = setup
        self.invariants = tuple(invariants)
        self.always = tuple(always)
        self.steady = steady
        self.atomic = atomic
        self.same_answer = same_answer
        self.faults = tuple(faults) if faults is not None else None
        self.most_calls = most_calls
        self.most_per_site = most_per_site
        self.limit = limit
        self.outage_calls = outage_calls
        self.blocked_ok = blocked_ok
        self.timed = timed
        self.service_points = service_points
        self.effects = effects
        self.network = network
        self.seal = seal
        self.baseline: Execution | None = None
        self.memory: Memory | None = None  # of policies that live longer than a universe; kept while exploring
        self._takes_world = bool(inspect.signature(main).parameters)
        # Seeding is cheaper than making one, and an execution is short.
        self._rng = Random(0)

    def __repr__(self) -> str:
        return f"<Scenario {self.name}>"

    # ── one execution ──

    def execute(self, plan: Plan = (), settings: Settings = PLAIN, *, story: bool = False, keys: bool = False, watch: bool = False,
                timed: bool | None = None, search: Search | None = None, branches: Branches | None = None) -> Execution:
        """Run once under `plan`, and say what came of it.

        Args:
            story: keep the timeline and the events (slower).
            keys: digest the state at each point (for reductions). timed: with the time; None: as the scenario says.
            watch: notice who reads a clock.
            search: chooses in which order requests arrive.
            branches: begins other executions on the way; then this one is that of whoever returns, and in the parent of no interest.
        """
        world = World(lookup(plan) if plan else None, seed=settings.seed, order=settings.order, limit_s=self.limit,
                      most_calls=self.most_calls, rng=self._rng, network=self.network, watch=watch)
        if self.always:
            world.watchers.extend(self.always)
        if story:
            world.notes = []
        if keys:
            world.states = States(world, timed=bool(self.timed if timed is None else timed))
        if search is not None or settings.schedule:
            world.line = world.loop.line = Line(search if search is not None else Replay(settings.schedule))
        run = Execution(plan, settings)
        if self.service_points:
            attach(world)
        if self.memory is not None:
            self.memory.put_back()
            world.memory = self.memory
        if branches is not None:
            branches.enter(world)
        try:
            self._run(world, run)
            if branches is not None:
                run.plan = branches.plan
            if branches is None or branches.is_child:
                self._judge(world, run)
        finally:
            if branches is None or not branches.is_child:  # a copy of the process ends as a whole
                world.end()
        run.take(world)
        if branches is None or not branches.is_child:
            take_apart(world)
        return run

    def _run(self, world: World, run: Execution) -> None:
        if self.setup is not None:
            world.inside(self.setup, world)
        main = (lambda: self.main(world)) if self._takes_world else self.main
        try:
            world.run(main)
        except (DeadlockError, LivelockError) as error:
            run.stuck = str(error)
        except CoveredError:
            run.covered = True
        run.stuck = run.stuck or world.stopped
        run.settle(world)
        if self.effects is not None:
            run.effects.update({key: units for key, units in world.inside(self.effects, world).items() if units})

    def _judge(self, world: World, run: Execution) -> None:
        if run.covered:
            return
        if world.plan:  # whatever fired has been taken from it
            run.unfired = tuple(world.unfired())
            return
        if world.void:
            run.void = world.void
            return
        if run.stuck:
            world.break_("every_run_ends", run.stuck)
        else:
            for check in built_in.CHECKS:
                if said := check(world, self, run):
                    world.break_(check.__name__, said)
            if self.invariants or self.always:
                self._ask_user(world)
            if self.steady is not None and not world.broken:
                self._ask_steady(world, self.steady)
        # What no program could keep after such a fault is not held against it.
        if world.broken:
            bent = frozenset().union(*(find(planned.fault).bends for planned in run.plan))
            run.violations = tuple(Violation(name, why) for name, why in world.broken if name not in bent)

    def _ask_user(self, world: World) -> None:
        for check in (*self.invariants, *self.always):
            try:
                said = world.inside(check, world)
            except AssertionError as error:
                said = str(error) or "the assertion failed"
            if said is not None and said is not True and (said is False or said):
                world.break_(getattr(check, "__name__", "invariant"), "does not hold" if said is False else str(said))

    def _ask_steady(self, world: World, steady: Callable[..., Any]) -> None:
        if world.conditions is not None:
            world.conditions.clear()
        takes = bool(inspect.signature(steady).parameters)

        async def later() -> Any:
            await world.sleep(600.0)
            value = steady(world) if takes else steady()
            return await value if inspect.isawaitable(value) else value

        try:
            process = world.rerun(later)
        except (DeadlockError, LivelockError) as error:
            world.break_("steady_state", str(error))
            return
        if process.error is not None:
            world.break_("steady_state", f"ten minutes after the last fault: {process.error!r}")


@overload
def scenario(main: Callable[..., Any], /) -> Scenario: ...
@overload
def scenario(**settings: Any) -> Callable[[Callable[..., Any]], Scenario]: ...
def scenario(main: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Make a function a scenario. Settings: those of `Scenario`."""
    if main is not None:
        return Scenario(main)
    return lambda main: Scenario(main, **settings)
