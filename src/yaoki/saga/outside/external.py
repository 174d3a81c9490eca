"""The driver's side of a step that the outside world completes: hand out, take in, look after the silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from yaoki.saga.journal.registers import of_run
from yaoki.saga.naming import first_name, now_called
from yaoki.saga.outside.completing import Beat, Completed, Outcome
from yaoki.saga.outside.token import Token, token_key
from yaoki.saga.records import Failure, Kind, Late, Record

if TYPE_CHECKING:
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver
    from yaoki.saga.driving.keeping import Keeping

_encode = msgspec.json.encode


async def token_for(driver: Driver, step: Step[..., Any]) -> str:
    """The token of the attempt that is to be made."""
    asked = driver.machine.asked(driver.machine.graph.index[step.name])
    return Token(driver.header.id, first_name(driver.machine, step.name), asked + 1).signed(await token_key(driver.journal))


async def take_in(driver: Keeping, asked: Completed) -> None:
    """Record what the outside says, if it still changes anything; whoever said it reads in the history whether it did."""
    machine, outcome = driver.machine, asked.outcome
    name = now_called(machine, asked.step)
    number = machine.graph.index.get(name, -1)
    if number < 0 or machine.graph.nodes[number].waits != "token":
        return
    if machine.abort is None:
        superseded = outcome.attempt <= (machine.asked(number) if outcome.error is not UNSET else machine.rounds.get(number, 0))
        if machine.takes_answer(name) and not superseded:
            await driver.write(Record(Kind.SIGNAL, name, _encode(outcome), driver.now()))
    elif isinstance(outcome.result, msgspec.Raw) and machine.takes_late(number) and _fits(driver, name, outcome.result):
        late = Late(outcome.result, again=driver.is_under_way(name), alone=not driver.is_under_way())
        await driver.write(Record(Kind.LATE, name, _encode(late), driver.now()))


def _fits(driver: Keeping, name: str, result: msgspec.Raw) -> bool:
    try:
        driver.saga.steps[name].result.decode(bytes(result))
    except msgspec.ValidationError:
        return False
    return True


async def end_of_silence(driver: Driver, name: str) -> list[Record]:
    """Its time is over, or it was silent for too long: the record of that; or none, when a sign of life came."""
    step, machine = driver.saga.steps[name], driver.machine
    number, now = machine.graph.index[name], driver.now()
    wait = step.wait
    assert wait is not None
    limit = machine.outside.limits.get(number, 0.0)
    if limit and limit <= now:
        return [_give_up(driver, name, f"nobody completed it within {wait.timeout_s:g} s", again=machine.past_pivot, now=now)]
    assert wait.heartbeat_s is not None
    last = (await driver.journal.registers(of_run(driver.header.id))).get(first_name(machine, name))
    if last is not None and msgspec.json.decode(last.data, type=Beat).attempt > machine.asked(number):
        alive_until = last.at + wait.heartbeat_s
        if alive_until > now:
            machine.postpone(number, min(alive_until, limit) if limit else alive_until)
            return []
    again = machine.past_pivot or machine.outside.asks.get(number, 0) + 1 < step.retrying.attempts
    return [_give_up(driver, name, f"no sign of life within {wait.heartbeat_s:g} s", again=again, now=now)]


def _give_up(driver: Driver, name: str, why: str, *, again: bool, now: float) -> Record:
    """The attempt is given up, and the step asked again, or failed: in doubt, for the outside may have done it."""
    attempts = driver.machine.outside.asks.get(driver.machine.graph.index[name], 0) + 1
    failure = Failure("Silent", why, in_doubt=True, attempts=attempts)
    return Record(Kind.AGAIN if again else Kind.FAILED, name, _encode(failure), now)


def end_of_external(driver: Driver, name: str, data: bytes, now: float) -> Record:
    """The record after the outside has said how the step ended."""
    outcome = msgspec.json.decode(data, type=Outcome)
    if not isinstance(outcome.error, Failure):
        assert isinstance(outcome.result, msgspec.Raw)
        try:
            driver.saga.steps[name].result.decode(bytes(outcome.result))
        except msgspec.ValidationError as error:
            wrong = Failure("ValidationError", f"what it was completed with is not what it gives: {error}", in_doubt=True)
            return Record(Kind.BLOCKED, name, _encode(wrong), now)
        return Record(Kind.DONE, name, bytes(outcome.result), now)
    return Record(Kind.BLOCKED if driver.machine.past_pivot else Kind.FAILED, name, _encode(outcome.error), now)
