"""What follows from declared handlers, and slips that carry their own undo log."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from contracts.messages_world import service, until
from yaoki.errors import DeclinedError, DefinitionError, InputError
from yaoki.messages import Messages, Retries
from yaoki.messages.choreography.obligations import Duty, check, diagram, duties
from yaoki.messages.choreography.slip import ENDED, Slip, SlipStation, send_slip
from yaoki.messages.handlers import Handler


class OrderPlaced(msgspec.Struct):
    order: str


class RoomReserved(msgspec.Struct):
    order: str


class RoomReleased(msgspec.Struct):
    order: str


class PaymentCaptured(msgspec.Struct):
    order: str


class PaymentFailed(msgspec.Struct):
    order: str


def services(*, with_release: bool) -> list[Messages]:
    hotel, bank = (Messages(name, "sqlite:///unused.db") for name in ("hotel", "bank"))

    @hotel.on(OrderPlaced, emits=RoomReserved, within=30, undo=RoomReleased)
    async def reserve(placed): ...

    @bank.on(RoomReserved, emits=PaymentCaptured | PaymentFailed)
    async def capture(reserved): ...

    if with_release:

        @hotel.on(PaymentFailed, emits=RoomReleased)
        async def release(failed): ...

    return [hotel, bank]


def test_a_whole_story_has_no_findings():
    assert check(duties(*services(with_release=True)), ends=["PaymentCaptured", "RoomReleased"]) == []


def test_a_failure_that_reaches_no_undo_is_found():
    findings = check(duties(*services(with_release=False)), ends=["PaymentCaptured"])
    assert {each.kind for each in findings} == {"unheard", "unsaid_undo", "unreached_undo"}
    assert any("after PaymentFailed, RoomReleased never follows" in each.what for each in findings)


def test_a_cycle_is_found():
    found = check([Duty("a", "ping", ("Ping",), ("Pong",)), Duty("b", "pong", ("Pong",), ("Ping",))])
    assert [each.kind for each in found] == ["cycle"]
    assert "Ping, Pong" in found[0].what


def test_the_story_is_drawn():
    drawn = diagram(duties(*services(with_release=True)))
    assert 'event_OrderPlaced(["OrderPlaced"]) --> handler_hotel_2e_reserve\n' in drawn
    assert 'handler_hotel_2e_reserve -->|within 30 s| event_RoomReserved(["RoomReserved"])' in drawn
    assert 'handler_hotel_2e_reserve -. undone by .-> event_RoomReleased(["RoomReleased"])' in drawn


def test_no_name_breaks_the_drawing():
    drawn = diagram([Duty("a", "end", ("end",), ('say "hi" #1',)), Duty("b", "x", ("a.end",), ())])
    assert 'event_end(["end"]) --> handler_a_2e_end' in drawn
    assert '(["say #quot;hi#quot; #35;1"])' in drawn
    assert "event_a_2e_end" in drawn, "an event called like a handler is another node"


# ── slips ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Road:
    """Three services that share nothing but a road, and what each did."""

    def __init__(self, tmp_path) -> None:
        self.url = f"sqlite:///{tmp_path}/road.db"
        self.done: list[str] = []
        self.undone: list[tuple[str, object]] = []
        self.fails: dict[str, Exception] = {}
        self.ended: list[Slip] = []

    @contextlib.asynccontextmanager
    async def open(self):
        async with contextlib.AsyncExitStack() as stack:
            for name in ("hotel", "flight", "payment"):
                app = service(self.url, f"{name}s")
                SlipStation(app, {name: (self.do(name), self.undo(name))}, retries=Retries(attempts=2, first_s=0.01, cap_s=0.02))
                await stack.enter_async_context(app)
            desk = service(self.url, "desk")
            desk.add(Handler(fn=self.end, name="ended", takes={ENDED: Slip}))
            yield await stack.enter_async_context(desk)

    async def end(self, slip: Slip) -> None:
        self.ended.append(slip)

    def do(self, name: str):
        async def work(trip, results):
            await asyncio.sleep(0)
            if name in self.fails:
                raise self.fails[name]
            self.done.append(name)
            return f"{name} after {','.join(sorted(results))}"

        return work

    def undo(self, name: str):
        async def work(trip, result):
            self.undone.append((name, result))

        return work


STEPS = ["hotel", "flight", "payment"]


async def test_a_slip_visits_each_station_in_order_with_the_results_so_far(tmp_path):
    road = Road(tmp_path)
    async with road.open() as desk:
        await send_slip(desk, STEPS, input={"who": "ana"}, id="trip-1")
        await send_slip(desk, STEPS, input={"who": "ana"}, id="trip-1")
        await until(lambda: road.ended)
    assert road.done == STEPS
    assert dict(road.ended[0].done)["payment"] == "payment after flight,hotel"
    assert road.undone == []


async def test_a_slip_that_is_declined_turns_back_and_undoes_the_last_first(tmp_path):
    road = Road(tmp_path)
    road.fails["payment"] = DeclinedError("no money")
    async with road.open() as desk:
        await send_slip(desk, STEPS, input=None, id="trip-1")
        await until(lambda: road.ended)
    assert [name for name, _ in road.undone] == ["flight", "hotel"]
    assert road.ended[0].failed == "payment: no money"


async def test_a_step_in_doubt_is_undone_too_with_none(tmp_path):
    road = Road(tmp_path)
    road.fails["flight"] = OSError("no answer")
    async with road.open() as desk:
        await send_slip(desk, STEPS, input=None, id="trip-1")
        await until(lambda: road.ended)
    assert road.undone == [("flight", None), ("hotel", "hotel after ")]


async def test_slips_that_cannot_travel_are_refused():
    desk = Messages("desk", "sqlite:///unused.db")
    with pytest.raises(InputError, match="cannot travel"):
        await send_slip(desk, [], input=None, id="x")
    with pytest.raises(DefinitionError, match="no steps"):
        SlipStation(desk, {})
