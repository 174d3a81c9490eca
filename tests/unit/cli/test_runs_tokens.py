"""`yk runs complete`, `fail` and `beat`: a step that the outside completes, from the command line, without an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import yaoki
from yaoki import Effect, Saga, heartbeat
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.saga.journal.registers import of_run


def printing(asked: list[str]) -> Saga[int]:
    saga = Saga("print", input=int)

    @saga.external(str, undo=None)
    async def ticket(n: int, effect: Effect) -> None:
        asked.append(effect.token)

    return saga


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return f"sqlite:///{tmp_path}/print.db"


def drive(db: str, until: Callable[[list[str]], bool]) -> tuple[str, str]:
    """Run the saga until so much is so; returns the token and the run's state."""
    asked: list[str] = []

    async def main() -> str:
        saga = printing(asked)
        async with yaoki.open(db, sagas=[saga]) as app:
            handle = await app.start(saga, 1, id="r")
            for _ in range(10_000):
                stored = await handle.stored()
                if stored.header.state.is_end or (until(asked) and stored.records):
                    break
                await asyncio.sleep(0.01)
            return stored.header.state.value

    state = asyncio.run(main())
    return (asked[0] if asked else ""), state


def test_a_token_is_completed_while_nothing_runs_and_recorded_by_the_next_start(db: str, capsys: pytest.CaptureFixture[str]):
    token, state = drive(db, bool)
    assert state == "running"
    assert run(["runs", "beat", token, '{"page": 3}', "--db", db]) == Exit.OK
    assert run(["runs", "complete", token, '"T-1"', "--db", db, "--wait", "0s", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"recorded": False}
    assert drive(db, lambda _: False) == ("", "completed")
    assert run(["runs", "complete", token, '"T-1"', "--db", db]) == Exit.OK, "the same again"
    assert run(["runs", "complete", token, '"T-2"', "--db", db]) != Exit.OK
    assert "YK-4011" in capsys.readouterr().err
    assert run(["runs", "show", "r", "--db", db]) == Exit.OK
    assert "T-1" in capsys.readouterr().out


def test_what_is_no_token_or_no_json_is_refused_before_anything_is_written(db: str, capsys: pytest.CaptureFixture[str]):
    token, _ = drive(db, bool)
    for words, said in ((("complete", "yk1.nonsense"), "YK-2020"), (("complete", token, "{"), "not JSON"), (("beat", token, "{"), "not JSON")):
        assert run(["runs", *words, "--db", db]) != Exit.OK
        assert said in capsys.readouterr().err
    assert run(["runs", "fail", token, "no paper", "--db", db, "--wait", "0s"]) == Exit.OK
    assert drive(db, lambda _: False) == ("", "undone")


def test_who_holds_a_key_who_waits_and_how_far_a_step_is_can_be_seen(db: str, capsys: pytest.CaptureFixture[str]):
    saga = Saga("book", input=int, lock=lambda n: ("seat", "LH1"))
    stuck = []

    @saga.step(undo=None, heartbeat=60)
    async def work(n: int) -> int:
        heartbeat({"row": 5})
        stuck.append(n)
        await asyncio.sleep(1000)
        return n

    async def main() -> None:
        async with yaoki.open(db, sagas=[saga], grace=0.0) as app:
            await app.start(saga, 1, id="first")
            while not stuck:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await app.start(saga, 2, id="second")
            for _ in range(10_000):
                if len(await app.journal.claims()) == 2 and await app.journal.registers(of_run("first")):
                    break
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert run(["locks", "list", "--db", db, "--json"]) == Exit.OK
    assert [(told["key"], told["run"], told["holds"]) for told in map(json.loads, capsys.readouterr().out.splitlines())] == [
        ("seat/LH1", "first", True), ("seat/LH1", "second", False)]
    assert run(["locks", "list", "--db", db]) == Exit.OK
    assert "second" in capsys.readouterr().out
    assert run(["locks", "list", "--key", "room", "--db", db]) == Exit.OK
    assert "no key is held" in capsys.readouterr().out
    assert run(["runs", "show", "second", "--db", db]) == Exit.OK
    assert "waits for seat/LH1, which run first holds" in capsys.readouterr().out
    assert run(["runs", "show", "first", "--db", db]) == Exit.OK
    shown = capsys.readouterr().out
    assert "holds seat/LH1" in shown
    assert '{"row":5}' in shown
    assert run(["runs", "show", "first", "--db", db, "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told["heartbeats"]["work"]["detail"] == {"row": 5}
    assert told["locks"][0]["holds"] is True
