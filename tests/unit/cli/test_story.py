"""A run told from its records alone."""

from __future__ import annotations

import msgspec
import pytest

from yaoki.cli.runs.story import Story, own_frames
from yaoki.saga.drawing.look import STATES
from yaoki.saga.graph import Graph, Node
from yaoki.saga.locking import key_of
from yaoki.saga.machine import Step
from yaoki.saga.records import (
    Abort,
    Adopted,
    Attempted,
    FailedAttempt,
    Failure,
    Header,
    Kind,
    Late,
    Mapped,
    Record,
    Resolution,
    Retried,
    RunState,
    Stored,
    Waiting,
)

GRAPH = Graph("trip", (Node("hotel", undo=True), Node("flight", undo=True), Node("pay", needs=("hotel", "flight"), pivot=True),
                       Node("mail", needs=("pay",))))
encode = msgspec.json.encode


def story(*records: Record, state: RunState = RunState.RUNNING, graph: Graph | None = GRAPH, **header: object) -> Story:
    head = Header(1, "t-1", "trip", GRAPH.hash, state, b'{"city":"Kyoto"}', created_at=100.0, **header)  # type: ignore[arg-type]
    return Story(Stored(head, list(records)), graph)


DONE = Record(Kind.DONE, "hotel", b'{"no":7}', 100.5)
DECLINED = Record(Kind.FAILED, "flight", encode(Failure("DeclinedError", "sold out")), 100.7)
DOUBTFUL = Record(Kind.FAILED, "flight", encode(Failure("ReadTimeout", "", in_doubt=True, attempts=3)), 100.7)
ABORT = Record(Kind.ABORT, "", encode(Abort("flight: DeclinedError: sold out", "flight")), 100.7)
UNDONE = Record(Kind.UNDONE, "hotel", b"", 100.9)
BUG = Record(Kind.BLOCKED, "flight", encode(Failure("KeyError", "'x'", attempts=2)), 100.8)


def test_every_state_of_a_step_has_a_mark_a_word_and_a_tone():
    assert set(STATES) == set(Step)
    assert len({mark for mark, _, _ in STATES.values()}) >= 8, "a state is told without colour too"


def test_an_undone_run_says_of_each_step_how_it_came_to_leave_nothing():
    told = story(DONE, DECLINED, ABORT, UNDONE, state=RunState.UNDONE, finished_at=101.0)
    assert [(look.title, look.sub) for look in told.looks()] == [
        ("↶ hotel", "undone"), ("✗ flight", "failed"), ("· pay", "never began"), ("· mail", "never began")]


def test_each_step_says_how_long_it_took_after_what_it_needs():
    pay = Record(Kind.DONE, "pay", b"1", 103.0)
    told = story(DONE, Record(Kind.DONE, "flight", b"1", 101.0), pay)
    assert [look.sub for look in told.looks()] == ["done  500 ms", "done  1.0 s", "done  2.0 s", "running"]


def test_the_history_has_a_line_for_every_record_and_the_two_ends():
    lines = story(DONE, DOUBTFUL, ABORT, UNDONE, state=RunState.UNDONE, finished_at=101.0).lines()
    assert [(f"{line.at_s:.1f}", line.step, line.what) for line in lines] == [
        ("0.0", "", "started"), ("0.5", "hotel", "done"), ("0.7", "flight", "failed"), ("0.7", "", "undoing itself"),
        ("0.9", "hotel", "undone"), ("1.0", "", "undone")]
    assert lines[0].more == '{"city":"Kyoto"}'
    assert lines[2].more == "ReadTimeout, after 3 attempts; in doubt"


def test_a_person_is_named_with_what_was_decided():
    decided = Record(Kind.RESOLVED, "flight", encode(Resolution("retry", who="ann", why="fixed")), 130.0)
    assert story(DONE, BUG).blocked()["flight"].attempts == 2
    told = story(DONE, BUG, decided)
    assert told.blocked() == {}
    assert (told.lines()[-1].what, told.lines()[-1].more) == ("decided: retry", "by ann, fixed")


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_record_can_be_told(kind: Kind):
    data = {Kind.FAILED: encode(Failure("E")), Kind.BLOCKED: encode(Failure("E", undo=True)), Kind.ABORT: encode(Abort("why")),
            Kind.UNDO_ASKED: encode(Abort("why")), Kind.RESOLVED: encode(Resolution("done")), Kind.WAITING: encode(Waiting(200.0)),
            Kind.ADOPTED: encode(Adopted("t-0")), Kind.MAPPED: encode(Mapped("old", "new")), Kind.AGAIN: encode(Failure("E")),
            Kind.LATE: encode(Late(msgspec.Raw(b"1"))), Kind.LOCKED: encode([key_of(("seat", 7))]), Kind.RETRIED: encode(Retried("hotel", ("hotel",))), Kind.ATTEMPTS: encode(Attempted((FailedAttempt(100.5, "E", "why", 0.5),)))}.get(kind, b"1")
    line = story(Record(kind, "hotel", data, 101.0), graph=None).lines()[-1]
    assert line.what
    assert line.mark
    if kind is Kind.WAITING:
        assert line.more == "until 1970-01-01T00:03:20.000Z"


def test_every_earlier_attempt_has_a_line_with_its_error_and_its_wait():
    failed = tuple(FailedAttempt(100.1 + n / 10, "ReadTimeout", f"n{n}", 0.05) for n in range(4))
    note = Record(Kind.ATTEMPTS, "hotel", encode(Attempted(failed, left_out=70)), 100.6)
    told = story(note, Record(Kind.DONE, "hotel", b"1", 100.6))
    assert [(line.mark, line.what, line.more) for line in told.lines()[1:4]] == [
        ("↻", "attempt failed", "ReadTimeout: n0; again after 50 ms"), ("↻", "attempt failed", "ReadTimeout: n1; again after 50 ms"),
        ("⋮", "70 more attempts", "")]
    assert "75 attempts" in told.looks()[0].sub


def test_a_run_whose_definition_is_not_there_still_has_a_history():
    told = story(DONE, graph=None)
    assert told.machine is None
    assert "does not hold this run's definition" in told.wrong
    assert len(told.lines()) == 2
    assert told.steps() == []


def test_a_history_that_does_not_fit_is_said_and_not_raised():
    told = story(Record(Kind.DONE, "car", b"1", 101.0))
    assert "does not fit its definition" in told.wrong


def test_what_a_codec_has_encrypted_is_said_to_be():
    told = story(Record(Kind.DONE, "hotel", b"\x80\x81\x82", 101.0))
    assert told.lines()[-1].more == "(encrypted, 3 bytes)"
    assert told.history()[0]["data"] == {"encrypted_bytes": 3}


def test_a_traceback_is_shown_without_our_own_frames():
    trace = ('Traceback (most recent call last):\n  File "/x/yaoki/saga/attempt.py", line 1, in run\n    await fn()\n    ^^^^\n'
             '  File "/home/me/trips.py", line 7, in pay\n    raise KeyError\nKeyError: 1\n')
    assert own_frames(trace) == ["Traceback (most recent call last):", '  File "/home/me/trips.py", line 7, in pay', "    raise KeyError",
                                 "KeyError: 1"]
