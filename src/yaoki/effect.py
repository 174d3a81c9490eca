"""The effect under way: which run and step a call belongs to, and the key that makes repeating it harmless.

The engine sets `current` around each attempt of a step or undo; integrations read it to add `Idempotency-Key` and
`traceparent` to what they send, and fault points read it to know where they are. Outside a saga it is None.

The key is constant over attempts, restarts and workers. A step that sends several requests gets a key for each, in the
order in which they are sent: `run/step`, `run/step#2`, ...; an undo gets `run/step:undo`, ... and finds the key of what
it undoes in `effect.key`. A step that was taken back and begun anew, because a person had the run retried from there, is
another effect, and has another key: `run/step~2`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import msgspec


class Effect(msgspec.Struct):
    """One attempt of one step of one run.

    Attributes:
        run, saga, step: ids and names.
        undo: is this the step's undo?
        attempt: from 1; in this process, since the step was last taken up.
        fence: never goes back; grows with each takeover of the run. A resource that remembers the highest may refuse lower.
        traceparent: W3C trace context of the run, or "".
        sent: how many requests of this attempt were given a key.
        token: of a step that the outside world completes: what to hand out for it; "" elsewhere.
        detail: of a step with a heartbeat: what an earlier attempt reported last, or None.
        round: 0; grows each time that the step is taken back and begun anew.
    """

    run: str
    saga: str
    step: str
    undo: bool = False
    attempt: int = 1
    fence: int = 0
    traceparent: str = ""
    sent: int = 0
    token: str = ""
    detail: Any = None
    round: int = 0

    @property
    def key(self) -> str:
        """The key of the step's (first) effect, in its do and in its undo: `run/step`."""
        if not self.round:
            return f"{self.run}/{self.step}"
        step, slash, part = self.step.partition("/")
        return f"{self.run}/{step}~{self.round + 1}{slash}{part}"

    def next_key(self) -> str:
        """The idempotency key of the next request of this attempt."""
        self.sent += 1
        key = f"{self.key}:undo" if self.undo else self.key
        return key if self.sent == 1 else f"{key}#{self.sent}"


current: ContextVar[Effect | None] = ContextVar("yaoki_effect", default=None)
