"""Every attempt makes a new idempotency key, so that none is a repetition."""

from yaoki import runtime
from yaoki.effect import Effect
from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "no_double_effect"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment")
    order = Saga("order", input=str)

    @order.step
    async def pay(who: str, effect: Effect) -> Booking:
        return await payment.book(key=effect.key if fixed else runtime.new_id())

    @pay.undo
    async def refund(who: str, pay: Booking | None) -> None:
        await payment.cancel()

    return saga_scenario(order, input="ann")
