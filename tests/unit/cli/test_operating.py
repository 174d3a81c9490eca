"""`yk pause`, `resume`, `queues`, `operations`, `runs cancel` by filter, `runs fork`, and `run --detach`: beside an engine, and without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import yaoki
from yaoki import Saga
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.cli.runs import asking
from yaoki.saga.queue import Queue

PROGRAM = """
from yaoki import Saga
from yaoki.saga.queue import Queue

mail = Queue("mail", concurrency=2)
trip = Saga("trip", input=dict, attributes=lambda order: {"customer": order["customer"]})

@trip.step
async def hotel(order: dict) -> str:
    return "h"

@hotel.undo
async def no_hotel(order: dict, hotel: str | None) -> None: ...

@trip.step(undo=None)
async def ticket(order: dict, hotel: str) -> str:
    if order["customer"] == "bug":
        raise KeyError("price")
    return hotel + "t"
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres").new_database())
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def yk(db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("YAOKI_DB", db)
    monkeypatch.setattr(asking, "WAIT_S", 0.0)
    (tmp_path / "trips.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [{"id": f"t{n}", "customer": customer} for n, customer in enumerate(["ann", "bob", "bug", "bug"])]
    (tmp_path / "trips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def say(*words: str) -> Said:
        capsys.readouterr()
        code = run([*words])
        return Said(code, *capsys.readouterr())

    return say


def the_saga(db: str) -> Saga[Any]:
    import trips  # type: ignore[import-not-found]

    saga: Saga[Any] = trips.trip
    return saga


TWO_ARE_BLOCKED = {"completed": 2, "blocked": 2}


def drive(db: str, expected: dict[str, int]) -> None:
    """Work until so many runs are in each state, and nothing moves any more."""
    async def main() -> dict[str, int]:
        async with yaoki.open(db, sagas=[the_saga(db)]) as app:
            quiet, counts = 0, dict[str, int]()
            for _ in range(1200):
                counts = {str(state): n for state, n in (await app.journal.counts()).items()}
                moves = app.engine.in_memory or app.engine.intake.feeding or await app.journal.requests()
                quiet = 0 if moves or counts != expected else quiet + 1
                if quiet == 2:
                    break
                await asyncio.sleep(0.08)
            return counts

    assert asyncio.run(main()) == expected


def test_lines_are_started_in_bulk_and_left_to_who_works(yk: Callable[..., Said], db: str):
    said = yk("run", "trips:trip", "trips.jsonl", "--detach", "--queue", "mail", "--tenant", "acme", "--json")
    assert (said.code, said.json[0]["started"]) == (Exit.OK, 4)
    (queue,) = yk("queues", "list", "--json").json
    assert (queue["queue"], queue["waiting"], queue["under_way"], queue["concurrency"]) == ("mail", 4, 0, None)
    assert yk("run", "trips:trip", "trips.jsonl", "--detach", "--json").json[0]["started"] == 0, "an id is one run"
    drive(db, TWO_ARE_BLOCKED)
    assert yk("run", "trips:trip", "trips.jsonl", "--queue", "mail").code == Exit.USAGE


def test_runs_are_listed_by_attributes(yk: Callable[..., Said], db: str):
    yk("run", "trips:trip", "trips.jsonl", "--detach")
    found = yk("runs", "list", "--where", "customer=bug", "--json").json
    assert [(run["id"], run["attributes"]) for run in found] == [("t3", {"customer": "bug"}), ("t2", {"customer": "bug"})]
    assert yk("runs", "list", "--where", "customer", "--json").code == Exit.USAGE
    assert "not NAME=VALUE" in yk("runs", "list", "--where", "customer").err


def test_blocked_runs_are_cancelled_by_filter_after_a_look(yk: Callable[..., Said], db: str):
    yk("run", "trips:trip", "trips.jsonl", "--detach")
    drive(db, TWO_ARE_BLOCKED)
    words = ["runs", "cancel", "--saga", "trip", "--state", "blocked"]
    assert [line["run"] for line in yk(*words, "--dry-run", "--json").json] == ["t3", "t2"]
    assert yk(*words, "--older-than", "1h", "--dry-run", "--json").json == []
    assert yk(*words).code == Exit.REFUSED, "nobody is there to answer"
    assert yk(*words, "--limit", "1", "--yes", "--why", "not worth it", "--who", "ada").code == Exit.OK
    drive(db, {"completed": 2, "blocked": 1, "cancelled": 1})
    (line,) = yk("operations", "list", "--json").json
    assert (line["action"], line["name"], line["who"], line["why"]) == ("cancel", "t3", "ada", "not worth it")
    again = yk("runs", "retry", "--all", "--where", "customer=bug", "--dry-run", "--json").json
    assert [(line["run"], line["step"]) for line in again] == [("t2", "ticket")]
    assert yk("runs", "cancel").code == Exit.USAGE, "neither a run nor a filter"


def test_what_is_paused_is_shown_and_goes_on_when_it_is_resumed(yk: Callable[..., Said], db: str):
    yk("run", "trips:trip", "trips.jsonl", "--detach", "--queue", "mail")
    assert yk("pause", "queue", "mail", "--who", "ada", "--why", "the provider is down").out == "queue mail: paused\n"
    assert "paused already" in yk("pause", "queue", "mail").out
    assert yk("queues", "list", "--json").json[0]["paused"] is True
    drive(db, {"running": 4})
    assert yk("pause", "run", "t0", "--who", "ada").out == "run t0: paused\n"
    assert yk("resume", "queue", "mail").out == "queue mail: goes on\n"
    drive(db, {"running": 1, "completed": 1, "blocked": 2})
    said = yk("runs", "show", "t0")
    assert "paused" in said.out
    assert "by ada" in said.out
    yk("resume", "run", "t0")
    drive(db, TWO_ARE_BLOCKED)
    assert [line["action"] for line in yk("operations", "list", "--json").json] == ["resume", "resume", "pause", "pause"]


def test_limits_are_set_by_hand_and_kept_until_the_code_changes(yk: Callable[..., Said], db: str):
    yk("run", "trips:trip", "trips.jsonl", "--detach", "--queue", "mail")
    assert yk("queues", "set", "mail", "--concurrency", "1", "--rate", "120/m", "--who", "ada").out == "mail: 1 at once, 2/s\n"
    (queue,) = yk("queues", "list", "--json").json
    assert (queue["concurrency"], queue["rate"], queue["by_hand"]) == (1, 2.0, True)
    assert yk("queues", "set", "mail").code == Exit.USAGE
    assert "number above 0" in yk("queues", "set", "mail", "--rate", "fast").err
    (line,) = yk("operations", "list", "--kind", "queue", "--json").json
    assert (line["action"], line["who"]) == ("set", "ada")


def test_a_run_is_forked_from_a_step(yk: Callable[..., Said], db: str):
    yk("run", "trips:trip", "trips.jsonl", "--detach")
    drive(db, TWO_ARE_BLOCKED)
    assert "no step 'boat'" in yk("runs", "fork", "t0", "--from", "boat").err
    said = yk("runs", "fork", "t0", "--from", "ticket", "--why", "wrong date", "--who", "ada")
    assert said.out.startswith("t0~1: adopts hotel\n")
    drive(db, {"completed": 3, "blocked": 2})
    assert "done by t0" in yk("runs", "show", "t0~1").out
    told = yk("runs", "show", "t0", "--json").json[0]["operations"]
    assert [(line["action"], line["why"]) for line in told] == [("fork", "wrong date")]


def test_modules_queues_are_found(yk: Callable[..., Said], db: str):
    from yaoki.cli.worker import queues_of

    assert queues_of(("trips:trip", "trips")) == [Queue("mail", concurrency=2)]
