"""Locks, tokens, heartbeats and schedules under every single fault; the pairs with `--long`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulation.outside import external, late, locked, scheduled, silent
from yaoki.explore import Scenario, explore

SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "external": external, "external, silent once": lambda: external(silent=True), "locked": locked, "scheduled": scheduled, "silent": silent,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_single_fault(name: str):
    report = explore(SCENARIOS[name](), faults=1)
    assert report.ok, report.text(matrix=False)


def test_what_is_done_outside_too_late_is_taken_back_by_somebody_whenever_it_comes():
    seen: set[str] = set()
    for at_s in (9.999, 10.25, 12.0):
        report = explore(late(at_s, seen), faults=1)
        assert report.ok, report.text(matrix=False)
    assert seen == {"in time", "taken back by the run", "taken back outside"}, "each was to be seen"


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_pair_of_faults(name: str):
    report = explore(SCENARIOS[name](), faults=2, most=3000)
    assert report.ok, report.text(matrix=False)


def test_without_the_lock_two_runs_meet():
    report = explore(locked(broken=True), faults=1, most=50)
    assert report.found
