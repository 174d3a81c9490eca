"""The two functions that most people need: explore a scenario, and replay one execution of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from yaoki.errors import ConfigError
from yaoki.explore.outcome import Execution
from yaoki.explore.plan import Settings, parse
from yaoki.explore.report import Report
from yaoki.explore.scenarios import Scenario
from yaoki.explore.seal import sealed
from yaoki.explore.search import Explorer
from yaoki.explore.story import Story


def explore(target: Any, *, faults: int = 1, budget: float | None = None, seed: int = 0, order: int = 0,
            kinds: Sequence[str] | None = None, most: int | None = None, reduce: bool = True,
            progress: Callable[[Report], object] | None = None, **settings: Any) -> Report:
    """Run `target` under every fault at every point, and report.

    Args:
        target: a `Scenario`, a function to make one of, or a saga (then `input=` says with what).
        faults: the most faults in one execution: 1 every fault, 2 every pair, ...
        budget: real seconds after which it stops; None: when all is done.
        seed: of randomness and ids inside. order: of what falls due together; 0: as it was set.
        kinds: faults to try, by id, family or prefix.
        most: executions after which it stops.
        reduce: leave out what another execution covers.
        progress: called now and then with the report so far.
        settings: of the scenario, when `target` is not one yet.

    Raises:
        ConfigError: a target that cannot be explored, or an unknown fault.
    """
    if faults < 0:
        raise ConfigError(f"faults is a number of faults, at least 0, not {faults!r}", do="faults=2 explores every pair")
    return Explorer(as_scenario(target, **settings), depth=faults, budget_s=budget, most=most, kinds=kinds,
                    settings=Settings(seed, order), progress=progress,
                    reduce=frozenset({"crash", "history"}) if reduce else frozenset()).run()


def replay(target: Any, token: str, **settings: Any) -> tuple[Execution, Story]:
    """Run the one execution that a token names, with its timeline.

    Raises:
        ConfigError: the token cannot be read, or a fault of it is never reached: the code has changed since.
    """
    plan, given = parse(token)
    scenario = as_scenario(target, **settings)
    with sealed(scenario.seal):
        scenario.baseline = None
        scenario.baseline = scenario.execute((), given)
        run = scenario.execute(plan, given, story=True)
    if run.unfired:
        raise ConfigError(f"the plan does not apply any more: {', '.join(run.unfired)} is never reached",
                          do="explore again; the code has changed since the token was printed")
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
