"""`yk msgs` over a file in which messages gave up."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json

import pytest

from contracts.messages_world import Placed, service
from yaoki.cli.frame.root import run
from yaoki.messages import Retries


@pytest.fixture
def db(tmp_path) -> str:
    """Ten messages of ten keys, three of which gave up."""
    url = f"sqlite:///{tmp_path}/shop.db"

    async def fill() -> None:
        app, seen = service(url), []

        @app.on(Placed, retries=Retries(attempts=1))
        async def take(placed: Placed):
            seen.append(placed.n)
            if placed.n < 3:
                raise ValueError("cannot be")

        async with app:
            for n in range(10):
                await app.publish(Placed(n), key=f"k{n}")
            while len(await app.store.held()) < 3 or len(seen) < 10:  # noqa: ASYNC110 (a database is asked)
                await asyncio.sleep(0.01)

    asyncio.run(fill())
    return url


def yk(*words: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(("msgs", *words))
    return code, out.getvalue() + ("" if "--json" in words else err.getvalue())


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_gave_up_is_listed_shown_corrected_redriven_and_purged(db):
    code, text = yk("list", "--db", db)
    assert code == 1
    assert "orders.take" in text
    assert text.count("ValueError: cannot be") == 3
    letters = [each for each in lines(yk("list", "--db", db, "--json")[1]) if "message" in each]
    first = letters[0]["message"]

    code, text = yk("show", first, "--db", db)
    assert code == 0
    assert "Placed v1" in text
    assert "quarantined after 1 attempts" in text

    assert yk("edit", first, "--data", '{"n": ', "--db", db)[0] == 2
    code, text = yk("edit", first, "--data", '{"n": 11}', "--db", db)
    assert code == 0
    assert "yk msgs redrive" in text

    code, text = yk("redrive", first, "--dry-run", "--db", db)
    assert "would be redriven" in text
    assert yk("redrive", first, "--db", db, "--json")[0] == 4, "nobody is there to answer"
    assert yk("redrive", first, "--yes", "--db", db)[0] == 0
    assert len([each for each in lines(yk("list", "--db", db, "--json")[1]) if "message" in each]) == 2

    assert yk("purge", "--key", "k1", "--yes", "--db", db)[0] == 0
    assert len([each for each in lines(yk("list", "--db", db, "--json")[1]) if "message" in each]) == 1
    assert yk("purge", "--yes", "--db", db)[0] == 0
    assert yk("list", "--db", db)[0] == 0


def test_a_place_without_messages_is_said(tmp_path):
    code, text = yk("list", "--db", f"sqlite:///{tmp_path}/none.db")
    assert code == 2
    assert "there are no messages" in text


def test_what_is_done_and_old_is_forgotten_and_what_gave_up_stays(db):
    assert yk("purge", "--older-than", "1h", "--yes", "--db", db) == (0, "0 messages that every reader had done were deleted\n")
    code, text = yk("purge", "--older-than", "0s", "--yes", "--db", db, "--json")
    assert (code, lines(text)) == (0, [{"deleted": 7}])
    assert yk("list", "--db", db)[1].count("ValueError: cannot be") == 3
    code, text = yk("purge", "--older-than", "1h", "--key", "k1", "--db", db)
    assert code == 2
    assert "concerns all messages that are done" in text


def test_canaries_need_somebody_who_tries_them(db):
    code, text = yk("redrive", "--canary", "1", "--yes", "--db", db)
    assert code == 2
    assert "nobody handles messages of orders.take" in text
    assert yk("redrive", "--yes", "--db", db)[0] == 0
