"""Every fault at every point, then every pair: the order of the search, and what it may leave out.

    depth 0: no fault                      its points are where single faults strike
    depth 1: every fault at every point    the points after the fault are where a second one strikes
    depth 2: ...

A fault is only ever added after the last one of a plan, so that each set of faults is executed once, and points that exist
only because of a fault (retries, undos, recoveries) are found as they appear. An execution that breaks an invariant is not
extended: a shorter story is already told.

Reductions, each of which can be switched off, and audited (`Explorer.audit`):

    crash    A power cut leaves nothing but what is durable: two plans that lead to a cut in the same durable state have the
             same future. (CrashMonkey, Mohan et al., OSDI 2018.)
    history  What a process will do is determined by what was durable when it started and by the answers it has had since.
             Answers to attempts of a step whose result is recorded are forgotten. So a state that was reached with fewer
             faults is not extended again. (Generalises Filibuster, Meiklejohn et al., SoCC 2021.)

Neither looks at the clock, unless the program does: see `clock_reads.py`. Then two states that differ only in time are two, and what
was explored before that was known is explored again.

Schedules: `_contended` delays a request past its neighbours, at any depth, together with other faults; `schedules.py` goes through
all orders of an execution without faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec

from yaoki import runtime
from yaoki.chaos import faults
from yaoki.chaos.faults import At, Fault, Tier
from yaoki.explore.branching import PAYS_POINTS, Branches, can_fork
from yaoki.explore.memory import Memory
from yaoki.explore.outcome import Execution
from yaoki.explore.plan import PLAIN, Plan, Planned, Settings
from yaoki.explore.report import NOTHING_THERE, Report
from yaoki.explore.scenarios import Scenario
from yaoki.explore.schedules import Search
from yaoki.explore.seal import sealed
from yaoki.explore.service_points import listening
from yaoki.explore.shrink import shrink
from yaoki.explore.strike import is_own, simulated
from yaoki.explore.tidy import tidy
from yaoki.explore.topology import LATENCY_S
from yaoki.explore.world import Point

_CRASH_BEFORE = "crash.before_effect"
# Distinct ways to break that are told in full; the others are counted.
MOST_STORIES = 8
# What a kill can cost an exploration that keeps how far it came.
KEEP_EVERY_S = 60.0


def _contended(points: Sequence[Point]) -> set[int]:
    """Points whose request is under way together with another one to the same service: only there can order matter.

    Two requests to different services commute. So schedules are explored by delaying a contended request past its
    neighbours, at most as often as there are faults in a plan (delay-bounded scheduling: Emmi, Qadeer and Rakamaric,
    POPL 2011; the independence is that of partial-order reduction, by service).
    """
    found: set[int] = set()
    latest: dict[str, int] = {}
    for index, point in enumerate(points):
        before = latest.get(point.service)
        if before is not None and point.time_s - points[before].time_s < LATENCY_S * 0.999:
            found.update((before, index))
        latest[point.service] = index
    return found


class _TimeDecidesError(Exception):
    """The program looks at a clock, so states must have the time in them. where: who does."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Explorer:
    """One exploration of one scenario.

    Args:
        depth: the most faults in one execution.
        kinds: faults to try, by id, family or prefix, at every depth; None: the scenario's, or the catalogue's choice.
        budget_s: real seconds after which no new execution begins; None: none.
        most: executions after which it stops; None: none.
        reduce: names of the reductions to use.
        share: `(i, n)`: execute only the i-th of n parts (for parallel jobs).
        progress: called now and then with the report so far.
        keep: the same, at most once a minute and only where another exploration could go on from what is in it.
        first: what to run before all else (a corpus); a plan that does not apply any more is left out.
        swarm: executions to draw at random, seeded, beyond `depth`.
        most_broken: executions that break an invariant after which it stops; None: none.
        schedules: orders of requests under way together to execute at most: without faults, then under each single one; see `schedules.py`.
        orders: seeded orders of what is due together, in each of which every single fault is tried again.
        clock: who decides by time, where that is known from before.
        skip: plans that an earlier exploration of the same code has executed (its report's `resume_at`).
        fork: begin executions in the middle of their parent's; None: where it pays. See `branching.py`.
    """

    def __init__(self, scenario: Scenario, *, depth: int = 1, kinds: Sequence[str] | None = None, budget_s: float | None = None,
                 most: int | None = None, settings: Settings = PLAIN, reduce: frozenset[str] = frozenset({"crash", "history"}),
                 share: tuple[int, int] = (0, 1), progress: Callable[[Report], object] | None = None,
                 keep: Callable[[Report], object] | None = None, first: Sequence[tuple[Plan, Settings]] = (), swarm: int = 0, skip: int = 0, most_broken: int | None = None, clock: str = "", schedules: int = 0,
                 orders: int = 0, fork: bool | None = None) -> None:
        self.scenario = scenario
        self.depth = depth
        self.settings = settings
        # What the network draws is no part of a state's key.
        self.reduce = reduce if scenario.network is None or not scenario.network.is_noisy else frozenset()
        self.share = share
        self.most = most
        self.first = first
        self.swarm = swarm
        self.schedules = schedules
        self.orders = orders
        self.skip = skip
        self.most_broken = most_broken
        self.report = Report(scenario.name, depth=depth, settings=settings)
        self._kinds = kinds if kinds is not None else scenario.faults
        self._by_kind = {tier: self._faults(tier) for tier in (Tier.CORE, Tier.WIDE)}
        self._progress = progress
        self._keep = keep
        self._kept_at = 0.0
        self._budget_s = budget_s
        self._began = 0.0
        self._asked = 0  # how often it was asked whether to go on: a part of the work counts what it does not report, too
        self._seen: set[bytes] = set()
        self._cuts: set[bytes] = set()
        self._forks = fork
        self._number = 0  # of plans of this depth, to share them among jobs
        self._timed = bool(scenario.timed) or bool(clock)
        self._watch = bool(self.reduce) and scenario.timed is None and not clock
        self.report.clock = clock

    def _faults(self, tier: Tier) -> dict[At, tuple[str, ...]]:
        if self._kinds is not None:
            usable = [fault for fault in faults.chosen(self._kinds) if simulated(fault)]
        else:
            usable = [fault for fault in faults.CATALOGUE if simulated(fault) and not fault.asked
                      and (fault.tier is Tier.CORE or (tier is Tier.WIDE and fault.tier is Tier.WIDE))]
        return {at: tuple(self._spec(fault) for fault in usable if at in fault.at) for at in At}

    def _spec(self, fault: Fault) -> str:
        return f"{fault.id}:{self.scenario.outage_calls}" if fault.lasts else fault.id

    # ── the search ──

    def run(self) -> Report:
        """Explore, and report."""
        self._began = runtime.REAL.monotonic()
        # Before `tidy`, which hides from the collector what it freezes.
        before = self.scenario.memory = Memory.of_policies()
        try:
            with sealed(self.scenario.seal), listening():
                self.scenario.memory = before.warmed(lambda: self.scenario.execute((), self.settings))
                with tidy() as collect:
                    self._collect = collect
                    self._search()
        finally:
            before.put_back()
            self.scenario.memory = None
        self.report.seconds = runtime.REAL.monotonic() - self._began
        self.report.finish()
        return self.report

    def _search(self) -> None:
        try:
            self._search_once()
        except _TimeDecidesError as found:
            # Known after the first executions, as a rule. `watch` is off now, so it is known once.
            self._timed, self._watch = True, False
            self._seen.clear()
            self._cuts.clear()
            self.report = Report(self.scenario.name, depth=self.depth, settings=self.settings)
            self.report.clock = found.where
            self._search_once()

    def _search_once(self) -> None:
        scenario, report = self.scenario, self.report
        scenario.baseline = None
        base = self._with_keys(())
        if not base.points and scenario.service_points is None:
            scenario.service_points = True
            base = self._with_keys(())
        scenario.baseline = base
        again = scenario.execute((), self.settings)
        if self._forks is None:
            self._forks = can_fork() and len(base.points) >= PAYS_POINTS
        report.take_baseline(base, again)
        if base.violations or again.digest() != base.digest():
            if base.violations:
                self._tell(base)
            return
        for plan, settings in self.first if self.share[0] == 0 else ():
            if self._may_go_on() and not scenario.execute(plan, settings).unfired:
                self._try(plan, settings)
        self._schedules()
        parents = singles = self._one_level([base], 1) if self.depth else []
        for depth in range(2, self.depth + 1):
            parents = self._one_level(self._again(parents), depth)
        report.exhausted = report.stopped == ""
        self._schedules_under(singles)
        self._orders()
        if self.swarm and not report.stopped:
            self._swarm()

    def _again(self, plans: list[Plan]) -> Iterator[Execution]:
        """Parents are executed once more to learn their points; keeping all of them would need memory without bound."""
        for plan in plans:
            yield self._with_keys(plan)

    def _with_keys(self, plan: Plan) -> Execution:
        return self._noticed(self.scenario.execute(plan, self.settings, keys=bool(self.reduce), watch=self._watch, timed=self._timed))

    def _noticed(self, run: Execution) -> Execution:
        """Did anybody decide by time, of whom it was not known?"""
        if run.clock and self._watch:
            if self.share[1] == 1:
                raise _TimeDecidesError(run.clock)
            # The other jobs count their plans as if nobody did; `explore` has tried all single faults before.
            self._watch = False
            self.report.stopped = f"as time decides here, found late ({run.clock}): explore with timed=True, or in one job"
        return run

    def _one_level(self, parents: Iterator[Execution] | list[Execution], depth: int) -> list[Plan]:
        kept: list[Plan] = []
        last = depth == self.depth
        self._number = 0
        for parent in parents:
            children = self._mine(parent, depth)
            if last and self._forks and not parent.on_files:
                kept += self._branch(parent, list(children))
            else:
                kept += self._begin_each(parent, children, depth)
            if self.report.stopped:
                return kept
            self._keep_so_far()
        self.report.depths_done = depth
        return kept

    def _keep_so_far(self) -> None:
        """Between two parents everything that was dealt with is in the report."""
        now = runtime.REAL.monotonic()
        if self._keep is not None and self.report.resume_at > self.skip and now - max(self._began, self._kept_at) >= KEEP_EVERY_S:
            self._kept_at, self.report.seconds = now, now - self._began
            self._keep(self.report)

    def _mine(self, parent: Execution, depth: int) -> Iterator[Planned]:
        """The children that this job executes: of the second depth its share, of the first one all, to know what comes after them."""
        part, parts = self.share
        for planned in self._children(parent, Tier.WIDE if depth == 1 else Tier.CORE):
            self._number += 1
            if depth != self._split or self._number % parts == part:
                yield planned

    @property
    def _split(self) -> int:
        """The depth at which jobs share the work."""
        return max(1, min(2, self.depth))

    def _begin_each(self, parent: Execution, children: Iterator[Planned], depth: int) -> list[Plan]:
        """Execute each child from its beginning. Returns the plans that can be extended."""
        kept: list[Plan] = []
        last = depth == self.depth
        for planned in children:
            if not self._may_go_on():
                break
            done = self._is_done_already()
            if done and last:
                continue
            # What every job executes for itself only the first one reports.
            run = self._try((*parent.plan, planned), told=not done and (depth >= self._split or self.share[0] == 0))
            if not (run.violations or run.unfired or run.void or (last and not self._is_scheduled(run))):
                kept.append(run.plan)
        return kept

    def _is_scheduled(self, run: Execution) -> bool:
        """Are the orders of its requests to be gone through?"""
        return self.schedules > 0 and len(run.plan) == 1

    def _branch(self, parent: Execution, children: list[Planned]) -> list[Plan]:
        """Execute each child from its own fault on; what comes before is gone through once."""
        while children and self.report.resume_at < self.skip:
            self._is_done_already()
            children.pop(0)
        if not children or not self._may_go_on():
            return []

        def go_on() -> bool:
            if self._may_go_on(branches.told):
                self._is_done_already()
                return True
            return False

        branches = Branches(parent.plan, children, settings=self.settings, go_on=go_on)
        branches.execute(lambda entered: self.scenario.execute(parent.plan, self.settings, watch=self._watch, branches=entered))
        for run in branches.told:
            self._take(self._noticed(run), told=True)
        return [run.plan for run in branches.told if self._is_scheduled(run) and not (run.violations or run.unfired or run.void)]

    def _is_done_already(self) -> bool:
        """Count one more plan as dealt with. Was it, by the exploration that this one goes on with?"""
        self.report.resume_at += 1
        return self.report.resume_at <= self.skip

    def _children(self, parent: Execution, tier: Tier) -> Iterator[Planned]:
        points, digests = parent.points, parent.digests
        contended = _contended(points)
        by_kind = self._by_kind[tier]
        for index in range(parent.fired + 1, len(points)):
            point = points[index]
            if digests and "history" in self.reduce:
                key = digests[index].state
                if key in self._seen:
                    self._leave_out("history", sum(len(by_kind[each.kind]) for each in points[index:]))
                    return
                self._seen.add(key)
            if not point.free or point.fault:
                continue
            for fault in by_kind[point.kind]:
                if fault.startswith("crash.") and (not point.process or self._same_cut(parent, index, fault)):
                    continue
                if fault == "call.delay" and index not in contended:
                    continue
                if is_own(fault) and fault not in parent.offers.get(index, (fault,)):
                    self._leave_out(NOTHING_THERE, 1)
                    continue
                yield Planned(point.site, point.nth, fault)

    def _same_cut(self, parent: Execution, index: int, fault: str) -> bool:
        """Has power been cut in the same durable state before?"""
        if "crash" not in self.reduce or not parent.digests:
            return False
        digests = parent.digests
        if fault != _CRASH_BEFORE:
            # After the effect is before the next point, unless something else is under way meanwhile, or somebody else comes first.
            index += 1
            if (index >= len(digests) or digests[index].busy or digests[index - 1].busy
                    or parent.points[index].process != parent.points[index - 1].process):
                return False
        key = digests[index].left
        if key in self._cuts:
            self._leave_out("crash", 1)
            return True
        self._cuts.add(key)
        return False

    def _leave_out(self, rule: str, plans: int) -> None:
        """Count them once: not again by each job, nor by an exploration that goes on with another."""
        if self.share[0] == 0 and self.report.resume_at >= self.skip:
            self.report.pruned[rule] += plans

    def _may_go_on(self, ahead: Sequence[Execution] = ()) -> bool:
        """Is there time and room for one more? ahead: executions that are not in the report yet."""
        report = self.report
        if self.most is not None and report.executions + sum(not run.void for run in ahead) >= self.most:
            report.stopped = f"after {self.most} executions"
        elif self.most_broken is not None and (found := report.found + sum(bool(run.violations) for run in ahead)) >= self.most_broken:
            report.stopped = f"after {found} broken executions"
        elif self._budget_s is not None and runtime.REAL.monotonic() - self._began > self._budget_s:
            report.stopped = f"after {self._budget_s:g} s"
        self._asked += 1
        if self._progress is not None and self._asked % 64 == 0:
            report.seconds = runtime.REAL.monotonic() - self._began
            self._progress(report)
        return not report.stopped

    def _try(self, plan: Plan, settings: Settings | None = None, *, told: bool = True) -> Execution:
        run = self._noticed(self.scenario.execute(plan, settings or self.settings, watch=self._watch))
        self._collect()
        return self._take(run, told=told)

    def _take(self, run: Execution, *, told: bool) -> Execution:
        if run.void:
            self.report.pruned[NOTHING_THERE] += told
        elif told:
            self.report.take(run)
            if run.violations:
                self._tell(run)
        return run

    # ── orders of what is under way together ──

    def _schedules(self) -> None:
        """Every order that can matter, or as many as were asked for."""
        self.report.schedules_done = self.schedules > 0 and (self.share[0] > 0 or self._orders_of(()))

    def _schedules_under(self, singles: Sequence[Plan]) -> None:
        """The same for each single fault, while there is room: first the orders of the first one."""
        part, parts = self.share
        for number, plan in enumerate(singles if self.report.schedules_done else ()):
            if self._split != 1 and number % parts != part:
                continue  # another job's: here all of them know all single faults
            if self.report.stopped or not self._orders_of(plan):
                return
            self.report.faults_scheduled += 1

    def _orders_of(self, plan: Plan) -> bool:
        """Go through the orders of one plan. False: there are more than were asked for."""
        orders, report = Search(reduce=bool(self.reduce) and not self.scenario.always), self.report
        while orders.more():
            if report.schedules >= self.schedules or (plan and not self._may_go_on()):
                return False
            run = self.scenario.execute(plan, self.settings, search=orders)
            self._collect()
            if run.covered or run.unfired or run.void:
                report.pruned["schedule" if run.covered else "not reached in this order"] += 1
                continue
            run.settings = msgspec.structs.replace(self.settings, schedule=orders.number)
            report.schedules += 1
            report.take(run)
            if run.violations:
                self._tell(run)
        return True

    def _orders(self) -> None:
        """Every single fault again, in other orders of what is due together. They are drawn, so nothing is claimed of the rest."""
        part, parts = self.share
        for number in range(self.orders):
            if number % parts != part or not self._may_go_on():
                continue
            settings = msgspec.structs.replace(self.settings, order=self.settings.order * 1_000_003 + number + 1)
            base = self._try((), settings)
            for planned in self._children(base, Tier.WIDE) if self.depth and not base.violations else ():
                if not self._may_go_on():
                    return
                self._try((planned,), settings)
            self.report.orders += 1

    # ── beyond the depth: seeded swarms ──

    def _swarm(self) -> None:
        """Draw executions with more faults than are explored exhaustively, and with other orders of what falls due together."""
        rng = Random(self.settings.seed * 1_000_003 + self.share[0])
        by_kind = self._by_kind[Tier.WIDE]
        for _ in range(self.swarm // self.share[1]):
            if not self._may_go_on():
                return
            settings = Settings(self.settings.seed, rng.randrange(1, 1 << 30))
            run = self.scenario.execute((), settings)
            for _ in range(rng.randint(self.depth + 1, self.depth + 4)):
                planned = self._drawn(run, rng, by_kind)
                if planned is None:
                    break
                run = self._try((*run.plan, planned), settings)
                if run.violations or run.unfired or run.void:
                    break
            self.report.swarm += 1

    def _drawn(self, run: Execution, rng: Random, by_kind: dict[At, tuple[str, ...]]) -> Planned | None:
        free = [point for point in run.points[run.fired + 1:] if point.free and not point.fault and by_kind[point.kind]]
        if not free:
            return None
        point = rng.choice(free)
        fault = rng.choice(by_kind[point.kind])
        return None if fault.startswith("crash.") and not point.process else Planned(point.site, point.nth, fault)

    def _tell(self, run: Execution) -> None:
        report = self.report
        if not report.is_new(run) or len(report.stories) >= MOST_STORIES:
            return
        small = shrink(self.scenario, run)
        report.add_story(self.scenario.execute(small.plan, small.settings, story=True))
