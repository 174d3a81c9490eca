"""What `yk runs show` tells of operators: is the run, or its saga, paused; who did what to it; by what it is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from yaoki import runtime
from yaoki.cli.frame.durations import show_age
from yaoki.cli.operations import as_data, in_words
from yaoki.text import printable

if TYPE_CHECKING:
    from yaoki.saga.journal.operations import Operation, Pause
    from yaoki.saga.journal.port import Journal
    from yaoki.saga.records import Header


class Operated:
    """Read once, for one run."""

    def __init__(self, pauses: list[Pause], log: list[Operation], attributes: dict[str, str]) -> None:
        self._pauses = pauses
        self._log = log
        self._attributes = attributes

    @staticmethod
    async def read(journal: Journal, header: Header) -> Operated:
        about = {("run", header.id), ("saga", header.saga)}
        pauses = [] if header.state.is_end else [each for each in await journal.pauses() if (each.kind, each.name) in about]
        attributes = await journal.attributes([header.no])
        return Operated(pauses, await journal.operations(kind="run", name=header.id), attributes.get(header.no, {}))

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {"attributes": self._attributes, "operations": [as_data(line) for line in self._log],
                "paused": [{"kind": each.kind, "name": each.name, "who": each.who or None, "why": each.why or None} for each in self._pauses]}

    def lines(self) -> Iterator[str]:
        """For people."""
        now = runtime.unix_time()
        if self._attributes:
            yield click.style("  " + ", ".join(f"{name}={printable(value)}" for name, value in self._attributes.items()), dim=True)
        for pause in self._pauses:
            what = "paused" if pause.kind == "run" else f"its {pause.kind} is paused"
            yield click.style(f"  {what} {show_age(pause.at, now)}{_by(pause.who, pause.why)}: yk resume {pause.kind} {pause.name}", fg="yellow")
        for line in self._log:
            yield f"  {show_age(line.at, now)}: {printable(in_words(line))}{_by(line.who, line.why)}"


def _by(who: str, why: str) -> str:
    return (f" by {printable(who)}" if who else "") + (f" ({printable(why)})" if why else "")
