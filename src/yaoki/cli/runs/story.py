"""What the journal knows of one run, told: a decider from header, graph and records to lines and boxes.

    +0.012 s  ✓ hotel   done             {"booking":"b-17"}
    +0.318 s  ✗ flight  failed           ConnectError: no route, after 3 attempts; in doubt
    +0.319 s  ↶         undoing itself   flight: ConnectError: no route
    +0.402 s  ↶ hotel   undone
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from yaoki.cli.frame.durations import show_duration, show_instant
from yaoki.cli.runs.family import told_of_child
from yaoki.saga.drawing import Look, look_of
from yaoki.saga.drawing.look import STATES
from yaoki.saga.graph import Graph
from yaoki.saga.locking import shown as shown_key
from yaoki.saga.machine import HistoryError, Machine, Step
from yaoki.saga.mapping import translated
from yaoki.saga.records import (
    Abort,
    Adopted,
    Attempted,
    Failure,
    Kind,
    Late,
    Mapped,
    Record,
    Resolution,
    Retried,
    Stored,
    Waiting,
)
from yaoki.text import grouped


class Line(NamedTuple):
    """One line of a run's history. `tone` as in `drawing.Look`."""

    at_s: float
    mark: str
    step: str
    what: str
    more: str
    tone: str


class Story:
    """One run.

    Attributes:
        stored: header and records. `graph`: its definition, or None when the journal does not have it.
        machine: the fold of its records, or None; `wrong` says why not.
    """

    def __init__(self, stored: Stored, graph: Graph | None) -> None:
        self.stored = Stored(stored.header, translated(stored.records))
        self.graph = graph
        self.machine: Machine | None = None
        self.wrong = "" if graph else "the journal does not hold this run's definition"
        if graph is not None:
            self._fold(Machine(graph))

    def _fold(self, machine: Machine) -> None:
        try:
            for record in self.stored.records:
                machine.apply(record)
            self.machine = machine
        except (HistoryError, msgspec.DecodeError) as error:
            self.wrong = f"its history does not fit its definition: {error}"

    # ── who waits for a person ───────────────────────────────────────────────────────────────────────────────────────

    def blocked(self) -> dict[str, Failure]:
        """Each step that needs a person, with what happened to it; in the order in which they came to need one."""
        if self.machine is None:
            return {}
        names = [self.machine.graph.names[number] for number in self.machine.blocked]
        last = {record.step: record for record in self.stored.records if record.kind is Kind.BLOCKED}
        return {name: _failure(last[name]) for name in names if name in last}

    # ── boxes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def looks(self) -> list[Look]:
        """What each step's box says: where it is, how long it took, how many attempts."""
        assert self.machine is not None
        return [self._look(self.machine, number) for number in range(len(self.machine.graph))]

    def _look(self, machine: Machine, number: int) -> Look:
        """As the machine says it; of what is clear, how it came to be so."""
        look = look_of(machine, number, self._took(number))
        if machine.steps[number] != Step.CLEAR:
            return look
        name = machine.graph.names[number]
        last = next((record for record in reversed(self.stored.records) if record.step == name), None)
        if last is None:
            return replace(look, title=f"· {name}", sub="never began", tone="idle")
        if last.kind is Kind.FAILED:
            return replace(look, title=f"✗ {name}", sub=f"failed  {self._took(number)}".strip(), tone="bad")
        return replace(look, title=f"↶ {name}", sub="undone")

    def _took(self, number: int) -> str:
        assert self.machine is not None
        name = self.machine.graph.names[number]
        records = [record for record in self.stored.records if record.step == name and record.kind is not Kind.ATTEMPTS]
        if not records:
            return ""
        last = records[-1]
        failures = [_failure(record) for record in records if record.kind in {Kind.FAILED, Kind.BLOCKED}]
        made = failures[-1].attempts if failures else 1 + self._failed_attempts(name)
        attempts = f"{grouped(made)} attempts" if made > 1 else ""
        time = show_duration(max(0.0, last.at - self._could_begin(number, last))) if last.kind is Kind.DONE else ""
        return "  ".join(part for part in (time, attempts) if part)

    def _failed_attempts(self, name: str) -> int:
        """Attempts of the step itself that failed before the one that succeeded."""
        told = [msgspec.json.decode(record.data, type=Attempted) for record in self.stored.records
                if record.kind is Kind.ATTEMPTS and record.step == name]
        return sum(len(each.failed) + each.left_out for each in told if not each.undo)

    def _could_begin(self, number: int, last: Record) -> float:
        """When the step's last need was done: from then on it could run."""
        assert self.machine is not None
        needs = {self.machine.graph.names[need] for need in self.machine.graph.needs[number]}
        done = [record.at for record in self.stored.records if record.kind is Kind.DONE and record.step in needs and record.at <= last.at]
        return max(done, default=self.stored.header.created_at)

    # ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def lines(self) -> list[Line]:
        header = self.stored.header
        began = Line(0.0, "▸", "", "started", _shown(header.input), "plain")
        told = [line for record in self.stored.records for line in self._lines_of(record)]
        if header.state.is_end:
            mark = "✓" if header.state == "completed" else "∅"
            tone = "good" if header.state == "completed" else "gone"
            result = _shown(header.result) if header.result else ""
            told.append(Line(header.finished_at - header.created_at, mark, "", header.state, result, tone))
        return [began, *told]

    def _lines_of(self, record: Record) -> list[Line]:
        return self._attempts(record) if record.kind is Kind.ATTEMPTS else [self._line(record)]

    def _attempts(self, record: Record) -> list[Line]:
        """A line for each attempt before the last one: when it failed, how, and how long the next one waited."""
        attempted = msgspec.json.decode(record.data, type=Attempted)
        lines = []
        for number, failed in enumerate(attempted.failed):
            if attempted.left_out and number == len(attempted.failed) // 2:
                lines.append(Line(failed.at - self.stored.header.created_at, "⋮", record.step,
                                  f"{grouped(attempted.left_out)} more attempts", "", "idle"))
            error = f"{failed.error}: {failed.message}" if failed.message else failed.error
            what = f"{'undo ' if attempted.undo else ''}attempt failed"
            lines.append(Line(failed.at - self.stored.header.created_at, "↻", record.step, what,
                              f"{error}; again after {show_duration(failed.wait_s)}", "busy"))
        return lines

    def _line(self, record: Record) -> Line:
        at = record.at - self.stored.header.created_at
        node = self.graph.nodes[self.graph.index[record.step]] if self.graph and record.step in self.graph.index else None
        what, more, tone, mark = (node and node.child and told_of_child(record, self.stored.header.id)) or _told(record)
        return Line(at, mark, record.step, what, more, tone)

    # ── for programs ─────────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self) -> list[dict[str, Any]]:
        if self.machine is None:
            return []
        return [{"name": node.name, "state": Step(self.machine.steps[number]).name.lower(), "in_doubt": number in self.machine.doubt,
                 "undo": node.undo, "pivot": node.pivot} for number, node in enumerate(self.machine.graph.nodes)]

    def history(self) -> list[dict[str, Any]]:
        return [{"seq": seq, "at": show_instant(record.at), "kind": record.kind, "step": record.step or None, "data": _data(record.data)}
                for seq, record in enumerate(self.stored.records)]

    def ends(self) -> dict[str, Any]:
        return {"input": _data(self.stored.header.input), "result": _data(self.stored.header.result)}


def _told(record: Record) -> tuple[str, str, str, str]:
    """What a record says: words, more words, tone, mark."""
    if record.kind is Kind.DONE:
        return "done", _shown(record.data), "good", "✓"
    if record.kind is Kind.UNDONE:
        return "undone", "", "gone", "↶"
    if record.kind is Kind.ABORT:
        abort = msgspec.json.decode(record.data, type=Abort)
        return ("cancelled" if abort.cancelled and not abort.whole else "undoing itself"), abort.reason, "busy", "↶"
    if record.kind is Kind.RESOLVED:
        decided = msgspec.json.decode(record.data, type=Resolution)
        by = f"by {decided.who}" if decided.who else ""
        return f"decided: {decided.decision}", ", ".join(part for part in (by, decided.why) if part), "plain", "☞"
    if record.kind is Kind.WAITING:
        until = msgspec.json.decode(record.data, type=Waiting).until
        return "waits", f"until {show_instant(until)}" if until else "for an answer", "idle", "◷"
    if record.kind is Kind.SIGNAL:
        return "answered", _shown(record.data), "plain", "☞"
    if record.kind is Kind.AGAIN:
        return "asked again", in_words(_failure(record)), "busy", "↻"
    if record.kind is Kind.LATE:
        return "too late", f"{_shown(bytes(msgspec.json.decode(record.data, type=Late).result))}: for its undo", "busy", "☞"
    if record.kind is Kind.LOCKED:
        return "locked", ", ".join(shown_key(key) for key in msgspec.json.decode(record.data)), "plain", "▪"
    if record.kind is Kind.MAPPED:
        said = msgspec.json.decode(record.data, type=Mapped)
        return "goes on with other code", f"graph {said.old} became {said.new}", "plain", "▸"
    if record.kind is Kind.ADOPTED:
        adopted = msgspec.json.decode(record.data, type=Adopted)
        return "adopted", f"{_shown(bytes(adopted.result))}, done by {adopted.run}", "gone", "✓"
    if record.kind is Kind.SKIPPED:
        return "skipped", "its condition did not hold", "gone", "∅"
    if record.kind is Kind.STARTED:
        return ("begun" if "/" in record.step else "begun, once"), "", "plain", "▸"
    if record.kind is Kind.RETRIED:
        retried = msgspec.json.decode(record.data, type=Retried)
        by = f"by {retried.who}" if retried.who else ""
        return f"retried from {retried.step}", ", ".join(part for part in (by, retried.why) if part), "busy", "↶"
    if record.kind is Kind.ANEW:
        return "made anew", "nothing is left of what was retried", "plain", "▸"
    if record.kind is Kind.UNDO_ASKED:
        return "to be undone", f"once it is completed: {msgspec.json.decode(record.data, type=Abort).reason}", "busy", "↶"
    failure = _failure(record)
    what = ("undo blocked" if failure.undo else "blocked") if record.kind is Kind.BLOCKED else "failed"
    return what, in_words(failure), "bad", STATES[Step.BLOCKED if record.kind is Kind.BLOCKED else Step.FAILED][0]


def in_words(failure: Failure) -> str:
    """`ConnectError: no route, after 3 attempts; in doubt`."""
    attempts = f", after {failure.attempts} attempts" if failure.attempts > 1 else ""
    return f"{failure}{attempts}{'; in doubt' if failure.in_doubt else ''}"


def own_frames(trace: str) -> list[str]:
    """A traceback's lines without the frames that are Yaoki's: the bug is in the user's code."""
    lines, kept, ours = trace.rstrip().splitlines(), [], False
    for line in lines:
        if line.startswith('  File "'):
            ours = "/yaoki/saga/" in line
        if not (ours and line.startswith("  ")):
            kept.append(line)
    return kept


def _failure(record: Record) -> Failure:
    return msgspec.json.decode(record.data, type=Failure)


def _data(data: bytes) -> Any:
    """A payload as JSON, or how long it is when a codec of the user's has encrypted it."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {"encrypted_bytes": len(data)}


def _shown(data: bytes) -> str:
    value = _data(data)
    if isinstance(value, dict) and value.keys() == {"encrypted_bytes"}:
        return f"(encrypted, {len(data)} bytes)"
    return "" if value is None else msgspec.json.encode(value).decode()
