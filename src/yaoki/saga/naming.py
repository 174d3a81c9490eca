"""What a step is called outside: in its idempotency keys, its children's ids, its tokens and its registers.

By its name; and in a run whose history was told anew by a mapping (`mapping.py`), by the name that it had first, for under that it may
have been made already: `trip-42/hotel` for the step that is called `room` today. A step that was taken back and is made anew
(`rewinding.py`) is another effect, and is counted: `trip-42/hotel~2`. Both are read off the run's own history, so they do not change
when the mapping leaves the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.machine import Machine


def keyed(under_way: Effect, machine: Machine) -> Effect:
    """Give an effect the name and the round of its step in this run. For most there is nothing to do: ask `machine.renames` first."""
    step, slash, part = under_way.step.partition("/")
    under_way.step = f"{first_name(machine, step)}{slash}{part}"
    under_way.round = machine.rounds.get(machine.graph.index[step], 0)
    return under_way


def first_name(machine: Machine, step: str) -> str:
    """What this step, or the one that the part is of, was called first in this run."""
    return machine.first_names.get(step, step)


def now_called(machine: Machine, name: str) -> str:
    """What the step that was called so first is called today; other names are given back."""
    return next((now for now, first in machine.first_names.items() if first == name), name)


def register_of(machine: Machine, step: str) -> str:
    """What a register about this step is called: nothing of an earlier round is read in a later one."""
    again = machine.rounds.get(machine.graph.index[step], 0)
    return f"{first_name(machine, step)}~{again + 1}" if again else first_name(machine, step)


def renamed_again(first_names: Mapping[str, str], renamed: Mapping[str, str]) -> dict[str, str]:
    """First names by today's names, after one more mapping. renamed: old names to new ones."""
    kept = {renamed.get(now, now): first for now, first in first_names.items()}
    return kept | {new: old for old, new in renamed.items() if old not in first_names}
