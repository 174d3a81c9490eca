"""What was found and mended before: each line of the corpus runs first, stays mended, and would be found again at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simulation import compound, fleet, sagas, test_schedules, test_workers
from simulation.test_compound import ALL
from simulation.test_fleet import without_the_lock, without_the_nets
from yaoki.explore import Scenario, explore
from yaoki.explore.corpus import add, entries
from yaoki.explore.plan import token

CORPUS = Path(__file__).parent / "corpus.txt"

MAKERS: list[Callable[[], Scenario]] = [*sagas.ALL.values(), *ALL.values(), fleet.queued, fleet.paused, lambda: fleet.paused("queue"),
                                        lambda: fleet.paused("run"), fleet.reborn, test_workers.two_workers, compound.child]
KEPT = [(name, plan, settings) for name, plan, settings in entries(CORPUS)]


@pytest.mark.parametrize(("name", "plan", "settings"), KEPT, ids=[f"{name} {token(plan, settings)}" for name, plan, settings in KEPT])
def test_what_was_found_before_stays_mended(name, plan, settings):
    made = [scenario for make in MAKERS if (scenario := make()).name == name]
    assert made, f"the corpus keeps an execution of {name!r}, and there is no such scenario here"
    applied = 0
    for scenario in made:
        scenario.baseline = scenario.execute((), settings)
        run = scenario.execute(plan, settings, story=True)
        applied += not run.unfired
        assert not run.violations, f"{name}: {run.token}: {run.violations}"
    assert applied, f"{token(plan, settings)} of {name!r} is never reached any more: explore again, and replace the line"


def test_the_corpus_runs_first_and_finds_at_once_what_took_long(monkeypatch):
    without_the_nets(monkeypatch)
    without_the_lock(monkeypatch)
    searched = explore(fleet.reborn(), faults=1, most_broken=1)
    at_once = explore(fleet.reborn(), faults=1, most_broken=1, corpus=CORPUS)
    assert searched.found
    assert at_once.found
    assert at_once.executions == 2 < searched.executions


def test_an_execution_in_another_order_is_kept_with_its_order(tmp_path):
    path = tmp_path / "corpus.txt"
    report = explore(test_schedules.two_timers(), faults=1, orders=8, corpus=path, most_broken=1)
    assert "order=" in path.read_text()
    again = explore(test_schedules.two_timers(), faults=1, orders=8, corpus=path, most_broken=1)
    assert again.executions == 2 < report.executions


def test_a_line_that_is_there_is_not_added_again(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS.read_text())
    assert add(path, "reborn", ["yk1:journal.claim-limited@0=proc.pause:sent"]) == 0
