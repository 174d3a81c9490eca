"""The table of verdicts, row by row, and the bounds that follow from the rules."""

from __future__ import annotations

import msgspec
import pytest

from yaoki.errors import ConfigError
from yaoki.ledger import findings as kinds
from yaoki.ledger import verdicts
from yaoki.ledger.auditor import Auditor
from yaoki.ledger.compare import Difference
from yaoki.ledger.findings import Book, out_of_order
from yaoki.ledger.records import Record
from yaoki.ledger.rules import Rules
from yaoki.ledger.verdicts import Beat, Look, judge

RULES = Rules(slo_s=10, beat_every_s=5, seal_every_s=1, hold_s=5, audit_every_s=5, listing_s=1, clock_error_s=1)
BEATS = [Beat(n, 5.0 * n) for n in range(21)]  # the newest at 100 s
ALL = frozenset(range(21))
UP_TO_15 = frozenset(range(16))


def verdict(**fields: object) -> verdicts.Verdict:
    look = {"part": "0", "now": 100.0, "beats": BEATS, "arrived": ALL, **fields}
    return judge(Look(**look), RULES)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fields", "kind"), [
    ({}, verdicts.QUIET),
    ({"changed": 3}, verdicts.FLOWING),
    ({"changed": 3, "differing": 1}, verdicts.LOSS),
    ({"arrived": UP_TO_15}, verdicts.TRIGGER_STUCK),
    ({"arrived": frozenset()}, verdicts.TRIGGER_STUCK),
    ({"arrived": UP_TO_15, "transported": ALL}, verdicts.TRIGGER_STUCK),
    ({"arrived": UP_TO_15, "transported": UP_TO_15}, verdicts.STREAM_STUCK),
    ({"arrived": ALL - {7, 8}}, verdicts.SKIPPED_INTERVAL),
    ({"arrived": ALL - {19}}, verdicts.QUIET),  # not overdue yet
    ({"arrived": ALL - {20}}, verdicts.QUIET),
    ({"held_s": 6.0, "holder": "pid 7"}, verdicts.WATERMARK_HELD),
    ({"now": 130.0}, verdicts.UNKNOWN),  # the source is silent
    ({"beats": [], "arrived": frozenset()}, verdicts.UNKNOWN),
    ({"beats": BEATS[-1:], "arrived": frozenset()}, verdicts.UNKNOWN),  # too early to tell
])
def test_the_table(fields: dict[str, object], kind: str) -> None:
    assert verdict(**fields).kind == kind


def test_a_skipped_interval_is_bounded_by_the_beats_around_it() -> None:
    found = verdict(arrived=ALL - {7, 8})
    assert (found.last_beat, found.next_beat) == (BEATS[6], BEATS[9])


def test_a_standstill_opens_one_finding_and_its_end_closes_it() -> None:
    auditor = Auditor("s", RULES)
    for now in (100.0, 105.0):
        auditor.judge(Look(part="0", now=now, beats=BEATS, arrived=UP_TO_15))
    (finding,) = auditor.book
    assert (finding.kind, finding.state, finding.part) == ("trigger_stuck", kinds.OPEN, "0")
    auditor.judge(Look(part="0", now=106.0, beats=BEATS, arrived=ALL))
    assert [each.state for each in auditor.book] == [kinds.CLOSED]


def test_beats_that_were_settled_are_no_skipped_interval_any_more() -> None:
    auditor = Auditor("s", RULES)
    look = Look(part="0", now=100.0, beats=BEATS, arrived=ALL - {7, 8})
    assert auditor.judge(look).kind == verdicts.SKIPPED_INTERVAL
    auditor.settle("0", 8)
    assert auditor.judge(look).kind == verdicts.QUIET


def test_the_bounds_are_the_sums_that_the_docs_state() -> None:
    assert RULES.loss_bound_s == 1 + 5 + 10 + 5 + 1 + 2
    assert RULES.stuck_bound_s == 5 + 10 + 5 + 1 + 2


@pytest.mark.parametrize("name", ["slo_s", "audit_every_s"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_rule_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Rules(**{name: value})


def test_what_is_missing_is_believed_only_when_it_is_due_and_read_twice() -> None:
    auditor = Auditor("s", RULES)
    young = Difference("a", 1, expected=((b"", 1),), expected_at=95.0)
    old = Difference("a", 0, expected=((b"", 1),), expected_at=50.0)
    assert auditor.screen([young, old], 100.0) == [("a", 0)]
    record = Record("a", 0, b"", 50.0)
    assert auditor.confirm([record], [record], 100.0) == []  # it had been under way
    (finding,) = auditor.confirm([record], [], 100.0)
    assert (finding.kind, finding.delay_s) == ("missing", 50.0)
    assert auditor.confirm([record], [], 105.0) == []
    assert auditor.screen([old], 105.0) == []


def test_a_finding_closes_only_with_evidence_from_the_sink() -> None:
    book = Book("s", RULES)
    finding = book.observe(Difference("a", 1, expected=((b"", 1),), expected_at=50.0), 100.0)
    assert finding is not None
    record = Record("a", 1, b"", 50.0)
    assert book.recheck(finding, [record], [], 110.0).state == kinds.OPEN
    closed = book.recheck(finding, [record], [Record("a", 1, b"", 108.0)], 110.0)
    assert (closed.state, closed.kind, closed.evidence["arrived_at"]) == (kinds.CLOSED, kinds.LATE, "108.000")
    assert "58.0 s after" in closed.note
    assert book.recheck(finding, [record], [record], 110.0, repaired=True).kind == kinds.MISSING


def test_what_cannot_be_repaired_stays_in_every_report() -> None:
    book = Book("s", RULES)
    finding = book.open(kinds.MISSING, 1.0, key="a", version=1)
    assert finding is not None
    lost = book.lose(finding, "no copy exists")
    assert lost.note.startswith("LOST_UNREPAIRABLE")
    assert [each.id for each in book.open_ones()] == [finding.id]


def test_findings_survive_json() -> None:
    finding = Book("s", RULES).open("missing", 1.0, key="a", version=1, evidence={"found": "nothing"})
    assert msgspec.json.decode(msgspec.json.encode(finding), type=type(finding)) == finding


def test_order_is_judged_by_first_arrival() -> None:
    arrivals = [Record("a", version) for version in (1, 3, 2, 1, 4)] + [Record("b", 0)]
    assert [each.version for each in out_of_order(arrivals)] == [2]
