"""A batch of operations as one statement: the fence, and after it the parts that this batch has, any number of rows each.

    fence ──▶ records ─ changed ─ parked ─ created ─ attributed ─ begun ──▶ who was created

Rows go as columns, by `unnest`. A part that is empty is left out: the server would set up its scan and its update for nothing, which
for a batch of a few records costs more than the records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import count
from typing import Any

from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.lanes import Lane, lane_of
from yaoki.saga.journal.postgres.statements import NOW
from yaoki.saga.records import RunState

Columns = list[list[Any]]

# Each `?` is the next parameter. Columns of numbers go as text: of a list of them, asyncpg looks at each to see whether it is a
# list itself, which costs it more than to encode it.
PARTS = {
    "records": """
INSERT INTO yaoki.record (run, seq, kind, step, data, at)
SELECT r.* FROM fence, unnest(?::text::bigint[], ?::text::int[], ?::text[], ?::text[], ?::bytea[], ?::text::float8[]) AS r""",
    # `owner` is left alone when a run ends (see migrations.py). A blocked run that is still owned, for its other steps go on, is
    # not due either should its owner die: a person decides.
    "changed": f"""
UPDATE yaoki.run SET state = c.state, result = c.result, reason = c.reason, updated_at = c.at, finished_at = c.ended,
    due_at = CASE WHEN c.state = 'blocked' THEN 'infinity' WHEN run.due_at = 'infinity' THEN {NOW} ELSE run.due_at END
FROM fence, unnest(?::text::bigint[], ?::text[], ?::bytea[], ?::text[], ?::text::float8[], ?::text::float8[])
    AS c(no, state, result, reason, at, ended)
WHERE run.no = c.no""",
    # Its owner gives it up, until then. A request that came meanwhile makes it due at once.
    "parked": f"""
UPDATE yaoki.run SET owner = NULL, state = coalesce(nullif(p.state, ''), run.state),
    reason = CASE WHEN p.state = '' THEN run.reason ELSE p.reason END, updated_at = p.at, due_at = CASE
    WHEN EXISTS (SELECT FROM yaoki.request q WHERE q.run = run.id) THEN {NOW} ELSE p.due_at END
FROM fence, unnest(?::text::bigint[], ?::text[], ?::text[], ?::text::float8[], ?::text::float8[])
    AS p(no, state, reason, at, due_at)
WHERE run.no = p.no""",
    # An id of the past is not started again: its run is looked up afterwards. One that becomes so while this is written is found
    # by `refuse_past` (functions.py), which a batch of made-up ids needs not ask. Sorted by id, so that two workers that start the
    # same runs at once wait for each other in one order.
    "created": f"""
INSERT INTO yaoki.run (id, saga, graph, state, input, traceparent, created_at, updated_at, deadline_at, lane, owner, fence, due_at)
SELECT n.id, n.saga, n.graph, 'running', n.input, n.traceparent, n.at, n.at, n.deadline_at, n.lane,
    CASE WHEN n.mine THEN fence.no END, n.mine::int, coalesce(nullif(n.due_at, 0), {NOW})
FROM fence, unnest(?::text[], ?::text[], ?::text[], ?::bytea[], ?::text[], ?::text::float8[], ?::text::float8[], ?::text::int[],
    ?::text::bool[], ?::text::float8[], ?::text::bool[])
    AS n(id, saga, graph, input, traceparent, at, deadline_at, lane, mine, due_at, fresh)
WHERE n.fresh OR NOT EXISTS (SELECT FROM yaoki.past WHERE past.id = n.id)
ORDER BY n.id
ON CONFLICT (id) DO NOTHING RETURNING no, id""",
    "attributed": """
INSERT INTO yaoki.attribute (run, name, value) SELECT created.no, a.name, a.value
FROM created JOIN unnest(?::text[], ?::text[], ?::text[]) AS a(id, name, value) ON a.id = created.id""",
    "begun": """
INSERT INTO yaoki.record (run, seq, kind, step, data, at) SELECT created.no, b.seq, b.kind, b.step, b.data, b.at
FROM created JOIN unnest(?::text[], ?::text::int[], ?::text[], ?::text[], ?::bytea[], ?::text::float8[])
    AS b(id, seq, kind, step, data, at) ON b.id = created.id""",
}

_DONE = "SELECT no FROM fence"
_CREATED = "SELECT created.no, created.id FROM fence LEFT JOIN created ON true"
_SETTLED = """
SELECT created.no, created.id, settled.past FROM fence LEFT JOIN created ON true CROSS JOIN (
    SELECT yaoki.refuse_past((SELECT times FROM yaoki.moved), array_agg(id)) AS past FROM created) AS settled"""


@cache
def statement_of(parts: tuple[str, ...], *, named: bool) -> str:
    """The statement of a batch that has these parts. `named`: may a run of the past have the id of one that is created?"""
    numbers = count(4)  # $1 is the worker, $2 the batch's number, $3 the last claim's

    def numbered(part: str) -> str:
        first, *others = PARTS[part].split("?")
        return first + "".join(f"${next(numbers)}{each}" for each in others)

    written = "".join(f", {part} AS ({numbered(part)}\n)" for part in parts)
    end = _DONE if "created" not in parts else _SETTLED if named else _CREATED
    return f"{sql.BATCH_FENCE}{written}\n{end}"


COMMON = (("created",), ("records",), ("records", "changed"), ("records", "created"), ("records", "changed", "created"))
"""The parts of most batches of runs that do not wait."""


def rehearsal(parts: tuple[str, ...]) -> tuple[str, list[Any]]:
    """The statement of such a batch, and parameters from $4 on with no row in them: for a server to prepare it, and to plan it."""
    kinds = [kind for part in parts for kind in re.findall(r"\?::(text\[\]|bytea\[\]|text)", PARTS[part])]
    return statement_of(parts, named=False), ["{}" if kind == "text" else [] for kind in kinds]


class Batch:
    """One batch.

    Attributes:
        created: the runs to start, in the order given.
        asking: the entries that ask something of other runs.
        let_go: numbers of runs that their worker owns no more after this batch: ended, parked or blocked.
    """

    def __init__(self, operations: list[NewRun | Append]) -> None:
        self.created: list[NewRun] = []
        self.asking: list[Append] = []
        self.let_go: list[int] = []
        self._records: Columns = [[], [], [], [], [], []]
        self._changed: dict[int, tuple[Any, ...]] = {}
        self._parked: dict[int, tuple[Any, ...]] = {}
        for each in operations:
            if isinstance(each, NewRun):
                self.created.append(each)
            else:
                self._add(each)

    def _add(self, entry: Append) -> None:
        runs, seqs, kinds, steps, data, ats = self._records
        seq = entry.seq
        for record in entry.records:
            runs.append(entry.run)
            seqs.append(seq)
            kinds.append(record.kind)
            steps.append(record.step)
            data.append(record.data)
            ats.append(record.at)
            seq += 1
        if entry.asks:
            self.asking.append(entry)
        if entry.due_at is not None:
            self._park(entry, entry.due_at)
        elif entry.state is not None:
            self._change(entry, entry.state)

    def _park(self, entry: Append, due_at: float) -> None:
        state, _, reason, *_ = self._changed.pop(entry.run, ("", b"", ""))  # one row is updated once in a statement
        if entry.state is not None:
            state, reason = entry.state.value, entry.reason
        self._parked[entry.run] = (entry.run, state, reason, entry.at, due_at)
        self.let_go.append(entry.run)

    def _change(self, entry: Append, state: RunState) -> None:
        self._parked.pop(entry.run, None)
        self._changed[entry.run] = (entry.run, state.value, entry.result, entry.reason, entry.at, entry.at if state.is_end else 0.0)
        if state.is_end:
            self.let_go.append(entry.run)

    def prepared(self, lanes: dict[Lane, int]) -> tuple[str, list[Any]]:
        """The statement, and its parameters from $4 on. `lanes`: the numbers of all lanes that it needs."""
        columns = {"records": self._records if self._records[0] else [], "changed": _columns(self._changed.values()),
                   "parked": _columns(self._parked.values())}
        if runs := self.created:
            columns["created"] = _columns((run.id, run.saga, run.graph, run.input, run.traceparent, run.at, run.deadline_at,
                                           lanes[lane_of(run)], run.keep, run.due_at, run.fresh) for run in runs)
            columns["attributed"] = _columns((run.id, name, value) for run in runs for name, value in run.attributes)
            columns["begun"] = _columns((run.id, seq, record.kind, record.step, record.data, record.at)
                                        for run in runs for seq, record in enumerate(run.records))
        parts = tuple(part for part, rows in columns.items() if rows)
        named = not all(run.fresh for run in self.created)
        return statement_of(parts, named=named), [_sent(column) for part in parts for column in columns[part]]


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [list(column) for column in zip(*rows, strict=True)]


def _sent(column: list[Any]) -> Any:
    """What asyncpg is given: numbers as an array's text."""
    return "{" + ",".join(map(str, column)) + "}" if isinstance(column[0], (int, float)) else column
