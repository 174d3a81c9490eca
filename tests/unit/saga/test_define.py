"""What users write, and what they are told when it cannot work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import pytest

from yaoki import Effect, Saga
from yaoki.errors import DefinitionError


@dataclass
class Trip:
    city: str


@dataclass
class Booking:
    number: int


def saga() -> Saga[Trip]:
    return Saga("trip", input=Trip)


def test_the_graph_is_read_off_the_parameter_names():
    trip = saga()

    @trip.step(undo=None)
    async def hotel(trip: Trip) -> Booking: ...

    @trip.step(undo=None)
    async def flight(trip: Trip) -> Booking: ...

    @trip.step(undo=None)
    async def payment(trip: Trip, hotel: Booking, flight: Booking, effect: Effect) -> int: ...

    assert trip.graph.needs == ((), (), (0, 1))
    assert trip.steps["payment"].sources == (("trip", ""), ("hotel", "hotel"), ("flight", "flight"), ("effect", "*"))


def test_a_step_can_be_called_like_the_function_it_is():
    trip = saga()

    @trip.step(undo=None)
    def hotel(trip: Trip) -> Booking:
        return Booking(len(trip.city))

    assert hotel(Trip("Kyoto")) == Booking(5)


def test_after_orders_steps_that_share_no_data():
    trip = saga()

    @trip.step(undo=None)
    async def hotel(trip: Trip) -> Booking: ...

    @trip.step(after="hotel", undo=None)
    async def flight(trip: Trip) -> Booking: ...

    assert trip.graph.needs == ((), (0,))


def test_the_pivot_comes_after_all_above_and_before_all_below():
    trip = saga()

    @trip.step(undo=None)
    async def hotel(trip: Trip) -> Booking: ...

    @trip.step(undo=None)
    async def flight(trip: Trip) -> Booking: ...

    @trip.step(pivot=True)
    async def payment(trip: Trip) -> int: ...

    @trip.step
    async def ticket(trip: Trip) -> int: ...

    assert trip.graph.needs == ((), (), (0, 1), (2,))


def test_an_undo_may_take_its_own_result_and_those_above():
    trip = saga()

    @trip.step(undo=None)
    async def hotel(trip: Trip) -> Booking: ...

    @trip.step
    async def flight(trip: Trip) -> Booking: ...

    @flight.undo(timeout=2.0)
    async def cancel(trip: Trip, hotel: Booking, flight: Booking | None) -> None: ...

    assert flight.undo_timeout == 2.0
    assert trip.graph.nodes[1].undo


def test_the_hash_is_of_names_edges_and_types_and_not_of_code():
    def build(body: int, name: str = "hotel") -> str:
        trip = saga()

        @trip.step(undo=None, name=name)
        async def hotel(trip: Trip) -> int:
            return body

        return trip.graph.hash

    assert build(1) == build(2)
    assert build(1) != build(1, "inn")


def wrong_name(trip: Saga[Trip]) -> None:
    @trip.step
    async def payment(trip: Trip, hotle: Booking) -> int: ...


def wrong_name_untyped(trip: Saga[Trip]) -> None:
    @trip.step
    async def payment(trip, hotle): ...


def wrong_type(trip: Saga[Trip]) -> None:
    @trip.step
    async def payment(trip: Trip, hotel: int) -> int: ...


def wrong_undo_type(trip: Saga[Trip]) -> None:
    @trip.step
    async def payment(trip: Trip) -> int: ...

    @payment.undo
    async def refund(trip: Trip, payment: str) -> None: ...


def twice(trip: Saga[Trip]) -> None:
    @trip.step(name="hotel")
    async def again(trip: Trip) -> Booking: ...


def two_undos(trip: Saga[Trip]) -> None:
    @trip.steps["hotel"].undo
    async def other(trip: Trip) -> None: ...


def two_pivots(trip: Saga[Trip]) -> None:
    @trip.step(pivot=True)
    async def one(trip: Trip) -> int: ...

    @trip.step(pivot=True)
    async def two(trip: Trip) -> int: ...


def after_unknown(trip: Saga[Trip]) -> None:
    @trip.step(after="hotl")
    async def one(trip: Trip) -> int: ...


def generator(trip: Saga[Trip]) -> None:
    @trip.step
    async def one(trip: Trip) -> Any:
        yield 1


def star(trip: Saga[Trip]) -> None:
    @trip.step
    async def one(*trips: Trip) -> int: ...


def timeout(trip: Saga[Trip]) -> None:
    @trip.step(timeout=0)
    async def one(trip: Trip) -> int: ...


def no_retry_below_pivot(trip: Saga[Trip]) -> None:
    @trip.step(pivot=True)
    async def payment(trip: Trip) -> int: ...

    @trip.step(retry=False)
    async def mail(trip: Trip) -> int: ...

    _ = trip.graph


def no_undo(trip: Saga[Trip]) -> None:
    @trip.step
    async def car(trip: Trip) -> int: ...

    _ = trip.graph


@pytest.mark.parametrize(("mistake", "says"), [
    (wrong_name, ["payment", "'hotle'", "did you mean 'hotel'?"]),
    (wrong_name_untyped, ["'hotle'", "did you mean 'hotel'?"]),
    (wrong_type, ["'hotel' is int", "returns Booking"]),
    (wrong_undo_type, ["'payment' is str", "returns int"]),
    (twice, ["'hotel' already"]),
    (two_undos, ["has an undo already"]),
    (two_pivots, ["has a pivot already: 'one'"]),
    (after_unknown, ["did you mean 'hotel'?"]),
    (generator, ["generator"]),
    (star, ["'trips' cannot be filled by name"]),
    (timeout, ["timeout is seconds above 0, not 0"]),
    (no_retry_below_pivot, ["'mail' comes after the pivot and may not be retried"]),
    (no_undo, ["'car' can be asked to undo itself, and has no undo"]),
])
def test_a_mistake_is_said_with_the_function_its_line_and_the_remedy(mistake: Any, says: list[str]):
    trip = saga()

    @trip.step
    async def hotel(trip: Trip) -> Booking: ...

    @hotel.undo
    async def cancel(trip: Trip, hotel: Booking | None) -> None: ...

    with pytest.raises(DefinitionError) as caught:
        mistake(trip)
    for words in [*says, "test_define.py:"]:
        assert words in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize("name", ["", "two words", "a/b"])
def test_a_saga_needs_a_name_that_can_be_stored_and_typed(name: str):
    with pytest.raises(DefinitionError):
        Saga(name, input=Trip)


def test_a_saga_without_steps_cannot_be_used():
    with pytest.raises(DefinitionError, match="no steps"):
        _ = saga().graph


# ── the type of the result ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_saga_says_that_it_gives_is_what_its_last_step_returns():
    trip = Saga("trip", input=Trip, result=Booking)
    trip.step(name="hotel", undo=None)(_book)
    assert len(trip.graph) == 1
    trip.step(name="count", undo=None)(_count)
    with pytest.raises(DefinitionError, match=r"_count .*saga 'trip' gives Booking, and its last step, 'count', returns int"):
        _ = trip.graph


def test_one_type_of_a_saga_is_enough_also_at_run_time():
    def made(first: Saga[int]) -> Saga[int, str]:  # as in a module that has its annotations evaluated
        return Saga("made", input=int, result=str)

    assert get_type_hints(made) == {"first": Saga[int, Any], "return": Saga[int, str]}
    assert made(Saga[int]("first", input=int)).result_type is str


async def _book(trip: Trip) -> Booking: ...


async def _count(trip: Trip) -> int: ...
