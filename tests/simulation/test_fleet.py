"""Workers that share a journal: queues with limits, pauses, and a worker that starts again while it claims, under deaths of both kinds."""

from __future__ import annotations

import asyncio

import pytest

from simulation import fleet
from yaoki.explore import explore
from yaoki.explore.shared_queues import QueuedPlatter
from yaoki.saga.engine.engine import Engine
from yaoki.saga.engine.floor import Floor
from yaoki.saga.engine.gates import Gates


def test_a_queue_with_one_place_gives_it_to_one_run_at_a_time_whoever_dies():
    report = explore(fleet.queued(), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert any("claim-limited" in site for site in report.matrix)


@pytest.mark.parametrize("what", ["saga", "queue", "run"])
def test_what_is_paused_begins_nothing_and_goes_on_when_it_is_resumed_whoever_dies(what):
    report = explore(fleet.paused(what), faults=1, kinds=["crash"])
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert {"journal.pause", "journal.resume"} <= set(report.matrix)


def test_a_worker_that_starts_again_while_it_claims_leaves_no_run_that_nobody_drives():
    report = explore(fleet.reborn(), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


@pytest.mark.long
@pytest.mark.parametrize("make", [fleet.queued, lambda: fleet.queued(places=2, runs=4), fleet.paused, lambda: fleet.paused("queue"), lambda: fleet.paused("run"),
                                  fleet.reborn], ids=["queued", "two places", "saga", "queue", "run", "reborn"])
def test_pairs_of_deaths(make):
    report = explore(make(), faults=2, budget=600.0)
    assert report.ok, report.text(matrix=False)


# ── the safeguards, switched off ──


def without_the_nets(monkeypatch):
    """What would give a run back that nobody drives, sooner or later: off, so that only what keeps it from happening is left."""

    async def nothing(floor):
        """Nobody looks for orphans."""

    monkeypatch.setattr(Floor, "give_back", lambda floor, taken: None)
    monkeypatch.setattr(Floor, "give_back_orphans", nothing)


def without_the_lock(monkeypatch):
    """A worker starts again whatever it is claiming."""
    start_again = Engine._start_again

    async def at_once(engine):
        taking, engine.requests.taking = engine.requests.taking, asyncio.Lock()
        try:
            await start_again(engine)
        finally:
            engine.requests.taking = taking

    monkeypatch.setattr(Engine, "_start_again", at_once)


def test_the_lock_alone_keeps_a_claim_from_spanning_two_lives(monkeypatch):
    without_the_nets(monkeypatch)
    assert explore(fleet.reborn(), faults=1).ok


def test_without_the_lock_a_run_is_claimed_in_the_name_of_a_life_that_does_not_drive_it(monkeypatch):
    without_the_nets(monkeypatch)
    without_the_lock(monkeypatch)
    report = explore(fleet.reborn(), faults=1, most_broken=1)
    assert ("every_run_ends",) in report.signatures, report.text(matrix=False)
    assert "proc.pause" in report.stories[0].token


def test_a_limit_that_each_worker_keeps_for_itself_is_found(monkeypatch):
    """It takes a second worker that claims, so one of the two has to stand still or die for a moment."""
    standing = QueuedPlatter.standing
    monkeypatch.setattr(QueuedPlatter, "standing", lambda platter: {no: place for no, place in standing(platter).items() if place[1] == 1})
    report = explore(fleet.queued(), faults=1, most_broken=1)
    assert any("no_more_than_places" in signature for signature in report.signatures), report.text(matrix=False)


def test_a_pause_that_nobody_hears_of_is_found(monkeypatch):
    monkeypatch.setattr(Gates, "is_held", lambda gates, run_id, saga, queue: False)
    report = explore(fleet.paused("run"), faults=1, kinds=["crash"], most_broken=1)
    assert any("nothing_begins_while_paused" in signature for signature in report.signatures), report.text(matrix=False)
