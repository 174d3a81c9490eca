"""`yk runs show` and `yk graph` of runs that start runs, and of steps made of parts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import yaoki
from yaoki import DeclinedError, Flow, Saga
from yaoki.cli.frame.root import run as yk
from yaoki.cli.runs.family import condensed
from yaoki.cli.runs.story import Line
from yaoki.saga.drawing.look import plain_looks


def travel() -> Saga[int]:
    charge, trip = Saga("charge", input=int), Saga("trip", input=int)
    charge.step(name="capture", undo=None)(_same)

    @trip.child(charge)
    def payment(n: int) -> int:
        return n

    @trip.step(each=lambda n: list(range(n)), tolerate=1, undo=None)
    async def seats(n: int, item: int) -> int:
        if item == 1:
            raise DeclinedError("taken")
        return item

    taxi = trip.first_of("taxi", after="payment")
    taxi.option(name="yellow", undo=None)(_refused)
    taxi.option(name="black", undo=None)(_same)

    @trip.flow(after="taxi")
    async def agent(n: int, flow: Flow) -> int:
        return await flow.step("think", _same, n)

    return trip


async def _same(n: int) -> int:
    return n


async def _refused(n: int) -> int:
    raise DeclinedError("none")


@pytest.fixture
def db(tmp_path: Path) -> str:
    async def main() -> None:
        saga = travel()
        async with yaoki.open(f"sqlite:///{tmp_path}/t.db", sagas=[saga]) as app:
            await (await app.start(saga, 3, id="t")).result()

    asyncio.run(main())
    return f"sqlite:///{tmp_path}/t.db"


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert yk(["runs", "show", *words]) == 0
    return capsys.readouterr().out


def test_a_run_names_its_children_and_a_child_its_parent(capsys: pytest.CaptureFixture[str], db: str):
    assert "⑂ t/payment  completed" in shown(capsys, "t", "--db", db)
    assert "started by t (trip, completed)" in shown(capsys, "t/payment", "--db", db)
    told: dict[str, Any] = json.loads(shown(capsys, "t", "--db", db, "--json"))
    assert told["children"] == [{"id": "t/payment", "saga": "charge", "state": "completed"}]
    assert told["parent"] is None


def test_the_history_tells_of_the_child_and_of_every_part(capsys: pytest.CaptureFixture[str], db: str):
    out = shown(capsys, "t", "--db", db)
    for line in ("payment      waits      for run t/payment", "payment      was told   t/payment is completed", "seats/1", "taxi/yellow",
                 "DeclinedError: none", "agent/think"):
        assert " ".join(line.split()) in " ".join(out.split())
    assert "2 done, 1 failed" in out


def test_a_graph_says_what_a_step_is_made_of():
    subs = {look.title.split()[0]: look.sub for look in plain_looks(travel().graph)}
    assert subs["payment"] == "⑂ runs charge  → int"
    assert subs["seats"].startswith("× each item")
    assert subs["taxi"] == "first of yellow, black  → int"
    assert subs["agent"].startswith("⟳ as it goes")


def test_of_many_parts_the_first_the_last_and_those_that_failed_are_told():
    lines = [Line(0.0, "✓", f"s/{n}", "done", "", "bad" if n == 500 else "good") for n in range(1000)] + [Line(1.0, "✓", "s", "done", "", "good")]
    told = condensed(lines)
    assert [line.step for line in told] == [*(f"s/{n}" for n in range(6)), "s", "s/500", *(f"s/{n}" for n in range(994, 1000)), "s"]
    assert told[6].what == "987 more lines"
