"""What a policy would do if its calls went like this: in virtual time, with the policy's own deciders.

    seen = plan(policy, [Took(1.5, ConnectionResetError()), TimeoutError(), "ok"], idempotent=True)
    print(seen)

        0.000  attempt 1: ConnectionResetError after 1.5 s
        1.500  wait 0.03 s
        1.530  attempt 2: TimeoutError
        1.530  wait 0.08 s
        1.610  attempt 3: 'ok'
        1.610  the call returned 'ok'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from yaoki import runtime
from yaoki.policies import fuse
from yaoki.policies.policy import Policy, Site
from yaoki.service import Service
from yaoki.testing.clock import Clock


class Took(NamedTuple):
    """An outcome after a while. `outcome`: an exception to raise, or anything else to return."""

    seconds: float
    outcome: Any = None


class Plan(NamedTuple):
    """What happened. Printed, it is the story line by line.

    Attributes:
        attempts: calls that reached the callee.
        waits: seconds between attempts.
        total_s: seconds for the whole call.
        result, error: how the call ended; one of them is None.
        lines: the story.
    """

    attempts: int
    waits: list[float]
    total_s: float
    result: Any
    error: BaseException | None
    lines: list[str]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def plan(policy: Policy | Service, outcomes: Iterable[Any], *, idempotent: bool | None = None, seed: int = 0) -> Plan:
    """Call through `policy` once, with attempts that end as `outcomes` say, without sleeping.

    Args:
        outcomes: one for each attempt: an exception to raise, a value to return, or a `Took`. When they run out: None.
        idempotent: is repeating the call harmless?
        seed: of the jitter.

    The policy's state counts what happens, as it would in a real call; make a fresh policy for each plan.
    """
    clock, script = _TellingClock(seed), iter(outcomes)
    attempts = 0

    def attempt() -> Any:
        nonlocal attempts
        attempts += 1
        outcome = next(script, None)
        took = outcome if isinstance(outcome, Took) else Took(0.0, outcome)
        failed = isinstance(took.outcome, BaseException)
        clock.say(f"attempt {attempts}: {type(took.outcome).__name__ if failed else repr(took.outcome)}{f' after {took.seconds:g} s' if took.seconds else ''}")
        clock.now += took.seconds
        if failed:
            raise took.outcome
        return took.outcome

    result, error = None, None
    with runtime.use(clock):
        try:
            result = _through(policy, idempotent)(attempt)
            clock.say(f"the call returned {result!r}")
        except BaseException as raised:
            error = raised
            clock.say(f"the call raised {type(raised).__name__}: {raised}")
    return Plan(attempts, list(clock.slept), clock.now - clock.began, result, error, clock.lines)


class _TellingClock(Clock):
    """Says of each wait that it is one."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.began = self.now
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(f"{self.now - self.began:7.3f}  {text}")

    def sleep_blocking(self, delay_s: float) -> None:
        self.say(f"wait {delay_s:.3g} s")
        super().sleep_blocking(delay_s)


def _through(policy: Policy | Service, idempotent: bool | None) -> Any:  # noqa: FBT001
    if isinstance(policy, Service):
        return lambda fn: policy.call(fn, idempotent=idempotent)
    return fuse.caller(policy.policies, Site(idempotent=idempotent, shape="call"))
