"""Steps that are made at most once: the beginning is recorded first, and what began is never begun again.

    record "started" ──▶ make it ──▶ done
                            ├── failed, certainly nothing happened ──▶ failed
                            └── in doubt (timed out, process died) ──verify──▶ done │ certainly not there │ still in doubt

For a service that knows no keys: better not at all than twice. What stays in doubt is undone with the run, or, where the run
can only go forward, decided by a person.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from yaoki import effect, runtime
from yaoki.effect import Effect
from yaoki.errors import InDoubtError
from yaoki.saga.naming import keyed
from yaoki.saga.records import Kind, Record
from yaoki.saga.verdict import Verdict, judge

if TYPE_CHECKING:
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Step
    from yaoki.saga.turn import Turn

_DIED = InDoubtError("begun, and its process died before it said how it ended")


async def make_once(attempts: Attempts, driver: Turn, step: Step[..., Any]) -> Record:
    """Make the step, unless it was begun before. Returns the record that ends it."""
    if driver.machine.has_begun(step.name):
        settled = await _settled(attempts, driver, step, _DIED, Verdict(bug=False, repeat=False, in_doubt=True))
        if settled is not None:
            return settled
    await driver.write(Record(Kind.STARTED, step.name, b"", runtime.unix_time()))
    if driver.hold is not None:
        await driver.hold()
    try:
        return attempts.succeeded(await _called(attempts, driver, step, verifying=False))
    except Exception as error:
        verdict = judge(error)
        if verdict.in_doubt and not verdict.bug:
            settled = await _settled(attempts, driver, step, error, verdict)
            if settled is not None:
                return settled
            verdict = Verdict(bug=False, repeat=False, in_doubt=False)
        return attempts.ended(error, verdict)


async def _settled(attempts: Attempts, driver: Turn, step: Step[..., Any], doubt: Exception, verdict: Verdict) -> Record | None:
    """The record that `verify` allows; None: the effect certainly does not exist."""
    if step.verify is None:
        return attempts.ended(doubt, verdict)
    try:
        found = await _called(attempts, driver, step, verifying=True)
    except Exception as error:
        return attempts.ended(error, verdict)
    return None if found is None else attempts.succeeded(found)


async def _called(attempts: Attempts, driver: Turn, step: Step[..., Any], *, verifying: bool) -> Any:
    header = driver.header
    under_way = keyed(Effect(header.id, header.saga, step.name, False, 1, header.fence, header.traceparent), driver.machine)
    token = effect.current.set(under_way)
    try:
        if not verifying:
            return await attempts.begin(under_way)
        fn, sources = step.verify, step.verify_sources
        assert fn is not None
        arguments = {parameter: driver.input if not source else under_way if source == "*" else driver.results.get(source)
                     for parameter, source in sources}
        work: Awaitable[Any] = fn(**arguments) if step.verify_is_async else runtime.run_blocking(fn, **arguments)
        return await work
    finally:
        effect.current.reset(token)
