"""Where one step of a run is."""

from __future__ import annotations

from enum import IntEnum


class Step(IntEnum):
    """Where one step is; the ways between these are drawn in `machine.py`."""

    WAITING = 0
    READY = 1  # may be running, or may have been when a process died
    DONE = 2
    FAILED = 3  # certainly left nothing
    DOUBTFUL = 4  # failed, and may have left something
    BLOCKED = 5  # its do needs a person
    TO_UNDO = 6
    UNDO_BLOCKED = 7  # its undo needs a person
    CLEAR = 8  # nothing of it is left
    KEPT = 9  # a person decided to leave its effect; counts as clear
    PARKED = 10  # waits for a time or a signal; nobody runs it
