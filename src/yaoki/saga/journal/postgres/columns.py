"""A batch of operations turned into columns, for `unnest`: one statement carries any number of rows."""

from __future__ import annotations

from typing import Any

from yaoki.saga.journal.port import Append, NewRun

Lane = tuple[str, str, str, int, str]
"""saga, graph, queue, priority, tenant: what may be claimed together."""


def lane_of(run: NewRun) -> Lane:
    return (run.saga, run.graph, run.queue, run.priority, run.tenant)


class BatchColumns:
    """One batch.

    Attributes:
        created: the runs to start, in the order given.
        asking: the entries that ask something of other runs.
        let_go: numbers of runs that their worker owns no more after this batch: ended, parked or blocked.
    """

    def __init__(self, batch: list[NewRun | Append]) -> None:
        self.created: list[NewRun] = []
        self.asking: list[Append] = []
        self.let_go: list[int] = []
        self._records: tuple[list[Any], ...] = ([], [], [], [], [], [])
        self._changed: dict[int, tuple[Any, ...]] = {}
        self._parked: dict[int, tuple[Any, ...]] = {}
        for each in batch:
            if isinstance(each, NewRun):
                self.created.append(each)
            else:
                self._add(each)

    def _add(self, entry: Append) -> None:
        runs, seqs, kinds, steps, data, ats = self._records
        for i, record in enumerate(entry.records):
            runs.append(entry.run)
            seqs.append(entry.seq + i)
            kinds.append(record.kind.value)
            steps.append(record.step)
            data.append(record.data)
            ats.append(record.at)
        if entry.asks:
            self.asking.append(entry)
        state = entry.state
        if entry.due_at is not None:
            old = self._changed.pop(entry.run, ("", b"", ""))
            self._parked[entry.run] = (state.value if state else old[0], entry.reason if state else old[2], entry.at, entry.due_at)
            self.let_go.append(entry.run)
        elif state is not None:
            self._parked.pop(entry.run, None)
            self._changed[entry.run] = (state.value, entry.result, entry.reason, entry.at, entry.at if state.is_end else 0.0)
            if state.is_end:
                self.let_go.append(entry.run)

    def values(self, lanes: dict[Lane, int]) -> list[Any]:
        """Parameters $3 and following of the statement."""
        changed = [list(column) for column in zip(*self._changed.values(), strict=True)] or [[] for _ in range(5)]
        parked = [list(column) for column in zip(*self._parked.values(), strict=True)] or [[] for _ in range(4)]
        found = [*self._records, list(self._changed), *changed, list(self._parked), *parked]
        if self.created:
            runs = self.created
            found += [[run.id for run in runs], [run.saga for run in runs], [run.graph for run in runs],
                      [run.input for run in runs], [run.traceparent for run in runs], [run.at for run in runs],
                      [run.deadline_at for run in runs], [lanes[lane_of(run)] for run in runs],
                      [run.keep for run in runs], [run.due_at for run in runs], [run.fresh for run in runs]]
            if self.has_more:
                found += _more(runs)
        return found

    @property
    def has_more(self) -> bool:
        """Do runs to start have attributes, or a history already?"""
        return any(run.attributes or run.records for run in self.created)

    @property
    def is_named(self) -> bool:
        """May a run of the past have the id of one of them?"""
        return not all(run.fresh for run in self.created)


def _more(runs: list[NewRun]) -> list[Any]:
    """Parameters $31 and following."""
    attributes = [(run.id, name, value) for run in runs for name, value in run.attributes]
    records = [(run.id, seq, record.kind.value, record.step, record.data, record.at) for run in runs for seq, record in enumerate(run.records)]
    return [[each[i] for each in attributes] for i in range(3)] + [[each[i] for each in records] for i in range(6)]
