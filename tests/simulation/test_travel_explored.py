"""The travel agency as it is shipped: its saga, its desks with httpx, its four services on SQLite, under every fault."""

from __future__ import annotations

import httpx  # noqa: F401  the client must be imported before the universe is closed
import pytest

from yaoki.examples.travel.exploring import scenario
from yaoki.explore import explore

# What hurts most, for the pairs of every commit; `--long` runs all of them.
SHARP = ["call.lost_ack", "crash.after_effect", "crash.after_checkpoint", "dep.outage:call.timeout:none"]


def test_every_single_fault_leaves_the_trip_booked_or_undone():
    report = explore(scenario(), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert report.outcomes["completed"] > 50
    assert report.outcomes["undone"] > 5


def test_the_sharpest_pairs():
    report = explore(scenario(), faults=2, kinds=SHARP, most=120)
    assert report.ok, report.text(matrix=False)


@pytest.mark.long
def test_every_pair():
    report = explore(scenario(), faults=2)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
