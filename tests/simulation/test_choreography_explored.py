"""The travel agency with nobody in charge, as it is shipped, under every fault of messages and of the processes that carry them."""

from __future__ import annotations

import httpx  # noqa: F401  the client must be imported before the universe is closed
import pytest

from yaoki.examples.travel.catalogue import Trip, trips
from yaoki.examples.travel.exploring_choreographed import scenario_of
from yaoki.explore import Explorer, explore
from yaoki.explore.report import Report

PARTS = 12
MESSAGES = ["msg", "crash.after_effect", "call.lost_ack"]
BOOKED = next(trips(1))
DECLINED = next(trip for trip in trips(100) if trip.card == "tok_declined")


def sampled(trip: Trip, part: int, parts: int, faults: int = 1) -> Report:
    """Every `parts`-th plan: an execution is five services, a broker and three hundred points."""
    return Explorer(scenario_of(trip), depth=faults, kinds=MESSAGES, share=(part, parts)).run()


@pytest.mark.parametrize(("trip", "end"), [(BOOKED, "completed"), (DECLINED, "undone")], ids=["booked", "declined"])
def test_some_message_faults_leave_the_trip_booked_or_undone_and_the_front_desk_told(trip, end):
    report = sampled(trip, 1, 100)
    assert report.ok, report.text(matrix=False)
    assert report.baseline == f"returns {end!r}"
    assert report.executions > 2


@pytest.mark.long
@pytest.mark.parametrize("trip", [BOOKED, DECLINED], ids=["booked", "declined"])
def test_every_single_message_fault(trip):
    report = explore(scenario_of(trip), faults=1, kinds=MESSAGES)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


def test_drawn_sets_of_message_faults_in_drawn_orders():
    """What every commit can afford of the pairs and what is beyond them."""
    report = explore(scenario_of(BOOKED), faults=0, kinds=MESSAGES, swarm=2, seed=11)
    assert report.ok, report.text(matrix=False)
    assert max(report.by_depth) >= 2


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_every_pair_of_message_faults(part):
    """A twelfth each, so that it can be had night by night; each is a sample of all."""
    report = explore(scenario_of(BOOKED), faults=2, kinds=MESSAGES, part=(part, PARTS))
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
