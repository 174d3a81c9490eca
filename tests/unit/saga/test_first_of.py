"""Several ways to one end: the first that succeeds counts, and the others leave nothing."""

from __future__ import annotations

from typing import Any

import pytest

from unit.saga.places import Place, app_on
from unit.saga.places import place as place  # noqa: PLC0414  a fixture
from virtual_time import run
from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.errors import DefinitionError, RunBlockedError, RunUndoneError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.records import RunState


class World:
    """What each option does: takes `slow` seconds, and then succeeds, "declines", "loses" the answer or has a "bug"."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.log: list[str] = []

    async def call(self, effect: Effect) -> str:
        name = effect.step.partition("/")[2].partition(".")[0]
        how, slow = self.options.get(name, ""), self.options.get(f"{name}_s", 0.0)
        if slow:
            await runtime.sleep(slow)
        if how == "declines":
            raise DeclinedError(f"no {name}")
        if how == "bug":
            raise KeyError(name)
        self.log.append(effect.key)
        if how == "loses":
            raise ConnectionResetError("no answer")
        return name


def order(world: World, *, fails: bool = False, pivot: bool = False, **settings: Any) -> Saga[int]:
    saga = Saga("order", input=int)

    @saga.step(undo=None, pivot=pivot)
    async def check(n: int) -> int:
        return n

    pay = saga.first_of("pay", after="check", **settings)

    @pay.option(retry=1)
    async def card(n: int, check: int, effect: Effect) -> str:
        return await world.call(effect)

    @card.undo
    async def refund(n: int, card: str | None) -> None:
        world.log.append(f"refund {card}")

    @pay.option(retry=1)
    async def invoice(n: int, effect: Effect) -> str:
        return await world.call(effect)

    @invoice.undo
    async def withdraw(n: int, invoice: str | None) -> None:
        world.log.append(f"withdraw {invoice}")

    @pay.option(retry=1, undo=None)
    async def cash(n: int, effect: Effect) -> str:
        return await world.call(effect)

    @saga.step(undo=None)
    async def ship(n: int, pay: str) -> str:
        if fails:
            raise DeclinedError("not shipped")
        return f"paid by {pay}"

    return saga


async def ended(place: Any, saga: Saga[int]) -> tuple[RunState, str]:
    async with app_on(place, saga) as app:
        handle = await app.start(saga, 1, id="o")
        state = await handle.wait()
        return state, (await handle.result() if state is RunState.COMPLETED else (await handle.stored()).header.reason)


def test_the_first_option_that_succeeds_counts_and_the_others_are_not_begun(place: Place):
    world = World()
    assert run(ended(place, order(world))) == (RunState.COMPLETED, "paid by card")
    assert world.log == ["o/pay/card"]


def test_the_next_option_is_tried_when_one_has_failed_for_good(place: Place):
    world = World(card="declines")
    assert run(ended(place, order(world))) == (RunState.COMPLETED, "paid by invoice")
    assert world.log == ["o/pay/invoice"]


def test_an_option_that_failed_in_doubt_is_undone_before_the_step_is_done(place: Place):
    world = World(card="loses")
    assert run(ended(place, order(world))) == (RunState.COMPLETED, "paid by invoice")
    assert world.log == ["o/pay/card", "o/pay/invoice", "refund None"]


def test_when_none_succeeds_the_step_has_failed_and_says_why_of_each(place: Place):
    world = World(card="declines", invoice="loses", cash="declines")
    state, reason = run(ended(place, order(world)))
    assert state is RunState.UNDONE
    assert reason == ("pay: NoneSucceeded: card: DeclinedError: no card; invoice: ConnectionResetError: no answer; cash: DeclinedError: no cash")
    assert world.log == ["o/pay/invoice", "withdraw None"]


def test_what_succeeded_is_undone_with_its_result_when_a_later_step_fails(place: Place):
    world = World(card="declines")
    assert run(ended(place, order(world, fails=True)))[0] is RunState.UNDONE
    assert world.log == ["o/pay/invoice", "withdraw invoice"]


def test_a_bug_in_an_option_is_not_a_reason_for_the_next_one(place: Place):
    world = World(card="bug")

    async def main() -> None:
        saga = order(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="o")
            with pytest.raises(RunBlockedError):
                await handle.result()
            world.options.clear()
            await handle.resolve("pay", "retry")
            assert await handle.result() == "paid by card"

    run(main())
    assert world.log == ["o/pay/card.2", "refund None"], "under a new key, for the old one is undone"


def test_in_a_race_the_fastest_counts_and_the_others_are_cancelled_and_undone(place: Place):
    world = World(card_s=5.0, invoice_s=1.0, cash_s=5.0)

    async def main() -> float:
        began = runtime.monotonic()
        assert await ended(place, order(world, race=True)) == (RunState.COMPLETED, "paid by invoice")
        return runtime.monotonic() - began

    assert 1.0 <= run(main()) < 1.1
    assert world.log == ["o/pay/invoice", "refund None"]


def test_two_that_succeed_at_once_are_one(place: Place):
    world = World(card_s=1.0, invoice_s=1.0)
    assert run(ended(place, order(world, race=True)))[0] is RunState.COMPLETED
    assert [line.partition(" ")[0] for line in world.log if not line.startswith("o/")] in (["refund"], ["withdraw"], ["withdraw", "refund"])


def test_a_race_in_which_one_fails_goes_on_with_the_others(place: Place):
    world = World(card="declines", invoice_s=2.0, cash="declines")
    assert run(ended(place, order(world, race=True))) == (RunState.COMPLETED, "paid by invoice")


def test_cancelling_waits_for_the_option_under_way_and_tries_no_other(place: Place):
    world = World(card_s=10.0)

    async def main() -> None:
        saga = order(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="o")
            await runtime.sleep(5.0)
            await handle.cancel()
            assert await handle.wait() is RunState.CANCELLED

    run(main())
    assert world.log == ["o/pay/card", "refund card"]


def test_an_option_goes_on_after_a_restart_in_doubt(place: Place):
    world = World(card_s=10.0)

    async def main() -> None:
        saga = order(world)
        async with app_on(place, saga) as app:
            await app.start(saga, 1, id="o")
            await runtime.sleep(5.0)
        world.options = {"card": "declines"}
        async with app_on(place, saga) as app:
            assert await app.run(saga, "o").result() == "paid by invoice"

    run(main())
    assert world.log == ["o/pay/invoice", "refund None"], "an earlier process may have done it"


def test_after_the_pivot_the_next_option_is_tried_too_and_a_person_decides_at_the_end(place: Place):
    world = World(card="declines", invoice="declines", cash="declines")

    async def main() -> None:
        saga = order(world, pivot=True)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 1, id="o")
            with pytest.raises(RunBlockedError):
                await handle.result()
            world.options.clear()
            await handle.resolve("pay", "retry")
            assert await handle.result() == "paid by card"

    run(main())
    assert world.log == ["o/pay/card.2"]


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_option_is_no_choice():
    saga = Saga("order", input=int)
    pay = saga.first_of("pay")
    pay.option(undo=None, name="card")(lambda n: n)
    with pytest.raises(DefinitionError, match=r"'pay' is the first of several, and has 1 option$") as caught:
        _ = saga.graph
    assert "@pay.option" in caught.value.do


def test_an_option_needs_an_undo_or_a_word_that_it_needs_none():
    saga = Saga("order", input=int)
    pay = saga.first_of("pay")

    @pay.option
    async def card(n: int) -> int:
        return n

    pay.option(undo=None, name="cash")(card.fn)
    with pytest.raises(DefinitionError, match=r"test_first_of\.py:\d+\): option 'card' .* has no undo"):
        _ = saga.graph


def test_options_of_different_types_that_look_alike_as_data_are_refused():
    import msgspec

    class Left(msgspec.Struct):
        a: int

    class Right(msgspec.Struct):
        a: int

    saga = Saga("order", input=int)
    pay = saga.first_of("pay")

    async def left(n: int) -> Any: ...
    async def right(n: int) -> Any: ...
    left.__annotations__["return"], right.__annotations__["return"] = Left, Right
    pay.option(undo=None)(left)
    with pytest.raises(DefinitionError, match="return Left, Right, which cannot be told apart"):
        pay.option(undo=None)(right)


def test_a_thread_cannot_race():
    pay = Saga("order", input=int).first_of("pay", race=True)
    with pytest.raises(DefinitionError, match="runs in a thread"):
        pay.option(undo=None, name="card")(lambda n: n)


def test_an_option_cannot_take_the_result_of_its_own_step():
    pay = Saga("order", input=int).first_of("pay")
    with pytest.raises(DefinitionError, match="step 'pay' returns None"):
        @pay.option(undo=None)
        async def b(n: int, pay: int) -> str: ...


def test_a_run_that_is_undone_says_so():
    async def main() -> None:
        saga = order(World(card="declines", invoice="declines", cash="declines"))
        async with app_on(MemoryJournal, saga) as app:
            with pytest.raises(RunUndoneError, match="NoneSucceeded"):
                await (await app.start(saga, 1)).result()

    run(main())
