"""A deploy that changes a saga's steps under its runs: what a mapping says, is checked, and does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import yaoki
from yaoki import DeclinedError, Effect, Flow, Saga
from yaoki.cli.frame.root import run as yk
from yaoki.errors import DefinitionError
from yaoki.saga.graph import Graph
from yaoki.saga.journal.port import Query
from yaoki.saga.journal.sums import record_sum
from yaoki.saga.mapping import brought_over, problems, translated
from yaoki.saga.planning import verdict_on
from yaoki.saga.records import Header, Kind, Record, Resolution, Retried, RunState, Stored


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
        def work(connection: Any) -> None:
            over = b'{"until":1}'
            for run, seq, step in connection.execute("SELECT run, seq, step FROM record WHERE kind = 'waiting'").fetchall():
                connection.execute("UPDATE record SET data = ?, sum = ? WHERE run = ? AND seq = ?",
                                   (over, record_sum(run, seq, "waiting", step, over), run, seq))

        await app.journal._call(work)
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
    assert found(renamed={"hotel": "room", "cooling_off": "ticket"}) == [
        "step cooling_off was renamed, and another step has its name now: their keys would be the same"]


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


# ── what waits, what starts others, what is made of parts ────────────────────────────────────────────────────────────


def composed(log: list[str], *, new: bool = False, mapped: bool = False, sold_out: bool = False) -> Saga[str]:
    """Every kind of step that somebody else knows by its name; renamed, with other types, when it is new."""
    def name(old: str) -> str:
        return f"{old}_2" if new else old

    charge: Saga[str] = Saga("charge", input=str)

    @charge.step
    async def take(who: str, effect: Effect) -> str:
        log.append(effect.key)
        return "c"

    @take.undo
    async def give(who: str, take: str | None, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    saga: Saga[str] = Saga("composed", input=str)
    gives: Any = Booking if new else str

    def made(value: str) -> Any:
        return Booking(value) if new else value

    async def photo(who: str, item: str, effect: Effect) -> Any:
        log.append(effect.key)
        return made(item)

    photo.__annotations__["return"] = gives
    photos = saga.step(name=name("photos"), each=lambda who: ["a", "b"], key=str)(photo)

    async def delete(who: str, item: str, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    photos.undo(delete)
    pay = saga.first_of(name("pay"), after=name("photos"))

    async def card(who: str, effect: Effect) -> Any:
        log.append(effect.key)
        return made("card")

    card.__annotations__["return"] = gives

    async def refund(who: str, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    pay.option(card, name="card").undo(refund)
    pay.option(card, name="invoice", undo=None)

    async def reserve(row: int, effect: Effect) -> int:
        log.append(effect.key)
        return row

    async def release(row: int, result: int | None, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    @saga.flow(name=name("tour"), undos=[release], after=name("pay"))
    async def tour(who: str, flow: Flow) -> int:
        return await flow.step("row", reserve, 7, undo=release)

    @saga.child(charge, name=name("charged"), after=name("tour"))
    def charged(who: str) -> str:
        return who

    @saga.wait_for(gives, name=name("approval"), after=name("charged"))
    async def approval(who: str) -> None: ...

    @saga.external(gives, name=name("printed"), after=name("approval"))
    async def printed(who: str, effect: Effect) -> None:
        log.append(effect.token)

    @printed.undo
    async def tear_up(who: str, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    @saga.step(undo=None, after=name("printed"))
    async def end(who: str) -> str:
        if sold_out:
            raise DeclinedError("sold out")
        return "all"

    if mapped:
        older = composed([])
        saga.maps(older.graph.hash, renamed={old: f"{old}_2" for old in older.steps if old != "end"},
                  results={f"{old}_2": lambda old: {"id": old} for old in ("photos", "pay", "approval", "printed")})
    return saga


async def parked(app: Any, step: str) -> None:
    """Until the run waits there."""
    run = app.run(app.engine.sagas["composed"], "t")
    while [(record.kind, record.step) for record in (await run.stored()).records[-1:]] != [(Kind.WAITING, step)]:  # noqa: ASYNC110  as above
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("sold_out", [False, True])
async def test_answers_tokens_children_and_parts_of_a_renamed_step_are_found_and_undone_by_its_old_name(url: str, sold_out: bool):
    log: list[str] = []
    old = composed(log)
    async with yaoki.open(url, sagas=[old]) as app:
        await app.start(old, "ada", id="t")
        await parked(app, "approval")
        await app.run(old, "t").signal("approval", "yes")
        await parked(app, "printed")
    token = next(line for line in log if line.startswith("yk1."))
    made, new = [line for line in log if not line.startswith("yk1.")], composed(log, new=True, mapped=True)
    async with yaoki.open(url, sagas=[new]) as app:
        await app.heartbeat(token)
        await app.journal.request("t", "nothing", b"{}", 1.0)  # something to take it up for
        while not any(record.kind is Kind.MAPPED for record in (await app.run(new, "t").stored()).records):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
    log.clear()
    later = composed(log, new=True, sold_out=sold_out)  # the mapping has left the code
    async with yaoki.open(url, sagas=[later]) as app:
        await app.complete(token, Booking("T-1"))
        run = app.run(later, "t")
        if not sold_out:
            assert await run.result() == "all"
            assert log == []
        else:
            assert await run.wait() is RunState.UNDONE
            assert log[0] == "undo t/printed"
            assert sorted(log[1:]) == sorted(f"undo {key}" for key in made), "each by the key under which it was made"


async def test_an_answer_that_was_given_by_the_old_name_and_not_looked_at_is_mapped_too(url: str):
    old = composed([])
    async with yaoki.open(url, sagas=[old]) as app:
        await app.start(old, "ada", id="t")
        await parked(app, "approval")
    async with yaoki.open(url, sagas=[old], work=False) as app:
        await app.journal.request("t", "signal", b'{"name": "approval", "answer": {"id": "yes"}}', 1.0)
    new = composed([], new=True, mapped=True)
    async with yaoki.open(url, sagas=[new]) as app:
        await parked(app, "printed_2")
        done = [record for record in (await app.run(new, "t").stored()).records if record.step == "approval_2" and record.kind is Kind.DONE]
        assert [msgspec.json.decode(record.data) for record in done] == [{"id": "yes"}]


def test_results_are_mapped_wherever_a_history_has_them():
    new = composed([], new=True, mapped=True)
    header = Header(1, "t", "composed", composed([]).graph.hash, RunState.RUNNING, b'"ada"')
    given = Resolution("done", msgspec.Raw(b'["a","b"]'))
    history = [Record(Kind.STARTED, "photos/a"), Record(Kind.DONE, "photos/a", b'"a"'), Record(Kind.RESOLVED, "photos", msgspec.json.encode(given)),
               Record(Kind.ADOPTED, "pay", b'{"run":"s","result":"card"}'), Record(Kind.SIGNAL, "approval", b'"yes"'),
               Record(Kind.SIGNAL, "printed", b'{"attempt":1,"result":"T"}'), Record(Kind.ABORT, "", b'{"reason":"x","started":["tour"]}'),
               Record(Kind.RESOLVED, "pay", b'{"decision":"done"}')]
    told, said = brought_over(new, Stored(header, history), 1.0)
    assert said is not None
    assert {record.kind: record.step for record in told}[Kind.ADOPTED] == "pay_2"
    data = {(record.kind, record.step): msgspec.json.decode(record.data) for record in told if record.data}
    assert data[Kind.DONE, "photos_2/a"] == {"id": "a"}
    assert data[Kind.ADOPTED, "pay_2"] == {"run": "s", "result": {"id": "card"}}
    assert data[Kind.SIGNAL, "approval_2"] == {"id": "yes"}
    assert data[Kind.SIGNAL, "printed_2"] == {"attempt": 1, "result": {"id": "T"}}
    assert data[Kind.RESOLVED, "photos_2"]["result"] == [{"id": "a"}, {"id": "b"}]
    assert data[Kind.ABORT, ""]["started"] == ["tour_2"]
    assert translated([*history, said])[:-1] == told[:-1], "what is told once is told again"


def test_a_retry_is_told_in_the_new_words():
    new = composed([], new=True, mapped=True)
    header = Header(1, "t", "composed", composed([]).graph.hash, RunState.RUNNING, b'"ada"')
    said = Retried("pay", ("pay", "tour"), ("tour",), "1")
    told, _ = brought_over(new, Stored(header, [Record(Kind.RETRIED, "", msgspec.json.encode(said))]), 1.0)
    assert msgspec.json.decode(told[0].data, type=Retried) == Retried("pay_2", ("pay_2", "tour_2"), ("tour_2",), "1")


async def test_the_plan_covers_children_and_the_completed_ones_of_parents_in_flight(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                                     capsys: pytest.CaptureFixture[str]):
    old = composed([])
    async with yaoki.open(url, sagas=[old]) as app:
        await app.start(old, "ada", id="t")
        await parked(app, "approval")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_mapping import composed\n"
    (tmp_path / "same_code.py").write_text(f"{here}composed = composed([])\n")
    (tmp_path / "other_child.py").write_text(f"{here}composed = composed([])\n"
                                             "charge = composed.steps['charged'].way.saga\n"
                                             "charge.steps['take'].undo_fn = None\ncharge.changed()\ncomposed.changed()\n")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, yk, ["plan", "same_code:composed", "--db", url, "--json"]) == 0
    rows = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["saga"], row["verdict"], row["runs"]) for row in rows] == [("charge", "same", 1), ("composed", "same", 1)]
    assert await loop.run_in_executor(None, yk, ["plan", "other_child:composed", "--db", url, "--json"]) == 1
    (charge, _) = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert charge["verdict"] in {"stays", "blocks"}
    assert charge["why"].endswith("completed, and undone with its parent if that undoes itself")


def test_the_plan_has_a_reason_for_what_waits_starts_others_or_has_parts():
    old, new = composed([]), composed([], new=True)
    assert verdict_on(new, old.graph, old.graph.hash) == ("needs mapping", "step photos is gone")
    assert verdict_on(composed([], new=True, mapped=True), old.graph, old.graph.hash) == ("maps", "")

    def changed(step: str, **how: Any) -> tuple[str, str]:
        nodes = tuple(msgspec.structs.replace(node, **how) if node.name == step else node for node in old.graph.nodes)
        was = Graph("composed", nodes)
        return verdict_on(old, was, was.hash)

    assert changed("photos", parts="") == ("stays", "step photos was one call, and now was a call for each item")
    assert changed("pay", options=("card", "invoice", "cash")) == ("stays", "step pay has no option cash any more")
    assert changed("tour", options=("release", "send_back")) == ("stays", "step tour has no undo send_back any more")
    assert changed("charged", child="bill") == ("stays", "step charged started a run of bill, and now started a run of charge")
    assert changed("approval", waits="sleep") == ("stays", "step approval slept, and now waited for an answer")
    assert changed("approval", gives="Decision") == ("needs mapping", "step approval gave Decision, and gives str")
