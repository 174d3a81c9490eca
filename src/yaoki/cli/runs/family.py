"""Runs that started runs, and steps made of parts, as `yk runs show` tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from yaoki.cli.frame.options import unless_default
from yaoki.cli.runs.listing import COLORS
from yaoki.saga.family import OUTCOME, child_id, parent_of
from yaoki.saga.records import Header, Kind, Record
from yaoki.text import grouped, printable

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Line
    from yaoki.saga.journal.port import Journal

# Runs of a family that are told by name; more are counted.
TOLD = 20

# Lines of one step's parts that are told, from the beginning and from the end; failures are told all.
PARTS = 6


class Family:
    """parent: the run that started this one, or None. children: what it has started, and what those have, newest first."""

    def __init__(self, parent: Header | None, children: list[Header]) -> None:
        self.parent = parent
        self.children = children

    @staticmethod
    async def read(journal: Journal, run: str) -> Family:
        from yaoki.saga.journal.port import Query

        found = parent_of(run)
        parents = await journal.headers([found[0]]) if found else []
        return Family(parents[0] if parents else None, await journal.search(Query(id_prefix=f"{run}/", limit=TOLD + 1)))

    def data(self) -> dict[str, Any]:
        return {"parent": self.parent.id if self.parent else None,
                "children": [{"id": child.id, "saga": child.saga, "state": child.state} for child in self.children]}

    def lines(self, db: str) -> Iterator[str]:
        if self.parent is not None:
            yield click.style(f"  started by {printable(self.parent.id)} ({self.parent.saga}, ", dim=True) + _state(self.parent) + \
                click.style(")", dim=True)
        for child in reversed(self.children[:TOLD]):
            yield f"  ⑂ {printable(child.id)}  {_state(child)}  {click.style(child.saga, dim=True)}"
        if len(self.children) > TOLD:
            yield click.style(f"  ⑂ and more: yk runs list{unless_default(db)}", dim=True)


def _state(header: Header) -> str:
    return click.style(header.state, fg=COLORS[header.state])


def told_of_child(record: Record, run: str) -> tuple[str, str, str, str] | None:
    """What a record says of the run that its step has started: words, more words, tone, mark. None: nothing."""
    if record.kind is Kind.WAITING:
        return "waits", f"for run {child_id(run, record.step)}", "idle", "⑂"
    if record.kind is Kind.SIGNAL:
        try:
            outcome = OUTCOME.decode(record.data)
        except msgspec.DecodeError:
            return None
        return "was told", f"{outcome.child} is {outcome.state}{': ' if outcome.reason else ''}{outcome.reason}", "plain", "☞"
    return None


def condensed(lines: Sequence[Line]) -> list[Line]:
    """The lines of a history, those of a step's many parts cut to the first and the last of them, and what failed."""
    places: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        if "/" in line.step:
            places.setdefault(line.step.partition("/")[0], []).append(place)
    left_out: dict[int, int] = {}  # place → how many lines it stands for
    for of_step in places.values():
        if len(of_step) > 2 * PARTS + 1:
            between = [place for place in of_step[PARTS:-PARTS] if lines[place].tone != "bad"]
            left_out.update(dict.fromkeys(between, 0))
            if between:
                left_out[between[0]] = len(between)
    told: list[Line] = []
    for place, line in enumerate(lines):
        if place not in left_out:
            told.append(line)
        elif left_out[place]:
            step = line.step.partition("/")[0]
            told.append(line._replace(mark="⋮", step=step, what=f"{grouped(left_out[place])} more lines", more="--full shows all", tone="idle"))
    return told
