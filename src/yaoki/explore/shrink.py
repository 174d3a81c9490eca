"""The smallest story that still breaks the same invariant: fewest faults, then earliest, then the simplest kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from yaoki.chaos import faults
from yaoki.explore.plan import Plan, Planned

if TYPE_CHECKING:
    from yaoki.explore.outcome import Execution
    from yaoki.explore.scenarios import Scenario

# Executions spent on one counterexample: shrinking must not cost more than finding.
MOST_TRIES = 400
# ... of one that hangs: to be sure that an execution hangs takes a hundred times as long as to see one end.
MOST_TRIES_HANGING = 25
_RANK = {fault.id: number for number, fault in enumerate(faults.CATALOGUE)}


def shrink(scenario: Scenario, run: Execution) -> Execution:
    """A smaller execution that breaks the same invariants (or some of them), or `run` itself."""
    wanted = set(run.signature)
    tries, most = 0, MOST_TRIES_HANGING if run.stuck else MOST_TRIES
    best = run
    improved = True
    while improved and tries < most:
        improved = False
        for plan in _smaller(best):
            tries += 1
            if tries > most:
                break
            attempt = scenario.execute(plan, best.settings)
            if not attempt.unfired and not attempt.void and wanted & set(attempt.signature):
                best, improved = attempt, True
                break
    return best


def _smaller(run: Execution) -> Iterator[Plan]:
    plan = run.plan
    if len(plan) > 1:
        for index in range(len(plan)):
            rest = (*plan[:index], *plan[index + 1:])
            yield rest
            # Without a fault there is no retry after it, so what came later at this site comes one visit earlier.
            gone = plan[index]
            yield tuple(Planned(each.site, each.nth - 1, each.fault) if each.site == gone.site and each.nth > gone.nth else each for each in rest)
    for index, planned in enumerate(plan):
        for simpler in _simpler(planned):
            smaller = (*plan[:index], simpler, *plan[index + 1:])
            if len({(each.site, each.nth) for each in smaller}) == len(smaller):
                yield smaller


def _simpler(planned: Planned) -> Iterator[Planned]:
    """The same fault at an earlier visit; then an outage of fewer calls."""
    for nth in range(planned.nth):
        yield Planned(planned.site, nth, planned.fault)
    fault = faults.find(planned.fault)
    if fault.lasts:
        count = planned.fault.removeprefix(fault.id).removeprefix(":")
        if fault.id.startswith(faults.OUTAGE):
            yield Planned(planned.site, planned.nth, fault.id.removeprefix(faults.OUTAGE))
        if count.isdigit() and int(count) > 1:
            for fewer in dict.fromkeys((int(count) // 4, int(count) // 2, int(count) - 1)):
                if fewer:
                    yield Planned(planned.site, planned.nth, f"{fault.id}:{fewer}")
