"""An answer to a step that waits for one: what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import AnswerConflictError, InputError, TooLateError
from yaoki.saga import codec
from yaoki.saga.naming import now_called
from yaoki.saga.outside.seen import Seen, see, settled
from yaoki.saga.records import Kind, Record
from yaoki.saga.rewinding import of_this_round
from yaoki.saga.waiting import check_answer

if TYPE_CHECKING:
    from yaoki.saga.engine import Engine


def counts(seen: Seen, name: str, data: bytes) -> bool:
    """Is this the answer that counts? False: none does yet.

    Raises:
        AnswerConflictError: another one came first. TooLateError: the run does not wait for any.
        InputError: no step of this name waits for an answer.
    """
    name = now_called(seen.machine, name)
    node, run = seen.node(name), seen.header.id
    if node is None or node.waits != "signal":
        waiting = [each.name for each in seen.machine.graph.nodes if each.waits == "signal"]
        raise InputError(f"saga {seen.header.saga!r} has no step {name!r} that waits for an answer",
                         do=f"name one of: {', '.join(waiting)}" if waiting else "this saga waits for none", unknown=True)
    first = _first(seen, name)
    if first is not None:
        if msgspec.json.decode(first.data) == msgspec.json.decode(data):
            return True
        raise AnswerConflictError(f"run {run} has another answer to {name} already", do="the first one counts: `yk runs show` tells it",
                                  run_id=run, step=name)
    if not seen.machine.takes_answer(name):
        undone = seen.machine.abort is not None
        raise TooLateError(f"run {run} does not wait for {name} any more: it is {seen.header.state}",
                           do="nothing was recorded; `yk runs show` says what the run went on with", run_id=run, step=name, undone=undone)
    return False


def _first(seen: Seen, name: str) -> Record | None:
    """The answer that counts: the first one, if it came before the step had ended without one."""
    for record in of_this_round(seen.stored.records, name):
        if record.step == name and record.kind is Kind.SIGNAL:
            return record
        if record.kind is Kind.ABORT or (record.step == name and record.kind in {Kind.DONE, Kind.FAILED, Kind.SKIPPED, Kind.RESOLVED}):
            return None
    return None


async def answer(engine: Engine, run_id: str, name: str, value: Any, *, who: str = "", wait_s: float = 5.0) -> bool:
    """Give an answer, and wait until it is recorded; False: it is stored, and counts unless another one was stored before.

    Raises:
        RunNotFoundError, InputError, AnswerConflictError, TooLateError.
    """
    data = codec.encode(value)
    seen = await see(engine.journal, run_id)
    if counts(seen, name, data):
        return True
    saga = engine.sagas.get(seen.header.saga)
    if saga is not None:
        check_answer(saga, name, data)
    await engine.signal(run_id, name, value, who=who)

    async def look() -> bool:
        return counts(await see(engine.journal, run_id), name, data)

    return await settled(look, wait_s)
