"""Has runs undone because a person wants it, also completed ones. What that is: `saga/undoing.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from yaoki.errors import UndoRunError
from yaoki.saga.child import has_unsaid_undo
from yaoki.saga.engine.retries import folded
from yaoki.saga.family import Undo, parent_of
from yaoki.saga.undoing import check

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine
    from yaoki.saga.journal.port import Journal


async def undo_run(engine: Engine, run_id: str, reason: str, *, past_pivot: bool, who: str) -> None:
    """Ask it: durable when it returns. Raises RunNotFoundError, UndoRunError."""
    machine = await folded(engine.journal, run_id)
    await refuse_part(engine.journal, run_id)
    saga = engine.sagas.get(machine.graph.saga)

    def has_no_undo(name: str) -> bool:
        """As the code at hand says, for that is what would undo it; of a step that it does not have, as the run's own graph says."""
        if saga is None or name not in saga.steps:
            return not machine.graph.nodes[machine.graph.index[name]].undo
        return has_unsaid_undo(saga.steps[name])

    check(machine, has_no_undo, past_pivot=past_pivot)
    await engine.requests.ask(run_id, "undo", request(reason, past_pivot=past_pivot, who=who))


async def refuse_part(journal: Journal, run_id: str) -> None:
    """Raises UndoRunError for a run that another one has started: that one counts on it."""
    if (found := parent_of(run_id)) is None:
        return
    parents = await journal.headers([found[0]])
    if parents and not (parents[0].state.is_end and parents[0].state.value != "completed"):
        raise UndoRunError(f"run {run_id} is a part of run {found[0]}, which counts on it", do=f"undo that one: yk runs undo {found[0]}")


def request(reason: str, *, past_pivot: bool, who: str) -> bytes:
    return msgspec.json.encode(Undo(reason, who, past_pivot, person=True))
