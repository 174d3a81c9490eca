"""A deploy that changes a saga's steps under its runs: what a mapping says, is checked, and does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import yaoki
from yaoki import DeclinedError, Effect, Saga
from yaoki.cli.frame.root import run as yk
from yaoki.errors import DefinitionError
from yaoki.saga.graph import Graph
from yaoki.saga.journal.port import Query
from yaoki.saga.mapping import problems
from yaoki.saga.planning import verdict_on
from yaoki.saga.records import Kind, RunState

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres").new_database())
    return f"sqlite:///{tmp_path}/runs.db"


class Booking(msgspec.Struct):
    id: str


def old_trip(log: list[str]) -> Saga[str]:
    saga = Saga("trip", input=str)

    @saga.step
    async def hotel(guest: str, effect: Effect) -> str:
        log.append(f"do {effect.key}")
        return "h7"

    @hotel.undo
    async def no_hotel(guest: str, hotel: str | None, effect: Effect) -> None: ...

    @saga.step(undo=None)
    async def fax(guest: str, hotel: str) -> str:
        return "sent"

    saga.sleep(3600, name="cooling_off", after="fax")

    @saga.step(undo=None)
    async def ticket(guest: str, hotel: str, cooling_off: None) -> str:
        return "old ticket"

    return saga


def new_trip(log: list[str], *, sold_out: bool = False) -> Saga[str]:
    saga = Saga("trip", input=str)

    @saga.step
    async def room(guest: str, effect: Effect) -> Booking:
        log.append(f"do {effect.key}")
        return Booking("new")

    @room.undo
    async def no_room(guest: str, room: Booking | None, effect: Effect) -> None:
        log.append(f"undo {effect.key} of {room.id if room else None}")

    saga.sleep(3600, name="cooling_off", after="room")

    @saga.step(undo=None)
    async def ticket(guest: str, room: Booking, cooling_off: None) -> str:
        if sold_out:
            raise DeclinedError("sold out")
        return f"ticket for {room.id}"

    return saga


OLD = old_trip([]).graph.hash


def mapped_trip(log: list[str], *, sold_out: bool = False) -> Saga[str]:
    saga = new_trip(log, sold_out=sold_out)
    saga.maps(OLD, renamed={"hotel": "room"}, dropped=["fax"], results={"room": lambda old: {"id": old}})
    return saga


async def started(url: str, log: list[str]) -> None:
    """A run of the old code that sleeps."""
    saga = old_trip(log)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t", tenant="acme")
        while len((await run.stored()).records) < 3:  # noqa: ASYNC110  another task writes them
            await asyncio.sleep(0.02)


async def woken(app: Any) -> None:
    """The sleep is over."""
    if app.journal.shared:
        await app.journal._side.execute("UPDATE yaoki.record SET data = '{\"until\":1}' WHERE kind = 'waiting'")
        await app.journal._side.execute("UPDATE yaoki.run SET due_at = 1 WHERE owner IS NULL")
    else:
        await app.journal._call(lambda c: c.execute("UPDATE record SET data = ? WHERE kind = 'waiting'", (b'{"until":1}',)))
        await app.journal._call(lambda c: c.execute("UPDATE run SET wake_at = 1"))


@pytest.mark.parametrize("sold_out", [False, True])
async def test_a_run_of_an_older_graph_goes_on_as_the_mapping_says_and_is_undone_by_its_old_keys(url: str, sold_out: bool):
    log: list[str] = []
    await started(url, log)
    saga = mapped_trip(log, sold_out=sold_out)
    async with yaoki.open(url, sagas=[saga]) as app:
        await woken(app)
        run = app.run(saga, "t")
        if sold_out:
            assert await run.wait() is RunState.UNDONE
            assert log == ["do t/hotel", "undo t/hotel of h7"]
        else:
            assert await run.result() == "ticket for h7"
            assert log == ["do t/hotel"]
        stored = await run.stored()
        assert stored.header.graph == saga.graph.hash
        assert [record.kind for record in stored.records].count(Kind.MAPPED) == 1


async def test_once_it_was_brought_over_the_mapping_is_not_needed_any_more(url: str):
    log: list[str] = []
    await started(url, log)
    async with yaoki.open(url, sagas=[mapped_trip(log)]) as app:
        run = app.run(mapped_trip(log), "t")
        await app.journal.request("t", "cancel-nothing", b"{}", 1.0)  # something to take it up for
        while not any(record.kind is Kind.MAPPED for record in (await run.stored()).records):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
    saga = new_trip(log)
    async with yaoki.open(url, sagas=[saga]) as app:
        await woken(app)
        assert await app.run(saga, "t").result() == "ticket for h7"


async def test_without_a_mapping_the_run_is_left_alone(url: str):
    log: list[str] = []
    await started(url, log)
    saga = new_trip(log)
    async with yaoki.open(url, sagas=[saga]) as app:
        await woken(app)
        await asyncio.sleep(0.7)
        (header,) = await app.journal.search(Query())
        assert (header.state, header.graph) == (RunState.RUNNING, OLD)
    assert log == ["do t/hotel"]


async def test_a_result_that_cannot_be_made_sets_the_run_aside_and_changes_nothing(url: str):
    log: list[str] = []
    await started(url, log)
    saga = new_trip(log)
    saga.maps(OLD, renamed={"hotel": "room"}, dropped=["fax"], results={"room": lambda old: {"id": old["id"]}})
    async with yaoki.open(url, sagas=[saga]) as app:
        await woken(app)
        while "t" not in app.engine.floor.unfit:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
        assert "makes no result of room" in app.engine.floor.unfit["t"]
        assert not any(record.kind is Kind.MAPPED for record in (await app.run(saga, "t").stored()).records)


def test_a_mapping_is_checked_against_both_graphs():
    old, new = old_trip([]).graph, new_trip([]).graph

    def found(**words: Any) -> list[str]:
        saga = new_trip([])
        saga.maps(OLD, **words)
        return problems(saga.mappings[OLD], old, new)

    assert found(renamed={"hotel": "room"}, dropped=["fax"], results={"room": str}) == []
    assert found(renamed={"hotel": "room"}, dropped=["fax"]) == ["step room gave str, and gives Booking"]
    assert found(renamed={"hotel": "room"}, results={"room": str}) == ["step fax is gone"]
    assert found(renamed={"motel": "room"}) == [f"graph {OLD} has no step motel"]
    assert found(renamed={"hotel": "rum"}) == ["saga trip has no step rum"]
    assert found(renamed={"hotel": "room", "cooling_off": "ticket"})[0].startswith("step cooling_off waits for others")


def test_a_mapping_that_cannot_be_read_is_refused_at_import():
    saga = new_trip([])
    with pytest.raises(DefinitionError, match="no graph's hash"):
        saga.maps("v1")
    with pytest.raises(DefinitionError, match="renamed alike"):
        saga.maps(OLD, renamed={"hotel": "room", "fax": "room"})


def test_the_plan_says_what_each_graph_needs():
    old = old_trip([]).graph
    assert verdict_on(old_trip([]), old, OLD) == ("same", "")
    assert verdict_on(new_trip([]), old, OLD) == ("needs mapping", "step hotel is gone")
    assert verdict_on(mapped_trip([]), old, OLD) == ("maps", "")
    wrong = new_trip([])
    wrong.maps(OLD, renamed={"hotel": "room"})
    assert verdict_on(wrong, old, OLD)[0] == "stays"
    pivoted = Graph("trip", (*old.nodes[:-1], msgspec.structs.replace(old.nodes[-1], pivot=True)))
    assert verdict_on(old_trip([]), pivoted, pivoted.hash)[0] == "stays"


async def test_yk_plan_exits_with_1_until_there_is_a_mapping(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]):
    log: list[str] = []
    await started(url, log)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_mapping import"
    (tmp_path / "bare.py").write_text(f"{here} new_trip\ntrip = new_trip([])\n")
    (tmp_path / "told.py").write_text(f"{here} mapped_trip\ntrip = mapped_trip([])\n")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, yk, ["plan", "bare:trip", "--db", url]) == 1
    said = capsys.readouterr()
    assert "needs mapping" in said.out
    assert f'saga.maps("{OLD}"' in said.err
    assert await loop.run_in_executor(None, yk, ["plan", "told:trip", "--db", url, "--json"]) == 0
    (row,) = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["verdict"], row["runs"]) == ("maps", 1)
