"""Has runs retried: their blocked steps by the old keys, or, from a step on, taken back and made anew. What the latter is: `saga/rewinding.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from yaoki import runtime
from yaoki.errors import RunNotFoundError, UsageError
from yaoki.saga.engine.forks import graph_of
from yaoki.saga.machine import Machine, decide
from yaoki.saga.mapping import translated
from yaoki.saga.rewinding import Retry, check, followers_of

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine
    from yaoki.saga.journal.port import Journal


async def retry_from(engine: Engine, run_id: str, step: str, *, who: str, why: str) -> None:
    """Ask it. Raises RunNotFoundError, RetryFromError, UsageError."""
    checked(await folded(engine.journal, run_id), step)
    await engine.requests.ask(run_id, "retry", request(step, who=who, why=why))


async def retry_blocked(engine: Engine, run_id: str, step: str, *, who: str, why: str) -> None:
    """Try a blocked step again, or all of them. Raises RunNotFoundError, UsageError."""
    machine = await folded(engine.journal, run_id)
    blocked = [machine.graph.names[number] for number in machine.blocked]
    if not blocked or (step and step not in blocked):
        what = f"step {step!r} of run {run_id} is not blocked" if step else f"run {run_id} is {machine.state}, not blocked"
        raise UsageError(what, do=f"blocked is: {', '.join(blocked)}" if blocked else "to make steps anew: retry(from_=...)", run_id=run_id)
    for each in [step] if step else blocked:
        await engine.requests.resolve(run_id, each, "retry", None, who=who, why=why)


async def folded(journal: Journal, run_id: str) -> Machine:
    """The run as the journal has it. Raises RunNotFoundError, UsageError."""
    stored = await journal.read(run_id)
    if stored is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
    return decide(await graph_of(journal, stored), translated(stored.records))


def checked(machine: Machine, step: str) -> list[str]:
    """What would be taken back and made anew. Raises RetryFromError. What could run at this moment is taken to be running."""
    check(machine, step, machine.start)
    return [machine.graph.names[number] for number in sorted(followers_of(machine.graph, [step]))]


def request(step: str, *, who: str, why: str) -> bytes:
    return msgspec.json.encode(Retry(step, runtime.new_id(), who, why))
