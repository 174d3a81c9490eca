"""A run undone as a whole because a person wants it, also once it was completed. Deciders.

    yk runs undo trip-42 --who ada --why 'the conference was called off'

    running, blocked ──abort──▶ undoes itself
    past its pivot   ──undo-asked──▶ until it is completed it can only go forward ──abort──▶ undoes itself
    completed        ──taken up again, abort──▶ undoes itself, the last step first

Refused where something would stay: the pivot or a step below it that happened, and of which nobody has said how it is undone. Who
leaves that there knowingly says `past_pivot`; then the history names what stays, for "undone" is otherwise taken at its word.

The machine knows this as `Abort.whole`, for a run that another one has started is undone like that with its parent (`child.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from yaoki.errors import UndoRunError
from yaoki.saga.graph import LEAVES_NOTHING
from yaoki.saga.machine import Machine
from yaoki.saga.records import Abort, RunState


def would_stay(machine: Machine, has_no_undo: Callable[[str], bool], started: Collection[str] = ()) -> tuple[str, ...]:
    """Steps of which something would be left, if the run were undone as a whole now, or once it is completed. In order of definition.

    has_no_undo: of a step that stands at the pivot or below. started: unfinished steps that may have been begun.
    """
    graph = machine.graph
    if machine.state is not RunState.COMPLETED and not machine.too_late(started):
        return ()
    return tuple(name for number, name in enumerate(graph.names) if number >= graph.pivot >= 0 and number not in machine.skipped
                 and graph.nodes[number].waits not in LEAVES_NOTHING and has_no_undo(name))


def check(machine: Machine, has_no_undo: Callable[[str], bool], *, past_pivot: bool) -> tuple[str, ...]:
    """What would stay. Raises UndoRunError where the run cannot be undone, with the reason. What could run is taken to be running."""
    if machine.abort is not None:
        ended = machine.state.is_end
        raise UndoRunError(f"the run is {machine.state}" if ended else "the run undoes itself already",
                           do="nothing of it is left" if ended else "`yk runs show` says how far it is")
    if machine.undo_asked is not None:
        raise UndoRunError("the run is to be undone already, once it is completed", do="`yk runs show` says what it waits for")
    stay = would_stay(machine, has_no_undo, machine.start)
    if stay and not past_pivot:
        names = ", ".join(stay)
        raise UndoRunError(f"of {names} something would stay: made past the point of no return, and nobody has said how to undo it",
                           do=f"write @{stay[0]}.undo and deploy it, or undo the rest and leave that: --past-pivot, past_pivot=True")
    return stay


def as_a_whole(asked: Abort, stay: tuple[str, ...]) -> Abort:
    """The abort of a completed run."""
    reason = f"{asked.reason} (left as it is: {', '.join(stay)})" if stay else asked.reason
    return msgspec.structs.replace(asked, reason=reason, whole=True, kept=stay)
