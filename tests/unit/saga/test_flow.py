"""A step that decides as it goes: inner steps remembered by name, undone in reverse, in doubt like any step."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec
import pytest

from unit.saga.places import Place, app_on
from unit.saga.places import place as place  # noqa: PLC0414  a fixture
from virtual_time import run
from yaoki import DeclinedError, Effect, Flow, Saga, runtime
from yaoki.errors import DefinitionError, InnerStepError, RunBlockedError, RunUndoneError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.parts.calls import GIVEN, filled
from yaoki.saga.records import Kind, RunState


class Seat(msgspec.Struct):
    row: int
    place: str = "a"


class World:
    """What was done, and what goes wrong: by the row that is asked for."""

    def __init__(self, *, slow: float = 0.0, **rows: str) -> None:
        self.log: list[str] = []
        self.rows = rows
        self.slow = slow
        self.bodies = 0

    async def reserve(self, seat: Seat, effect: Effect) -> Seat:
        if self.slow:
            await runtime.sleep(self.slow)
        how = self.rows.get(f"r{seat.row}", "")
        if how == "declines":
            raise DeclinedError("taken")
        if how == "bug":
            raise KeyError("bug")
        self.log.append(effect.key)
        if how == "loses":
            raise ConnectionResetError("no answer")
        return Seat(seat.row, "b")

    async def release(self, seat: Seat, result: Seat | None, effect: Effect) -> None:
        assert effect.undo
        if self.rows.get(f"u{seat.row}") == "bug":
            raise KeyError("bug")
        self.log.append(f"release {seat.row} {result.place if result else None}")


def touring(world: World, *, rows: tuple[int, ...] = (1, 2, 3), fails: bool = False, pivot: bool = False) -> Saga[int]:
    saga = Saga("tour", input=int)

    @saga.step(undo=None, pivot=pivot)
    async def before(n: int) -> int:
        return n

    @saga.flow(undos=[world.release], after="before")
    async def seats(n: int, flow: Flow) -> list[Seat]:
        world.bodies += 1
        return [await flow.step(f"row-{row}", world.reserve, Seat(row), undo=world.release, retry=1) for row in rows]

    @saga.step(undo=None)
    async def last(n: int, seats: list[Seat]) -> str:
        if fails:
            raise DeclinedError("no")
        return " ".join(f"{seat.row}{seat.place}" for seat in seats)

    return saga


async def ended(place: Place, saga: Saga[int]) -> tuple[RunState, str]:
    async with app_on(place, saga) as app:
        handle = await app.start(saga, 1, id="t")
        state = await handle.wait()
        return state, (await handle.result() if state is RunState.COMPLETED else (await handle.stored()).header.reason)


def flow_of(body: Any, *undos: Any, place: Any = MemoryJournal) -> tuple[RunState, str]:
    saga = Saga("f", input=int)
    saga.flow(name="body", undos=undos)(body)
    return run(ended(place, saga))


# ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inner_steps_have_keys_of_their_own_and_give_what_their_functions_return(place: Place):
    world = World()
    assert run(ended(place, touring(world))) == (RunState.COMPLETED, "1b 2b 3b")
    assert world.log == ["t/seats/row-1", "t/seats/row-2", "t/seats/row-3"]


def test_inner_steps_are_undone_in_reverse_with_their_arguments_and_results(place: Place):
    world = World()
    assert run(ended(place, touring(world, fails=True)))[0] is RunState.UNDONE
    assert world.log[3:] == ["release 3 b", "release 2 b", "release 1 b"]


def test_what_failed_fails_the_flow_unless_its_body_catches_it(place: Place):
    world = World(r2="declines")
    state, reason = run(ended(place, touring(world)))
    assert (state, reason) == (RunState.UNDONE, "seats: InnerStepError: seats/row-2 failed: DeclinedError: taken")
    assert world.log == ["t/seats/row-1", "release 1 b"]


def test_a_flow_goes_on_in_another_way_and_a_failed_inner_step_has_left_nothing(place: Place):
    world = World(r1="loses")

    async def body(n: int, flow: Flow) -> str:
        try:
            await flow.step("first", world.reserve, Seat(1), undo=world.release, retry=1)
        except InnerStepError as error:
            world.log.append(f"{error.step} {error.error}")
            seat = await flow.step("second", world.reserve, Seat(2), undo=world.release)
            return f"row {seat.row}"
        return "row 1"

    saga = Saga("f", input=int)
    saga.flow(name="body", undos=[world.release])(body)
    assert run(ended(place, saga)) == (RunState.COMPLETED, "row 2")
    assert world.log == ["t/body/first", "release 1 None", "first ConnectionResetError", "t/body/second"]


def test_what_is_done_is_remembered_after_a_restart_and_what_was_under_way_is_repeated_with_its_key(place: Place):
    world = World(slow=10.0)

    async def main() -> None:
        saga = touring(world)
        async with app_on(place, saga) as app:
            await app.start(saga, 1, id="t")
            await runtime.sleep(15.0)
        assert world.log == ["t/seats/row-1"]
        async with app_on(place, saga) as app:
            assert await app.run(saga, "t").result() == "1b 2b 3b"

    run(main())
    assert world.log == ["t/seats/row-1", "t/seats/row-2", "t/seats/row-3"]
    assert world.bodies == 2


def test_a_failure_that_the_body_caught_is_remembered_after_a_restart(place: Place):
    world = World(r1="declines")
    tried: list[str] = []

    async def body(n: int, flow: Flow) -> str:
        try:
            await flow.step("first", world.reserve, Seat(1), undo=world.release, retry=1)
        except InnerStepError as error:
            tried.append(str(error))
            if len(tried) == 1:
                await runtime.sleep(100.0)
        return "done"

    async def main() -> None:
        saga = Saga("f", input=int)
        saga.flow(name="body", undos=[world.release])(body)
        async with app_on(place, saga) as app:
            await app.start(saga, 1, id="t")
            await runtime.sleep(5.0)
        world.rows.clear()
        async with app_on(place, saga) as app:
            assert await app.run(saga, "t").result() == "done"

    run(main())
    assert tried == ["body/first failed: DeclinedError: taken"] * 2
    assert world.log == []


def test_an_inner_step_that_was_under_way_when_its_process_died_is_undone_in_doubt(place: Place):
    world = World(slow=10.0)

    async def main() -> None:
        saga = touring(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="t")
            await runtime.sleep(15.0)
        async with app_on(place, saga) as app:
            handle = app.run(saga, "t")
            await handle.cancel()
            assert await handle.wait() is RunState.CANCELLED

    run(main())
    assert world.log in (["t/seats/row-1", "release 2 None", "release 1 b"], ["t/seats/row-1", "t/seats/row-2", "release 2 b", "release 1 b"])


def test_cancelling_waits_for_the_inner_step_under_way_and_begins_no_other(place: Place):
    world = World(slow=10.0)

    async def main() -> None:
        saga = touring(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="t")
            await runtime.sleep(15.0)
            await handle.cancel()
            assert await handle.wait() is RunState.CANCELLED

    run(main())
    assert world.log == ["t/seats/row-1", "t/seats/row-2", "release 2 b", "release 1 b"]


def test_inner_steps_may_be_side_by_side(place: Place):
    world = World(slow=10.0)

    async def body(n: int, flow: Flow) -> str:
        seats = await asyncio.gather(*(flow.step(f"row-{row}", world.reserve, Seat(row), undo=world.release) for row in range(5)))
        return f"{len(seats)} seats"

    async def main() -> None:
        saga = Saga("f", input=int)
        saga.flow(name="body", undos=[world.release])(body)
        began = runtime.monotonic()
        assert await ended(place, saga) == (RunState.COMPLETED, "5 seats")
        assert runtime.monotonic() - began < 11.0

    run(main())


def test_what_the_body_does_not_wait_for_is_awaited_all_the_same():
    world = World(slow=10.0)

    async def body(n: int, flow: Flow) -> str:
        try:
            await asyncio.wait_for(flow.step("slow", world.reserve, Seat(1), undo=world.release), 1.0)
        except TimeoutError:
            return "not waited for"
        return "waited"

    assert flow_of(body, world.release) == (RunState.COMPLETED, "not waited for")
    assert world.log == ["t/body/slow"]


def test_plain_functions_and_bound_ones_are_inner_steps_too():
    def add(a: int, b: int) -> int:
        return a + b

    async def body(n: int, flow: Flow) -> str:
        return f"{await flow.step('sum', add, 1, b=2)} {await flow.step('partly', functools.partial(add, 3), 4)}"

    assert flow_of(body) == (RunState.COMPLETED, "3 7")


def test_transient_failures_of_an_inner_step_are_retried():
    tries = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionResetError("again")
        return len(tries)

    async def body(n: int, flow: Flow) -> str:
        return f"{await flow.step('flaky', flaky)}"

    assert flow_of(body) == (RunState.COMPLETED, "3")


def test_after_the_pivot_inner_steps_are_driven_until_they_succeed():
    tries = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 9:
            raise ConnectionResetError("again")
        return len(tries)

    saga = Saga("f", input=int)
    saga.step(name="order", pivot=True, undo=None)(lambda n: n)

    @saga.flow()
    async def body(n: int, flow: Flow) -> str:
        return f"{await flow.step('flaky', flaky)}"

    assert run(ended(MemoryJournal, saga)) == (RunState.COMPLETED, "9")


# ── what is a bug ────────────────────────────────────────────────────────────────────────────────────────────────────


async def blocked_by(body: Any, *undos: Any) -> str:
    saga = Saga("f", input=int)
    saga.flow(name="body", undos=undos)(body)
    async with app_on(MemoryJournal, saga) as app:
        handle = await app.start(saga, 1, id="t")
        with pytest.raises(RunBlockedError):
            await handle.result()
        return next(record for record in reversed((await handle.stored()).records) if record.kind is Kind.BLOCKED).data.decode()


def test_a_name_that_is_used_twice_is_an_error_that_says_so_also_if_the_body_catches_everything():
    async def body(n: int, flow: Flow) -> None:
        for _ in range(3):
            try:
                await flow.step("search", lambda: 1)
            except Exception:
                continue

    said = run(blocked_by(body))
    assert "flow.step('search') was called twice in body" in said


def test_an_undo_that_a_crash_could_not_find_again_is_refused():
    async def undo(result: Any) -> None: ...

    async def body(n: int, flow: Flow) -> None:
        await flow.step("search", lambda: 1, undo=undo)

    assert "after a crash nobody would find undo" in run(blocked_by(body))
    assert flow_of(body, undo) == (RunState.COMPLETED, None)


def test_arguments_that_are_no_data_are_refused():
    async def body(n: int, flow: Flow) -> None:
        await flow.step("search", lambda client: 1, object())

    assert "cannot be kept as JSON" in run(blocked_by(body))


def test_a_bug_in_an_inner_step_blocks_the_flow_and_a_retry_goes_on_where_it_was(place: Place):
    world = World(r2="bug")

    async def main() -> None:
        saga = touring(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="t")
            with pytest.raises(RunBlockedError):
                await handle.result()
            world.rows.clear()
            await handle.resolve("seats", "retry")
            assert await handle.result() == "1b 2b 3b"

    run(main())
    assert world.log == ["t/seats/row-1", "t/seats/row-2", "t/seats/row-3"]


def test_a_bug_in_the_body_blocks_the_flow():
    async def body(n: int, flow: Flow) -> None:
        raise AttributeError("a bug")

    assert "AttributeError" in run(blocked_by(body))


def test_an_inner_undo_that_gives_up_blocks_the_run_and_a_retry_undoes_the_rest(place: Place):
    world = World(u2="bug")

    async def main() -> None:
        saga = touring(world, fails=True)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="t")
            assert await handle.wait() is RunState.BLOCKED
            world.rows.clear()
            await handle.resolve("seats", "retry")
            await runtime.sleep(1.0)
            assert await handle.wait() is RunState.UNDONE

    run(main())
    assert world.log[3:] == ["release 3 b", "release 2 b", "release 1 b"]


def test_a_flow_must_be_async_and_take_a_flow():
    saga = Saga("f", input=int)
    saga.flow(name="plain")(lambda n: n)
    with pytest.raises(DefinitionError, match="is a plain function"):
        _ = saga.graph

    other = Saga("f", input=int)

    @other.flow()
    async def body(n: int) -> None: ...

    with pytest.raises(DefinitionError, match="no parameter by which to make its inner steps") as caught:
        _ = other.graph
    assert "flow: Flow" in caught.value.do


def test_a_run_that_was_undone_says_which_inner_step_began_it():
    async def body(n: int, flow: Flow) -> None:
        await flow.step("pay", World(r1="declines").reserve, Seat(1))

    async def main() -> None:
        saga = Saga("f", input=int)
        saga.flow(name="body")(body)
        async with app_on(MemoryJournal, saga) as app:
            with pytest.raises(RunUndoneError, match="body/pay failed: DeclinedError: taken"):
                await (await app.start(saga, 1)).result()

    run(main())


# ── arguments as data ────────────────────────────────────────────────────────────────────────────────────────────────


def test_arguments_come_back_as_the_types_that_the_function_takes():
    def takes(seat: Seat, n: float, *, flag: bool = False, effect: Effect | None = None) -> None: ...

    given = GIVEN.decode(b'{"args":[{"row":1},2],"kwargs":{"flag":true}}')
    assert filled(takes, given, Effect("r", "s", "x")) == ([], {"seat": Seat(1), "n": 2.0, "flag": True})

    def anything(*args: Any) -> None: ...

    assert filled(anything, given, Effect("r", "s", "x"))[0] == [{"row": 1}, 2]
