"""`yk schedules` on a real journal, beside a program and without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import yaoki
from yaoki import Saga
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run
from yaoki.saga.journal.port import Query
from yaoki.saga.schedule.book import Book


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return f"sqlite:///{tmp_path}/reports.db"


def work(db: str, until: Callable[[int], bool]) -> list[str]:
    """Open the program until so many runs have ended; returns their ids."""
    saga = Saga("report", input=str)

    @saga.step(undo=None)
    async def make(of: str) -> str:
        return of

    async def main() -> list[str]:
        async with yaoki.open(db, sagas=[saga]) as app:
            app.schedule("yearly", saga, cron="0 3 1 1 *", zone="Europe/Berlin", input="x", overlap="allow")
            for _ in range(5000):
                ended = [header.id for header in await app.journal.search(Query()) if header.state.is_end]
                booked = [entry.plan.pending for entry in (await Book(app.journal).read()).values()]
                if until(len(ended)) and booked == [()]:  # started, and noted
                    break
                await asyncio.sleep(0.02)
            return ended

    return asyncio.run(main())


def test_what_is_asked_for_while_nothing_runs_is_done_by_the_next_start(db: str, capsys: pytest.CaptureFixture[str]):
    assert work(db, lambda _: True) == []
    assert run(["schedules", "list", "--db", db]) == Exit.OK
    assert "0 3 1 1 * (Europe/Berlin)" in capsys.readouterr().out
    assert run(["schedules", "pause", "yearly", "--why", "holidays", "--db", db]) == Exit.OK
    assert run(["schedules", "list", "--db", db]) == Exit.OK
    assert "paused: holidays" in capsys.readouterr().out
    assert run(["schedules", "trigger", "yearly", "--db", db, "--json"]) == Exit.OK
    triggered = json.loads(capsys.readouterr().out)["run"]
    assert run(["schedules", "backfill", "yearly", "--since", "2020-06-01", "--until", "2023-06-01", "--db", db]) == Exit.OK
    assert "3 instants" in capsys.readouterr().out
    expected = {triggered, *(f"yearly@{year}-01-01T02:00:00Z" for year in (2021, 2022, 2023))}
    assert set(work(db, lambda count: count >= 4)) == expected
    assert run(["schedules", "backfill", "yearly", "--since", "2019-06-01", "--until", "2023-06-01", "--db", db]) == Exit.OK
    assert set(work(db, lambda count: count >= 5)) == {*expected, "yearly@2020-01-01T02:00:00Z"}
    assert run(["schedules", "resume", "yearly", "--db", db]) == Exit.OK
    capsys.readouterr()
    assert run(["schedules", "show", "yearly", "--db", db, "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["fired"], told.get("paused", ""), len(told["next"])) == (8, "", 5)
    assert run(["schedules", "show", "yearly", "--db", db]) == Exit.OK
    assert run(["schedules", "remove", "yearly", "--db", db]) == Exit.OK
    capsys.readouterr()
    assert run(["schedules", "list", "--db", db]) == Exit.OK
    assert "no schedules" in capsys.readouterr().out


def test_a_name_that_is_none_and_a_resume_of_what_goes_on_are_refused(db: str, capsys: pytest.CaptureFixture[str]):
    work(db, lambda _: True)
    for words, said in ((("show", "yaerly"), "did you mean"), (("resume", "yearly"), "is not paused"),
                        (("backfill", "yearly", "--since", "nonsense"), "nonsense")):
        assert run(["schedules", *words, "--db", db]) != Exit.OK
        assert said in capsys.readouterr().err
