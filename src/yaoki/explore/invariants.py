"""What must hold after every execution, whoever wrote the program. Each check says what is wrong, or "".

The names are those of reports: `all_or_nothing`, `no_double_effect` (the fake service says so at once), ...
An effect is what a participant holds for a subject; without faults, a program has the effects that its author wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yaoki.errors import InDoubtError
from yaoki.explore.loop import EscapeError

if TYPE_CHECKING:
    from yaoki.explore.outcome import Execution
    from yaoki.explore.scenarios import Scenario
    from yaoki.explore.world import World


def every_run_ends(world: World, scenario: Scenario, run: Execution) -> str:
    """Every saga's run is completed, undone or cancelled; blocked only where the scenario allows it."""
    del world
    for name, state in run.runs.items():
        if state in {"running", "undoing"}:
            return f"run {name} is still {state} when the program has ended"
        if state == "blocked" and not scenario.blocked_ok:
            return f"run {name} is blocked and waits for a person, after nothing worse than {_plan(run)}"
    return ""


def all_or_nothing(world: World, scenario: Scenario, run: Execution) -> str:
    """A completed run has every effect, an undone one none; so has an answer, where the scenario is atomic."""
    del world
    if run.runs:
        return _runs_all_or_nothing(scenario, run)
    if scenario.atomic and run.error is not None and not isinstance(run.error, InDoubtError) and run.effects:
        return f"the caller is told that it failed ({run.answer}), but {_effects(run.effects)} stands"
    return ""


def _runs_all_or_nothing(scenario: Scenario, run: Execution) -> str:
    for name, state in run.runs.items():
        mine = {key: net for key, net in run.effects.items() if key[1].startswith(f"{name}/")}
        if state in {"undone", "cancelled"} and mine:
            return f"run {name} is {state}, but {_effects(mine)} stands"
        if state == "completed" and scenario.baseline is not None and scenario.baseline.runs.get(name) == "completed":
            wanted = {key: net for key, net in scenario.baseline.effects.items() if key[1].startswith(f"{name}/")}
            if mine != wanted:
                return f"run {name} is completed, with {_effects(mine) or 'no effect'} instead of {_effects(wanted)}"
    return ""


def answer_agrees(world: World, scenario: Scenario, run: Execution) -> str:
    """The caller's answer says what is so: the answer of the run without faults means its effects."""
    del world
    base = scenario.baseline
    if base is None or base.error is not None or run.runs or not scenario.same_answer:
        return ""
    if run.error is None and run.answer == base.answer and run.effects != base.effects:
        return f"the caller is told {run.answer[8:]!s}, as without faults, but {_difference(run.effects, base.effects)}"
    return ""


def bounded_retries(world: World, scenario: Scenario, run: Execution) -> str:
    """No site is visited more often than `most_per_site`."""
    del run
    most = scenario.most_per_site
    if max(world.counts.values(), default=0) <= most:
        return ""
    for site, count in world.counts.items():
        if count > most:
            return f"{site} was called {count} times"
    return ""


def no_leak(world: World, scenario: Scenario, run: Execution) -> str:
    """Nothing runs on when everything has ended."""
    del scenario, run
    if left := world.leaks():
        return f"still running at the end: {'; '.join(left)}"
    for held in world.memory.bulkheads if world.memory is not None else ():
        if held.in_use:
            return f"{held.describe()} still holds {held.in_use} place(s), and nothing is under way"
    return ""


def no_lost_error(world: World, scenario: Scenario, run: Execution) -> str:
    """No task ended with an error that nobody saw."""
    del scenario, run
    for process in world.processes:
        if process is not world.main and process.error is not None:
            return f"process {process.name} ended with {process.error!r}"
    for failure in world.loop.failures:
        error = failure.get("exception")
        return f"{failure.get('message', 'an error nobody retrieved')}: {error!r}"
    return ""


def no_escape(world: World, scenario: Scenario, run: Execution) -> str:
    """Nothing reached for the real clock, network, threads or randomness."""
    del scenario
    if world.escapes:
        return world.escapes[0]
    return str(run.error) if isinstance(run.error, EscapeError) else ""


def history_well_formed(world: World, scenario: Scenario, run: Execution) -> str:
    """Each journal holds histories that a run can have."""
    del scenario, run
    for journal in world.journals:
        if said := str(journal.audit()):
            return said
    return ""


def _plan(run: Execution) -> str:
    return " and ".join(f"{each.fault} at {each.site}" for each in run.plan) or "nothing at all"


def _effects(effects: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{service} for {subject}" + (f" ({net} times)" if net != 1 else "") for (service, subject), net in sorted(effects.items()))


def _difference(found: dict[tuple[str, str], int], wanted: dict[tuple[str, str], int]) -> str:
    missing = {key: net for key, net in wanted.items() if found.get(key, 0) < net}
    extra = {key: net for key, net in found.items() if wanted.get(key, 0) < net}
    said = [f"{_effects(missing)} is missing"] if missing else []
    return " and ".join([*said, *([f"{_effects(extra)} stands besides"] if extra else [])])


CHECKS = (no_escape, every_run_ends, all_or_nothing, answer_agrees, bounded_retries, no_lost_error, no_leak, history_well_formed)
