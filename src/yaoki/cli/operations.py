"""See what operators did: every pause, cancel, decision, fork and limit, with who and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Output, output
from yaoki.cli.frame.options import limit_option
from yaoki.cli.runs.choosing import db_option

if TYPE_CHECKING:
    from yaoki.saga.journal.operations import Operation


@click.group()
def command() -> None:
    """See what operators did: every pause, cancel, decision, fork and limit, with who and why."""


@command.command("list", epilog="\b\nExamples:\n  yk operations list\n  yk operations list --about trip-42\n  yk operations list --json | jq -r .who")
@click.option("--kind", type=click.Choice(["run", "saga", "queue"]), help="Only about these.")
@click.option("--about", default="", metavar="NAME", help="Only about this run, saga or queue.")
@limit_option
@db_option
def list_(*, kind: str | None, about: str, limit: int, db: str) -> None:
    """List what operators did, newest first. The log is only ever added to."""
    from yaoki.cli.frame.journal import wait_for

    tell(output(), wait_for(_list(db, kind or "", about, limit)))


async def _list(db: str, kind: str, name: str, limit: int) -> list[Operation]:
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        return await journal.operations(kind=kind, name=name, limit=limit)


def tell(out: Output, found: list[Operation]) -> None:
    from yaoki import runtime
    from yaoki.cli.frame.durations import show_age

    for line in found:
        out.emit(as_data(line))
    if not found:
        out.say("no operator has done anything that fits")
        return
    now = runtime.unix_time()
    out.table(("when", "who", "did", "to", "why"), [
        (show_age(line.at, now), line.who, in_words(line), f"{line.kind} {line.name}", line.why) for line in found])


def as_data(line: Operation) -> dict[str, Any]:
    import msgspec

    from yaoki.cli.frame.durations import show_instant

    return {"no": line.no, "at": show_instant(line.at), "action": line.action, "kind": line.kind, "name": line.name, "who": line.who or None,
            "why": line.why or None, "data": msgspec.json.decode(line.data)}


def in_words(line: Operation) -> str:
    """`resolve pay: retry`, `set concurrency 5`, `fork from flight as trip-42~1`."""
    import msgspec

    data = msgspec.json.decode(line.data)
    if line.action == "resolve":
        return f"resolve {data.get('step')}: {data.get('decision')}"
    refused = f": {data['refused']}" if data.get("refused") else ""
    if line.action in {"retry", "refuse retry"}:
        return f"{line.action} from {data.get('step')}{refused}"
    if line.action in {"undo", "refuse undo"}:
        return f"{line.action}{', but what has no undo' if data.get('past_pivot') else ''}{refused}"
    if line.action == "signal":
        return f"signal {data.get('name')}"
    if line.action == "fork":
        return f"fork from {data.get('step')} as {data.get('id')}"
    if line.action == "set":
        return "set " + (", ".join(f"{name} {value:g}" for name, value in data.items() if value is not None) or "no limits")
    return line.action
