"""The travel agency with nobody in charge, as it is shipped, under every fault of messages and of the processes that carry them."""

from __future__ import annotations

import httpx  # noqa: F401  the client must be imported before the universe is closed
import pytest

from yaoki.examples.travel import exploring_choreographed
from yaoki.examples.travel.catalogue import Trip, trips
from yaoki.examples.travel.exploring_choreographed import scenario_of
from yaoki.explore import Explorer, explore, replay
from yaoki.explore.report import Report
from yaoki.messages.relay import Relay

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


def test_a_desk_that_takes_a_refused_publish_for_sent_is_found(monkeypatch):
    """One line of the relay broken: the trip waits for a word that was never sent, and only the monitor's nudges could help it."""
    monkeypatch.setattr(Relay, "_begin_again", lambda relay: [relay.lanes._parts[part].__setattr__("read_to", held.read_to)
                                                              for part, held in relay.lanes._parts.items()])
    monkeypatch.setattr(exploring_choreographed, "PATIENCE_S", 30.0)
    execution, _ = replay(scenario_of(BOOKED), "yk1:broker.publish:saga.book-trip@0=msg.restart")
    assert execution.violations


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
@pytest.mark.parametrize("part", range(1, 3))
def test_every_pair_of_message_faults(part):
    """A half each, so that it can be had night by night; each is a sample of all."""
    report = explore(scenario_of(BOOKED), faults=2, kinds=["msg"], part=(part, 2))
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_every_pair_of_them_with_power_cuts_and_lost_answers(part):
    """Three times as many."""
    report = explore(scenario_of(BOOKED), faults=2, kinds=MESSAGES, part=(part, PARTS))
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
