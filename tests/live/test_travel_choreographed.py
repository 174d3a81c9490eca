"""The travel agency with nobody in charge: the same trips, faults and audit; desks, front desk and broker are killed."""

from __future__ import annotations

import json

import pytest

from yaoki.examples.travel.demo import OK, run

pytestmark = pytest.mark.live


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("trips", "kills", "broker"), [
    (20, 1, ""),
    pytest.param(20, 2, "nats", marks=pytest.mark.long),
    pytest.param(500, 20, "", marks=pytest.mark.long),
])
def test_every_trip_ends_booked_whole_or_undone_whole(capsys, tmp_path, trips, kills, broker):
    assert run(trips=trips, kills=kills, seed=3, json=True, folder=tmp_path / "agency", choreographed=True, broker=broker,
               limit=500) == OK
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["completed"] + told["undone"] == trips
    assert told["faults_injected"] > told["message_faults"] > 0
    assert told["participant_kills"] + told["broker_kills"] == kills
    assert "orchestrator_kills" not in told
