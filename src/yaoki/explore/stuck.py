"""How an execution can fail to end, or leave its universe, as errors that say what waits for what."""

from __future__ import annotations

from yaoki.errors import UsageError


class DeadlockError(UsageError):
    """Nothing is left that could wake anybody. `waiting` names each task, where it stands and what for."""

    code = "YK-2401"
    why = "A task waits for something that no timer, reply or other task will ever bring."


class LivelockError(UsageError):
    """Work goes on for ever without the clock, or past the time limit of the scenario. `waiting` names the tasks."""

    code = "YK-2402"
    why = "Something repeats itself without end: a retry without a limit, or a loop without a wait."


class EscapeError(UsageError):
    """Code inside the universe reached for the real world. `where` is its line."""

    code = "YK-2403"
    why = "A real clock, socket, thread or random number makes an execution impossible to repeat."
