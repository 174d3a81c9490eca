"""`yk runs list`: newest first, one line a run."""

from __future__ import annotations

import click

from yaoki import runtime
from yaoki.cli.frame import Output, output
from yaoki.cli.frame.durations import show_age, show_duration, show_instant
from yaoki.cli.frame.options import limit_option
from yaoki.cli.frame.tables import Cell, Column
from yaoki.cli.runs.choosing import every, filters
from yaoki.saga.attributes import Attributes
from yaoki.saga.records import Header, RunState
from yaoki.text import grouped

COLORS = {RunState.COMPLETED: "green", RunState.UNDONE: "yellow", RunState.CANCELLED: "yellow", RunState.BLOCKED: "red",
          RunState.RUNNING: "cyan", RunState.UNDOING: "cyan"}


@click.command("list")
@filters
@limit_option
def list_(*, db: str, states: tuple[RunState, ...], saga: str, since: float | None, until: float | None, where: Attributes,
          idle: float | None, limit: int) -> None:
    r"""List runs, newest first.

    \b
    Examples:
      yk runs list --state blocked             what waits for a person
      yk runs list --state unfinished --since 1h
      yk runs list --where customer=42 --where region=eu
      yk runs list --saga book-trip --json | jq -r .id
    """
    from yaoki.cli.frame.journal import wait_for

    wait_for(_list(output(), db, {"states": states, "saga": saga, "since": since, "until": until, "where": where, "idle": idle}, limit))


async def _list(out: Output, db: str, wanted: dict[str, object], limit: int) -> None:
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        found = [header async for header in every(journal, **wanted, limit=limit)]  # type: ignore[arg-type]
        counts = await journal.counts(str(wanted["saga"]))
        attributes = await journal.attributes([header.no for header in found]) if found else {}
    for header in found:
        out.emit({**as_data(header), "attributes": attributes.get(header.no, {})})
    now = runtime.unix_time()
    out.table(("run", "saga", "state", "began", Column("took", right=True), "why"), [_row(header, now) for header in found])
    by_state = " · ".join(click.style(f"{state} {grouped(counts[state])}", fg=COLORS[state]) for state in RunState if state in counts)
    more = f"; the newest {limit} that fit are shown, --limit shows more" if len(found) == limit else ""
    nothing = f"no run of a saga {wanted['saga']!r}" if wanted["saga"] else "no runs"
    out.remark(("\n" if found else "") + f"in the journal: {by_state or nothing}{more}" + ("" if found or not by_state else "; none fits"))


def _row(header: Header, now: float) -> tuple[Cell | str, ...]:
    took = show_duration((header.finished_at or now) - header.created_at)
    return (header.id, header.saga, Cell(header.state, COLORS[header.state]), show_age(header.created_at, now),
            Cell(took, dim=not header.finished_at), header.reason)


def as_data(header: Header) -> dict[str, object]:
    """A run's header for programs. Times are ISO 8601, UTC; null where there is none."""
    return {"id": header.id, "saga": header.saga, "state": header.state, "reason": header.reason or None,
            "created_at": show_instant(header.created_at), "updated_at": show_instant(header.updated_at),
            "finished_at": show_instant(header.finished_at) or None, "deadline_at": show_instant(header.deadline_at) or None,
            "graph": header.graph, "traceparent": header.traceparent or None}
