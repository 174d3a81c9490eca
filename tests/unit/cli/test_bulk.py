"""One action on all runs that fit: `yk runs pause`, `resume`, `retry --from`, `resolve --all`; counted, asked before, with who and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unit.cli.test_operating import TWO_ARE_BLOCKED, Said, db, drive, yk  # noqa: F401  fixtures
from yaoki.cli.frame.exits import Exit

Say = Callable[..., Said]


@pytest.fixture
def started(yk: Say, db: str) -> Say:  # noqa: F811
    """Four runs: two are completed, two blocked at their ticket."""
    yk("run", "trips:trip", "trips.jsonl", "--detach")
    return yk


def test_runs_are_paused_and_resumed_by_filter(started: Say, db: str):  # noqa: F811
    words = ["runs", "pause", "--saga", "trip", "--where", "customer=bug"]
    assert [line["run"] for line in started(*words, "--dry-run", "--json").json] == ["t3", "t2"]
    assert started(*words).code == Exit.REFUSED, "nobody is there to answer"
    assert "2 runs are paused now" in started(*words, "--yes", "--who", "ada", "--why", "the prices are wrong").out
    assert "no run that is not paused yet fits" in started(*words, "--yes").out
    drive(db, {"completed": 2, "running": 2})
    assert [line["name"] for line in started("operations", "list", "--json").json] == ["t2", "t3"]
    assert {line["who"] for line in started("operations", "list", "--json").json} == {"ada"}
    assert "1 runs go on" in started("runs", "resume", "--where", "customer=bug", "--limit", "1", "--yes").out
    drive(db, {"completed": 2, "running": 1, "blocked": 1})
    assert started("runs", "resume", "t2").out == "run t2: goes on\n"
    assert started("runs", "pause").code == Exit.USAGE
    assert started("runs", "pause", "t0", "--saga", "trip").code == Exit.USAGE


def test_blocked_steps_are_resolved_by_filter(started: Say, db: str):  # noqa: F811
    drive(db, TWO_ARE_BLOCKED)
    words = ["runs", "resolve", "--all", "ticket", "undone", "--saga", "trip"]
    assert started(*words, "--error", "nothing like it", "--yes").out == "no run fits\n"
    assert [(line["run"], line["step"]) for line in started(*words, "--error", "KeyError", "--dry-run", "--json").json] == [("t3", "ticket"), ("t2", "ticket")]
    assert started(*words, "--yes", "--who", "ada", "--why", "sold by hand").code == Exit.OK
    drive(db, {"completed": 2, "undone": 2})
    assert [(line["name"], line["who"], line["why"]) for line in started("operations", "list", "--json").json] == [
        ("t2", "ada", "sold by hand"), ("t3", "ada", "sold by hand")]


def test_one_run_is_resolved_as_before_and_words_that_do_not_fit_are_refused(started: Say, db: str):  # noqa: F811
    drive(db, TWO_ARE_BLOCKED)
    assert started("runs", "resolve", "t2", "ticket", "done", "--result", '"t"').code == Exit.OK
    drive(db, {"completed": 3, "blocked": 1})
    assert "RUN STEP DECISION is wanted" in started("runs", "resolve", "t3", "ticket").err
    assert "STEP DECISION is wanted" in started("runs", "resolve", "--all", "t3", "ticket", "retry").err
    assert "is no decision" in started("runs", "resolve", "t3", "ticket", "again").err
    assert "filters are for many" in started("runs", "resolve", "t3", "ticket", "retry", "--saga", "trip").err


def test_runs_are_retried_from_a_step_by_filter(started: Say, db: str):  # noqa: F811
    drive(db, TWO_ARE_BLOCKED)
    words = ["runs", "retry", "--all", "--saga", "trip", "--from", "hotel"]
    assert [line["run"] for line in started(*words, "--dry-run", "--json").json] == ["t3", "t2"]
    assert started(*words, "--error", "KeyError", "--yes", "--who", "ada").code == Exit.OK
    drive(db, TWO_ARE_BLOCKED)  # the bug is there yet
    told = started("runs", "show", "t2").out
    assert "retried from hotel" in told
    assert "made anew" in told
    assert started("operations", "list", "--about", "t2", "--json").json[0]["action"] == "retry"


def test_a_run_is_retried_from_a_step_and_what_cannot_be_is_refused(started: Say, db: str):  # noqa: F811
    drive(db, TWO_ARE_BLOCKED)
    assert "has ended" in started("runs", "retry", "t0", "--from", "hotel").err
    assert "no step 'boat'" in started("runs", "retry", "t2", "--from", "boat").err
    assert started("runs", "retry", "t2", "ticket", "--from", "hotel").code == Exit.USAGE
    said = started("runs", "retry", "t2", "--from", "hotel", "--why", "wrong date")
    assert said.out.startswith("t2: takes back what there is of ticket, hotel, and makes it anew\n")
    left = started("runs", "retry", "--all", "--state", "ended", "--from", "hotel", "--yes")
    assert "2 cannot be retried from hotel (the run has ended: it is completed), and are left alone" in left.err
