"""What every journal must do for runs that start, undo and answer other runs."""

from __future__ import annotations

import pytest

from contracts.journals import Place
from contracts.test_journal import DONE, UNDONE, new, reopened, step
from yaoki.saga.journal.port import Append, Ask, Journal, Query
from yaoki.saga.records import Kind, Record, RunState


async def ended(journal: Journal, run_id: str, state: RunState = DONE) -> int:
    no = (await journal.create(new(run_id))).header.no
    await journal.append(Append(no, 0, (step("x"),), state, b'"result"', "", 7.0))
    return no


async def test_what_a_run_asks_of_another_is_durable_with_its_record(place: Place):
    journal = place()
    await journal.open()
    await journal.create(new("a"))
    no = (await journal.create(new("a/pay"))).header.no
    await journal.append(Append(no, 0, (step("x"),), DONE, b"1", "", 7.0, None, (Ask("a", "child", b"{}"), Ask("a", "undo", b"[]"))))
    journal = await reopened(place, journal)
    await journal.take(10)
    assert [(each.run, each.kind, each.data) for each in await journal.requests()] == [("a", "child", b"{}"), ("a", "undo", b"[]")]
    await journal.close()


async def test_what_is_asked_with_a_record_that_is_refused_is_not_asked(journal: Journal):
    no = await ended(journal, "a")
    with pytest.raises(Exception, match=r"."):
        await journal.append(Append(no, 0, (step("y"),), at=8.0, asks=(Ask("b", "child", b"{}"),)))
    assert await journal.requests() == []


async def test_a_completed_run_is_taken_up_again_with_its_history_and_goes_on(place: Place):
    journal = place()
    await journal.open()
    await ended(journal, "a")
    stored = await journal.take_ended("a")
    assert stored is not None
    assert [record.step for record in stored.records] == ["x"]
    await journal.append(Append(stored.header.no, 1, (Record(Kind.ABORT, "", b"{}", 8.0),), RunState.UNDOING, b"", "why", 8.0))
    journal = await reopened(place, journal)
    (again,) = await journal.take(10)
    assert (again.header.id, again.header.state, again.header.finished_at) == ("a", RunState.UNDOING, 0.0)
    assert [record.kind for record in again.records] == [Kind.DONE, Kind.ABORT]
    await journal.append(Append(again.header.no, 2, (Record(Kind.UNDONE, "x"),), UNDONE, b"", "why", 9.0))
    (header,) = await journal.search(Query())
    assert (header.state, header.finished_at) == (UNDONE, 9.0)
    await journal.close()


async def test_what_was_undone_runs_or_never_was_is_not_taken_up_as_completed(journal: Journal):
    await ended(journal, "undone", UNDONE)
    await journal.create(new("running"))
    for run_id in ("undone", "running", "never"):
        assert await journal.take_ended(run_id) is None


async def test_a_completed_run_that_was_archived_is_taken_up_again(journal: Journal):
    await ended(journal, "a")
    await journal.archive(journal.now() + 10.0)
    stored = await journal.take_ended("a")
    assert stored is not None
    assert [(record.kind, record.step, record.data, record.at) for record in stored.records] == [(Kind.DONE, "x", b'"x"', 2.0)]
    await journal.append(Append(stored.header.no, 1, (Record(Kind.ABORT, "", b"{}", 8.0),), RunState.UNDOING, b"", "why", 8.0))
    found = await journal.read("a")
    assert found is not None
    assert (found.header.state, len(found.records)) == (RunState.UNDOING, 2)
