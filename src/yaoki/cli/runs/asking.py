"""What a person decides about runs, written into the journal as a request.

    a request ──▶ journal ──▶ the engine that runs carries it out (it looks twice a second), or the next one that starts

A decision that cannot apply is refused here, before anything is written: the run has ended, the step is not blocked, the
pivot is passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from yaoki import runtime
from yaoki.cli.frame import Exit, Output
from yaoki.cli.frame.asking import user_name
from yaoki.cli.frame.options import unless_default
from yaoki.cli.runs.completing import complete_run
from yaoki.errors import UsageError
from yaoki.saga.journal.port import Ask
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story
    from yaoki.saga.journal.port import Journal

# How long an engine that runs may take to carry a request out before it is said that none does: seconds. It looks every 0.5.
WAIT_S = 2.0

# Of so many runs each is told what became of it; of more, only how many.
FEW = 20

Asked = tuple[str, str, dict[str, Any]]
"""Run, kind and data of a request."""


who_option = click.option("--who", default=user_name, show_default="your user name", help="Who decides; it is kept in the history.")
why_option = click.option("--why", default="", help="Why; it is kept in the history.")
run_argument = click.argument("run", shell_complete=complete_run)
run_argument_optional = click.argument("run", required=False, shell_complete=complete_run)


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def ask_one(out: Output, db: str, run: str, decide: Callable[[Story], list[Asked]]) -> Exit:
    from yaoki.cli.frame.journal import wait_for

    return wait_for(_decide_andsend(out, db, run, decide))


async def _decide_andsend(out: Output, db: str, run: str, decide: Callable[[Story], list[Asked]]) -> Exit:
    from yaoki.cli.frame.journal import find, observed

    async with observed(db) as journal:
        asked = decide(await story_of(journal, (await find(journal, run)).header.id))
    return await send(out, db, asked)


async def story_of(journal: Journal, run_id: str) -> Story:
    from yaoki.cli.runs.story import Story
    from yaoki.saga.graph import Graph

    stored = await journal.read(run_id)
    assert stored is not None
    graph = await journal.load_graph(stored.header.graph)
    return Story(stored, Graph.from_json(graph) if graph else None)


async def send(out: Output, db: str, asked: list[Asked]) -> Exit:
    """Write the requests, and see whether somebody carries them out."""
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        await journal.request_many([Ask(run, kind, msgspec.json.encode(data)) for run, kind, data in asked], runtime.unix_time())
        runs = {run for run, _, _ in asked}
        until = runtime.monotonic() + WAIT_S
        while (left := [r for r in await journal.requests() if r.run in runs]) and runtime.monotonic() < until:
            await runtime.sleep(0.05)
        for run in sorted(runs):
            stored = await journal.read(run)
            state = stored.header.state if stored else None
            waiting = any(request.run == run for request in left)
            out.emit({"run": run or None, "carried_out": not waiting, "state": state})
            if not left and run and len(runs) <= FEW:
                refused = f": {stored.header.reason}" if stored and state is RunState.BLOCKED else ""
                out.say(f"{run}: carried out, it is {state} now{refused}")
    if not left:
        if len(runs) > FEW or "" in runs:
            out.say(f"{len(asked)} carried out")
        return Exit.OK
    out.say(f"written into the journal: {len(asked)} for {len(runs)} run{'s' if len(runs) > 1 else ''}")
    out.remark("no engine has carried this out yet. One that is busy will at its next step; where none runs, the next one that "
               "starts does,\nfor example: yk run MODULE:SAGA" + unless_default(db))
    return Exit.OK


# ── what cannot apply ────────────────────────────────────────────────────────────────────────────────────────────────


def refuse_ended(story: Story) -> None:
    header = story.stored.header
    if header.state.is_end:
        raise UsageError(f"run {header.id} has ended already: it is {header.state}", do="start another run, under another id",
                         run_id=header.id, state=header.state)


def refuse_not_blocked(story: Story, step: str) -> None:
    refuse_ended(story)
    blocked = list(story.blocked())
    if step in blocked:
        return
    header = story.stored.header
    what = f"step {step!r} of run {header.id} is not blocked" if step else f"run {header.id} is {header.state}, not blocked"
    do = f"blocked is: {', '.join(blocked)}" if blocked else "it goes on by itself; `yk runs show` says what it is doing"
    if story.graph is not None and step and step not in story.graph.index:
        what = f"run {header.id} has no step {step!r}; its steps are {', '.join(story.graph.names)}"
    raise UsageError(what, do=do, run_id=header.id)
