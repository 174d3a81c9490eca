"""`yk runs undo`: one run or all that fit, beside an engine that comes later; what is refused, and what the log and the story say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unit.cli.test_operating import PROGRAM, Said, db, drive, yk
from yaoki.cli.frame.exits import Exit

__all__ = ["db", "yk"]  # fixtures

Say = Callable[..., Said]

MAILED = PROGRAM + """
@trip.step(pivot=True)
async def mail(order: dict, ticket: str) -> str:
    return "sent"
"""


@pytest.fixture
def done(yk: Say, db: str) -> Say:
    yk("run", "trips:trip", "trips.jsonl", "--detach")
    drive(db, {"completed": 2, "blocked": 2})
    return yk


@pytest.fixture
def mailed(yk: Say, db: str, tmp_path: Path) -> Iterator[Say]:
    """With a step below the pivot that has no undo: another program under the same name."""
    (tmp_path / "trips.py").write_text(MAILED)
    sys.modules.pop("trips", None)
    try:
        yk("run", "trips:trip", "trips.jsonl", "--detach")
        drive(db, {"completed": 2, "blocked": 2})
        yield yk
    finally:
        sys.modules.pop("trips", None)


def test_a_completed_run_is_undone_and_the_log_and_its_story_say_by_whom_and_why(done: Say, db: str):
    assert done("runs", "undo", "t0", "--who", "ada", "--why", "called off").code == Exit.OK
    drive(db, {"completed": 1, "blocked": 2, "cancelled": 1})
    (line,) = done("operations", "list", "--json").json
    assert (line["action"], line["name"], line["who"], line["why"]) == ("undo", "t0", "ada", "called off")
    assert "called off by ada" in done("runs", "show", "t0").out
    again = done("runs", "undo", "t0")
    assert (again.code, "the run is cancelled" in again.err) == (Exit.USAGE, True)


def test_completed_and_blocked_runs_are_undone_by_filter_after_a_look(done: Say, db: str):
    assert [line["run"] for line in done("runs", "undo", "--saga", "trip", "--dry-run", "--json").json] == ["t3", "t2", "t1", "t0"]
    assert done("runs", "undo", "--where", "customer=bug", "--yes").code == Exit.OK
    drive(db, {"completed": 2, "cancelled": 2})


def test_what_would_leave_something_is_refused_or_left_alone_until_it_is_left_knowingly(mailed: Say, db: str):
    refused = mailed("runs", "undo", "t0")
    assert (refused.code, "of mail something would stay" in refused.err, "--past-pivot" in refused.err) == (Exit.USAGE, True, True)
    left = mailed("runs", "undo", "--state", "completed", "--dry-run")
    assert "2 cannot be undone (of mail something would stay" in left.out + left.err
    assert mailed("runs", "undo", "t0", "--past-pivot").code == Exit.OK
    drive(db, {"completed": 1, "blocked": 2, "cancelled": 1})
    assert "left as it is: mail" in mailed("runs", "show", "t0").out
    assert "undo, but what has no undo" in mailed("operations", "list").out
