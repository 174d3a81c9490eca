"""The two functions that most people need: explore a scenario, and replay one execution of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yaoki.errors import ConfigError
from yaoki.explore.corpus import add as keep
from yaoki.explore.corpus import load as kept_plans
from yaoki.explore.jobs import explore_in_jobs
from yaoki.explore.memory import Memory
from yaoki.explore.outcome import Execution
from yaoki.explore.plan import Settings, parse
from yaoki.explore.progress import load_progress, save_progress
from yaoki.explore.report import Report
from yaoki.explore.scenarios import Scenario
from yaoki.explore.seal import sealed
from yaoki.explore.search import Explorer
from yaoki.explore.service_points import listening
from yaoki.explore.story import Story


def explore(target: Any, *, faults: int = 1, budget: float | None = None, seed: int = 0, order: int = 0,
            kinds: Sequence[str] | None = None, most: int | None = None, most_broken: int | None = None, reduce: bool = True, jobs: int = 1, swarm: int = 0, schedules: int = 0,
            orders: int = 0, part: tuple[int, int] = (1, 1), corpus: Path | str | None = None, resume: Path | str | None = None, progress: Callable[[Report], object] | None = None, **settings: Any) -> Report:
    """Run `target` under every fault at every point, and report.

    Args:
        target: a `Scenario`, a function to make one of, or a saga (then `input=` says with what).
        faults: the most faults in one execution: 1 every fault, 2 every pair, ...
        budget: real seconds after which it stops; None: when all is done.
        seed: of randomness and ids inside. order: of what falls due together; 0: as it was set.
        kinds: faults to try, by id, family or prefix.
        most: executions after which it stops; most_broken: those that break an invariant, likewise.
        reduce: leave out what another execution covers.
        jobs: processes that share the work.
        part: `(i, n)`: only the i-th of n parts of it, counted from 1, for several machines or nights: every n-th pair of faults, and what comes of it.
        schedules: execute also other orders in which requests under way together arrive: all that can matter, but at most so many;
            if that leaves some, those under each single fault.
        orders: seeded orders of what is due together, in each of which every single fault is tried again.
        swarm: executions to draw at random beyond `faults`, with random orders.
        corpus: a file of counterexamples: they are run first, and what is found is added.
        resume: a file that keeps, every minute, how far an exploration came; it goes on from there if it was stopped, or killed. For one job.
        progress: called now and then with the report so far (of the first job).
        settings: of the scenario, when `target` is not one yet.

    Raises:
        ConfigError: a target that cannot be explored, or an unknown fault.
    """
    if faults < 0:
        raise ConfigError(f"faults is a number of faults, at least 0, not {faults!r}", do="faults=2 explores every pair")
    if jobs < 1:
        raise ConfigError(f"jobs is a number of processes, at least 1, not {jobs!r}", do="leave it out for one")
    if not 1 <= part[0] <= part[1]:
        raise ConfigError(f"part is (i, n), the i-th of n parts counted from 1, not {part!r}", do="(1, 1) is all of it")
    scenario = as_scenario(target, **settings)
    kept = Path(corpus) if corpus is not None else None
    first = kept_plans(kept, scenario.name) if kept is not None else []

    told = f"{scenario.name} faults={faults} kinds={kinds} seed={seed} order={order} reduce={reduce}" + (f" part={part}" if part[1] > 1 else "")
    earlier = load_progress(Path(resume), told) if resume is not None else None
    if resume is not None and jobs != 1:
        raise ConfigError("an exploration that can be resumed runs in one job", do="leave out jobs, or resume")

    clock = earlier.clock if earlier is not None else ""
    if max(jobs, part[1]) > 1 and reduce and scenario.timed is None:  # all jobs must agree what a state is, so it is found out before
        clock = Explorer(scenario, depth=min(faults, 1), kinds=kinds, settings=Settings(seed, order)).run().clock

    def keep_so_far(report: Report) -> None:
        assert resume is not None
        together = Report.from_dict(report.to_dict())
        if earlier is not None:
            together.merge(earlier)
        save_progress(Path(resume), told, together)

    def share(job: tuple[int, int]) -> Report:
        return Explorer(scenario, depth=faults, clock=clock, budget_s=budget, most=most, most_broken=most_broken, kinds=kinds, settings=Settings(seed, order),
                        progress=progress if job[0] == 0 else None, keep=keep_so_far if resume is not None else None,
                        share=((part[0] - 1) * jobs + job[0], part[1] * jobs), first=first, swarm=swarm, schedules=schedules, orders=orders, skip=earlier.resume_at if earlier else 0,
                        reduce=frozenset({"crash", "history"}) if reduce else frozenset()).run()

    report = share((0, 1)) if jobs == 1 else explore_in_jobs(share, jobs)
    report.part = f"{part[0]}/{part[1]}" if part[1] > 1 else ""
    if earlier is not None:
        report.merge(earlier)
        report.finish()
    if resume is not None:
        save_progress(Path(resume), told, report)
    if kept is not None and report.stories:
        keep(kept, scenario.name, [story.token for story in report.stories])
    return report


def audit_reduction(target: Any, *, faults: int = 2, most: int | None = None, **settings: Any) -> tuple[set[tuple[str, ...]], Report, Report]:
    """Explore with and without reductions, and compare which sets of invariants break.

    Returns: the signatures that the reduced search lost (none, if they are sound here), and both reports.
    """
    scenario = as_scenario(target, **settings)
    reduced = explore(scenario, faults=faults, most=most)
    full = explore(scenario, faults=faults, most=most, reduce=False)
    return set(full.signatures) - set(reduced.signatures), reduced, full


def replay(target: Any, token: str, **settings: Any) -> tuple[Execution, Story]:
    """Run the one execution that a token names, with its timeline.

    Raises:
        ConfigError: the token cannot be read, or a fault of it is never reached: the code has changed since.
    """
    plan, given = parse(token)
    scenario = as_scenario(target, **settings)
    scenario.memory = Memory.of_policies()
    try:
        with sealed(scenario.seal), listening():
            scenario.baseline = None
            scenario.baseline = scenario.execute((), given)
            if not scenario.baseline.points and scenario.service_points is None:
                scenario.service_points = True
                scenario.baseline = scenario.execute((), given)
            run = scenario.execute(plan, given, story=True)
    finally:
        scenario.memory.put_back()
        scenario.memory = None
    if run.unfired:
        raise ConfigError(f"the plan does not apply any more: {', '.join(run.unfired)} is never reached",
                          do="explore again; the code has changed since the token was printed")
    if run.void:
        raise ConfigError(f"the plan does nothing: {run.void}", do="plan a fault that can strike there: `yk explore` tells which")
    return run, Story.of(run)


def as_scenario(target: Any, **settings: Any) -> Scenario:
    """A scenario of whatever can be made one."""
    if isinstance(target, Scenario):
        return target
    if hasattr(target, "graph") and hasattr(target, "steps"):
        from yaoki.explore.sagas import saga_scenario  # noqa: PLC0415  plain code needs no sagas

        return saga_scenario(target, **settings)
    if callable(target):
        return Scenario(target, **settings)
    raise ConfigError(f"{target!r} cannot be explored", do="give a scenario, a function or a saga")
