"""`yk runs complete`, `fail` and `beat`: a step that the outside completes, from the command line, without an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import yaoki
from yaoki import Effect, Saga
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run


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
            for _ in range(500):
                if until(asked) and (await handle.stored()).records:
                    break
                await asyncio.sleep(0.01)
            return (await handle.state()).value if asked else (await handle.wait()).value

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
